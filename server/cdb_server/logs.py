"""Configures the log, and limits repeated lines and tracebacks so that nobody can fill the disk.

Of lines from one place in the code some are logged, and the rest are counted, whoever wrote that code: uvicorn, asyncio
and python_multipart say of each malformed request that it is one. Of the errors raised at one place, the traceback is
told once a minute. Nothing that was sent makes another place.
"""

import logging
import threading
import time
import traceback
from asyncio import CancelledError

log = logging.getLogger(__name__)

# Lines of a kind that one process logs in full, in so many seconds.
MAX_LINES = 10

PERIOD_SECONDS = 60.0

# Characters of a line that was counted, where it stands for all of them.
MAX_LINE_CHARACTERS = 500


class LineLimit(logging.Filter):
    """What is logged in one process; for any thread."""

    def __init__(self, max_lines: int = MAX_LINES, seconds: float = PERIOD_SECONDS) -> None:
        super().__init__()
        self._max_lines = max_lines
        self._seconds = seconds
        self._lock = threading.Lock()
        self._line_counts: dict[tuple[str, int], int] = {}
        # How many were counted, and the last of them.
        self._suppressed: dict[tuple[str, int], tuple[int, logging.LogRecord]] = {}
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged in full; else it is counted."""
        if record.name == __name__:
            return True
        kind = record.pathname, record.lineno
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self.flush)
                self._timer.daemon = True
                self._timer.start()
            self._line_counts[kind] = self._line_counts.get(kind, 0) + 1
            if self._line_counts[kind] <= self._max_lines:
                return True
            count, _ = self._suppressed.get(kind, (0, record))
            self._suppressed[kind] = count + 1, record
            return False

    def flush(self) -> None:
        """End the period: log how many lines of each kind were counted since its beginning."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            counted, self._suppressed, self._line_counts = self._suppressed, {}, {}
        for count, last in counted.values():
            line = (last.getMessage().splitlines() or [""])[0]
            log.warning("%d more lines within %g seconds like: %s", count, self._seconds, line[:MAX_LINE_CHARACTERS])


def flush() -> None:
    """End the period of this process's log, before the process ends."""
    for handler in logging.getLogger().handlers:
        for bound in handler.filters:
            if isinstance(bound, LineLimit):
                bound.flush()


TRACEBACK_SECONDS = 60.0

# Characters of one: its end tells most, and a message in it may be as long as what was asked.
MAX_TRACEBACK_CHARACTERS = 8_000

# Places that are remembered; there are not so many in the program.
MAX_PLACES = 1_000

RaiseLocation = tuple[str, int, str]


class TracebackLimit(logging.Filter):
    """Passes each line that has no traceback, and of those with one the first of each minute and place.

    At its end the server cancels what it has not answered: that is no error, and uvicorn has told how many there are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        # When it was told last, and how often it was not since.
        self._last_logged: dict[RaiseLocation, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        if isinstance(error, CancelledError):
            return False
        left_out = self._suppressed_count(_raise_location(error))
        if left_out is None:
            return False
        more = f", after {left_out} more like it" if left_out else ""
        record.msg, record.args = f"{record.getMessage().strip()}{more}", ()
        record.exc_text = "".join(traceback.format_exception(error)).strip()[-MAX_TRACEBACK_CHARACTERS:]
        return True

    def _suppressed_count(self, place: RaiseLocation) -> int | None:
        """How often a place was not told since it was last; None where it is not told now either."""
        with self._lock:
            now = time.monotonic()
            last, left_out = self._last_logged.get(place, (now - TRACEBACK_SECONDS, 0))
            if now - last < TRACEBACK_SECONDS:
                self._last_logged[place] = last, left_out + 1
                return None
            if len(self._last_logged) >= MAX_PLACES:
                self._last_logged.clear()
            self._last_logged[place] = now, 0
            return left_out


def _raise_location(error: BaseException) -> RaiseLocation:
    """Where an error was raised, and of which kind it is."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return "", 0, type(error).__name__
    return at.tb_frame.f_code.co_filename, at.tb_lineno, type(error).__name__


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"}},
    "filters": {"tracebacks": {"()": TracebackLimit}, "bounded": {"()": LineLimit}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "plain",
            # What the first drops is no line, and not counted.
            "filters": ["tracebacks", "bounded"],
        }
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    # zeep tells each value that it cannot read with a traceback; the error that is raised then says enough.
    "loggers": {"uvicorn.error": {"level": "WARNING"}, "zeep": {"level": "CRITICAL"}},
}
