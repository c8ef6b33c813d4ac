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
    settings: Settings, circuit_breaker: CircuitBreaker, counters: SharedCounters, queues: JobQueues | None = None
) -> Starlette:
    """The application on the database of the settings, one for each worker process.

    On a master both services; on a mirror, which is read only, the reading one alone; on both those of the earlier CDB.
    All workers share the `circuit_breaker` and the `counters`. Long lists and pages are handed over through the
    `queues`; without queues they are made in this process.
    """
    tune_malloc()
    pools = ThreadPools.with_threads(settings.threads)
    database = Database.open(settings.database, pools.thread_count, circuit_breaker, read_only=settings.read_only)
    request_metrics = RequestMetrics(counters)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        # Connections find these in the state of the lifespan.
        yield {
            READING_HANDLER: reading_handler,
            REQUEST_METRICS: request_metrics,
            SEND_BATCHER: SendBatcher(),
            MEMORY_BUDGET: small_answer_memory,
        }
        logs.flush()
        if nonblocking_connection is not None:
            # A write in a thread would wait for its end.
            with suppress(WouldBlock):
                nonblocking_connection.end_snapshot()
        pools.close()
        if nonblocking_connection is not None:
            nonblocking_connection.close()
        database.close()

    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    nonblocking_connection, nonblocking_position, nonblocking_reader = None, None, None
    if database.supports_nonblocking:
        nonblocking_connection = NonblockingConnection(database)
        nonblocking_reader = Reader(
            nonblocking_connection,
            max_rows=settings.nonblocking_rows,
            max_entries=settings.nonblocking_rows,
            max_payload_bytes=settings.nonblocking_payload_bytes,
        )
        nonblocking_position = NonblockingPosition(nonblocking_connection, nonblocking_reader)
    size_limited_reader = Reader(
        database, max_rows=settings.max_rows, max_entries=settings.max_entries, max_payload_bytes=LARGE_PAYLOAD_BYTES
    )
    reading = reading_endpoint(reader, nonblocking_reader, size_limited_reader, RequestTemplateCache())
    positions = PositionSource(reader, nonblocking_position, pools.questions)
    upload_memory = MemoryBudget(settings.upload_memory_bytes)
    question_memory = MemoryBudget(settings.question_memory_bytes)
    answer_memory, small_answer_memory = (
        MemoryBudget(settings.answer_memory_bytes),
        MemoryBudget(settings.small_answer_memory_bytes),
    )
    writer = None if settings.read_only else Writer(database)
    # With TLS the kernel cannot send a file by itself. Each answer in a memory file is an open file.
    memory_files = None if settings.tls else MemoryFiles(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    cache = ResponseCache(settings.response_cache_bytes, memory_files=memory_files)
    background_lists = None if queues is None else BackgroundLists(queues.lists)
    reading_handler = ReadingHandler(reading, positions, pools, cache, answer_memory, background_lists)
    routes = [
        Route(READING_PATH, SoapService(reading.wsdl, reading_handler, settings, lambda _: question_memory)),
        *rest_routes(size_limited_reader, pools.questions, SharedPayloads(reader, pools.large, answer_memory)),
        *legacy_routes(
            reader,
            size_limited_reader,
            writer,
            pools,
            settings,
            upload_memory,
            question_memory,
            answer_memory,
            background_lists,
        ),
        metrics_route(counters, reader, pools.health, writes=writer is not None),
    ]
    if writer is None:
        routes.append(Route(WRITING_PATH, MirrorTakesNoWrites(reader)))
    else:
        writing = writing_endpoint(writer, settings.max_payload)
        writes = WritingHandler(writing, TokenVerifier(database), positions, pools.writes, settings)
        routes.append(Route(WRITING_PATH, SoapService(writing.wsdl, writes, settings, lambda _: upload_memory)))
    site, pages = _pages(settings, database, reader, writer, pools.pages, pools.pages, (upload_memory, question_memory))
    routes += pages if queues is None else in_background(pages, BackgroundPages(queues.pages))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=_error_handlers(site, pools.questions),
    )
    services = (READING_PATH,) if writer is None else (READING_PATH, WRITING_PATH)
    app.add_middleware(AnswerMemory, budget=small_answer_memory, waited_budget=answer_memory)
    app.add_middleware(UnexpectedBodies, paths=(*services, *LEGACY_SERVICES), seconds=settings.stall_seconds)
    app.add_middleware(CancelOnDisconnect)
    app.add_middleware(CountRequests, request_metrics=request_metrics)
    # An address with a slash too many is not redirected: the target would be taken from the Host header.
    app.router.redirect_slashes = False
    return app


def create_list_process(settings: Settings) -> tuple[JobHandler, Callable[[], None]]:
    """The handler that makes long lists in a background process, and the function that ends it."""
    threads = ThreadPool(1, name="lists")
    database = Database.open(settings.database, 1, read_only=True)
    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    reading = reading_endpoint(reader, None, reader)
    legacy = {path: LegacyService(path, settings, reader, reader, None) for path in LEGACY_SERVICES}

    async def answered(
        path: str, body: bytes, asked: Any, held_hashes: frozenset[str], position: JournalPosition | None
    ) -> EncodedResponse:
        def answer() -> EncodedResponse:
            if path == READING_PATH:
                return EncodedResponse.from_result(reading.answer(body, asked, held_hashes=held_hashes), position)
            return EncodedResponse.from_result(legacy[path].answer(body, *asked), position)

        return await threads.run(answer)

    def close() -> None:
        threads.close()
        database.close()

    return list_job_handler(answered), close
