"""All pages there are, in the order in which their addresses are compared."""

from cdb_server.pages import (
    applying,
    comparing,
    journal,
    one,
    overview,
    signing_in,
    static,
    timeline,
    uploading,
    withdrawing,
)
from cdb_server.pages.desk import Desk
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site

# What the metrics tell apart.
PAGE_NAMES = (
    "page_overview",
    "page_timeline",
    "page_applies",
    "page_archive",
    "page_journal",
    "page_calibration",
    "page_compare",
    "page_upload",
    "page_withdraw",
    "page_sign_in",
    "page_sign_out",
    "page_static",
)


def pages(site: Site, desk: Desk | None) -> list[Page]:
    """The pages of a site. Those that write are there on a master only, which has a desk."""
    writing = (
        []
        if desk is None
        else [
            uploading.page(desk),
            withdrawing.page(desk),
            signing_in.signing_in(desk),
            signing_in.signing_out(desk),
        ]
    )
    return [
        overview.page(site),
        timeline.page(site),
        applying.page(site),
        applying.archive_page(site),
        journal.page(site),
        one.page(site),
        comparing.page(site),
        *writing,
        static.page(),
    ]
