"""Decides when work waits or is refused: memory budgets, thread pools with bounded queues; malloc settings.

Each kind of work has threads and a queue of its own, so that no kind keeps another waiting.
"""

import asyncio
import contextlib
import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from cdb_server.database.statements import Cancellation
from cdb_server.errors import Unavailable

# Bytes from which on a payload is large, and of memory for one byte of it: in a request, which is parsed, decoded and
# compared; and in an answer, which is read and encoded.
LARGE_PAYLOAD_BYTES = 2**20

REQUEST_MEMORY_FACTOR, ANSWER_MEMORY_FACTOR = 5, 3

# For the longest list while it is made.
LIST_MEMORY_BYTES = 96 * 2**20

MAX_WAIT_SECONDS = 15.0

# Where the connections find that of small answers in the state of the application's lifespan.
MEMORY_BUDGET = "cdb.budget"

NO_MEMORY_TEXT = "many large payloads are on their way here: try again later"


class MemoryReservation:
    """Bytes of a budget, until `release` or until nobody holds this: whichever comes first, and from any thread.

    A reservation is granted as an object, so that there is none whose owner does not know of it: where its owner was
    cancelled meanwhile, or gave up, nobody holds it.
    """

    __slots__ = ("__weakref__", "_budget", "_size")

    def __init__(self, budget: "MemoryBudget", size: int) -> None:
        self._budget = budget
        self._size = size

    def shrink(self, size: int) -> None:
        """Give back all but `size` bytes."""
        surplus, self._size = max(0, self._size - size), min(self._size, size)
        if surplus:
            self._budget.return_bytes(surplus)

    def release(self) -> None:
        """Give back all of it; a second time does nothing."""
        self.shrink(0)

    def __enter__(self) -> "MemoryReservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class MemoryBudget:
    """`size` bytes; nobody waits longer for some of them than `patience`, in seconds.

    For one event loop, apart from what is given back.
    """

    def __init__(self, size: int, max_wait_seconds: float = MAX_WAIT_SECONDS) -> None:
        self._max_wait_seconds = max_wait_seconds
        self._size = self._free = size
        # In the order in which they came.
        self._waiting: deque[tuple[int, asyncio.Future[MemoryReservation | None]]] = deque()
        # What was given back and is not counted yet: it may come from another thread, or out of a garbage collection
        # in the middle of anything here.
        self._returned: deque[int] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._reclaim: list[Callable[[int], None]] = []

    @property
    def free_bytes(self) -> int:
        """The bytes that nobody holds."""
        self._collect()
        return self._free

    def add_reclaimer(self, reclaim: Callable[[int], None]) -> None:
        """Call `reclaim` with the bytes that are missing where somebody waits: it may give up what it keeps.

        What was named so before is called before, and this only where that was not enough.
        """
        self._reclaim.append(reclaim)

    async def reserve(self, size: int) -> MemoryReservation:
        """Wait for so many bytes, or for all that there are. Raises Unavailable."""
        size = min(size, self._size)
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        turn: asyncio.Future[MemoryReservation | None] = self._loop.create_future()
        self._waiting.append((size, turn))
        self._grant()
        # Whether somebody was admitted or gave up is said by the future alone, which changes once.
        timer = self._loop.call_later(self._max_wait_seconds, _time_out, turn)
        try:
            reservation = await turn
        finally:
            timer.cancel()
            if turn.cancelled():
                # Whoever comes next may have been waiting for this one only.
                self._grant()
        if reservation is None:
            self._grant()
            raise Unavailable(NO_MEMORY_TEXT)
        return reservation

    def try_reserve(self, size: int) -> MemoryReservation | None:
        """So many bytes if they are free."""
        self._collect()
        if size > self._free:
            return None
        self._free -= size
        return MemoryReservation(self, size)

    def return_bytes(self, size: int) -> None:
        """Make bytes free again. From any thread, at any time."""
        self._returned.append(size)
        if not self._waiting or self._loop is None:
            return
        # The loop is closed when all is over.
        with contextlib.suppress(RuntimeError):
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._grant)
            else:
                self._loop.call_soon_threadsafe(self._grant)

    def _collect(self) -> None:
        while self._returned:
            self._free += self._returned.popleft()

    def _grant(self) -> None:
        self._collect()
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                for reclaim in self._reclaim:
                    if size > self._free:
                        reclaim(size - self._free)
                        self._collect()
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(MemoryReservation(self, size))
            self._waiting.popleft()


def _time_out(turn: "asyncio.Future[MemoryReservation | None]") -> None:
    if not turn.done():
        turn.set_result(None)


class RequestMemory:
    """What one request has of a budget, until its block ends."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._reservation: MemoryReservation | None = None

    async def reserve(self, wanted: int) -> None:
        """Wait for so many bytes, once. Raises Unavailable."""
        self._reservation = await self._budget.reserve(wanted)

    def __enter__(self) -> "RequestMemory":
        return self

    def __exit__(self, *_: object) -> None:
        if self._reservation is not None:
            self._reservation.release()


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

MMAP_THRESHOLD_BYTES = 2 * 2**20

TRIM_THRESHOLD_BYTES = 16 * 2**20


def tune_malloc() -> None:
    """Let the buffers of answers be used again; does nothing where there is no glibc.

    Those above 128 kB would be given back at once, and each next answer's would come as pages that the kernel has to
    fill with zeros first: a third of the time that an answer of 100 kB takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


Result = TypeVar("Result")

# Work that waits at most, of one kind: about as much as is done within a few seconds.
MAX_QUEUED_WORK = 2_000

# The same where each takes long.
MAX_QUEUED_LONG_WORK = 100

# Pages made at a time: one that takes long does not keep all others waiting.
MAX_CONCURRENT_PAGES = 2

# Seconds between two requests that work stop.
CANCEL_REPEAT_SECONDS = 0.05


class ThreadPool(ThreadPoolExecutor):
    """At most `max_workers` pieces of work at once, and `max_queued` that wait for their turn."""

    def __init__(
        self, max_workers: int, max_queued: int = MAX_QUEUED_WORK, *, name: str = "cdb", cancels: bool = True
    ) -> None:
        """`cancels` says whether work that is begun is stopped when nobody waits for it any more."""
        super().__init__(max_workers, thread_name_prefix=name)
        self._capacity = threading.BoundedSemaphore(max_workers + max_queued)
        self._cancels = cancels
        self._running: dict[Future[Any], Cancellation] = {}

    async def run(self, work: Callable[[], Result]) -> Result:
        """What the work gives, or raises, once one of the threads has done it. Raises Unavailable where the queue is
        full. Work is dropped when whoever waits for it is cancelled.
        """
        if not self._capacity.acquire(blocking=False):
            raise Unavailable("too many requests wait here already: try again later")
        cancellation = Cancellation()
        done = self.submit(_run_cancellable, work, cancellation)
        self._running[done] = cancellation
        done.add_done_callback(self._forget)
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            if self._cancels and not done.cancelled():
                loop = asyncio.get_running_loop()
                loop.call_soon(_request_stop, loop, cancellation, done)
            raise
        finally:
            # An error refers to this frame. If the frame referred to the error, both would keep what the caller has, a
            # large answer and its memory, until the next garbage collection.
            del done

    @property
    def is_busy(self) -> bool:
        """Whether there is work under way."""
        return bool(self._running)

    def close(self) -> None:
        """Drop what waits, have what is begun stop, and wait for it."""
        self.shutdown(wait=False, cancel_futures=True)
        while self._cancels and (under_way := dict(self._running)):
            for cancellation in under_way.values():
                cancellation.request()
            wait(under_way, CANCEL_REPEAT_SECONDS)
        self.shutdown()

    def _forget(self, done: "Future[Any]") -> None:
        del self._running[done]
        self._capacity.release()


@dataclass(frozen=True, slots=True)
class ThreadPools:
    """The threads of one worker, by what they do: questions with short answers, large payloads, lists that may be long,
    pages, writes, and telling how the server is."""

    questions: ThreadPool
    large: ThreadPool
    lists: ThreadPool
    pages: ThreadPool
    writes: ThreadPool
    health: ThreadPool

    @classmethod
    def with_threads(cls, threads: int) -> "ThreadPools":
        """With so many threads where work is short, and mostly waits for the database."""
        return cls(
            questions=ThreadPool(threads, name="questions"),
            large=ThreadPool(2, MAX_QUEUED_LONG_WORK, name="large"),
            lists=ThreadPool(1, MAX_QUEUED_LONG_WORK, name="lists"),
            pages=ThreadPool(MAX_CONCURRENT_PAGES, MAX_QUEUED_LONG_WORK, name="pages"),
            # One that stops halfway would keep waiting all whose writes share its commit.
            writes=ThreadPool(threads, name="writes", cancels=False),
            health=ThreadPool(1, MAX_QUEUED_LONG_WORK, name="health"),
        )

    @property
    def all(self) -> tuple[ThreadPool, ...]:
        """Each of them."""
        return self.questions, self.large, self.lists, self.pages, self.writes, self.health

    @property
    def thread_count(self) -> int:
        """How many threads they have, each of which uses one connection to the database at most."""
        return sum(threads._max_workers for threads in self.all)

    def close(self) -> None:
        """Drop what waits, and wait for the work under way."""
        for threads in self.all:
            threads.close()


def _run_cancellable(work: Callable[[], Result], cancellation: Cancellation) -> Result:
    with cancellation.covering_thread():
        try:
            return work()
        except StopIteration as error:
            # A future does not take it: whoever waits would wait for ever.
            raise RuntimeError("the work ended by StopIteration") from error


def _request_stop(loop: asyncio.AbstractEventLoop, cancellation: Cancellation, done: "Future[Result]") -> None:
    """Request that work stop, again and again until it has."""
    if not done.done():
        loop.run_in_executor(None, cancellation.request)
        loop.call_later(CANCEL_REPEAT_SECONDS, functools.partial(_request_stop, loop, cancellation, done))
