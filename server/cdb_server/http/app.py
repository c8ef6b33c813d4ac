"""The ASGI application: one route a service, and what is common to them."""

import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cdb_server import logs
from cdb_server.errors import Unavailable
from cdb_server.http.abandoned import Abandonable
from cdb_server.http.background import Work, lists_by, pages_by
from cdb_server.http.body import Bodiless
from cdb_server.http.budget import BUDGET, LARGE, LARGE_QUESTION, Budget
from cdb_server.http.counts import Counts
from cdb_server.http.knowledge import Glancing, Watch
from cdb_server.http.legacy import legacy_routes
from cdb_server.http.memory import keep_buffers
from cdb_server.http.metered import Metered
from cdb_server.http.metrics import metrics_route
from cdb_server.http.offload import Doors, Lists, Pages
from cdb_server.http.outbox import OUTBOX, Outbox
from cdb_server.http.pages import Visitors, browses, handed_on, page_routes
from cdb_server.http.payloads import Payloads
from cdb_server.http.plain import plain_routes
from cdb_server.http.questions import QUESTIONS, READING_PATH, Questions
from cdb_server.http.ready import Ready, ReadyAnswers
from cdb_server.http.refusals import Refused
from cdb_server.http.service import Service
from cdb_server.http.shelf import Shelf
from cdb_server.http.tally import TALLY, Counted, Tally
from cdb_server.http.threads import MAX_WAITING_LONG, PAGES_AT_ONCE, Pools, Threads
from cdb_server.http.writes import Writes
from cdb_server.model import Knowledge
from cdb_server.pages import Desk, Site
from cdb_server.repository import Admission, Busy, Database, Fuse, Glance, Reader, Writer
from cdb_server.settings import Settings
from cdb_server.soap import LEGACY, Legacy, reading_endpoint, writing_endpoint

WRITING_PATH = "/cdb/v2/calibrationSuperMouse"

FAILED = "The server failed at this, for a reason within it: try again later, and tell its operator."
NOTHING_HERE = "The address names no page: was it cut off on its way to you?"


def create_app(settings: Settings, fuse: Fuse, counts: Counts, doors: Doors | None = None) -> Starlette:
    """The application on the database of the settings, one for each worker process.

    On a master both services; on a mirror, which is read only, the reading one alone; on both those of the earlier CDB.
    The `fuse` and the `counts` are one for all workers. Long lists and pages are handed over at the `doors`; where
    there are none, they are made in this process.
    """
    keep_buffers()
    pools = Pools.of(settings.threads)
    database = Database.open(settings.database, pools.count, fuse, read_only=settings.read_only)
    tally = Tally(counts)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        # What the lifespan gives, connections get to see.
        yield {QUESTIONS: questions, TALLY: tally, OUTBOX: Outbox(), BUDGET: room_of_small_answers}
        logs.tell()
        if glance is not None:
            # Who writes in a thread would wait for it.
            with suppress(Busy):
                glance.end()
        pools.close()
        if glance is not None:
            glance.close()
        database.close()

    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    glance, glancing, at_once = None, None, None
    if database.answers_at_once:
        glance = Glance(database)
        at_once = Reader(
            glance, max_rows=settings.rows_at_once, max_entries=settings.rows_at_once, max_data=settings.bytes_at_once
        )
        glancing = Glancing(glance, at_once)
    sparing = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries, max_data=LARGE)
    reading = reading_endpoint(reader, at_once, sparing)
    watch = Watch(reader, glancing, pools.questions)
    room = Budget(settings.room)
    room_of_questions = Budget(settings.room_of_questions, uncounted=LARGE_QUESTION)
    room_of_answers, room_of_small_answers = Budget(settings.room_of_answers), Budget(settings.room_of_small_answers)
    writer = None if settings.read_only else Writer(database)
    # With TLS, what is sent is not what the kernel would have. Each answer on the shelf is an open file.
    shelf = None if settings.tls else Shelf(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    ready = ReadyAnswers(settings.ready_bytes, shelf=shelf)
    lists = None if doors is None else Lists(doors.lists)
    questions = Questions(reading, watch, pools, ready, room_of_answers, lists)
    routes = [
        Route(READING_PATH, Service(reading.contract, questions, settings, lambda _: room_of_questions)),
        *plain_routes(sparing, pools.questions, Payloads(reader, pools.large, room_of_answers)),
        *legacy_routes(reader, sparing, writer, pools, settings, room, room_of_questions, room_of_answers, lists),
        metrics_route(counts, reader, pools.health, writes=writer is not None),
    ]
    if writer is None:
        routes.append(Route(WRITING_PATH, NoWriting(reader)))
    else:
        writing = writing_endpoint(writer, settings.max_payload)
        writes = Writes(writing, Admission(database), watch, pools.writes, settings)
        routes.append(Route(WRITING_PATH, Service(writing.contract, writes, settings, lambda _: room)))
    site, pages = _pages(settings, database, reader, writer, pools.pages, pools.pages, (room, room_of_questions))
    routes += pages if doors is None else handed_on(pages, Pages(doors.pages))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=_error_handlers(site, pools.questions),
    )
    services = (READING_PATH,) if writer is None else (READING_PATH, WRITING_PATH)
    app.add_middleware(Metered, budget=room_of_small_answers, waited=room_of_answers)
    app.add_middleware(Bodiless, paths=(*services, *LEGACY), seconds=settings.stall_deadline)
    app.add_middleware(Abandonable)
    app.add_middleware(Counted, tally=tally)
    # An address with a slash too much is not redirected: the way there would be taken from the Host header.
    app.router.redirect_slashes = False
    return app


def create_lists(settings: Settings) -> tuple[Work, Callable[[], None]]:
    """What makes long lists in a background process, and what ends it."""
    threads = Threads(1, name="lists")
    database = Database.open(settings.database, 1, read_only=True)
    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    reading = reading_endpoint(reader, None, reader)
    legacy = {path: Legacy(path, settings, reader, reader, None) for path in LEGACY}

    async def answered(path: str, body: bytes, asked: Any, held: frozenset[str], known: Knowledge | None) -> Ready:
        def answer() -> Ready:
            if path == READING_PATH:
                return Ready.of(reading.answer(body, asked, held=held), known)
            return Ready.of(legacy[path].answer(body, *asked), known)

        return await threads.do(answer)

    def close() -> None:
        threads.close()
        database.close()

    return lists_by(answered), close


def create_pages(settings: Settings, fuse: Fuse) -> tuple[Work, Callable[[], None]]:
    """What makes pages in a background process, and what ends it."""
    threads = Threads(PAGES_AT_ONCE, MAX_WAITING_LONG, name="pages")
    payload_threads = Threads(PAGES_AT_ONCE, MAX_WAITING_LONG, name="payload pages")
    database = Database.open(settings.database, 2 * PAGES_AT_ONCE, fuse, read_only=settings.read_only)
    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    writer = None if settings.read_only else Writer(database)
    rooms = Budget(settings.room), Budget(settings.room_of_questions)
    site, pages = _pages(settings, database, reader, writer, threads, payload_threads, rooms)
    app = Starlette(routes=pages, exception_handlers=_error_handlers(site, threads))
    app.router.redirect_slashes = False

    def close() -> None:
        logs.tell()
        threads.close()
        payload_threads.close()
        database.close()

    return pages_by(app), close


def _pages(
    settings: Settings,
    database: Database,
    reader: Reader,
    writer: Writer | None,
    threads: Threads,
    payload_threads: Threads,
    rooms: tuple[Budget, Budget],
) -> tuple[Site, list[Route]]:
    """The site and its pages; `rooms` are for what is stored, and for what is asked."""
    room, room_of_questions = rooms
    site = Site(
        reader,
        database,
        threads.do,
        payload_threads.do,
        writes=writer is not None,
        public_url=settings.public_url,
    )
    desk = None
    if writer is not None:
        desk = Desk(site, writer, Admission(database), settings, Visitors(settings, room))
    return site, page_routes(site, desk, room_of_questions)


def _error_handlers(site: Site, threads: Threads) -> dict[Any, Callable[[Request, Exception], Awaitable[Response]]]:
    """What answers a request that no route takes, and one that failed: with a page to who looks at pages."""

    async def not_answered(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if not browses(request):
            return _plain(request, error)
        status, headers = error.status_code, dict(error.headers or {})
        text = NOTHING_HERE if status == 404 else error.detail
        try:
            return await threads.do(lambda: site.error(request, status, text, headers))
        except Unavailable:
            return _plain(request, error)

    async def failed(request: Request, error: Exception) -> Response:
        # It is logged where it comes out of the application, after the answer.
        if "text/html" in request.headers.get("accept", ""):
            with suppress(Exception):
                return await threads.do(lambda: site.error(request, 500, FAILED))
        return Refused(500, FAILED).response()

    return {HTTPException: not_answered, Exception: failed}


class NoWriting:
    """On a mirror there is no writing service; whoever looks for it is told where it is."""

    def __init__(self, reader: Reader) -> None:
        master = reader.status().master
        self._text = f"this is a mirror, and takes no writes: write to {master or 'the master'}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Refused(404, self._text).response()(scope, receive, send)


def _plain(request: Request, error: HTTPException) -> Response:
    text = error.detail
    if error.status_code == 404:
        text = f"there is nothing here, but at {READING_PATH}"
        if "//" in request.scope["path"]:
            # As of a base URL that ends in a slash.
            text += ": the address has two slashes where one belongs"
    elif error.status_code == 405:
        text = "use GET or HEAD: nothing else is answered here"
    return Refused(error.status_code, text, dict(error.headers or {})).response()
