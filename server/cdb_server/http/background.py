"""Runs long lists and pages in low-priority background processes, and hands work to them over sockets.

A worker's look-ups must not share an interpreter with what computes for long: Python runs one thread at a time. Each
piece of work has a pair of sockets of its own, one end of which is handed over; that it is closed cancels the work.

They come and go with the server. One that ends is begun anew; what it had under way is asked again, where it was only
read, or answered with Unavailable.
"""

import asyncio
import contextlib
import logging
import logging.config
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdb_server.errors import Unavailable
from cdb_server.http.admission import LIST_MEMORY_BYTES, MAX_QUEUED_LONG_WORK, MemoryBudget
from cdb_server.http.protocol.limits import CLIENT_PRESENCE
from cdb_server.http.response_cache import EncodedResponse

# Seconds that a worker waits for its turn, and for a sign of a process that has its work: longer than any work takes.
MAX_QUEUE_SECONDS = 15.0

MAX_ANSWER_SECONDS = 30.0

# What the parent ends a background process by.
STOP_SIGNAL = signal.SIGUSR1

# Lists under way of one worker: one is sent while another is made.
MAX_CONCURRENT_LISTS = 2

_LENGTH = struct.Struct("!Q")

_BUFFER = 2**20

# Of a request's scope, what is plain data.
_SCOPE_FIELDS = ("type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path")

_ADDRESS_FIELDS = ("path", "raw_path", "query_string", "headers")

_UNAVAILABLE_TEXT = "this part of the server failed or is overloaded: try again later"


class JobConnection:
    """Messages, both ways, about one piece of work. Both ends are this server's own: what comes is trusted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, end: socket.socket) -> "JobConnection":
        """On one of a pair of sockets."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_BUFFER))

    async def send(self, message: Any) -> None:
        """Send a message, and wait until most of it is on its way. Raises OSError."""
        data = pickle.dumps(message, protocol=5)
        self._writer.write(_LENGTH.pack(len(data)))
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> Any:
        """The next message. Raises EOFError when the other end is closed."""
        try:
            [length] = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301  # sent by this server itself
        except (asyncio.IncompleteReadError, OSError):
            raise EOFError from None

    def close(self) -> None:
        """Close this end, and drop what is not sent."""
        self._writer.transport.abort()


class JobQueue:
    """Where workers hand over work of one kind, and background processes take it. Made before all of them."""

    def __init__(self) -> None:
        self.receiving_end, self._sending_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.receiving_end, self._sending_end):
            end.setblocking(False)

    def submit_job(self) -> socket.socket:
        """One of a pair of sockets, whose other end is given to the next process that is free. Raises Unavailable."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._sending_end, [b"\0"], [theirs.fileno()])
            except OSError:
                # No process takes any.
                ours.close()
                raise Unavailable(_UNAVAILABLE_TEXT) from None
        ours.setblocking(False)
        return ours

    def take_job(self) -> socket.socket | None:
        """What was handed over; None where another process was quicker."""
        try:
            _, files, _, _ = socket.recv_fds(self.receiving_end, 1, 1)
        except BlockingIOError:
            return None
        theirs = socket.socket(fileno=files[0])
        theirs.setblocking(False)
        return theirs


@dataclass(frozen=True, slots=True)
class JobQueues:
    """Lists and pages do not wait for each other."""

    lists: JobQueue
    pages: JobQueue


class BackgroundLists:
    """Long lists, made by a background process. For one worker, and for its event loop."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._slots = anyio.Semaphore(MAX_CONCURRENT_LISTS)

    @property
    def is_busy(self) -> bool:
        """Whether one would have to wait for others."""
        return self._slots.value == 0

    async def request_list(self, budget: MemoryBudget, path: str, *question: Any) -> EncodedResponse:
        """The answer to a question at the address of its service; it holds its memory. Raises Unavailable."""
        async with self._slot():
            reservation = await budget.reserve(LIST_MEMORY_BYTES)
            for _ in range(2):
                with contextlib.suppress(EOFError, OSError):
                    return (await self._ask_process((path, *question))).with_reservation(reservation)
            raise Unavailable(_UNAVAILABLE_TEXT)

    async def _ask_process(self, message: Any) -> EncodedResponse:
        link = await JobConnection.connect(self._queue.submit_job())
        try:
            with anyio.move_on_after(MAX_ANSWER_SECONDS):
                await link.send(message)
                answer = await link.receive()
                if not isinstance(answer, EncodedResponse):
                    raise Unavailable(answer)
                return answer
            raise Unavailable(_UNAVAILABLE_TEXT)
        finally:
            link.close()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.statistics().tasks_waiting >= MAX_QUEUED_LONG_WORK:
            raise Unavailable("too many long lists are wanted here: try again later, or ask for a shorter period")
        with anyio.move_on_after(MAX_QUEUE_SECONDS) as patience:
            await self._slots.acquire()
        if patience.cancelled_caught:
            raise Unavailable("many long lists are wanted here: try again later, or ask for a shorter period")
        try:
            yield
        finally:
            self._slots.release()


class BackgroundPages:
    """Pages, made by a background process, as an ASGI application."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Unavailable."""
        # A process may end while it works; what changes something is not repeated.
        times = 2 if scope["method"] in ("GET", "HEAD") else 1
        for _ in range(times):
            answering = _ResponseProgress(send)
            try:
                await self._forward(scope, receive, answering)
                return
            except (EOFError, OSError):
                if answering.has_started:
                    scope[CLIENT_PRESENCE].abort()
                    return
        raise Unavailable(_UNAVAILABLE_TEXT)

    async def _forward(self, scope: Scope, receive: Receive, answering: "_ResponseProgress") -> None:
        link = await JobConnection.connect(self._queue.submit_job())
        feeding: asyncio.Future[None] | None = None

        async def feed() -> None:
            message = await receive()
            # Where the process has ended, it is noticed by what waits for its answer.
            with contextlib.suppress(OSError):
                await link.send(message)

        try:
            await link.send({name: scope[name] for name in (*_SCOPE_FIELDS, *_ADDRESS_FIELDS) if name in scope})
            while not answering.has_ended:
                # While it waits for the request's body, it is the peer who has to do something.
                waits = feeding is not None and not feeding.done()
                with anyio.move_on_after(None if waits else MAX_ANSWER_SECONDS) as patience:
                    message = await link.receive()
                if patience.cancelled_caught:
                    raise EOFError
                if message["type"] == "receive":
                    feeding = asyncio.ensure_future(feed())
                else:
                    await answering.send(message)
        finally:
            if feeding is not None:
                feeding.cancel()
            link.close()


class _ResponseProgress:
    """How far an answer has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = self.has_ended = False

    async def send(self, message: Message) -> None:
        self.has_started = True
        self.has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


log = logging.getLogger(__name__)

# Look-ups go before; where nothing else is to be done, this takes nothing away.
NICENESS = 5

# Seconds: between two looks whether the parent is still there, and before a process that ended is begun anew.
PARENT_CHECK_SECONDS = 1.0

RESTART_PAUSE_SECONDS = 1.0

STOP_GRACE_SECONDS = 2.0

# What a process makes, for as long as it runs: of a message that begins a piece of work, the answer on its link.
JobHandler = Callable[[Any, JobConnection, "asyncio.Queue[Any]"], Awaitable[None]]

# Makes the work of a process, in it, and gives what ends it.
JobHandlerFactory = Callable[[], tuple[JobHandler, Callable[[], None]]]


class BackgroundProcess:
    """One background process that takes jobs from a queue; the parent of all processes holds this."""

    def __init__(self, name: str, queue: JobQueue, make: JobHandlerFactory, configuration: dict[str, Any]) -> None:
        """`configuration` is that of logging."""
        self._name = name
        self._queue = queue
        self._factory = make
        self._configuration = configuration
        self._process: ForkProcess | None = None
        self._begun = 0.0

    def ensure_running(self) -> None:
        """Begin it if it does not run; to be called from time to time."""
        if self._process is not None and self._process.is_alive():
            return
        if time.monotonic() < self._begun + RESTART_PAUSE_SECONDS:
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
        if self._process is not None and self._process.pid is not None:
            # It may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, STOP_SIGNAL)
            self._process.join(STOP_GRACE_SECONDS)
            self._process.kill()
            self._process.join()

    def _run(self, parent: int) -> None:
        os.nice(NICENESS)
        # Terminals and systemd send them to all processes: the parent says when it is time, after the workers.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        logging.config.dictConfig(self._configuration)
        asyncio.run(self._serve(parent))

    async def _serve(self, parent: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(STOP_SIGNAL, ended.set)
        work, close = self._factory()
        under_way: set[asyncio.Task[None]] = set()

        def take() -> None:
            if (end := self._queue.take_job()) is not None:
                task = loop.create_task(_run_job(work, end))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

        loop.add_reader(self._queue.receiving_end, take)
        while os.getppid() == parent and not ended.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ended.wait(), PARENT_CHECK_SECONDS)
        loop.remove_reader(self._queue.receiving_end)
        for task in under_way:
            task.cancel()
        close()


async def _run_job(work: JobHandler, end: Any) -> None:
    """Do one piece of work, unless whoever handed it over closes their end before."""
    link = await JobConnection.connect(end)
    try:
        message = await link.receive()
        came: asyncio.Queue[Any] = asyncio.Queue()
        doing = asyncio.ensure_future(work(message, link, came))
        reading = asyncio.ensure_future(_receive_messages(link, came, doing, cancels=_is_cancellable(message)))
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


def _is_cancellable(message: Any) -> bool:
    """Whether it may be cancelled at any moment: lists, and pages that change nothing."""
    return not isinstance(message, dict) or message["method"] in ("GET", "HEAD")


async def _receive_messages(
    link: JobConnection, came: "asyncio.Queue[Any]", doing: "asyncio.Future[None]", *, cancels: bool
) -> None:
    try:
        while True:
            came.put_nowait(await link.receive())
    except EOFError:
        came.put_nowait({"type": "http.disconnect"})
        if cancels:
            doing.cancel()


def list_job_handler(answered: Callable[..., Awaitable[Any]]) -> JobHandler:
    """Work that answers questions for lists."""

    async def work(question: Any, link: JobConnection, _: "asyncio.Queue[Any]") -> None:
        try:
            answer = await answered(*question)
        except Unavailable as error:
            answer = error.message
        await link.send(answer)

    return work


def page_job_handler(app: ASGIApp) -> JobHandler:
    """Work that has an application answer the requests of pages."""

    async def work(scope: Any, link: JobConnection, came: "asyncio.Queue[Message]") -> None:
        async def receive() -> Message:
            await link.send({"type": "receive"})
            return await came.get()

        await app(scope, receive, link.send)

    return work
