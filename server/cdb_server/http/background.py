"""The background processes: they make long lists and pages, at a low priority, for workers that hand these over.

They come and go with the server. One that ends is begun anew; what it had under way is asked again, where it was only
read, or answered with Unavailable.
"""

import asyncio
import contextlib
import logging
import logging.config
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable
from multiprocessing.context import ForkProcess
from typing import Any

from starlette.types import ASGIApp, Message

from cdb_server.errors import Unavailable
from cdb_server.http.offload import Door, Link

log = logging.getLogger(__name__)

# Look-ups go before; where nothing else is to be done, this takes nothing away.
NICENESS = 5
# Seconds: between two looks whether the parent is still there, and before a process that ended is begun anew.
LOOK_SECONDS = 1.0
PAUSE_SECONDS = 1.0
GRACE_SECONDS = 2.0

# What a process makes, for as long as it runs: of a message that begins a piece of work, the answer on its link.
Work = Callable[[Any, Link, "asyncio.Queue[Any]"], Awaitable[None]]
# Makes the work of a process, in it, and gives what ends it.
Make = Callable[[], tuple[Work, Callable[[], None]]]


class BackgroundProcess:
    """One process that makes what comes through a door; for the parent of all."""

    def __init__(self, name: str, door: Door, make: Make, configuration: dict[str, Any]) -> None:
        """`configuration` is that of logging."""
        self._name = name
        self._door = door
        self._make = make
        self._configuration = configuration
        self._process: ForkProcess | None = None
        self._begun = 0.0

    def keep_alive(self) -> None:
        """Begin it if it does not run; to be called from time to time."""
        if self._process is not None and self._process.is_alive():
            return
        if time.monotonic() < self._begun + PAUSE_SECONDS:
            return
        if self._process is not None:
            log.error("the process that makes %s died, and is begun again", self._name)
            self._process.close()
        self._begun = time.monotonic()
        # A copy of the parent, as the workers are: it shares what is loaded.
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._run, args=(os.getpid(),), name=self._name)
        self._process.start()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(GRACE_SECONDS)
            self._process.kill()
            self._process.join()

    def _run(self, parent: int) -> None:
        os.nice(NICENESS)
        # A terminal sends them to all: the parent says when it is time.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        logging.config.dictConfig(self._configuration)
        asyncio.run(self._serve(parent))

    async def _serve(self, parent: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        work, close = self._make()
        under_way: set[asyncio.Task[None]] = set()

        def take() -> None:
            if (end := self._door.taken()) is not None:
                task = loop.create_task(_done(work, end))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

        loop.add_reader(self._door.inside, take)
        while os.getppid() == parent and not ended.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), LOOK_SECONDS)
        loop.remove_reader(self._door.inside)
        for task in under_way:
            task.cancel()
        close()


async def _done(work: Work, end: Any) -> None:
    """Do one piece of work, unless whoever handed it over closes their end before."""
    link = await Link.on(end)
    try:
        message = await link.receive()
        came: asyncio.Queue[Any] = asyncio.Queue()
        doing = asyncio.ensure_future(work(message, link, came))
        reading = asyncio.ensure_future(_read(link, came, doing, cancels=_only_reads(message)))
        try:
            await asyncio.wait([doing])
            if doing.cancelled():
                return
            if error := doing.exception():
                if not isinstance(error, OSError | EOFError):
                    log.error("a request failed for a reason within the server", exc_info=error)
                return
            # The other end is closed once it has all of the answer.
            await asyncio.wait([reading])
        finally:
            doing.cancel()
            reading.cancel()
    except (EOFError, OSError):
        # It is gone already.
        pass
    finally:
        link.close()


def _only_reads(message: Any) -> bool:
    """Whether it may be cancelled at any moment: lists, and pages that change nothing."""
    return not isinstance(message, dict) or message["method"] in ("GET", "HEAD")


async def _read(link: Link, came: "asyncio.Queue[Any]", doing: "asyncio.Future[None]", *, cancels: bool) -> None:
    try:
        while True:
            came.put_nowait(await link.receive())
    except EOFError:
        came.put_nowait({"type": "http.disconnect"})
        if cancels:
            doing.cancel()


def lists_by(answered: Callable[..., Awaitable[Any]]) -> Work:
    """Work that answers questions for lists."""

    async def work(question: Any, link: Link, _: "asyncio.Queue[Any]") -> None:
        try:
            answer = await answered(*question)
        except Unavailable as error:
            answer = error.message
        await link.send(answer)

    return work


def pages_by(app: ASGIApp) -> Work:
    """Work that has an application answer the requests of pages."""

    async def work(scope: Any, link: Link, came: "asyncio.Queue[Message]") -> None:
        async def receive() -> Message:
            await link.send({"type": "receive"})
            return await came.get()

        await app(scope, receive, link.send)

    return work
