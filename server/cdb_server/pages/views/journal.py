"""View: the journal, filtered by kind, device, type or author; its columns are in templates/journal.html."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import arguments
from cdb_server.arguments import MAX_NUMBER
from cdb_server.errors import InvalidArgument
from cdb_server.pages.context import Page, PageContext
from cdb_server.repository.journal_entries import KINDS, EntryFilter

ENTRIES_PER_PAGE = 50

_FIELDS = ("kind", "device", "type", "author")


def journal_page(site: PageContext) -> Page:
    """The journal, `before` a serial."""

    def answer(request: Request) -> Response:
        asked = {name: request.query_params.get(name, "").strip() for name in _FIELDS}
        if asked["kind"] and asked["kind"] not in KINDS:
            raise InvalidArgument("kind", f"{asked['kind'][:40]!r} is no kind of entry: there are {', '.join(KINDS)}")
        before = request.query_params.get("before", "").strip()
        try:
            upto = arguments.parse_typed_number(before) if before else MAX_NUMBER
        except ValueError as error:
            raise InvalidArgument("before", f"before: {error}") from None
        wanted = EntryFilter(
            asked["kind"] or None, asked["author"] or None, asked["device"] or None, asked["type"] or None
        )
        found = site.journal_search.search(wanted, upto, ENTRIES_PER_PAGE)
        given = {name: value for name, value in asked.items() if value}
        return site.render(
            request,
            "journal.html",
            asked=asked,
            kinds=KINDS,
            before=upto if before else None,
            found=found,
            latest=f"journal?{urlencode(given)}" if given else "journal",
            earlier=f"journal?{urlencode({**given, 'before': found.searched_from})}" if found.searched_from > 1 else "",
        )

    return site.page("/journal", "page_journal", answer)
