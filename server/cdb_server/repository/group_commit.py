"""Commits waiting writes of a process in one transaction, and retries each alone after a failure (group commit)."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from cdb_server.errors import CdbError, InvalidToken, too_many_writes

# Bytes of payloads that are written together. What is larger is written alone, and takes its time alone.
MAX_BATCH_BYTES = 4 * 2**20

Transaction = TypeVar("Transaction")

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Write(Generic[Transaction]):
    work: Callable[[Transaction], Any]
    size: int
    deadline: float
    result: Any = None
    refused: CdbError | InvalidToken | None = None
    done: bool = False

    @property
    def late(self) -> bool:
        """Whether it waited too long to begin anew."""
        return time.monotonic() > self.deadline


class GroupCommit(Generic[Transaction]):
    """The writes of one process. For use by many threads."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[Transaction]], max_wait_seconds: float) -> None:
        """`transaction` waits for the lock, and ends on disk or raises.

        `patience` is how many seconds a write waits, at most, until one that has it begins or begins anew.
        """
        self._transaction = transaction
        self._max_wait_seconds = max_wait_seconds
        self._leader_lock = threading.Lock()
        # Guards what follows: a write is taken by one, or given up.
        self._queue_lock = threading.Lock()
        self._waiting: deque[_Write[Transaction]] = deque()

    def commit(self, work: Callable[[Transaction], Result], size: int) -> Result:
        """What `work` gives, once it is on disk; `size` is the bytes of its payload.

        A CdbError or InvalidToken that it raises, having written nothing, is its own. After any other failure, of
        whatever was done with it, it is done once more, alone. Raises Unavailable, and what the transaction raises.
        """
        write = _Write(work, size, time.monotonic() + self._max_wait_seconds)
        with self._queue_lock:
            self._waiting.append(write)
        if not self._leader_lock.acquire(timeout=self._max_wait_seconds):
            if self._remove_waiting(write):
                raise too_many_writes()
            # Another is about it, and ends.
            self._leader_lock.acquire()
        try:
            if not write.done:
                self._commit_batch(write)
        finally:
            self._remove_waiting(write)
            self._leader_lock.release()
        if write.refused is not None:
            raise write.refused
        return cast(Result, write.result)

    def _commit_batch(self, write: _Write[Transaction]) -> None:
        together = [write]
        if write.late:
            # It was tried with others, until there was no time left.
            raise too_many_writes()
        try:
            with self._transaction() as within:
                together = self._take_batch(write)
                for each in together:
                    _attempt(each, within)
        except Exception:
            # Whatever it is, it may be the doing of one alone, and is raised to that one when it is by itself.
            if len(together) == 1 or write.late:
                raise
            # Each of the others finds itself undone, and does the same.
            with self._transaction() as within:
                together = [write]
                _attempt(write, within)
        for each in together:
            each.done = True

    def _take_batch(self, first: _Write[Transaction]) -> list[_Write[Transaction]]:
        """The first and those who wait, in their order; alone where it was taken before."""
        with self._queue_lock:
            if first not in self._waiting:
                return [first]
            self._waiting.remove(first)
            taken, size = [first], first.size
            while self._waiting and size + self._waiting[0].size <= MAX_BATCH_BYTES:
                taken.append(self._waiting.popleft())
                size += taken[-1].size
            return taken

    def _remove_waiting(self, write: _Write[Transaction]) -> bool:
        """Whether a write still waited; it does no longer."""
        with self._queue_lock:
            waited = write in self._waiting
            if waited:
                self._waiting.remove(write)
            return waited


def _attempt(write: _Write[Transaction], within: Transaction) -> None:
    write.refused = None
    try:
        write.result = write.work(within)
    except (CdbError, InvalidToken) as error:
        write.refused = error
