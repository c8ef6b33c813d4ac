"""Wraps every request: counts it, cancels it on disconnect, limits answers in flight, drains unexpected bodies.

Large answers wait for memory before they are made; the others are counted here, as hundreds of them that nobody reads
take as much. Work whose peer has gone is not begun, and stops where it is under way (`admission.py`).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdb_server.errors import RETRY_AFTER_SECONDS
from cdb_server.http import metrics
from cdb_server.http.admission import NO_MEMORY_TEXT, MemoryBudget, MemoryReservation
from cdb_server.http.metrics import ANSWER_KEY, OPERATION_KEY, UNKNOWN_OPERATION, RequestMetrics
from cdb_server.http.protocol.limits import CLIENT_PRESENCE, ClientPresence
from cdb_server.http.protocol.request_rules import HttpError, ReceiveTracker, _linger, has_body
from cdb_server.http.response_cache import PIECE_BYTES, EncodedResponse

# Seconds.
MAX_SEND_SECONDS = 120.0


@dataclass(eq=False, slots=True)
class _LargeAnswer:
    """A large answer on its way: since when (time.monotonic, seconds), its bytes, and how to abort it."""

    began: float
    length: int
    abort: Callable[[], None]


class AnswerMemory:
    """Sends answers in pieces, and answers 503 where there is no memory for one above a piece's size.

    `budget` is the memory for answers that are made without a reservation. Large answers reserved theirs in
    `waited_budget`: while somebody waits for that, the oldest are cut off once they were sent for `max_send_seconds`.
    """

    def __init__(
        self,
        app: ASGIApp,
        budget: MemoryBudget,
        waited_budget: MemoryBudget,
        max_send_seconds: float = MAX_SEND_SECONDS,
    ) -> None:
        self._app = app
        self._budget = budget
        self._max_send_seconds = max_send_seconds
        # In the order in which they began.
        self._large: dict[_LargeAnswer, None] = {}
        waited_budget.add_reclaimer(self._abort_oldest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        budget = self._budget
        start: Message | None = None
        reservations: list[MemoryReservation] = []
        large: _LargeAnswer | None = None
        refused = False

        async def send_metered(message: Message) -> None:
            nonlocal start, refused, large
            if refused:
                return
            if message["type"] == "http.response.start":
                # Its body shows whether it has to be counted.
                start = message
                return
            body, more = message.get("body", b""), message.get("more_body", False)
            if start is not None:
                response: EncodedResponse | None = scope.get(metrics.ANSWER_KEY)
                # An answer in several parts is counted where it is made.
                if response is not None or (len(body) > PIECE_BYTES and not more):
                    reservation = (
                        response.memory_while_sent(budget) if response is not None else budget.try_reserve(len(body))
                    )
                    if reservation is None:
                        refused = True
                        await HttpError(503, NO_MEMORY_TEXT, {"Retry-After": RETRY_AFTER_SECONDS}).response()(
                            scope, receive, send
                        )
                        return
                    reservations.append(reservation)
                presence: ClientPresence | None = scope.get(CLIENT_PRESENCE)
                if response is not None and response.reservation is not None and presence is not None:
                    large = _LargeAnswer(time.monotonic(), response.length, presence.abort)
                    self._large[large] = None
                await send(start)
                start = None
            for at in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
                await send({"type": "http.response.body", "body": body[at : at + PIECE_BYTES], "more_body": True})
            rest = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES if body else 0
            await send({"type": "http.response.body", "body": body[rest:], "more_body": more})

        try:
            await self._app(scope, receive, send_metered)
        finally:
            reservations.clear()
            if large is not None:
                self._large.pop(large, None)

    def _abort_oldest(self, missing: int) -> None:
        for large in list(self._large):
            if missing <= 0 or time.monotonic() - large.began < self._max_send_seconds:
                return
            del self._large[large]
            large.abort()
            missing -= large.length


class CancelOnDisconnect:
    """Cancels a request whose peer has gone, and answers one that the server's shutdown cancels."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        presence: ClientPresence | None = scope.get(CLIENT_PRESENCE)
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
                presence.on_disconnect(work.cancel)
                await self._app(scope, receive, send_noticed)
        except asyncio.CancelledError:
            # The server stops, and cancels requests that took too long: this is no error for the log.
            if begun:
                presence.abort()
                return
            refused = HttpError(
                503, "the server is being stopped: try again later", {"Retry-After": RETRY_AFTER_SECONDS}
            )
            response = refused.response()
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        finally:
            presence.on_disconnect(None)
        if work.cancelled_caught and not begun:
            # Nobody receives this, but it is counted.
            await HttpError(408, "the peer has gone").response()(scope, receive, send)


class UnexpectedBodies:
    """Answers requests with a body that no route reads, without waiting for the body longer than `seconds`.

    No other deadline holds for the rest of such a request. The routes at `paths` read their bodies themselves.
    """

    def __init__(self, app: ASGIApp, paths: tuple[str, ...], seconds: float) -> None:
        self._app = app
        self._paths = paths
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._paths or not has_body(Request(scope)):
            await self._app(scope, receive, send)
            return
        incoming = ReceiveTracker(receive)

        async def send_and_linger(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            elif not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _linger(incoming, self._seconds)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, incoming, send_and_linger)


class CountRequests:
    """Counts each request when its answer begins."""

    def __init__(self, app: ASGIApp, request_metrics: RequestMetrics) -> None:
        self._app = app
        self._request_metrics = request_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter_ns()
        counted = False

        def count(status: int) -> None:
            nonlocal counted
            if not counted and (response := scope.get(ANSWER_KEY)):
                self._request_metrics.count_soap(response, began)
            elif not counted:
                self._request_metrics.count_http(scope.get(OPERATION_KEY, UNKNOWN_OPERATION), status, began)
            counted = True

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            # The server's own error handler answers so.
            count(500)
            raise
        finally:
            # A connection keeps the scope until its next request, and the answer would keep its memory as long.
            scope.pop(ANSWER_KEY, None)
