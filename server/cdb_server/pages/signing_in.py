"""Signing in, with the user and token that `cdb-server token add` made, and out."""

import re

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.pages.desk import LONGEST_FORM, Desk, see_other
from cdb_server.pages.forms import Form
from cdb_server.pages.page import Page

# Where one may go on: to what asks for signing in, and to no address that somebody made up.
_NEXT = re.compile(r"upload|calibrations/[1-9][0-9]{0,18}/withdraw", re.ASCII)

WRONG = "This user and this token do not belong together, or the token was revoked. Upper and lower case matter."


def signing_in(desk: Desk) -> Page:
    """The form, and what proves its answer from then on."""
    site = desk.site

    def shown(request: Request, form: Form, problem: str, status: int = 200) -> Response:
        headers = {"WWW-Authenticate": 'Cookie realm="cdb"'} if status == 401 else {}
        return site.render(
            request,
            "sign_in.html",
            status,
            headers,
            user=form.text("user"),
            next=_next(form.text("next")),
            problem=problem,
        )

    def taken(request: Request, form: Form) -> Response:
        user, token = form.text("user"), form.text("token")
        if not desk.admits(user, token):
            problem = WRONG if token else "Fill in the token too."
            return shown(request, form, problem, 401)
        response = see_other(request, _next(form.text("next")))
        desk.proof.give(response, user, token)
        return response

    async def answer(request: Request) -> Response:
        posted = request.method == "POST"
        refusal = await desk.refusal(request, posted)
        if refusal is not None:
            return refusal
        if not posted:
            asked = Form({"next": request.query_params.get("next", "")}, {})
            return await site.do(lambda: shown(request, asked, ""))
        tried = ""

        def tell_who(form: Form) -> Response:
            nonlocal tried
            tried = form.text("user")
            return taken(request, form)

        response = await desk.received(request, LONGEST_FORM, tell_who)
        if response.status_code == 401:
            desk.tell(request, 401, tried)
        return response

    return site.form("/sign-in", "page_sign_in", answer, "GET", "POST")


def signing_out(desk: Desk) -> Page:
    """Where the browser is told to forget the proof."""

    async def answer(request: Request) -> Response:
        refusal = await desk.refusal(request, posted=True)
        if refusal is not None:
            return refusal
        response = see_other(request, "")
        desk.proof.take_back(response)
        return response

    return desk.site.form("/sign-out", "page_sign_out", answer, "POST")


def _next(text: str) -> str:
    return text if _NEXT.fullmatch(text) else "upload"
