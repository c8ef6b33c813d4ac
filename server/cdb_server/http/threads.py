"""The threads of a worker: what waits for the database or takes its time is done there, and the event loop goes on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Threads(ThreadPoolExecutor):
    """At most so many."""

    async def do(self, work: Callable[[], Result]) -> Result:
        """What the work gives, or raises, once one of the threads has done it."""

        def done() -> Result:
            try:
                return work()
            except StopIteration as error:
                # No future takes one: before Python 3.12 whoever waits for it would wait for ever.
                raise RuntimeError("a StopIteration came out of it") from error

        return await asyncio.get_running_loop().run_in_executor(self, done)
