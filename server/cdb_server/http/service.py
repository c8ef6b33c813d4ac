"""A SOAP service over HTTP: its WSDL by GET, its operations by POST."""

from collections.abc import Callable
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cdb_server.errors import Unavailable
from cdb_server.http import media, tally
from cdb_server.http.body import Disconnected, Incoming, announces_body, answer_and_linger, receive_body
from cdb_server.http.budget import Budget, Share
from cdb_server.http.ready import PIECE, XML, Ready
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import RETRY_SECONDS
from cdb_server.model import Knowledge
from cdb_server.settings import Settings
from cdb_server.soap import Contract


class Operations(Protocol):
    """What a service does with a request that is whole."""

    async def admit(self, request: Request) -> str:
        """The user who asks, by what the headers say. Raises Refused, and Unavailable."""

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer, and what the server says that it knows. Raises Refused."""

    def failed(self, error: Exception) -> Ready:
        """The answer where there is no room for a request, nobody can say who asks, or there is a mistake in this
        program. Raises Refused."""


class Service:
    """One service. `room_of` is, by who asks, for large requests; `fault_status` the HTTP status of its faults."""

    def __init__(
        self,
        contract: Contract,
        operations: Operations,
        settings: Settings,
        room_of: Callable[[str], Budget],
        fault_status: int = 500,
    ) -> None:
        self._operations = operations
        self._settings = settings
        self._room_of = room_of
        self._fault_status = fault_status
        self._wsdl = {
            "wsdl": contract.published(settings.public_url),
            "wsdl=plain": contract.plain(settings.public_url),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(receive)
        request = Request(scope, incoming)
        may_be_sending = announces_body(request)
        closing = False
        try:
            response = await self._respond(request)
        except Refused as refused:
            response = refused.response()
            closing = may_be_sending
        except (Disconnected, ClientDisconnect):
            # Whoever is gone reads no answer; whoever is too slow is cut off with this one.
            response = Response(status_code=408)
            closing, may_be_sending = True, False
        except Exception as error:
            response = self._failed(request, error)
            closing = may_be_sending
        unread = may_be_sending and not incoming.whole
        if closing or unread:
            response.headers["connection"] = "close"
        if unread:
            await answer_and_linger(response, incoming, send, self._settings.stall_deadline)
        else:
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and (wsdl := self._wsdl.get(request.url.query.lower().rstrip("="))):
            request.scope[tally.OPERATION] = tally.WSDL
            return Response(wsdl, media_type=XML, headers={"Cache-Control": "no-cache"})
        if request.method != "POST":
            text = "use POST for the operations of this service, GET with ?wsdl for their description"
            raise Refused(405, text, {"Allow": "GET, HEAD, POST"})
        try:
            author = await self._operations.admit(request)
        except Unavailable as error:
            return self._response(request, self._operations.failed(error), None)
        media.check_headers(request.headers)
        with Share(self._room_of(author)) as share:
            try:
                body = await receive_body(request, self._settings, share)
            except Unavailable as error:
                return self._response(request, self._operations.failed(error), None)
            media.check_body(body)
            return self._response(request, *await self._operations.answer(request, body, author))

    def _failed(self, request: Request, error: Exception) -> Response:
        try:
            return self._response(request, self._operations.failed(error), None)
        except Refused as refused:
            return refused.response()

    def _response(self, request: Request, ready: Ready, known: Knowledge | None) -> Response:
        request.scope[tally.ANSWER] = ready
        return SoapResponse(ready, known, self._fault_status if ready.fault else 200)


class SoapResponse(Response):
    """An answer of SOAP, in pieces: what waits to be sent is never more than one of them."""

    def __init__(self, ready: Ready, known: Knowledge | None, status: int) -> None:
        super().__init__(status_code=status)
        self.raw_headers = ready.headers(known)
        if ready.fault == Unavailable.__name__:
            self.raw_headers.append((b"retry-after", RETRY_SECONDS.encode()))
        # All of a fault: the one answer that may have to be sent while its request is still coming.
        self.body = ready.parts[0]
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._ready.parts:
            for start in range(0, len(part), PIECE):
                piece = part if len(part) <= PIECE else part[start : start + PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
