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
    """Stands in for the writing service on a mirror: answers 404, and says where the master is."""

    def __init__(self, reader: Reader) -> None:
        master = reader.status().master
        self._text = f"this is a mirror, and takes no writes: write to {master or 'the master'}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await HttpError(404, self._text).response()(scope, receive, send)


class RequestHandler(Protocol):
    """Authenticates and answers the requests of one service."""

    async def authenticate(self, request: Request) -> str:
        """The user who asks, by the request's headers. Raises HttpError and Unavailable."""

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a whole request, and the journal position that it states. Raises HttpError."""

    def failure_response(self, error: Exception) -> EncodedResponse:
        """The answer where there is no memory for a request, it cannot be authenticated, or this program has a mistake.

        Raises HttpError.
        """


class SoapService:
    """Serves one service by HTTP.

    `budget_for` gives the memory for large requests, by author; `fault_status` is the HTTP status of faults.
    """

    def __init__(
        self,
        contract: Wsdl,
        handler: RequestHandler,
        settings: Settings,
        budget_for: Callable[[str], MemoryBudget],
        fault_status: int = 500,
    ) -> None:
        self._handler = handler
        self._settings = settings
        self._budget_for = budget_for
        self._fault_status = fault_status
        self._wsdl = {
            "wsdl": contract.published_document(settings.public_url),
            "wsdl=plain": contract.simplified_document(settings.public_url),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = ReceiveTracker(receive)
        request = Request(scope, received)
        may_be_sending = has_body(request)
        closing = False
        try:
            response = await self._respond(request)
        except HttpError as refused:
            response = refused.response()
            closing = may_be_sending
        except (RequestAborted, ClientDisconnect):
            # A peer that has gone reads no answer; one that is too slow is cut off with this one.
            response = Response(status_code=408)
            closing, may_be_sending = True, False
        except Exception as error:
            response = self._failure_response(request, error)
            closing = may_be_sending
        unread = may_be_sending and not received.is_complete
        if closing or unread:
            response.headers["connection"] = "close"
        if unread:
            await respond_and_linger(response, received, send, self._settings.stall_seconds)
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
        with RequestMemory(self._budget_for(author)) as memory:
            try:
                body = await receive_body(request, self._settings, memory)
            except Unavailable as error:
                return self._response(request, self._handler.failure_response(error), None)
            request_rules.check_encoding(body)
            return self._response(request, *await self._handler.answer(request, body, author))

    def _failure_response(self, request: Request, error: Exception) -> Response:
        try:
            return self._response(request, self._handler.failure_response(error), None)
        except HttpError as refused:
            return refused.response()

    def _response(self, request: Request, encoded: EncodedResponse, position: JournalPosition | None) -> Response:
        request.scope[metrics.ANSWER_KEY] = encoded
        return SoapResponse(encoded, position, self._fault_status if encoded.fault else 200)


class SoapResponse(Response):
    """An answer of SOAP, sent in pieces: no more than one of them waits to be sent."""

    def __init__(self, encoded: EncodedResponse, position: JournalPosition | None, status: int) -> None:
        super().__init__(status_code=status)
        self.raw_headers = encoded.headers(position)
        if encoded.fault == Unavailable.__name__:
            self.raw_headers.append((b"retry-after", RETRY_AFTER_SECONDS.encode()))
        # The whole of a fault: the one answer that may have to be sent while its request is still arriving.
        self.body = encoded.parts[0]
        self._ready = encoded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._ready.parts:
            for start in range(0, len(part), PIECE_BYTES):
                piece = part if len(part) <= PIECE_BYTES else part[start : start + PIECE_BYTES]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class WritingHandler:
    """Answers the writing service's requests; one for each worker."""

    def __init__(
        self,
        endpoint: Endpoint,
        verifier: TokenVerifier,
        positions: PositionSource,
        threads: ThreadPool,
        settings: Settings,
    ) -> None:
        self._endpoint = endpoint
        self._verifier = verifier
        self._positions = positions
        self._threads = threads
        self._settings = settings
        # Credentials that were valid when they were last shown.
        self._verified: set[Credentials] = set()

    async def authenticate(self, request: Request) -> str:
        """The user whose valid token is shown. Raises HttpError (403, 401) and Unavailable."""
        name, token = auth.basic_credentials(request)
        credentials = Credentials.of(name, token)
        with self._refusing(request, credentials):
            auth.check_network(self._peer(request), self._settings.write_networks)
            if not token:
                raise auth.credentials_missing()
            # Credentials that were valid before are checked again in the write's own transaction: no wait for a thread.
            if credentials not in self._verified:
                await self._verify(credentials)
                self._verified.add(credentials)
        return name

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a write, and the journal position after it. Raises HttpError (401)."""
        soap_action = request.headers.get("soapaction", "")
        credentials = Credentials.of(*auth.basic_credentials(request))
        with self._refusing(request, credentials):
            try:
                answer = await self._threads.run(
                    lambda: self._endpoint.answer(body, soap_action, author, credentials=credentials)
                )
            except Unavailable as error:
                return self.failure_response(error), None
            if answer.fault:
                # It may have failed before the token was checked.
                try:
                    await self._verify(credentials)
                except Unavailable as error:
                    return self.failure_response(error), None
        position = answer.position or await self._positions.latest_position()
        return EncodedResponse.from_result(answer, position), position

    def failure_response(self, error: Exception) -> EncodedResponse:
        """The fault for an error."""
        return EncodedResponse.from_result(self._endpoint.fault(error), None)

    async def _verify(self, credentials: Credentials) -> None:
        if not await self._threads.run(lambda: self._verifier.is_valid(credentials)):
            raise InvalidToken

    @contextmanager
    def _refusing(self, request: Request, credentials: Credentials) -> Iterator[None]:
        """Log what is refused in the block, and forget its credentials; InvalidToken becomes HttpError (401)."""
        try:
            yield
        except (InvalidToken, HttpError) as error:
            self._verified.discard(credentials)
            refused = error if isinstance(error, HttpError) else auth.credentials_invalid(credentials.name)
            auth.log_refused_write(refused.status, self._peer(request), credentials.name)
            raise refused from None

    def _peer(self, request: Request) -> str:
        return client_address_of(request, self._settings.trusted_proxies)


def legacy_routes(
    reader: Reader,
    size_limited: Reader,
    writer: Writer | None,
    pools: ThreadPools,
    settings: Settings,
    upload_memory: MemoryBudget,
    question_memory: MemoryBudget,
    answer_memory: MemoryBudget,
    background_lists: BackgroundLists | None = None,
) -> list[Route]:
    """The earlier CDB's services. `size_limited` reads no large payloads; `writer` is None on a mirror."""
    routes = []
    for path in LEGACY_SERVICES:
        legacy = LegacyService(path, settings, reader, size_limited, writer)

        # A peer that may not store takes no memory from those that may.
        def memory_for(peer: str, legacy: LegacyService = legacy) -> MemoryBudget:
            return upload_memory if legacy.may_upload_from(peer) else question_memory

        calls = LegacyHandler(legacy, pools, settings, answer_memory, background_lists)
        routes.append(Route(path, SoapService(legacy.contract, calls, settings, memory_for, fault_status=200)))
    return routes


class LegacyHandler:
    """Answers the calls of one of the earlier CDB's services; large answers use `answer_memory`."""

    def __init__(
        self,
        legacy: LegacyService,
        pools: ThreadPools,
        settings: Settings,
        upload_memory: MemoryBudget,
        background_lists: BackgroundLists | None = None,
    ) -> None:
        """Long lists are made by `background_lists`; without these, in this process."""
        self._legacy = legacy
        self._pools = pools
        self._settings = settings
        self._memory = upload_memory
        self._background_lists = background_lists

    async def authenticate(self, request: Request) -> str:
        """The peer's address, by which it is judged whether it may store. Every peer may read."""
        return client_address_of(request, self._settings.trusted_proxies)

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a call. Raises HttpError for a request that is no call."""
        host = request.headers.get("host", "")
        stores = self._legacy.may_upload_from(author)
        threads = self._pools.writes if stores else self._pools.questions
        try:
            try:
                encoded = await threads.run(lambda: self._encode(body, author, host, size_limited=True))
            except LongList:
                encoded = await self._long_list(body, author, host)
            except LargePayload as large:
                reservation = await self._memory.reserve(large.size * ANSWER_MEMORY_FACTOR)
                encoded = await self._pools.large.run(lambda: self._encode_large(body, author, host, reservation))
        except Unavailable as error:
            return self.failure_response(error), None
        except MalformedRequest as error:
            raise HttpError(400, " ".join(error.message.split())) from None
        if encoded.fault == OUTCOME_NOT_ALLOWED:
            if is_known_host(host, self._settings):
                auth.log_refused_write(int(OUTCOME_NOT_ALLOWED), author, "")
            else:
                auth.log_unknown_host(author, host)
        return encoded, None

    def failure_response(self, error: Exception) -> EncodedResponse:
        """No answer, as the operation is not known. Raises HttpError."""
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

    def _encode(self, body: bytes, peer: str, host: str, *, size_limited: bool = False) -> EncodedResponse:
        return EncodedResponse.from_result(self._legacy.answer(body, peer, host, size_limited=size_limited), None)
