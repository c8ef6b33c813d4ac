"""Shares one call among all requests that want the same result (single flight)."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

Result = TypeVar("Result")


class Flight(Generic[Result]):
    """Work under way, and how many wait for its result."""

    def __init__(self, work: Awaitable[Result]) -> None:
        self.task = asyncio.ensure_future(work)
        # Whether nobody waits for it any more: what comes now begins anew.
        self.is_abandoned = False
        self._waiting = 0

    async def result(self) -> Result:
        """The result. Whoever goes does not take it away from the others; the last one does."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting and self.task.cancel():
                self.is_abandoned = True

    async def wait_until_done(self) -> None:
        """Wait for its end, whatever it is, without wanting the result."""
        await asyncio.wait([self.task])


class SingleFlight(Generic[Key, Result]):
    """The work under way, by what it is for. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Key, Flight[Result]] = {}

    def find(self, key: Key) -> Flight[Result] | None:
        """The work under way for a key, unless it ends."""
        flight = self._flights.get(key)
        return None if flight is None or flight.is_abandoned else flight

    def start(self, key: Key, work: Awaitable[Result]) -> Flight[Result]:
        """Begin work for a key, which is found until it ends."""
        flight = self._flights[key] = Flight(work)

        def forget(_: object) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]

        flight.task.add_done_callback(forget)
        return flight


class NextFlight(Generic[Result]):
    """A look under way may have begun before a request came, and a write after it: that request shares the next one."""

    def __init__(self, look: Callable[[], Awaitable[Result]]) -> None:
        self._call = look
        self._running: asyncio.Task[Result] | None = None
        self._next: asyncio.Task[Result] | None = None

    async def next_result(self) -> Result:
        """What a look that begins now or later sees."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._after(self._running))
        # Whoever goes does not take it away from the others.
        return await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[Result] | None) -> Result:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        return await self._call()
