"""The journal: who stored, withdrew or registered what, when and why; the latest first, by what one looks for."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.errors import InvalidArgument
from cdb_server.model import GREATEST_NUMBER
from cdb_server.pages import typed
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site
from cdb_server.repository.history import KINDS, Filter

LINES = 50
_FIELDS = ("kind", "device", "type", "author")


def page(site: Site) -> Page:
    """The journal, `before` a serial."""

    def answer(request: Request) -> Response:
        asked = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
        if asked["kind"] and asked["kind"] not in KINDS:
            raise InvalidArgument("kind", f"{asked['kind'][:40]!r} is no kind of entry: there are {', '.join(KINDS)}")
        before = request.query_params.get("before", "").strip()
        try:
            upto = typed.number(before) if before else GREATEST_NUMBER
        except ValueError as error:
            raise InvalidArgument("before", f"before: {error}") from None
        wanted = Filter(asked["kind"] or None, asked["author"] or None, asked["device"] or None, asked["type"] or None)
        found = site.history.find(wanted, upto, LINES)
        given = {name: value for name, value in asked.items() if value}
        return site.render(
            request,
            "journal.html",
            asked=asked,
            kinds=KINDS,
            before=upto if before else None,
            found=found,
            latest=f"journal?{urlencode(given)}" if given else "journal",
            earlier=f"journal?{urlencode({**given, 'before': found.floor})}" if found.floor > 1 else "",
        )

    return site.page("/journal", "page_journal", answer)
