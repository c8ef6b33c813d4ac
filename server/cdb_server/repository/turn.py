"""Turns of the writers on SQLite, over threads and processes: whoever has written queues behind those who wait.

SQLite lets writers wait by trying again, ever more seldom: a busy process would have its lock again before another
looks, and keep it for seconds. So each first passes a gate, one at a time, and leaves it only when it has SQLite's
lock. Whoever gives that lock up and wants it again finds the gate taken by the next. The gate is a lock on the
database's folder, which ends with its process; it is for fairness alone, and what is written is guarded by SQLite.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cdb_server.errors import Unavailable
from cdb_server.repository.connections import LOOK


class Turn:
    """The place of one process among the writers of a database."""

    def __init__(self, folder: Path, patience: float) -> None:
        """`patience` is how many seconds a writer waits, at most, for the threads of its process, and for the gate."""
        self._patience = patience
        # One of a process waits at the gate; the others queue here.
        self._thread = threading.Lock()
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    @contextmanager
    def taken(self) -> Iterator[Callable[[], None]]:
        """Wait for a turn; the block calls what it is given once it has SQLite's lock. Raises Unavailable."""
        if not self._thread.acquire(timeout=self._patience):
            raise too_many()
        try:
            self._pass_gate()
            try:
                yield self._leave_gate
            finally:
                self._leave_gate()
        finally:
            self._thread.release()

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._folder)

    def _pass_gate(self) -> None:
        deadline = time.monotonic() + self._patience
        # A file system without such locks has no gate.
        with suppress(OSError):
            while True:
                try:
                    return fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise too_many() from None
                    # flock itself would wait without end, and no other call waits for a lock with a deadline.
                    time.sleep(LOOK)

    def _leave_gate(self) -> None:
        with suppress(OSError):
            fcntl.flock(self._folder, fcntl.LOCK_UN)


def too_many() -> Unavailable:
    """What who waited too long is told."""
    return Unavailable("too many writes are waiting: try again later")
