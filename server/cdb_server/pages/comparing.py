"""Two calibrations compared: what changed and by how much, largest first, and line beside line."""

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.pages import asked, showing
from cdb_server.pages.one import contents, placed
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site


def page(site: Site) -> Page:
    """The comparison of any two, whatever their device and type; and the form that asks for them."""

    def answer(request: Request) -> Response:
        typed = {name: request.query_params.get(name, "").strip() for name in ("left", "right")}
        if not all(typed.values()):
            return site.render(request, "compare.html", typed=typed, places=None)
        places = [placed(site, asked.number(text, name)) for name, text in typed.items()]
        left, right = (place.calibration for place in places)
        names = (str(left.id), str(right.id))
        found = showing.differences(contents(site, left), contents(site, right), left.sha256 == right.sha256, names)
        return site.render(request, "compare.html", typed=typed, places=places, found=found, names=names)

    return site.page("/compare", "page_compare", answer, shows_payloads=True)
