"""Memory for what is large, shared by the requests of a worker: whoever finds too little of it free waits."""

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cdb_server.errors import Unavailable

# Bytes from which on a payload is large, and of memory for one byte of it: in a request, which is parsed, decoded and
# compared; and in an answer, which is read and encoded.
LARGE = 2**20
OF_REQUEST, OF_ANSWER = 5, 3
PATIENCE = 15.0

Made = TypeVar("Made")


class Room:
    """So many bytes. For one event loop."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, wanted: int) -> int:
        """Wait for so many bytes, or for all that there are; how many to give back. Raises Unavailable."""
        wanted = min(wanted, self._size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self._admit()
        try:
            await asyncio.wait_for(turn, PATIENCE)
        except asyncio.TimeoutError:
            raise Unavailable("many large payloads are on their way here: try again later") from None
        return wanted

    async def holding(self, wanted: int, make: Callable[[], Awaitable[Made]]) -> Made:
        """Wait for so many bytes, and make what holds them until nobody has it any more. Raises Unavailable."""
        taken = await self.take(wanted)
        try:
            made = await make()
        except BaseException:
            self.give_back(taken)
            raise
        weakref.finalize(made, self.give_back, taken)
        return made

    def give_back(self, taken: int) -> None:
        """What was taken is free again."""
        self._free += taken
        self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


class Share:
    """What one request has of a room, until its block ends."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0

    async def take(self, wanted: int) -> None:
        """Wait for so many bytes, once. Raises Unavailable."""
        self._taken = await self._room.take(wanted)

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self._room.give_back(self._taken)
