"""Serves the SOAP services: WSDL by GET, operations by POST, writes after authentication, legacy calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cdb_server.errors import RETRY_AFTER_SECONDS, InvalidToken, LargePayload, LongList, MalformedRequest, Unavailable
from cdb_server.http import auth, metrics
from cdb_server.http.admission import (
    ANSWER_MEMORY_FACTOR,
    LIST_MEMORY_BYTES,
    MemoryBudget,
    MemoryReservation,
    RequestMemory,
    ThreadPool,
    ThreadPools,
)
from cdb_server.http.auth import client_address_of
from cdb_server.http.background import BackgroundLists
from cdb_server.http.protocol import request_rules
from cdb_server.http.protocol.request_rules import (
    HttpError,
    ReceiveTracker,
    RequestAborted,
    has_body,
    receive_body,
    respond_and_linger,
)
from cdb_server.http.response_cache import PIECE_BYTES, XML_CONTENT_TYPE, EncodedResponse
from cdb_server.http.routes.reading import PositionSource
from cdb_server.model import JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Credentials, TokenVerifier
from cdb_server.repository.writer import Writer
from cdb_server.settings import Settings, is_known_host
from cdb_server.soap.endpoint import Endpoint
from cdb_server.soap.legacy_operations import LEGACY_SERVICES, OUTCOME_NOT_ALLOWED, LegacyService
from cdb_server.soap.wsdl import Wsdl

WRITING_PATH = "/cdb/v2/calibrationSuperMouse"


class MirrorTakesNoWrites:
    """On a mirror there is no writing service; whoever looks for it is told where it is."""

    def __init__(self, reader: Reader) -> None:
        master = reader.status().master
        self._text = f"this is a mirror, and takes no writes: write to {master or 'the master'}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await HttpError(404, self._text).response()(scope, receive, send)


class RequestHandler(Protocol):
    """What a service does with a request that is whole."""

    async def authenticate(self, request: Request) -> str:
        """The user who asks, by what the headers say. Raises Refused, and Unavailable."""

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer, and what the server says that it knows. Raises Refused."""

    def failure_response(self, error: Exception) -> EncodedResponse:
        """The answer where there is no room for a request, nobody can say who asks, or there is a mistake in this
        program. Raises Refused."""


class SoapService:
    """One service. `room_of` is, by who asks, for large requests; `fault_status` the HTTP status of its faults."""

    def __init__(
        self,
        contract: Wsdl,
        operations: RequestHandler,
        settings: Settings,
        budget_for: Callable[[str], MemoryBudget],
        fault_status: int = 500,
    ) -> None:
        self._handler = operations
        self._settings = settings
        self._budget_for = budget_for
        self._fault_status = fault_status
        self._wsdl = {
            "wsdl": contract.published_document(settings.public_url),
            "wsdl=plain": contract.simplified_document(settings.public_url),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = ReceiveTracker(receive)
        request = Request(scope, incoming)
        may_be_sending = has_body(request)
        closing = False
        try:
            response = await self._respond(request)
        except HttpError as refused:
            response = refused.response()
            closing = may_be_sending
        except (RequestAborted, ClientDisconnect):
            # Whoever is gone reads no answer; whoever is too slow is cut off with this one.
            response = Response(status_code=408)
            closing, may_be_sending = True, False
        except Exception as error:
            response = self._failure_response(request, error)
            closing = may_be_sending
        unread = may_be_sending and not incoming.is_complete
        if closing or unread:
            response.headers["connection"] = "close"
        if unread:
            await respond_and_linger(response, incoming, send, self._settings.stall_seconds)
        else:
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and (wsdl := self._wsdl.get(request.url.query.lower().rstrip("="))):
            request.scope[metrics.OPERATION_KEY] = metrics.WSDL_OPERATION
            return Response(wsdl, media_type=XML_CONTENT_TYPE, headers={"Cache-Control": "no-cache"})
        if request.method != "POST":
            text = "use POST for the operations of this service, GET with ?wsdl for their description"
            raise HttpError(405, text, {"Allow": "GET, HEAD, POST"})
        try:
            author = await self._handler.authenticate(request)
        except Unavailable as error:
            return self._response(request, self._handler.failure_response(error), None)
        request_rules.check_content_type(request.headers)
        with RequestMemory(self._budget_for(author)) as share:
            try:
                body = await receive_body(request, self._settings, share)
            except Unavailable as error:
                return self._response(request, self._handler.failure_response(error), None)
            request_rules.check_encoding(body)
            return self._response(request, *await self._handler.answer(request, body, author))

    def _failure_response(self, request: Request, error: Exception) -> Response:
        try:
            return self._response(request, self._handler.failure_response(error), None)
        except HttpError as refused:
            return refused.response()

    def _response(self, request: Request, ready: EncodedResponse, known: JournalPosition | None) -> Response:
        request.scope[metrics.ANSWER_KEY] = ready
        return SoapResponse(ready, known, self._fault_status if ready.fault else 200)


class SoapResponse(Response):
    """An answer of SOAP, in pieces: what waits to be sent is never more than one of them."""

    def __init__(self, ready: EncodedResponse, known: JournalPosition | None, status: int) -> None:
        super().__init__(status_code=status)
        self.raw_headers = ready.headers(known)
        if ready.fault == Unavailable.__name__:
            self.raw_headers.append((b"retry-after", RETRY_AFTER_SECONDS.encode()))
        # All of a fault: the one answer that may have to be sent while its request is still coming.
        self.body = ready.parts[0]
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._ready.parts:
            for start in range(0, len(part), PIECE_BYTES):
                piece = part if len(part) <= PIECE_BYTES else part[start : start + PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class WritingHandler:
    """One for each worker."""

    def __init__(
        self,
        endpoint: Endpoint,
        admission: TokenVerifier,
        watch: PositionSource,
        threads: ThreadPool,
        settings: Settings,
    ) -> None:
        self._endpoint = endpoint
        self._verifier = admission
        self._positions = watch
        self._threads = threads
        self._settings = settings
        # Those that were valid when they were last seen.
        self._verified: set[Credentials] = set()

    async def authenticate(self, request: Request) -> str:
        """The user whose token is shown, and was valid before. Raises Refused (403, 401), and Unavailable."""
        name, token = auth.basic_credentials(request)
        shown = Credentials.of(name, token)
        with self._refusing(request, shown):
            auth.check_network(self._peer(request), self._settings.write_networks)
            if not token:
                raise auth.credentials_missing()
            # What was valid before is looked at again by what writes, and need not wait for those who have it here.
            if shown not in self._verified:
                await self._verify(shown)
                self._verified.add(shown)
        return name

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a write, and what the server knows after it. Raises Refused (401)."""
        soap_action = request.headers.get("soapaction", "")
        shown = Credentials.of(*auth.basic_credentials(request))
        with self._refusing(request, shown):
            try:
                answer = await self._threads.run(
                    lambda: self._endpoint.answer(body, soap_action, author, credentials=shown)
                )
            except Unavailable as error:
                return self.failure_response(error), None
            if answer.fault:
                # It may have come to nothing before anybody judged the token.
                try:
                    await self._verify(shown)
                except Unavailable as error:
                    return self.failure_response(error), None
        known = answer.position or await self._positions.latest_position()
        return EncodedResponse.from_result(answer, known), known

    def failure_response(self, error: Exception) -> EncodedResponse:
        """The fault that says so."""
        return EncodedResponse.from_result(self._endpoint.fault(error), None)

    async def _verify(self, shown: Credentials) -> None:
        if not await self._threads.run(lambda: self._verifier.is_valid(shown)):
            raise InvalidToken

    @contextmanager
    def _refusing(self, request: Request, shown: Credentials) -> Iterator[None]:
        """Whoever is refused in the block is told of, and no longer known; NotAdmitted becomes Refused (401)."""
        try:
            yield
        except (InvalidToken, HttpError) as error:
            self._verified.discard(shown)
            refused = error if isinstance(error, HttpError) else auth.credentials_invalid(shown.name)
            auth.log_refused_write(refused.status, self._peer(request), shown.name)
            raise refused from None

    def _peer(self, request: Request) -> str:
        return client_address_of(request, self._settings.trusted_proxies)


def legacy_routes(
    reader: Reader,
    sparing: Reader,
    writer: Writer | None,
    pools: ThreadPools,
    settings: Settings,
    room: MemoryBudget,
    room_of_questions: MemoryBudget,
    room_of_answers: MemoryBudget,
    lists: BackgroundLists | None = None,
) -> list[Route]:
    """The routes, on a `sparing` reader as soap.Legacy has it, and on a writer where there is one."""
    routes = []
    for path in LEGACY_SERVICES:
        legacy = LegacyService(path, settings, reader, sparing, writer)

        # Who may not store takes no room from those who may.
        def room_of(peer: str, legacy: LegacyService = legacy) -> MemoryBudget:
            return room if legacy.may_upload_from(peer) else room_of_questions

        calls = LegacyHandler(legacy, pools, settings, room_of_answers, lists)
        routes.append(Route(path, SoapService(legacy.contract, calls, settings, room_of, fault_status=200)))
    return routes


class LegacyHandler:
    """The calls of one service; `room` is for large answers."""

    def __init__(
        self,
        legacy: LegacyService,
        pools: ThreadPools,
        settings: Settings,
        room: MemoryBudget,
        lists: BackgroundLists | None = None,
    ) -> None:
        """Long lists are made by `lists`, or here where there are none."""
        self._legacy = legacy
        self._pools = pools
        self._settings = settings
        self._memory = room
        self._background_lists = lists

    async def authenticate(self, request: Request) -> str:
        """The address of who calls. Everybody may; who may store is judged by it."""
        return client_address_of(request, self._settings.trusted_proxies)

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a call. Raises Refused for what is none."""
        host = request.headers.get("host", "")
        stores = self._legacy.may_upload_from(author)
        threads = self._pools.writes if stores else self._pools.questions
        try:
            try:
                ready = await threads.run(lambda: self._encode(body, author, host, sparing=True))
            except LongList:
                ready = await self._long_list(body, author, host)
            except LargePayload as large:
                reservation = await self._memory.reserve(large.size * ANSWER_MEMORY_FACTOR)
                ready = await self._pools.large.run(lambda: self._encode_large(body, author, host, reservation))
        except Unavailable as error:
            return self.failure_response(error), None
        except MalformedRequest as error:
            raise HttpError(400, " ".join(error.message.split())) from None
        if ready.fault == OUTCOME_NOT_ALLOWED:
            if is_known_host(host, self._settings):
                auth.log_refused_write(int(OUTCOME_NOT_ALLOWED), author, "")
            else:
                auth.log_unknown_host(author, host)
        return ready, None

    def failure_response(self, error: Exception) -> EncodedResponse:
        """No answer, for it is not known what was called. Raises Refused."""
        if isinstance(error, Unavailable):
            raise HttpError(503, error.message, {"Retry-After": RETRY_AFTER_SECONDS})
        raise error

    async def _long_list(self, body: bytes, peer: str, host: str) -> EncodedResponse:
        if self._background_lists is None:
            reservation = await self._memory.reserve(LIST_MEMORY_BYTES)
            return await self._pools.lists.run(lambda: self._encode_large(body, peer, host, reservation))
        return await self._background_lists.request_list(
            self._memory, self._legacy.path, body, (peer, host), frozenset(), None
        )

    def _encode_large(self, body: bytes, peer: str, host: str, reservation: MemoryReservation) -> EncodedResponse:
        return self._encode(body, peer, host).with_reservation(reservation)

    def _encode(self, body: bytes, peer: str, host: str, *, sparing: bool = False) -> EncodedResponse:
        return EncodedResponse.from_result(self._legacy.answer(body, peer, host, size_limited=sparing), None)
