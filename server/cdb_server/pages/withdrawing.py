"""Withdrawing a calibration: what would change, and the reason, before the button that does it."""

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.errors import InvalidArgument
from cdb_server.pages import asked
from cdb_server.pages.desk import Desk, Signed, see_other
from cdb_server.pages.page import Page


def page(desk: Desk) -> Page:
    """The page of one calibration's withdrawal."""

    def shown(request: Request, author: str, reason: str = "", problem: str = "") -> Response:
        told = desk.writer.preview_withdrawal(_id(request))
        return desk.site.render(
            request, "withdraw.html", 400 if problem else 200, told=told, author=author, reason=reason, problem=problem
        )

    def taken(request: Request, signed: Signed) -> Response:
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
    return asked.number(request.path_params["id"], "id")
