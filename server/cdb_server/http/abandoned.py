"""Requests whose peer has closed its connection: nobody reads the answer, so the work for it is cancelled.

What waits for its turn is then never begun, and what is under way stops (`threads.py`, `single_flight.py`).
"""

import asyncio
from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdb_server.http.refusals import Refused
from cdb_server.http.threads import RETRY_SECONDS

# Where a request's scope has the Presence of the connection that received it.
PRESENCE = "cdb.presence"


class Presence:
    """Whether the peer of a connection is still there, and how the server itself gives it up."""

    def __init__(self, abort: Callable[[], None]) -> None:
        """`abort` closes the connection at once."""
        self.abort = abort
        self.gone = False
        self._cancel: Callable[[], None] | None = None

    def lost(self) -> None:
        """The connection was lost."""
        self.gone = True
        if self._cancel is not None:
            self._cancel()

    def on_loss(self, cancel: Callable[[], None] | None) -> None:
        """What to call when the connection is lost, at once if it was, for the request under way."""
        self._cancel = cancel
        if self.gone and cancel is not None:
            cancel()


class Abandonable:
    """Around the application: cancels a request whose peer has gone, and answers one that the server's end cancels."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        presence: Presence | None = scope.get(PRESENCE)
        if presence is None:
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            with anyio.CancelScope() as work:
                presence.on_loss(work.cancel)
                await self._app(scope, receive, send_noticed)
        except asyncio.CancelledError:
            # The server ends, and cancels what took too long: no error, and nothing for the log but that it did.
            if begun:
                presence.abort()
                return
            refused = Refused(503, "the server is being stopped: try again later", {"Retry-After": RETRY_SECONDS})
            response = refused.response()
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        finally:
            presence.on_loss(None)
        if work.cancelled_caught and not begun:
            # Nobody gets it, but it is counted.
            await Refused(408, "the peer has gone").response()(scope, receive, send)
