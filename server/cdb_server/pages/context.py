"""What all pages share: queries, threads, templates, formats, static files, security headers (CSP), error pages."""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cdb_server import __version__, errors, instants
from cdb_server.database.transactions import Database
from cdb_server.errors import RETRY_AFTER_SECONDS, STATUS_OF_ERROR, CdbError
from cdb_server.model import Status
from cdb_server.pages.payload import plot
from cdb_server.repository.explanations import Explanations, Timelines
from cdb_server.repository.journal_entries import JournalSearch
from cdb_server.repository.reader import Reader


@dataclass(frozen=True, slots=True)
class Page:
    """`path` as starlette's routes spell it; `name` is one of a fixed number, for the metrics."""

    path: str
    name: str
    answer: Callable[[Request], Awaitable[Response]]
    methods: tuple[str, ...] = ("GET",)


_UNITS = (
    ("year", timedelta(days=365.2425)),
    ("month", timedelta(days=30.436875)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
    ("second", timedelta(seconds=1)),
)


def format_for_page(at: datetime) -> str:
    """`2016-03-01 08:00:00`, in UTC; microseconds only where there are any."""
    text = instants.format_instant(at)[:-1].replace("T", " ")
    return text.removesuffix(".000000")


def format_to_second(at: datetime) -> str:
    """The same to the second, where finer is of no use."""
    return format_for_page(at.replace(microsecond=0))


def format_exact(at: datetime) -> str:
    """The contract's spelling, for addresses and for `<time datetime>`."""
    return instants.format_instant(at)


def format_age(passed: timedelta | float) -> str:
    """A length of time in words, in its two greatest units at most: `3 years`, `1 day 4 hours`, `a moment`."""
    left = passed if isinstance(passed, timedelta) else timedelta(seconds=passed)
    for at, (unit, length) in enumerate(_UNITS):
        if left >= length:
            number = left // length
            told = format_count(number, unit)
            # Beyond ten of a unit, and below the minute, nobody wants to know it finer.
            if number < 10 and unit != "minute" and at + 1 < len(_UNITS):
                smaller, length_of_smaller = _UNITS[at + 1]
                rest = (left - number * length) // length_of_smaller
                told += f" {format_count(rest, smaller)}" if rest else ""
            return told
    return "a moment"


def format_size(size_bytes: int) -> str:
    """`0 bytes`, `912 bytes`, `12.3 kB`, `1.2 MB`."""
    if size_bytes < 1000:
        return format_count(size_bytes, "byte")
    if size_bytes < 999_950:
        return f"{size_bytes / 1000:.1f} kB"
    return f"{size_bytes / 1_000_000:.1f} MB"


def format_count(number: int, of: str = "") -> str:
    """`1,234`; of what: `1 run`, `2 runs`, `2 entries`."""
    if not of:
        return f"{number:,}"
    if number != 1:
        of = f"{of[:-1]}ies" if of.endswith("ry") else f"{of}s"
    return f"{number:,} {of}"


def url_segment(text: str) -> str:
    """A name as one segment of an address."""
    return quote(text, safe="")


# "a strict Content-Security-Policy": nothing from elsewhere, nothing inline, in nobody's frame.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# What a page shows may have changed by the next look, and may be one person's alone.
PAGE_HEADERS = {**SECURITY_HEADERS, "Cache-Control": "no-cache, private"}


def environment() -> Environment:
    """The templates, and the words that they use. A name that is not given is an error, not an empty place."""
    made = Environment(
        loader=PackageLoader("cdb_server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "instant": format_for_page,
        "second": format_to_second,
        "exact": format_exact,
        "age": format_age,
        "size": format_size,
        "count": format_count,
        "segment": url_segment,
        "signed": plot.format_difference,
        "percent": plot.format_percent,
    }
    made.filters.update(filters)
    return made


# The only ones that are given, whatever lies in the folder.
_CONTENT_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

STATIC_PATH = "/static/{name}"

_IMMUTABLE = "public, max-age=31536000, immutable"


def _read_static_files() -> dict[str, tuple[bytes, str, str]]:
    files = {}
    for file in (resources.files("cdb_server.pages") / "static").iterdir():
        kind = _CONTENT_TYPES.get(f".{file.name.rpartition('.')[2]}")
        if kind is not None:
            data = file.read_bytes()
            files[file.name] = data, kind, hashlib.sha256(data).hexdigest()[:16]
    return files


_STATIC_FILES = _read_static_files()


def static_address(name: str) -> str:
    """The address of a file below the site's root. It changes with the file, so that it may be kept for ever."""
    return f"static/{name}?v={_STATIC_FILES[name][2]}"


def static_page() -> Page:
    """All of them."""

    async def answer(request: Request) -> Response:
        file = _STATIC_FILES.get(request.path_params["name"])
        if file is None:
            return Response(
                f"there is no such file: there are {', '.join(sorted(_STATIC_FILES))}\n", 404, SECURITY_HEADERS
            )
        data, kind, version = file
        kept = _IMMUTABLE if request.query_params.get("v") == version else "no-cache"
        return Response(data, 200, {**SECURITY_HEADERS, "Cache-Control": kept}, media_type=kind)

    return Page(STATIC_PATH, "page_static", answer)


log = logging.getLogger(__name__)

Result = TypeVar("Result")

_HEADINGS = {
    400: "This cannot be asked",
    401: "Please sign in",
    403: "Not from here",
    404: "There is no such thing here",
    405: "Not like this",
    413: "Too much at once",
    503: "Not now",
}


class RunInThread(Protocol):
    """Where pages work: in threads, for they wait for the database."""

    async def __call__(self, work: Callable[[], Result], /) -> Result:
        """What the work gives, or raises."""


class PageContext:
    """The site of one server. `writes` says whether it takes any: a mirror does not, and its pages say who does."""

    def __init__(
        self,
        reader: Reader,
        database: Database,
        do: RunInThread,
        do_payloads: RunInThread,
        *,
        writes: bool,
        public_url: str,
    ) -> None:
        """`do_payloads` is for pages that show payloads and take long: they keep no other page waiting."""
        self.reader = reader
        self.timelines = Timelines(database)
        self.explanations = Explanations(database)
        self.journal_search = JournalSearch(database)
        self.run_in_thread = do
        self.run_payload_page = do_payloads
        self.writes = writes
        self.public_url = public_url.rstrip("/")
        self._templates = environment()

    def page(
        self, path: str, name: str, answered: Callable[[Request], Response], *, shows_payloads: bool = False
    ) -> Page:
        """A page that is answered in a thread; its CdbErrors become pages that say what is wrong."""
        do = self.run_payload_page if shows_payloads else self.run_in_thread

        def answer_or_say(request: Request) -> Response:
            try:
                return answered(request)
            except CdbError as error:
                return self._error_page(request, error)

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
            return await self.run_in_thread(lambda: self._error_page(request, told))

        return Page(path, name, answer, methods)

    def render(
        self, request: Request, template: str, status: int = 200, headers: dict[str, str] | None = None, **values: Any
    ) -> Response:
        """A template, filled. Blocks: it looks at the database, for what stands on every page."""
        text = self._templates.get_template(template).render(
            root=path_to_root(request),
            here=request.url.path.strip("/"),
            static=static_address,
            standing=self._status(),
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
        told = {"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}
        heading = _HEADINGS.get(status, "Something is wrong with this server")
        return self.render(request, "error.html", status, {**told, **(headers or {})}, heading=heading, text=text)

    def _error_page(self, request: Request, error: CdbError) -> Response:
        return self.error(request, STATUS_OF_ERROR[type(error)], error.message)

    def _status(self) -> Status | None:
        """What the server says of itself; None when the database cannot be read."""
        try:
            return self.reader.status()
        except errors.Unavailable:
            return None
        except Exception:
            # Also the page that says so must come.
            log.exception("what the server says of itself cannot be read")
            return None


def path_to_root(request: Request) -> str:
    """The way from a page to the root of the site, which a proxy may have put below a path of its own."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    depth = raw.partition(b"?")[0].count(b"/") - 1
    return "../" * depth or "./"
