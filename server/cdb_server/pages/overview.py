"""The overview: for every device and type the calibration in force now, its age, its author."""

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import instants
from cdb_server.model import CalibrationRecord
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site


def page(site: Site) -> Page:
    """The site's first page."""

    def answer(request: Request) -> Response:
        asked = request.query_params.get("q", "").strip()
        now = instants.now()
        found = [each for each in site.reader.ids(now) if isinstance(each, CalibrationRecord)]
        return site.render(request, "overview.html", q=asked, calibrations=found)

    return site.page("/", "page_overview", answer)
