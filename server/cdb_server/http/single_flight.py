"""Single flight: equal work asked for by many at once is done once, and dropped when the last of them has gone."""

import asyncio
from collections.abc import Awaitable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Flight(Generic[Result]):
    """Work under way, and how many wait for its result."""

    def __init__(self, work: Awaitable[Result]) -> None:
        self.task = asyncio.ensure_future(work)
        # Whether nobody waits for it any more: what comes now begins anew.
        self.dropped = False
        self._waiting = 0

    async def result(self) -> Result:
        """The result. Whoever goes does not take it away from the others; the last one does."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting and self.task.cancel():
                self.dropped = True

    async def ended(self) -> None:
        """Wait for its end, whatever it is, without wanting the result."""
        await asyncio.wait([self.task])


class SingleFlight(Generic[Key, Result]):
    """The work under way, by what it is for. For one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[Key, Flight[Result]] = {}

    def find(self, key: Key) -> Flight[Result] | None:
        """The work under way for a key, unless it ends."""
        flight = self._under_way.get(key)
        return None if flight is None or flight.dropped else flight

    def begin(self, key: Key, work: Awaitable[Result]) -> Flight[Result]:
        """Begin work for a key, which is found until it ends."""
        flight = self._under_way[key] = Flight(work)

        def forget(_: object) -> None:
            if self._under_way.get(key) is flight:
                del self._under_way[key]

        flight.task.add_done_callback(forget)
        return flight
