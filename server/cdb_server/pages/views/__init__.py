"""Lists all pages, in the order in which their addresses are matched, and their names in the metrics."""

from cdb_server.pages import auth, context
from cdb_server.pages.auth import WriteGuard
from cdb_server.pages.context import Page, PageContext
from cdb_server.pages.views import applies, calibration, journal, timelines, upload

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


def pages(site: PageContext, desk: WriteGuard | None) -> list[Page]:
    """The pages of a site. Those that write are there on a master only, which has a desk."""
    writing = (
        []
        if desk is None
        else [
            upload.upload_page(desk),
            calibration.withdraw_page(desk),
            auth.sign_in_page(desk),
            auth.sign_out_page(desk),
        ]
    )
    return [
        timelines.overview_page(site),
        timelines.timeline_page(site),
        applies.applies_page(site),
        applies.archive_page(site),
        journal.journal_page(site),
        calibration.calibration_page(site),
        calibration.compare_page(site),
        *writing,
        context.static_page(),
    ]
