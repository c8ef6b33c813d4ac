"""The pages as routes: each counted under its own name."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cdb_server.http import tally
from cdb_server.pages import Page, Site, pages


def page_routes(site: Site) -> list[Route]:
    """The routes of a site's pages."""
    return [_route(page) for page in pages(site)]


def browses(request: Request) -> bool:
    """Whether a person sits before it: only browsers ask for HTML by name."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def _route(page: Page) -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[tally.OPERATION] = page.name
        return await page.answer(request)

    return Route(page.path, endpoint, methods=list(page.methods))
