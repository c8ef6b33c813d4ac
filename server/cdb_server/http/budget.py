"""A memory budget: bytes that the requests of a worker share, and that whatever holds them gives back when it goes."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from cdb_server.errors import Unavailable

# Bytes from which on a payload is large, and of memory for one byte of it: in a request, which is parsed, decoded and
# compared; and in an answer, which is read and encoded.
LARGE = 2**20
OF_REQUEST, OF_ANSWER = 5, 3
# Bytes from which on a question is large: anybody may ask, and no question needs as many.
LARGE_QUESTION = 2**16
# For the longest list while it is made.
OF_LIST = 96 * 2**20
PATIENCE = 15.0
# Where the connections find that of small answers in the state of the application's lifespan.
BUDGET = "cdb.budget"
NO_ROOM = "many large payloads are on their way here: try again later"


class Reservation:
    """Bytes of a budget, until `release` or until nobody holds this: whichever comes first, and from any thread.

    A reservation is granted as an object, so that there is none whose owner does not know of it: where its owner was
    cancelled meanwhile, or gave up, nobody holds it.
    """

    __slots__ = ("__weakref__", "_budget", "_size")

    def __init__(self, budget: "Budget", size: int) -> None:
        self._budget = budget
        self._size = size

    def shrink(self, size: int) -> None:
        """Give back all but `size` bytes."""
        surplus, self._size = max(0, self._size - size), min(self._size, size)
        if surplus:
            self._budget.give_back(surplus)

    def release(self) -> None:
        """Give back all of it; a second time does nothing."""
        self.shrink(0)

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class Budget:
    """`size` bytes; nobody waits longer for some of them than `patience`, in seconds.

    A request's body of at most `uncounted` bytes needs none of them. For one event loop, apart from what is given back.
    """

    def __init__(self, size: int, patience: float = PATIENCE, *, uncounted: int = LARGE) -> None:
        self._patience = patience
        self.uncounted = uncounted
        self._size = self._free = size
        # In the order in which they came.
        self._waiting: deque[tuple[int, asyncio.Future[Reservation | None]]] = deque()
        # What was given back and is not counted yet: it may come from another thread, or out of a garbage collection
        # in the middle of anything here.
        self._returned: deque[int] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._reclaim: list[Callable[[int], None]] = []

    @property
    def free(self) -> int:
        """The bytes that nobody holds."""
        self._collect()
        return self._free

    def reclaim_by(self, reclaim: Callable[[int], None]) -> None:
        """Call `reclaim` with the bytes that are missing where somebody waits: it may give up what it keeps.

        What was named so before is called before, and this only where that was not enough.
        """
        self._reclaim.append(reclaim)

    async def reserve(self, size: int) -> Reservation:
        """Wait for so many bytes, or for all that there are. Raises Unavailable."""
        size = min(size, self._size)
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        turn: asyncio.Future[Reservation | None] = self._loop.create_future()
        self._waiting.append((size, turn))
        self._admit()
        # Whether somebody was admitted or gave up is said by the future alone, which changes once.
        timer = self._loop.call_later(self._patience, _give_up, turn)
        try:
            reservation = await turn
        finally:
            timer.cancel()
            if turn.cancelled():
                # Whoever comes next may have been waiting for this one only.
                self._admit()
        if reservation is None:
            self._admit()
            raise Unavailable(NO_ROOM)
        return reservation

    def reserve_at_once(self, size: int) -> Reservation | None:
        """So many bytes if they are free."""
        self._collect()
        if size > self._free:
            return None
        self._free -= size
        return Reservation(self, size)

    def give_back(self, size: int) -> None:
        """Make bytes free again. From any thread, at any time."""
        self._returned.append(size)
        if not self._waiting or self._loop is None:
            return
        # The loop is closed when all is over.
        with contextlib.suppress(RuntimeError):
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._admit)
            else:
                self._loop.call_soon_threadsafe(self._admit)

    def _collect(self) -> None:
        while self._returned:
            self._free += self._returned.popleft()

    def _admit(self) -> None:
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
                turn.set_result(Reservation(self, size))
            self._waiting.popleft()


def _give_up(turn: "asyncio.Future[Reservation | None]") -> None:
    if not turn.done():
        turn.set_result(None)


class Share:
    """What one request has of a budget, until its block ends."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.uncounted = budget.uncounted
        self._reservation: Reservation | None = None

    async def take(self, wanted: int) -> None:
        """Wait for so many bytes, once. Raises Unavailable."""
        self._reservation = await self._budget.reserve(wanted)

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        if self._reservation is not None:
            self._reservation.release()
