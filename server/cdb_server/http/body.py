"""Receiving a request's body: bounded in length, and in time by the length received."""

import asyncio
import contextlib
import math

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdb_server.http.budget import OF_REQUEST, Share
from cdb_server.http.refusals import Refused
from cdb_server.settings import Settings


class Disconnected(Exception):
    """The sender went away, or was too slow, before the body was whole."""


class Incoming:
    """What comes of a request, and whether all of it has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.whole = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.whole = True
        return message


def announces_body(request: Request) -> bool:
    """Whether something comes after the headers."""
    return request.headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in request.headers


class Bodiless:
    """Around what looks at no body: whoever sends one all the same is answered, and not waited for.

    A connection whose request has not come whole has no deadline but this. `paths` look at their bodies themselves.
    """

    def __init__(self, app: ASGIApp, paths: tuple[str, ...], seconds: float) -> None:
        self._app = app
        self._paths = paths
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._paths or not announces_body(Request(scope)):
            await self._app(scope, receive, send)
            return
        incoming = Incoming(receive)

        async def send_and_linger(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            elif not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _linger(incoming, self._seconds)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, incoming, send_and_linger)


async def receive_body(request: Request, settings: Settings, share: Share, longest: int | None = None) -> bytes:
    """The whole body, of at most `longest` bytes or those of the settings; a large one only once there is room for it.

    Raises Refused (413) as soon as it is known to be too long, Disconnected, and Unavailable.
    """
    limit = settings.max_body if longest is None else longest
    announced = request.headers.get("content-length", "")
    expected = int(announced) if announced.isdigit() else limit
    if announced and expected > limit:
        raise _too_long(limit, settings)
    chunks: list[bytes] = []
    length = 0
    deadline = anyio.current_time() + settings.stall_deadline
    with anyio.CancelScope() as patience:
        while True:
            # Whoever sends at the least rate is waited for; whoever trickles, or stops after much, is not.
            stalled = anyio.current_time() + settings.stall_deadline
            patience.deadline = min(deadline + length / settings.least_rate, stalled)
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            if length <= share.uncounted < length + len(chunk):
                began = anyio.current_time()
                patience.deadline = math.inf
                await share.take(expected * OF_REQUEST)
                deadline += anyio.current_time() - began
            length += len(chunk)
            if length > limit:
                raise _too_long(limit, settings)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)
    raise Disconnected


async def answer_and_linger(response: Response, incoming: Incoming, send: Send, seconds: float) -> None:
    """Answer while the sender may still be sending, and take in what comes until it stops, goes, or the time is up.

    To close at once would reset the connection and destroy the answer on its way.
    """
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await _linger(incoming, seconds)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(incoming: Incoming, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_drain(incoming), seconds)


async def _drain(incoming: Incoming) -> None:
    while not incoming.whole:
        await incoming()


def _too_long(limit: int, settings: Settings) -> Refused:
    return Refused(413, f"a request has at most {limit} bytes, its payload {settings.max_payload}")
