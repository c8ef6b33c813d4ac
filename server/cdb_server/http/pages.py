"""The pages as routes: each counted under its own name."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cdb_server.errors import Unavailable
from cdb_server.http import tally
from cdb_server.http.room import LARGE, OF_ANSWER, Room
from cdb_server.pages import Archive, Page, Site, pages


def page_routes(site: Site, room: Room) -> list[Route]:
    """The routes of a site's pages; `room` is for what large files take on their way."""
    return [_route(page, room, site) for page in pages(site)]


def browses(request: Request) -> bool:
    """Whether a person sits before it: only browsers ask for HTML by name."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def _route(page: Page, room: Room, site: Site) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[tally.OPERATION] = page.name
        response = await page.answer(request)
        if not isinstance(response, Archive) or response.largest <= LARGE:
            return response

        async def given() -> Response:
            return response

        try:
            return await room.holding(response.largest * OF_ANSWER, given)
        except Unavailable as error:
            text = error.message
            return await site.do(lambda: site.error(request, 503, text))

    return Route(page.path, endpoint, methods=list(page.methods))
