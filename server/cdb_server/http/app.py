"""The ASGI application: one route a service, and what is common to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cdb_server.errors import Unavailable
from cdb_server.http import access, media
from cdb_server.http.attempts import Attempts
from cdb_server.http.body import Disconnected, Incoming, answer_and_linger, receive_body
from cdb_server.http.peer import peer_of
from cdb_server.http.refusals import Refused
from cdb_server.repository import Database, Reader, Tokens, Writer
from cdb_server.settings import Settings
from cdb_server.soap import Answer, Endpoint, reading_endpoint, writing_endpoint

XML = "text/xml; charset=utf-8"
READING_PATH = "/cdb/v2/calibration"
WRITING_PATH = "/cdb/v2/calibrationSuperMouse"

Result = TypeVar("Result")


def create_app(settings: Settings) -> Starlette:
    """The application of a master: both services on the database of the settings. One for each worker process."""
    database = Database.open(settings.database, settings.threads)
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="cdb")
    attempts = Attempts()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        attempts.tell()
        threads.shutdown()
        database.close()

    reading = reading_endpoint(Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries))
    writing = writing_endpoint(Writer(database), settings.max_payload)
    app = Starlette(
        routes=[
            Route(READING_PATH, Service(reading, settings, threads)),
            Route(WRITING_PATH, Service(writing, settings, threads, Writers(Tokens(database), attempts))),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _plain},
    )
    # An address with a slash too much is not redirected: the way there would be taken from the Host header.
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True)
class Writers:
    """By what those who may write are known, and where those who may not are told of."""

    tokens: Tokens
    attempts: Attempts


class Service:
    """A SOAP service over HTTP: its WSDL by GET, its operations by POST.

    A service with `writers` takes only requests from the networks that may write, by users whose token is valid.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Settings,
        threads: ThreadPoolExecutor,
        writers: Writers | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._threads = threads
        self._writers = writers
        self._wsdl = endpoint.contract.published(settings.public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(receive)
        request = Request(scope, incoming)
        may_be_sending = request.method == "POST"
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
        unread = may_be_sending and not incoming.whole
        if closing or unread:
            response.headers["connection"] = "close"
        if unread:
            await answer_and_linger(response, incoming, send, self._settings.stall_deadline)
        else:
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and request.url.query.lower().rstrip("=") == "wsdl":
            return Response(self._wsdl, media_type=XML)
        if request.method != "POST":
            text = "use POST for the operations of this service, GET with ?wsdl for their description"
            raise Refused(405, text, {"Allow": "GET, HEAD, POST"})
        try:
            author = await self._checked_author(request)
        except Unavailable as error:
            return _soap(self._endpoint.fault(error))
        media.check_headers(request.headers)
        body = await receive_body(request, self._settings)
        media.check_body(body)
        answer = await self._in_thread(
            lambda: self._endpoint.answer(body, request.headers.get("soapaction", ""), author)
        )
        return _soap(answer)

    async def _checked_author(self, request: Request) -> str:
        writers = self._writers
        if writers is None:
            return ""
        peer = peer_of(request, self._settings.trusted_proxies)
        name, token = access.credentials(request)
        try:
            access.check_network(peer, self._settings.write_networks)
            await self._in_thread(lambda: access.check_token(name, token, writers.tokens))
        except Refused as refused:
            writers.attempts.refused(refused.status, peer, name)
            raise
        return name

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _soap(answer: Answer) -> Response:
    return Response(answer.body, 500 if answer.fault else 200, media_type=XML)


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"there is nothing here, but at {READING_PATH}" if error.status_code == 404 else error.detail
    return Refused(error.status_code, text).response()
