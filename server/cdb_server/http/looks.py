"""Looks at the database shared by requests that came before them: many at once cost one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Seen = TypeVar("Seen")


class Looks(Generic[Seen]):
    """A look under way may have begun before a request came, and a write after it: that request shares the next one."""

    def __init__(self, look: Callable[[], Awaitable[Seen]]) -> None:
        self._look = look
        self._under_way: asyncio.Task[Seen] | None = None
        self._next: asyncio.Task[Seen] | None = None

    async def seen(self) -> Seen:
        """What a look that begins now or later sees."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._after(self._under_way))
        # Whoever goes does not take it away from the others.
        return await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[Seen] | None) -> Seen:
        if before is not None:
            await asyncio.wait([before])
        self._under_way, self._next = self._next, None
        return await self._look()
