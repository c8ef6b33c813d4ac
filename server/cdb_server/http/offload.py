"""Handing work to the background processes, and getting their answers: long lists and pages (`background.py`).

A worker's look-ups must not share an interpreter with what computes for long: Python runs one thread at a time. Each
piece of work has a pair of sockets of its own, one end of which is handed over; that it is closed cancels the work.
"""

import asyncio
import contextlib
import pickle
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import Message, Receive, Scope, Send

from cdb_server.errors import Unavailable
from cdb_server.http.abandoned import PRESENCE
from cdb_server.http.budget import OF_LIST, Budget
from cdb_server.http.ready import Ready
from cdb_server.http.threads import MAX_WAITING_LONG

# Seconds that a worker waits for its turn, and for a sign of a process that has its work: longer than any work takes.
TURN_SECONDS = 15.0
ANSWER_SECONDS = 30.0
# Lists under way of one worker: one is sent while another is made.
LISTS_AT_ONCE = 2
_LENGTH = struct.Struct("!Q")
_BUFFER = 2**20
# Of a request's scope, what is plain data.
_PLAIN = ("type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path")
_ADDRESS = ("path", "raw_path", "query_string", "headers")
_FAILED = "this part of the server failed or is overloaded: try again later"


class Link:
    """Messages, both ways, about one piece of work. Both ends are this server's own: what comes is trusted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def on(cls, end: socket.socket) -> "Link":
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


class Door:
    """Where workers hand over work of one kind, and background processes take it. Made before all of them."""

    def __init__(self) -> None:
        self.inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.inside, self._outside):
            end.setblocking(False)

    def hand_over(self) -> socket.socket:
        """One of a pair of sockets, whose other end is given to the next process that is free. Raises Unavailable."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._outside, [b"\0"], [theirs.fileno()])
            except OSError:
                # No process takes any.
                ours.close()
                raise Unavailable(_FAILED) from None
        ours.setblocking(False)
        return ours

    def taken(self) -> socket.socket | None:
        """What was handed over; None where another process was quicker."""
        try:
            _, files, _, _ = socket.recv_fds(self.inside, 1, 1)
        except BlockingIOError:
            return None
        theirs = socket.socket(fileno=files[0])
        theirs.setblocking(False)
        return theirs


@dataclass(frozen=True, slots=True)
class Doors:
    """Lists and pages do not wait for each other."""

    lists: Door
    pages: Door


class Lists:
    """Long lists, made by a background process. For one worker, and for its event loop."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._turns = anyio.Semaphore(LISTS_AT_ONCE)

    @property
    def busy(self) -> bool:
        """Whether one would have to wait for others."""
        return self._turns.value == 0

    async def made(self, budget: Budget, path: str, *question: Any) -> Ready:
        """The answer to a question at the address of its service; it holds its memory. Raises Unavailable."""
        async with self._turn():
            reservation = await budget.reserve(OF_LIST)
            for _ in range(2):
                with contextlib.suppress(EOFError, OSError):
                    return (await self._answered((path, *question))).holding(reservation)
            raise Unavailable(_FAILED)

    async def _answered(self, message: Any) -> Ready:
        link = await Link.on(self._door.hand_over())
        try:
            with anyio.move_on_after(ANSWER_SECONDS):
                await link.send(message)
                answer = await link.receive()
                if not isinstance(answer, Ready):
                    raise Unavailable(answer)
                return answer
            raise Unavailable(_FAILED)
        finally:
            link.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._turns.statistics().tasks_waiting >= MAX_WAITING_LONG:
            raise Unavailable("too many long lists are wanted here: try again later, or ask for a shorter period")
        with anyio.move_on_after(TURN_SECONDS) as patience:
            await self._turns.acquire()
        if patience.cancelled_caught:
            raise Unavailable("many long lists are wanted here: try again later, or ask for a shorter period")
        try:
            yield
        finally:
            self._turns.release()


class Pages:
    """Pages, made by a background process, as an ASGI application."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Unavailable."""
        # A process may end while it works; what changes something is not repeated.
        times = 2 if scope["method"] in ("GET", "HEAD") else 1
        for _ in range(times):
            answering = _Answering(send)
            try:
                await self._passed_on(scope, receive, answering)
                return
            except (EOFError, OSError):
                if answering.begun:
                    scope[PRESENCE].abort()
                    return
        raise Unavailable(_FAILED)

    async def _passed_on(self, scope: Scope, receive: Receive, answering: "_Answering") -> None:
        link = await Link.on(self._door.hand_over())
        feeding: asyncio.Future[None] | None = None

        async def feed() -> None:
            message = await receive()
            # Where the process has ended, it is noticed by what waits for its answer.
            with contextlib.suppress(OSError):
                await link.send(message)

        try:
            await link.send({name: scope[name] for name in (*_PLAIN, *_ADDRESS) if name in scope})
            while not answering.ended:
                # While it waits for the request's body, it is the peer who has to do something.
                waits = feeding is not None and not feeding.done()
                with anyio.move_on_after(None if waits else ANSWER_SECONDS) as patience:
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


class _Answering:
    """How far an answer has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self.ended = False

    async def send(self, message: Message) -> None:
        self.begun = True
        self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)
