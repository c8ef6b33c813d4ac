"""The threads of a worker: what waits for the database or takes its time is done there, and the event loop goes on.

Each kind of work has threads and a queue of its own, so that no kind keeps another waiting.
"""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from cdb_server.errors import Unavailable
from cdb_server.repository import Cancellation

Result = TypeVar("Result")

# Work that waits at most, of one kind: about as much as is done within a few seconds.
MAX_WAITING = 2_000
# The same where each takes long.
MAX_WAITING_LONG = 100
# Pages made at a time: one that takes long does not keep all others waiting.
PAGES_AT_ONCE = 2
# Seconds between two requests that work stop.
REPEAT_SECONDS = 0.05
# After how many seconds whoever was told Unavailable may ask again, in Retry-After.
RETRY_SECONDS = "10"


class Threads(ThreadPoolExecutor):
    """At most `max_workers` pieces of work at once, and `max_waiting` that wait for their turn."""

    def __init__(
        self, max_workers: int, max_waiting: int = MAX_WAITING, *, name: str = "cdb", cancels: bool = True
    ) -> None:
        """`cancels` says whether work that is begun is stopped when nobody waits for it any more."""
        super().__init__(max_workers, thread_name_prefix=name)
        self._capacity = threading.BoundedSemaphore(max_workers + max_waiting)
        self._cancels = cancels
        self._under_way: dict[Future[Any], Cancellation] = {}

    async def do(self, work: Callable[[], Result]) -> Result:
        """What the work gives, or raises, once one of the threads has done it. Raises Unavailable where the queue is
        full. Work is dropped when whoever waits for it is cancelled.
        """
        if not self._capacity.acquire(blocking=False):
            raise Unavailable("too many requests wait here already: try again later")
        cancellation = Cancellation()
        done = self.submit(_covered, work, cancellation)
        self._under_way[done] = cancellation
        done.add_done_callback(self._ended)
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            if self._cancels and not done.cancelled():
                loop = asyncio.get_running_loop()
                loop.call_soon(_stop, loop, cancellation, done)
            raise
        finally:
            # An error refers to this frame. If the frame referred to the error, both would keep what the caller has, a
            # large answer and its memory, until the next garbage collection.
            del done

    @property
    def busy(self) -> bool:
        """Whether there is work under way."""
        return bool(self._under_way)

    def close(self) -> None:
        """Drop what waits, have what is begun stop, and wait for it."""
        self.shutdown(wait=False, cancel_futures=True)
        while self._cancels and (under_way := dict(self._under_way)):
            for cancellation in under_way.values():
                cancellation.request()
            wait(under_way, REPEAT_SECONDS)
        self.shutdown()

    def _ended(self, done: "Future[Any]") -> None:
        del self._under_way[done]
        self._capacity.release()


@dataclass(frozen=True, slots=True)
class Pools:
    """The threads of one worker, by what they do: questions with short answers, large payloads, lists that may be long,
    pages, writes, and telling how the server is."""

    questions: Threads
    large: Threads
    lists: Threads
    pages: Threads
    writes: Threads
    health: Threads

    @classmethod
    def of(cls, threads: int) -> "Pools":
        """With so many threads where work is short, and mostly waits for the database."""
        return cls(
            questions=Threads(threads, name="questions"),
            large=Threads(2, MAX_WAITING_LONG, name="large"),
            lists=Threads(1, MAX_WAITING_LONG, name="lists"),
            pages=Threads(PAGES_AT_ONCE, MAX_WAITING_LONG, name="pages"),
            # One that stops halfway would keep waiting all whose writes share its commit.
            writes=Threads(threads, name="writes", cancels=False),
            health=Threads(1, MAX_WAITING_LONG, name="health"),
        )

    @property
    def all(self) -> tuple[Threads, ...]:
        """Each of them."""
        return self.questions, self.large, self.lists, self.pages, self.writes, self.health

    @property
    def count(self) -> int:
        """How many threads they have, each of which uses one connection to the database at most."""
        return sum(threads._max_workers for threads in self.all)

    def close(self) -> None:
        """Drop what waits, and wait for the work under way."""
        for threads in self.all:
            threads.close()


def _covered(work: Callable[[], Result], cancellation: Cancellation) -> Result:
    with cancellation.covering():
        try:
            return work()
        except StopIteration as error:
            # A future does not take it: whoever waits would wait for ever.
            raise RuntimeError("the work ended by StopIteration") from error


def _stop(loop: asyncio.AbstractEventLoop, cancellation: Cancellation, done: "Future[Result]") -> None:
    """Request that work stop, again and again until it has."""
    if not done.done():
        loop.run_in_executor(None, cancellation.request)
        loop.call_later(REPEAT_SECONDS, functools.partial(_stop, loop, cancellation, done))
