"""One calibration: all that it says of itself, its content, and where it stands in its timeline."""

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.errors import CalibrationNotFound
from cdb_server.model import CalibrationRecord, Place
from cdb_server.pages import asked, showing
from cdb_server.pages.content import Content, look
from cdb_server.pages.page import Page
from cdb_server.pages.site import Site


def page(site: Site) -> Page:
    """The page of any calibration, superseded and withdrawn ones too."""

    def answer(request: Request) -> Response:
        id = asked.number(request.path_params["id"], "id")
        query = request.query_params
        as_of = asked.instant(query["as_of"], "as_of") if query.get("as_of") else None
        first = asked.number(query.get("from") or "1", "from") - 1
        place = placed(site, id, as_of)
        found, before = place.calibration, place.before
        content = contents(site, found)
        earlier = contents(site, before) if before is not None and content.table is not None else None
        names = (str(found.id), "" if before is None else str(before.id))
        return site.render(
            request,
            "one.html",
            place=place,
            calibration=found,
            as_of=as_of,
            shown=showing.alone(content, first, earlier, names),
            file=file_name(found, content),
            public_url=site.public_url,
        )

    return site.page("/calibrations/{id}", "page_calibration", answer, shows_payloads=True)


def placed(site: Site, id: int, as_of: datetime | None = None) -> Place:
    """A calibration in its timeline. Raises CalibrationNotFound, with the way on for who looks at pages."""
    try:
        return site.reader.place(id, as_of)
    except CalibrationNotFound:
        raise CalibrationNotFound("the journal lists all that is stored", id=id, as_of=as_of) from None


def contents(site: Site, calibration: CalibrationRecord) -> Content:
    """What is in a calibration. Its bytes are read one after another's, and not kept: they may be large."""
    return look(site.reader.payload(calibration.sha256))


def file_name(calibration: CalibrationRecord, content: Content) -> str:
    """Under which name it is kept by who downloads it."""
    suffix = {"json": "json", "binary": "bin"}.get(content.kind, "txt")
    name = f"{calibration.device_name}_{calibration.calibration_type}_{calibration.id}.{suffix}"
    return name.replace(" ", "_")
