"""All pages there are, in the order in which their addresses are compared."""

from cdb_server.pages import applying, journal, overview, static, timeline
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site

# What the metrics tell apart.
PAGE_NAMES = ("page_overview", "page_timeline", "page_applies", "page_archive", "page_journal", "page_static")


def pages(site: Site) -> list[Page]:
    """The pages of a site. Those that write are there on a master only."""
    return [
        overview.page(site),
        timeline.page(site),
        applying.page(site),
        applying.archive_page(site),
        journal.page(site),
        static.page(),
    ]
