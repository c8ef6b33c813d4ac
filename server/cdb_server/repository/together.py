"""Writes that wait are done together: whoever has the lock does them all, and the disk is waited for once."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from cdb_server.errors import CdbError, NotAdmitted
from cdb_server.repository.turn import too_many

# Bytes of payloads that are written together. What is larger is written alone, and takes its time alone.
MOST = 4 * 2**20

Within = TypeVar("Within")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Write(Generic[Within]):
    work: Callable[[Within], Any]
    size: int
    deadline: float
    result: Any = None
    refused: CdbError | NotAdmitted | None = None
    done: bool = False

    @property
    def late(self) -> bool:
        """Whether it waited too long to begin anew."""
        return time.monotonic() > self.deadline


class Together(Generic[Within]):
    """The writes of one process. For use by many threads."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[Within]], patience: float) -> None:
        """`transaction` waits for the lock, and ends on disk or raises.

        `patience` is how many seconds a write waits, at most, until one that has it begins or begins anew.
        """
        self._transaction = transaction
        self._patience = patience
        self._turn = threading.Lock()
        # Guards what follows: a write is taken by one, or given up.
        self._taking = threading.Lock()
        self._waiting: deque[_Write[Within]] = deque()

    def do(self, work: Callable[[Within], Result], size: int) -> Result:
        """What `work` gives, once it is on disk; `size` is the bytes of its payload.

        A CdbError or NotAdmitted that it raises, having written nothing, is its own. After any other failure, of
        whatever was done with it, it is done once more, alone. Raises Unavailable, and what the transaction raises.
        """
        write = _Write(work, size, time.monotonic() + self._patience)
        with self._taking:
            self._waiting.append(write)
        if not self._turn.acquire(timeout=self._patience):
            if self._given_up(write):
                raise too_many()
            # Another is about it, and ends.
            self._turn.acquire()
        try:
            if not write.done:
                self._lead(write)
        finally:
            self._given_up(write)
            self._turn.release()
        if write.refused is not None:
            raise write.refused
        return cast(Result, write.result)

    def _lead(self, write: _Write[Within]) -> None:
        together = [write]
        if write.late:
            # It was tried with others, until there was no time left.
            raise too_many()
        try:
            with self._transaction() as within:
                together = self._taken_with(write)
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

    def _taken_with(self, first: _Write[Within]) -> list[_Write[Within]]:
        """The first and those who wait, in their order; alone where it was taken before."""
        with self._taking:
            if first not in self._waiting:
                return [first]
            self._waiting.remove(first)
            taken, size = [first], first.size
            while self._waiting and size + self._waiting[0].size <= MOST:
                taken.append(self._waiting.popleft())
                size += taken[-1].size
            return taken

    def _given_up(self, write: _Write[Within]) -> bool:
        """Whether a write still waited; it does no longer."""
        with self._taking:
            waited = write in self._waiting
            if waited:
                self._waiting.remove(write)
            return waited


def _attempt(write: _Write[Within], within: Within) -> None:
    write.refused = None
    try:
        write.result = write.work(within)
    except (CdbError, NotAdmitted) as error:
        write.refused = error
