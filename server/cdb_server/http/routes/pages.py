"""Routes the pages: builds the site, runs it in background processes, and answers errors as pages."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cdb_server import logs
from cdb_server.database.transactions import CircuitBreaker, Database
from cdb_server.errors import RETRY_AFTER_SECONDS, TooLarge, Unavailable
from cdb_server.http import auth, metrics
from cdb_server.http.admission import (
    ANSWER_MEMORY_FACTOR,
    LARGE_PAYLOAD_BYTES,
    MAX_CONCURRENT_PAGES,
    MAX_QUEUED_LONG_WORK,
    MemoryBudget,
    RequestMemory,
    ThreadPool,
)
from cdb_server.http.auth import client_address_of
from cdb_server.http.background import BackgroundPages, JobHandler, page_job_handler
from cdb_server.http.protocol.request_rules import HttpError, RequestAborted, receive_body
from cdb_server.http.routes.reading import READING_PATH
from cdb_server.pages.auth import WriteGuard
from cdb_server.pages.context import STATIC_PATH, Page, PageContext
from cdb_server.pages.views import pages
from cdb_server.pages.views.applies import Archive
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import TokenVerifier
from cdb_server.repository.writer import Writer
from cdb_server.settings import Settings


def page_routes(site: PageContext, guard: WriteGuard | None, answer_memory: MemoryBudget) -> list[Route]:
    """The routes of a site's pages; those that write exist where it has a guard. Large files use `answer_memory`."""
    return [_route(page, answer_memory, site) for page in pages(site, guard)]


def in_background(routes: list[Route], background_pages: BackgroundPages) -> list[Route]:
    """The same routes, whose pages a background process makes; but for static files, which are sent from here."""
    return [route if route.path == STATIC_PATH else _background_route(route, background_pages) for route in routes]


def _background_route(route: Route, background_pages: BackgroundPages) -> Route:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        scope[metrics.OPERATION_KEY] = route.name
        try:
            await background_pages(scope, receive, send)
        except Unavailable as error:
            refused = HttpError(503, error.message, {"Retry-After": RETRY_AFTER_SECONDS})
            await refused.response()(scope, receive, send)

    # A class, as starlette sees it: what is none is called with a Request.
    return Route(route.path, _Asgi(endpoint), methods=list(route.methods or ()), name=route.name)


class _Asgi:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def wants_html(request: Request) -> bool:
    """Whether a browser asks: only browsers ask for HTML by name."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


class PageWriters:
    """Tells the write guard which address writes, logs refusals, and receives a form as any other upload."""

    def __init__(self, settings: Settings, upload_memory: MemoryBudget) -> None:
        self._settings = settings
        self._memory = upload_memory

    def peer(self, request: Request) -> str:
        """The address that a request comes from."""
        return client_address_of(request, self._settings.trusted_proxies)

    def refused(self, status: int, peer: str, user: str, *, of_another_site: bool = False) -> None:
        """Log an attempt to write that was refused."""
        if of_another_site:
            auth.log_cross_site_form(peer, user)
        else:
            auth.log_refused_write(status, peer, user)

    @asynccontextmanager
    async def received(self, request: Request, longest: int) -> AsyncIterator[bytes]:
        """The body, while the block lasts. Raises TooLarge, Unavailable and RequestAborted."""
        with RequestMemory(self._memory) as memory:
            try:
                body = await receive_body(request, self._settings, memory, longest)
            except HttpError as refused:
                raise TooLarge(longest, refused.text) from None
            yield body


def _route(page: Page, answer_memory: MemoryBudget, site: PageContext) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[metrics.OPERATION_KEY] = page.name
        try:
            response = await page.answer(request)
        except (RequestAborted, ClientDisconnect):
            # Whoever is gone reads no answer; whoever is too slow is cut off with this one.
            return Response(status_code=408)
        except Unavailable as error:
            # Too many wait: even the page that says so would have to wait.
            return HttpError(503, error.message, {"Retry-After": RETRY_AFTER_SECONDS}).response()
        if not isinstance(response, Archive) or response.largest <= LARGE_PAYLOAD_BYTES:
            return response

        try:
            response.reservation = await answer_memory.reserve(response.largest * ANSWER_MEMORY_FACTOR)
        except Unavailable as error:
            text = error.message
            return await site.run_in_thread(lambda: site.error(request, 503, text))
        return response

    return Route(page.path, endpoint, methods=list(page.methods), name=page.name)


SERVER_FAILED_TEXT = "The server failed at this, for a reason within it: try again later, and tell its operator."

PAGE_NOT_FOUND_TEXT = "The address names no page: was it cut off on its way to you?"


def create_page_process(settings: Settings, circuit_breaker: CircuitBreaker) -> tuple[JobHandler, Callable[[], None]]:
    """The handler that makes pages in a background process, and the function that ends it."""
    threads = ThreadPool(MAX_CONCURRENT_PAGES, MAX_QUEUED_LONG_WORK, name="pages")
    payload_threads = ThreadPool(MAX_CONCURRENT_PAGES, MAX_QUEUED_LONG_WORK, name="payload pages")
    database = Database.open(settings.database, 2 * MAX_CONCURRENT_PAGES, circuit_breaker, read_only=settings.read_only)
    reader = Reader(database, max_rows=settings.max_rows, max_entries=settings.max_entries)
    writer = None if settings.read_only else Writer(database)
    budgets = MemoryBudget(settings.upload_memory_bytes), MemoryBudget(settings.question_memory_bytes)
    site, pages = _pages(settings, database, reader, writer, threads, payload_threads, budgets)
    app = Starlette(routes=pages, exception_handlers=_error_handlers(site, threads))
    app.router.redirect_slashes = False

    def close() -> None:
        logs.flush()
        threads.close()
        payload_threads.close()
        database.close()

    return page_job_handler(app), close


def _pages(
    settings: Settings,
    database: Database,
    reader: Reader,
    writer: Writer | None,
    threads: ThreadPool,
    payload_threads: ThreadPool,
    budgets: tuple[MemoryBudget, MemoryBudget],
) -> tuple[PageContext, list[Route]]:
    """The site and its pages; `budgets` are the memory for uploads, and for questions."""
    upload_memory, question_memory = budgets
    site = PageContext(
        reader,
        database,
        threads.run,
        payload_threads.run,
        writes=writer is not None,
        public_url=settings.public_url,
    )
    guard = None
    if writer is not None:
        guard = WriteGuard(site, writer, TokenVerifier(database), settings, PageWriters(settings, upload_memory))
    return site, page_routes(site, guard, question_memory)


def _error_handlers(
    site: PageContext, threads: ThreadPool
) -> dict[Any, Callable[[Request, Exception], Awaitable[Response]]]:
    """The handlers of a request that no route takes, and of one that failed: a browser gets a page."""

    async def not_answered(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if not wants_html(request):
            return _text_refusal(request, error)
        status, headers = error.status_code, dict(error.headers or {})
        text = PAGE_NOT_FOUND_TEXT if status == 404 else error.detail
        try:
            return await threads.run(lambda: site.error(request, status, text, headers))
        except Unavailable:
            return _text_refusal(request, error)

    async def failed(request: Request, error: Exception) -> Response:
        # It is logged where it comes out of the application, after the answer.
        if "text/html" in request.headers.get("accept", ""):
            with suppress(Exception):
                return await threads.run(lambda: site.error(request, 500, SERVER_FAILED_TEXT))
        return HttpError(500, SERVER_FAILED_TEXT).response()

    return {HTTPException: not_answered, Exception: failed}


def _text_refusal(request: Request, error: HTTPException) -> Response:
    text = error.detail
    if error.status_code == 404:
        text = f"there is nothing here, but at {READING_PATH}"
        if "//" in request.scope["path"]:
            # As of a base URL that ends in a slash.
            text += ": the address has two slashes where one belongs"
    elif error.status_code == 405:
        text = "use GET or HEAD: nothing else is answered here"
    return HttpError(error.status_code, text, dict(error.headers or {})).response()
