"""The ASGI application: one route a service, and what is common to them."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cdb_server.http.attempts import Attempts
from cdb_server.http.body import Incoming, answer_and_linger
from cdb_server.http.plain import plain_routes
from cdb_server.http.refusals import Refused
from cdb_server.http.service import Service, Writers
from cdb_server.repository import Database, Reader, Tokens, Writer
from cdb_server.settings import Settings
from cdb_server.soap import reading_endpoint, writing_endpoint

READING_PATH = "/cdb/v2/calibration"
WRITING_PATH = "/cdb/v2/calibrationSuperMouse"


def create_app(settings: Settings) -> Starlette:
    """The application on the database of the settings, one for each worker process.

    On a master both services; on a mirror, which is read only, the reading one alone.
    """
    database = Database.open(settings.database, settings.threads, read_only=settings.read_only)
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="cdb")
    attempts = Attempts()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        attempts.tell()
        threads.shutdown()
        database.close()

    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    routes = [
        Route(READING_PATH, Service(reading_endpoint(reader), reader, settings, threads)),
        *plain_routes(reader, threads),
    ]
    if settings.read_only:
        routes.append(Route(WRITING_PATH, NoWriting(reader, settings)))
    else:
        writing = writing_endpoint(Writer(database), settings.max_payload)
        writers = Writers(Tokens(database), attempts)
        routes.append(Route(WRITING_PATH, Service(writing, reader, settings, threads, writers)))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _plain},
    )
    # An address with a slash too much is not redirected: the way there would be taken from the Host header.
    app.router.redirect_slashes = False
    return app


class NoWriting:
    """On a mirror there is no writing service; whoever looks for it is told where it is."""

    def __init__(self, reader: Reader, settings: Settings) -> None:
        master = reader.status().master
        self._text = f"this is a mirror, and takes no writes: write to {master or 'the master'}"
        self._linger = settings.stall_deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = Refused(404, self._text).response()
        if scope["method"] in ("GET", "HEAD"):
            await response(scope, receive, send)
        else:
            # Whoever is still sending a payload would not read an answer otherwise.
            response.headers["connection"] = "close"
            await answer_and_linger(response, Incoming(receive), send, self._linger)


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"there is nothing here, but at {READING_PATH}" if error.status_code == 404 else error.detail
    return Refused(error.status_code, text).response()
