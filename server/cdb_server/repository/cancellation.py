"""Cancellation of work in a thread: its result is no longer wanted, so it stops at its next step, in a query too.

SQLite asks after some steps of a query whether to go on; PostgreSQL is told to end one. What Python does between
queries looks by `check` from time to time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Steps of SQLite's virtual machine between two looks: less than a millisecond.
STEPS = 10_000


class Cancelled(BaseException):
    """The work was cancelled. No error: as asyncio's, it passes by all that handles errors."""


class Cancellation:
    """Cancels one piece of work, from any thread."""

    def __init__(self) -> None:
        self.requested = False
        self._lock = threading.Lock()
        # PostgreSQL's connection, while a query runs on it.
        self._driver: Any = None

    @contextmanager
    def covering(self) -> Iterator[None]:
        """Make this thread stop in the block, by raising Cancelled, once the cancellation is requested."""
        _of_thread.cancellation = self
        try:
            check()
            yield
        finally:
            _of_thread.cancellation = None

    def request(self) -> None:
        """Have the work stop soon. Blocks for PostgreSQL, and is to be repeated until the work has ended.

        A query that is about to begin is not met by one request: PostgreSQL forgets what comes too early.
        """
        self.requested = True
        # While the lock is held, the connection is on its query: another's query is never cancelled.
        with self._lock:
            if self._driver is not None:
                # One that is lost, or ended meanwhile, has no query any more.
                with suppress(Exception):
                    self._driver.cancel_safe(timeout=1)


class _OfThread(threading.local):
    cancellation: Cancellation | None = None


_of_thread = _OfThread()


def is_requested() -> bool:
    """Whether this thread's work is cancelled: what SQLite asks."""
    cancellation = _of_thread.cancellation
    return cancellation is not None and cancellation.requested


def check() -> None:
    """Raise Cancelled if this thread's work is cancelled."""
    if is_requested():
        raise Cancelled


@contextmanager
def querying(driver: Any) -> Iterator[None]:
    """Let a query in the block, on a driver's connection to PostgreSQL, be ended by this thread's cancellation."""
    cancellation = _of_thread.cancellation
    if cancellation is None:
        yield
        return
    check()
    with cancellation._lock:
        cancellation._driver = driver
    try:
        yield
    finally:
        with cancellation._lock:
            cancellation._driver = None
