"""The pages as routes, each counted under its own name; and what they know of who visits them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cdb_server.errors import TooLarge, Unavailable
from cdb_server.http import attempts, tally
from cdb_server.http.body import Disconnected, receive_body
from cdb_server.http.budget import LARGE, OF_ANSWER, Budget, Share
from cdb_server.http.offload import Pages
from cdb_server.http.peer import peer_of
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import RETRY_SECONDS
from cdb_server.pages import STATIC_PATH, Archive, Desk, Page, Site, pages
from cdb_server.settings import Settings


def page_routes(site: Site, desk: Desk | None, room: Budget) -> list[Route]:
    """The routes of a site's pages, and of its desk where it has one; `room` is for large files on their way out."""
    return [_route(page, room, site) for page in pages(site, desk)]


def handed_on(routes: list[Route], made: Pages) -> list[Route]:
    """The same routes, whose pages are `made` elsewhere; but for the files of pages, which are ready here."""
    return [route if route.path == STATIC_PATH else _elsewhere(route, made) for route in routes]


def _elsewhere(route: Route, made: Pages) -> Route:
    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        scope[tally.OPERATION] = route.name
        try:
            await made(scope, receive, send)
        except Unavailable as error:
            refused = Refused(503, error.message, {"Retry-After": RETRY_SECONDS})
            await refused.response()(scope, receive, send)

    # A class, as starlette sees it: what is none is called with a Request.
    return Route(route.path, _Asgi(endpoint), methods=list(route.methods or ()), name=route.name)


class _Asgi:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def browses(request: Request) -> bool:
    """Whether a person sits before it: only browsers ask for HTML by name."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


class Visitors:
    """What the desk is told of who writes. What a form brings is received as any other upload is."""

    def __init__(self, settings: Settings, room: Budget) -> None:
        self._settings = settings
        self._room = room

    def peer(self, request: Request) -> str:
        """The address that a request comes from."""
        return peer_of(request, self._settings.trusted_proxies)

    def refused(self, status: int, peer: str, user: str, *, of_another_site: bool = False) -> None:
        """Tell of an attempt to write that was refused."""
        if of_another_site:
            attempts.of_another_site(peer, user)
        else:
            attempts.refused(status, peer, user)

    @asynccontextmanager
    async def received(self, request: Request, longest: int) -> AsyncIterator[bytes]:
        """The body, while the block lasts. Raises TooLarge, Unavailable and Disconnected."""
        with Share(self._room) as share:
            try:
                body = await receive_body(request, self._settings, share, longest)
            except Refused as refused:
                raise TooLarge(longest, refused.text) from None
            yield body


def _route(page: Page, room: Budget, site: Site) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[tally.OPERATION] = page.name
        try:
            response = await page.answer(request)
        except (Disconnected, ClientDisconnect):
            # Whoever is gone reads no answer; whoever is too slow is cut off with this one.
            return Response(status_code=408)
        except Unavailable as error:
            # Too many wait: even the page that says so would have to wait.
            return Refused(503, error.message, {"Retry-After": RETRY_SECONDS}).response()
        if not isinstance(response, Archive) or response.largest <= LARGE:
            return response

        try:
            response.holds = await room.reserve(response.largest * OF_ANSWER)
        except Unavailable as error:
            text = error.message
            return await site.do(lambda: site.error(request, 503, text))
        return response

    return Route(page.path, endpoint, methods=list(page.methods), name=page.name)
