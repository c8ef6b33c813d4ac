"""Assembles the ASGI application of one worker: database, pools, budgets, caches, routes and middleware."""

import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from cdb_server import logs
from cdb_server.database.nonblocking import NonblockingConnection, WouldBlock
from cdb_server.database.transactions import CircuitBreaker, Database
from cdb_server.http.admission import (
    LARGE_PAYLOAD_BYTES,
    MEMORY_BUDGET,
    MemoryBudget,
    ThreadPool,
    ThreadPools,
    tune_malloc,
)
from cdb_server.http.background import BackgroundLists, BackgroundPages, JobHandler, JobQueues, list_job_handler
from cdb_server.http.metrics import REQUEST_METRICS, RequestMetrics, SharedCounters, metrics_route
from cdb_server.http.middleware import AnswerMemory, CancelOnDisconnect, CountRequests, UnexpectedBodies
from cdb_server.http.protocol.fast_path import SEND_BATCHER, SendBatcher
from cdb_server.http.request_templates import RequestTemplateCache
from cdb_server.http.response_cache import EncodedResponse, MemoryFiles, ResponseCache
from cdb_server.http.routes.pages import _error_handlers, _pages, in_background
from cdb_server.http.routes.reading import (
    READING_HANDLER,
    READING_PATH,
    NonblockingPosition,
    PositionSource,
    ReadingHandler,
)
from cdb_server.http.routes.rest import SharedPayloads, rest_routes
from cdb_server.http.routes.soap import WRITING_PATH, MirrorTakesNoWrites, SoapService, WritingHandler, legacy_routes
from cdb_server.model import JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import TokenVerifier
from cdb_server.repository.writer import Writer
from cdb_server.settings import Settings
from cdb_server.soap.endpoint import reading_endpoint, writing_endpoint
from cdb_server.soap.legacy_operations import LEGACY_SERVICES, LegacyService


def create_app(
    settings: Settings, fuse: CircuitBreaker, counts: SharedCounters, doors: JobQueues | None = None
) -> Starlette:
    """The application on the database of the settings, one for each worker process.

    On a master both services; on a mirror, which is read only, the reading one alone; on both those of the earlier CDB.
    The `fuse` and the `counts` are one for all workers. Long lists and pages are handed over at the `doors`; where
    there are none, they are made in this process.
    """
    tune_malloc()
    pools = ThreadPools.with_threads(settings.threads)
    database = Database.open(settings.database, pools.thread_count, fuse, read_only=settings.read_only)
    tally = RequestMetrics(counts)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        # What the lifespan gives, connections get to see.
        yield {
            READING_HANDLER: questions,
            REQUEST_METRICS: tally,
            SEND_BATCHER: SendBatcher(),
            MEMORY_BUDGET: room_of_small_answers,
        }
        logs.flush()
        if glance is not None:
            # Who writes in a thread would wait for it.
            with suppress(WouldBlock):
                glance.end_snapshot()
        pools.close()
        if glance is not None:
            glance.close()
        database.close()

    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    glance, glancing, at_once = None, None, None
    if database.supports_nonblocking:
        glance = NonblockingConnection(database)
        at_once = Reader(
            glance,
            max_rows=settings.nonblocking_rows,
            max_entries=settings.nonblocking_rows,
            max_payload_bytes=settings.nonblocking_payload_bytes,
        )
        glancing = NonblockingPosition(glance, at_once)
    sparing = Reader(
        database, max_rows=settings.max_rows, max_entries=settings.max_entries, max_payload_bytes=LARGE_PAYLOAD_BYTES
    )
    reading = reading_endpoint(reader, at_once, sparing, RequestTemplateCache())
    watch = PositionSource(reader, glancing, pools.questions)
    room = MemoryBudget(settings.upload_memory_bytes)
    room_of_questions = MemoryBudget(settings.question_memory_bytes)
    room_of_answers, room_of_small_answers = (
        MemoryBudget(settings.answer_memory_bytes),
        MemoryBudget(settings.small_answer_memory_bytes),
    )
    writer = None if settings.read_only else Writer(database)
    # With TLS, what is sent is not what the kernel would have. Each answer on the shelf is an open file.
    shelf = None if settings.tls else MemoryFiles(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    ready = ResponseCache(settings.response_cache_bytes, memory_files=shelf)
    lists = None if doors is None else BackgroundLists(doors.lists)
    questions = ReadingHandler(reading, watch, pools, ready, room_of_answers, lists)
    routes = [
        Route(READING_PATH, SoapService(reading.wsdl, questions, settings, lambda _: room_of_questions)),
        *rest_routes(sparing, pools.questions, SharedPayloads(reader, pools.large, room_of_answers)),
        *legacy_routes(reader, sparing, writer, pools, settings, room, room_of_questions, room_of_answers, lists),
        metrics_route(counts, reader, pools.health, writes=writer is not None),
    ]
    if writer is None:
        routes.append(Route(WRITING_PATH, MirrorTakesNoWrites(reader)))
    else:
        writing = writing_endpoint(writer, settings.max_payload)
        writes = WritingHandler(writing, TokenVerifier(database), watch, pools.writes, settings)
        routes.append(Route(WRITING_PATH, SoapService(writing.wsdl, writes, settings, lambda _: room)))
    site, pages = _pages(settings, database, reader, writer, pools.pages, pools.pages, (room, room_of_questions))
    routes += pages if doors is None else in_background(pages, BackgroundPages(doors.pages))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=_error_handlers(site, pools.questions),
    )
    services = (READING_PATH,) if writer is None else (READING_PATH, WRITING_PATH)
    app.add_middleware(AnswerMemory, budget=room_of_small_answers, waited=room_of_answers)
    app.add_middleware(UnexpectedBodies, paths=(*services, *LEGACY_SERVICES), seconds=settings.stall_seconds)
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(CountRequests, tally=tally)
    # An address with a slash too much is not redirected: the way there would be taken from the Host header.
    app.router.redirect_slashes = False
    return app


def create_list_process(settings: Settings) -> tuple[JobHandler, Callable[[], None]]:
    """What makes long lists in a background process, and what ends it."""
    threads = ThreadPool(1, name="lists")
    database = Database.open(settings.database, 1, read_only=True)
    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    reading = reading_endpoint(reader, None, reader)
    legacy = {path: LegacyService(path, settings, reader, reader, None) for path in LEGACY_SERVICES}

    async def answered(
        path: str, body: bytes, asked: Any, held: frozenset[str], known: JournalPosition | None
    ) -> EncodedResponse:
        def answer() -> EncodedResponse:
            if path == READING_PATH:
                return EncodedResponse.from_result(reading.answer(body, asked, held_hashes=held), known)
            return EncodedResponse.from_result(legacy[path].answer(body, *asked), known)

        return await threads.run(answer)

    def close() -> None:
        threads.close()
        database.close()

    return list_job_handler(answered), close
