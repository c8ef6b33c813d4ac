"""Tracebacks in the log, bounded: what fails again and again at one place is told once a minute, with how often."""

import logging
import threading
import time
import traceback
from asyncio import CancelledError

SECONDS = 60.0
# Characters of one: its end tells most, and a message in it may be as long as what was asked.
LONGEST = 8_000
# Places that are remembered; there are not so many in the program.
MOST_PLACES = 1_000

Place = tuple[str, int, str]


class Tracebacks(logging.Filter):
    """Passes each line that has no traceback, and of those with one the first of each minute and place.

    At its end the server cancels what it has not answered: that is no error, and uvicorn has told how many there are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        # When it was told last, and how often it was not since.
        self._told: dict[Place, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        if isinstance(error, CancelledError):
            return False
        left_out = self._left_out(_place(error))
        if left_out is None:
            return False
        more = f", after {left_out} more like it" if left_out else ""
        record.msg, record.args = f"{record.getMessage().strip()}{more}", ()
        record.exc_text = "".join(traceback.format_exception(error)).strip()[-LONGEST:]
        return True

    def _left_out(self, place: Place) -> int | None:
        """How often a place was not told since it was last; None where it is not told now either."""
        with self._lock:
            now = time.monotonic()
            last, left_out = self._told.get(place, (now - SECONDS, 0))
            if now - last < SECONDS:
                self._told[place] = last, left_out + 1
                return None
            if len(self._told) >= MOST_PLACES:
                self._told.clear()
            self._told[place] = now, 0
            return left_out


def _place(error: BaseException) -> Place:
    """Where an error was raised, and of which kind it is."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return "", 0, type(error).__name__
    return at.tb_frame.f_code.co_filename, at.tb_lineno, type(error).__name__
