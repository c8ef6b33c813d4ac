"""Guards pages that write: same origin (CSRF), network, sign-in cookie; parses forms; sign-in and sign-out pages.

A browser says so in Sec-Fetch-Site; one that does not, or that asks without TLS, says in Origin whose page it was.
A request that says neither was made by no form in a browser.

Nothing is kept at the server, so that any worker knows it, and a token that is revoked is worth nothing at once.

In this order: a request to change something comes from a page of this site, from a network that may write, and from a
user whose token is valid. Only then is it received.
"""

import base64
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cdb_server.errors import MalformedRequest
from cdb_server.pages.context import PAGE_HEADERS, Page, PageContext, path_to_root
from cdb_server.repository.tokens import Credentials, TokenVerifier
from cdb_server.repository.writer import Writer
from cdb_server.settings import Settings, is_in_networks

# More than any form has.
MAX_FORM_FIELDS = 100


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form: the name that it has where it comes from, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent. A file that nobody chose is not among the files."""

    texts: Mapping[str, str]
    files: Mapping[str, UploadedFile]

    def text(self, name: str) -> str:
        """What was typed; empty where nothing was. Lines end as they do here, not as forms send them."""
        return self.texts.get(name, "").replace("\r\n", "\n").strip()


def parse_form(content_type: str, body: bytes) -> Form:
    """The form of a request's body. Raises MalformedRequest."""
    kind, options = parse_options_header(content_type)
    try:
        if kind == b"multipart/form-data":
            return _parse_multipart(options.get(b"boundary"), body)
        if kind == b"application/x-www-form-urlencoded":
            text = body.decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
            return Form(dict(pairs), {})
    except (FormParserError, ValueError):
        raise MalformedRequest("the form did not come as it was sent: send it again") from None
    raise MalformedRequest("the form was not sent as the forms of this site are")


def _parse_multipart(boundary: bytes | None, body: bytes) -> Form:
    texts: dict[str, str] = {}
    files: dict[str, UploadedFile] = {}

    def on_field(field: Field) -> None:
        texts[(field.field_name or b"").decode("utf-8")] = (field.value or b"").decode("utf-8")

    def on_file(file: File) -> None:
        if file.file_name:
            file.file_object.seek(0)
            name = file.file_name.decode("utf-8", "replace")
            files[(file.field_name or b"").decode("utf-8")] = UploadedFile(name, file.file_object.read())

    # All of it is in memory, within its limit: none of it is put into a file meanwhile.
    whole = len(body) + 1
    config = {"MAX_MEMORY_FILE_SIZE": whole, "MAX_BODY_SIZE": whole}
    parser = FormParser("multipart/form-data", on_field, on_file, boundary=boundary, config=config)
    parser.write(body)
    parser.finalize()
    return Form(texts, files)


def is_same_origin(request: Request, public_url: str) -> bool:
    """Whether it is from this site, called by the name that the request calls it, or by its public one."""
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched in ("same-origin", "none")
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc in (request.headers.get("host"), urlsplit(public_url).netloc)


# A working day: a browser that is left in a control room is not signed in for ever.
SIGNED_IN_SECONDS = 12 * 60 * 60


class AuthCookie:
    """How the cookie is written and read. Where the site is reached by https it is sent by nothing else."""

    def __init__(self, public_url: str) -> None:
        self._secure = public_url.startswith("https:")
        # With this prefix a browser takes it only from this very host, and by https.
        self._name = "__Host-cdb" if self._secure else "cdb"

    def issue(self, response: Response, user: str, token: str) -> None:
        """Leave the proof with the browser."""
        value = base64.urlsafe_b64encode(f"{user}:{token}".encode()).decode("ascii")
        response.set_cookie(
            self._name,
            value,
            max_age=SIGNED_IN_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )

    def clear(self, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(self._name, path="/", secure=self._secure, httponly=True, samesite="strict")

    def read(self, request: Request) -> tuple[str, str]:
        """User and token, unchecked; empty where none are shown."""
        user, token = "", ""
        with suppress(ValueError):
            encoded = request.cookies.get(self._name, "").encode("ascii")
            user, _, token = base64.b64decode(encoded, altchars=b"-_", validate=True).decode("utf-8").partition(":")
        return user, token


# Of a form without a file.
MAX_FORM_BYTES = 64 * 2**10

WRONG_NETWORK_TEXT = "Writing is not allowed from this address: write from within the experiment's network."

CROSS_SITE_TEXT = (
    "This was sent from a page of another site, or by none: nothing was changed. Open this site's own page and send it "
    "from there."
)

NOT_SIGNED_IN_TEXT = "Nobody is signed in here, or no longer: nothing was changed. Sign in, then send it again."


class WriteRequests(Protocol):
    """What surrounds the pages: who asks, who was turned away, and what a request brings."""

    def peer(self, request: Request) -> str:
        """The address that a request comes from."""

    def refused(self, status: int, peer: str, user: str, *, of_another_site: bool = False) -> None:
        """Tell of an attempt to write that was refused."""

    def received(self, request: Request, longest: int) -> AbstractAsyncContextManager[bytes]:
        """The body, while its block lasts. Raises TooLarge, Unavailable, and what ends the request."""


@dataclass(frozen=True, slots=True)
class SignedForm:
    """Who sends a form, and the form."""

    author: str
    form: Form


class WriteGuard:
    """One for each site."""

    def __init__(
        self, site: PageContext, writer: Writer, admission: TokenVerifier, settings: Settings, watching: WriteRequests
    ) -> None:
        self.site = site
        self.writer = writer
        self.max_payload = settings.max_payload
        self.max_body = settings.max_body
        self.auth_cookie = AuthCookie(settings.public_url)
        self._verifier = admission
        self._settings = settings
        self._requests = watching

    def page(
        self,
        path: str,
        name: str,
        shown: Callable[[Request, str], Response],
        taken: Callable[[Request, SignedForm], Response],
        longest: int = MAX_FORM_BYTES,
    ) -> Page:
        """A page for who is signed in, and for others the way there: `shown` to the author, `taken` from them."""

        async def answer(request: Request) -> Response:
            posted = request.method == "POST"
            refusal = await self.refusal(request, posted)
            if refusal is not None:
                return refusal
            user, token = self.auth_cookie.read(request)
            if not await self.site.run_in_thread(lambda: self.is_valid_token(user, token)):
                if not posted:
                    return see_other(request, f"sign-in?next={request.url.path.strip('/')}")
                return await self.refuse(request, 401, user, NOT_SIGNED_IN_TEXT)
            if not posted:
                return await self.site.run_in_thread(lambda: shown(request, user))
            return await self.received(request, longest, lambda form: taken(request, SignedForm(user, form)))

        return self.site.form(path, name, answer, "GET", "POST")

    def is_valid_token(self, user: str, token: str) -> bool:
        """Whether they belong together, now. Blocks."""
        return bool(token) and self._verifier.is_valid(Credentials.of(user, token))

    async def refusal(self, request: Request, posted: bool) -> Response | None:
        """The answer to who may not write from where they are; None to others. Only who `posted` tries to."""
        if posted and not is_same_origin(request, self._settings.public_url):
            user, peer = self.auth_cookie.read(request)[0], self._requests.peer(request)
            self._requests.refused(403, peer, user, of_another_site=True)
            return await self.site.run_in_thread(lambda: self.site.error(request, 403, CROSS_SITE_TEXT))
        if not is_in_networks(self._settings.write_networks, self._requests.peer(request)):
            if posted:
                return await self.refuse(request, 403, self.auth_cookie.read(request)[0], WRONG_NETWORK_TEXT)
            return await self.site.run_in_thread(lambda: self.site.error(request, 403, WRONG_NETWORK_TEXT))
        return None

    async def refuse(self, request: Request, status: int, user: str, text: str) -> Response:
        """The page that says so; it is logged, as all attempts to write are that come to nothing."""
        self.log_refusal(request, status, user)
        headers = {"WWW-Authenticate": 'Cookie realm="cdb"'} if status == 401 else {}
        return await self.site.run_in_thread(lambda: self.site.error(request, status, text, headers))

    def log_refusal(self, request: Request, status: int, user: str) -> None:
        """Log an attempt that was refused."""
        self._requests.refused(status, self._requests.peer(request), user)

    async def received(self, request: Request, longest: int, taken: Callable[[Form], Response]) -> Response:
        """What becomes of the form that a request brings."""
        async with self._requests.received(request, longest) as body:
            content_type = request.headers.get("content-type", "")
            return await self.site.run_in_thread(lambda: taken(parse_form(content_type, body)))


def see_other(request: Request, where: str) -> Response:
    """On to another page of this site, by GET."""
    return RedirectResponse(path_to_root(request) + where, 303, PAGE_HEADERS)


# Where one may go on: to what asks for signing in, and to no address that somebody made up.
_ALLOWED_NEXT = re.compile(r"upload|calibrations/[1-9][0-9]{0,18}/withdraw", re.ASCII)

SIGN_IN_FAILED_TEXT = (
    "This user and this token do not belong together, or the token was revoked. Upper and lower case matter."
)


def sign_in_page(desk: WriteGuard) -> Page:
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
            next=_allowed_next(form.text("next")),
            problem=problem,
        )

    def taken(request: Request, form: Form) -> Response:
        user, token = form.text("user"), form.text("token")
        if not desk.is_valid_token(user, token):
            problem = SIGN_IN_FAILED_TEXT if token else "Fill in the token too."
            return shown(request, form, problem, 401)
        response = see_other(request, _allowed_next(form.text("next")))
        desk.auth_cookie.issue(response, user, token)
        return response

    async def answer(request: Request) -> Response:
        posted = request.method == "POST"
        refusal = await desk.refusal(request, posted)
        if refusal is not None:
            return refusal
        if not posted:
            asked = Form({"next": request.query_params.get("next", "")}, {})
            return await site.run_in_thread(lambda: shown(request, asked, ""))
        tried = ""

        def tell_who(form: Form) -> Response:
            nonlocal tried
            tried = form.text("user")
            return taken(request, form)

        response = await desk.received(request, MAX_FORM_BYTES, tell_who)
        if response.status_code == 401:
            desk.log_refusal(request, 401, tried)
        return response

    return site.form("/sign-in", "page_sign_in", answer, "GET", "POST")


def sign_out_page(desk: WriteGuard) -> Page:
    """Where the browser is told to forget the proof."""

    async def answer(request: Request) -> Response:
        refusal = await desk.refusal(request, posted=True)
        if refusal is not None:
            return refusal
        response = see_other(request, "")
        desk.auth_cookie.clear(response)
        return response

    return desk.site.form("/sign-out", "page_sign_out", answer, "POST")


def _allowed_next(text: str) -> str:
    return text if _ALLOWED_NEXT.fullmatch(text) else "upload"
