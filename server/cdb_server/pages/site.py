"""What all pages share: whom they ask, where they work, how they are dressed, and what becomes of an error."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cdb_server import __version__, errors, instants
from cdb_server.errors import CdbError
from cdb_server.model import Status
from cdb_server.pages import static
from cdb_server.pages.page import Page
from cdb_server.pages.rendering import PAGE_HEADERS, environment
from cdb_server.repository import Database, Explaining, History, Reader, Survey

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_STATUS: dict[type[CdbError], int] = {
    errors.CalibrationNotFound: 404,
    errors.RunNotFound: 404,
    errors.PayloadNotFound: 404,
    errors.InvalidArgument: 400,
    errors.Integrity: 400,
    errors.TooLarge: 413,
    errors.MalformedRequest: 400,
    errors.AsOfNotReached: 503,
    errors.Unavailable: 503,
    errors.DamagedPayload: 500,
}
_HEADINGS = {
    400: "This cannot be asked",
    401: "Please sign in",
    403: "Not from here",
    404: "There is no such thing here",
    405: "Not like this",
    413: "Too much at once",
    503: "Not now",
}
RETRY_SECONDS = "10"


class Do(Protocol):
    """Where pages work: in threads, for they wait for the database."""

    async def __call__(self, work: Callable[[], Result], /) -> Result:
        """What the work gives, or raises."""


class Site:
    """The site of one server. `writes` says whether it takes any: a mirror does not, and its pages say who does."""

    def __init__(
        self, reader: Reader, database: Database, do: Do, do_payloads: Do, *, writes: bool, public_url: str
    ) -> None:
        """`do_payloads` is for pages that show payloads and take long: they keep no other page waiting."""
        self.reader = reader
        self.survey = Survey(database)
        self.explaining = Explaining(database)
        self.history = History(database)
        self.do = do
        self.do_payloads = do_payloads
        self.writes = writes
        self.public_url = public_url.rstrip("/")
        self._templates = environment()

    def page(
        self, path: str, name: str, answered: Callable[[Request], Response], *, shows_payloads: bool = False
    ) -> Page:
        """A page that is answered in a thread; its CdbErrors become pages that say what is wrong."""
        do = self.do_payloads if shows_payloads else self.do

        def answer_or_say(request: Request) -> Response:
            try:
                return answered(request)
            except CdbError as error:
                return self._said(request, error)

        async def answer(request: Request) -> Response:
            return await do(lambda: answer_or_say(request))

        return Page(path, name, answer)

    def form(self, path: str, name: str, answered: Callable[[Request], Awaitable[Response]], *methods: str) -> Page:
        """The same of what waits for more than the database, for forms that are sent to it."""

        async def answer(request: Request) -> Response:
            try:
                return await answered(request)
            except CdbError as error:
                told = error
            return await self.do(lambda: self._said(request, told))

        return Page(path, name, answer, methods)

    def render(
        self, request: Request, template: str, status: int = 200, headers: dict[str, str] | None = None, **values: Any
    ) -> Response:
        """A template, filled. Blocks: it looks at the database, for what stands on every page."""
        text = self._templates.get_template(template).render(
            root=root(request),
            here=request.url.path.strip("/"),
            static=static.address,
            standing=self._standing(),
            writes=self.writes,
            now=instants.now(),
            version=__version__,
            **values,
        )
        # Whatever it holds, there is a page: what no encoding has is spelled in ASCII.
        body = text.encode("utf-8", "backslashreplace")
        return HTMLResponse(body, status, {**PAGE_HEADERS, **(headers or {})})

    def error(self, request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
        """The page of an error: what was asked, what is wrong, what to do (rule 14). Blocks."""
        told = {"Retry-After": RETRY_SECONDS} if status == 503 else {}
        heading = _HEADINGS.get(status, "Something is wrong with this server")
        return self.render(request, "error.html", status, {**told, **(headers or {})}, heading=heading, text=text)

    def _said(self, request: Request, error: CdbError) -> Response:
        return self.error(request, _STATUS[type(error)], error.message)

    def _standing(self) -> Status | None:
        """What the server says of itself; None when the database cannot be read."""
        try:
            return self.reader.status()
        except errors.Unavailable:
            return None
        except Exception:
            # Also the page that says so must come.
            log.exception("what the server says of itself cannot be read")
            return None


def root(request: Request) -> str:
    """The way from a page to the root of the site, which a proxy may have put below a path of its own."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    depth = raw.partition(b"?")[0].count(b"/") - 1
    return "../" * depth or "./"
