"""A bound on the log: some lines of a kind are logged, and the rest are counted, so that no peer can fill the disk.

A kind is the place in the code that logs it, whoever wrote that code: uvicorn, asyncio and python_multipart say of each
malformed request that it is one. Nothing that was sent makes another kind.
"""

import logging
import threading

log = logging.getLogger(__name__)

# Lines of a kind that one process logs in full, in so many seconds.
IN_FULL = 10
SECONDS = 60.0
# Characters of a line that was counted, where it stands for all of them.
LONGEST = 500


class BoundedLog(logging.Filter):
    """What is logged in one process; for any thread."""

    def __init__(self, in_full: int = IN_FULL, seconds: float = SECONDS) -> None:
        super().__init__()
        self._in_full = in_full
        self._seconds = seconds
        self._lock = threading.Lock()
        self._logged: dict[tuple[str, int], int] = {}
        # How many were counted, and the last of them.
        self._counted: dict[tuple[str, int], tuple[int, logging.LogRecord]] = {}
        self._period: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is logged in full; else it is counted."""
        if record.name == __name__:
            return True
        kind = record.pathname, record.lineno
        with self._lock:
            if self._period is None:
                self._period = threading.Timer(self._seconds, self.tell)
                self._period.daemon = True
                self._period.start()
            self._logged[kind] = self._logged.get(kind, 0) + 1
            if self._logged[kind] <= self._in_full:
                return True
            count, _ = self._counted.get(kind, (0, record))
            self._counted[kind] = count + 1, record
            return False

    def tell(self) -> None:
        """End the period: log how many lines of each kind were counted since its beginning."""
        with self._lock:
            if self._period is not None:
                self._period.cancel()
                self._period = None
            counted, self._counted, self._logged = self._counted, {}, {}
        for count, last in counted.values():
            line = (last.getMessage().splitlines() or [""])[0]
            log.warning("%d more lines within %g seconds like: %s", count, self._seconds, line[:LONGEST])


def tell() -> None:
    """End the period of this process's log, before the process ends."""
    for handler in logging.getLogger().handlers:
        for bound in handler.filters:
            if isinstance(bound, BoundedLog):
                bound.tell()
