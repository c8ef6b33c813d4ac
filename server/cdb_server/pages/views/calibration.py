"""Views of calibrations by id: one calibration, two compared, and withdrawing one."""

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from cdb_server import arguments
from cdb_server.errors import CalibrationNotFound, InvalidArgument
from cdb_server.model import CalibrationRecord, Neighbours
from cdb_server.pages.auth import SignedForm, WriteGuard, see_other
from cdb_server.pages.context import Page, PageContext
from cdb_server.pages.payload import display
from cdb_server.pages.payload.detect import Content, detect


def calibration_page(site: PageContext) -> Page:
    """The page of any calibration, superseded and withdrawn ones too."""

    def answer(request: Request) -> Response:
        id = arguments.typed_number(request.path_params["id"], "id")
        query = request.query_params
        as_of = arguments.typed_instant(query["as_of"], "as_of") if query.get("as_of") else None
        first = arguments.typed_number(query.get("from") or "1", "from") - 1
        place = find_neighbours(site, id, as_of)
        found, before = place.calibration, place.predecessor
        content = load_content(site, found)
        earlier = load_content(site, before) if before is not None and content.table is not None else None
        names = (str(found.id), "" if before is None else str(before.id))
        return site.render(
            request,
            "one.html",
            place=place,
            calibration=found,
            as_of=as_of,
            shown=display.display_payload(content, first, earlier, names),
            file=download_name(found, content),
            public_url=site.public_url,
        )

    return site.page("/calibrations/{id}", "page_calibration", answer, shows_payloads=True)


def find_neighbours(site: PageContext, id: int, as_of: datetime | None = None) -> Neighbours:
    """A calibration in its timeline. Raises CalibrationNotFound, with the way on for who looks at pages."""
    try:
        return site.reader.neighbours(id, as_of)
    except CalibrationNotFound:
        raise CalibrationNotFound("the journal lists all that is stored", id=id, as_of=as_of) from None


def load_content(site: PageContext, calibration: CalibrationRecord) -> Content:
    """What is in a calibration. Its bytes are read one after another's, and not kept: they may be large."""
    return detect(site.reader.payload(calibration.sha256))


def download_name(calibration: CalibrationRecord, content: Content) -> str:
    """Under which name it is kept by who downloads it."""
    suffix = {"json": "json", "binary": "bin"}.get(content.kind, "txt")
    name = f"{calibration.device_name}_{calibration.calibration_type}_{calibration.id}.{suffix}"
    return name.replace(" ", "_")


def compare_page(site: PageContext) -> Page:
    """The comparison of any two, whatever their device and type; and the form that asks for them."""

    def answer(request: Request) -> Response:
        typed = {name: request.query_params.get(name, "").strip() for name in ("left", "right")}
        if not all(typed.values()):
            return site.render(request, "compare.html", typed=typed, places=None)
        places = [find_neighbours(site, arguments.typed_number(text, name)) for name, text in typed.items()]
        left, right = (place.calibration for place in places)
        names = (str(left.id), str(right.id))
        found = display.display_differences(
            load_content(site, left), load_content(site, right), left.sha256 == right.sha256, names
        )
        return site.render(request, "compare.html", typed=typed, places=places, found=found, names=names)

    return site.page("/compare", "page_compare", answer, shows_payloads=True)


def withdraw_page(desk: WriteGuard) -> Page:
    """The page of one calibration's withdrawal."""

    def shown(request: Request, author: str, reason: str = "", problem: str = "") -> Response:
        told = desk.writer.preview_withdrawal(_id(request))
        return desk.site.render(
            request, "withdraw.html", 400 if problem else 200, told=told, author=author, reason=reason, problem=problem
        )

    def taken(request: Request, signed: SignedForm) -> Response:
        reason = signed.form.text("reason")
        try:
            desk.writer.withdraw_calibration(_id(request), reason, signed.author)
        except InvalidArgument as error:
            if error.argument != "reason":
                raise
            return shown(request, signed.author, reason, error.message)
        return see_other(request, f"calibrations/{_id(request)}#withdrawn")

    return desk.page("/calibrations/{id}/withdraw", "page_withdraw", shown, taken)


def _id(request: Request) -> int:
    return arguments.typed_number(request.path_params["id"], "id")
