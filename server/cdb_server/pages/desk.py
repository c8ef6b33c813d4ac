"""Where writes are taken, on a master only: who may make them, from where, and from which pages.

In this order: a request to change something comes from a page of this site, from a network that may write, and from a
user whose token is valid. Only then is it received.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cdb_server.pages import forms, origin
from cdb_server.pages.forms import Form
from cdb_server.pages.page import Page
from cdb_server.pages.proof import Proof
from cdb_server.pages.rendering import PAGE_HEADERS
from cdb_server.pages.site import Site, root
from cdb_server.repository import Admission, Credentials, Writer
from cdb_server.settings import Settings, contains

# Of a form without a file.
LONGEST_FORM = 64 * 2**10
NOT_FROM_HERE = "Writing is not allowed from this address: write from within the experiment's network."
NOT_FROM_THERE = (
    "This was sent from a page of another site, or by none: nothing was changed. Open this site's own page and send it "
    "from there."
)
NOT_SIGNED_IN = "Nobody is signed in here, or no longer: nothing was changed. Sign in, then send it again."


class Watching(Protocol):
    """What surrounds the pages: who asks, who was turned away, and what a request brings."""

    def peer(self, request: Request) -> str:
        """The address that a request comes from."""

    def refused(self, status: int, peer: str, user: str, *, of_another_site: bool = False) -> None:
        """Tell of an attempt to write that was refused."""

    def received(self, request: Request, longest: int) -> AbstractAsyncContextManager[bytes]:
        """The body, while its block lasts. Raises TooLarge, Unavailable, and what ends the request."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who sends a form, and the form."""

    author: str
    form: Form


class Desk:
    """One for each site."""

    def __init__(
        self, site: Site, writer: Writer, admission: Admission, settings: Settings, watching: Watching
    ) -> None:
        self.site = site
        self.writer = writer
        self.max_payload = settings.max_payload
        self.max_body = settings.max_body
        self.proof = Proof(settings.public_url)
        self._admission = admission
        self._settings = settings
        self._watching = watching

    def page(
        self,
        path: str,
        name: str,
        shown: Callable[[Request, str], Response],
        taken: Callable[[Request, Signed], Response],
        longest: int = LONGEST_FORM,
    ) -> Page:
        """A page for who is signed in, and for others the way there: `shown` to the author, `taken` from them."""

        async def answer(request: Request) -> Response:
            posted = request.method == "POST"
            refusal = await self.refusal(request, posted)
            if refusal is not None:
                return refusal
            user, token = self.proof.shown(request)
            if not await self.site.do(lambda: self.admits(user, token)):
                if not posted:
                    return see_other(request, f"sign-in?next={request.url.path.strip('/')}")
                return await self.turned_away(request, 401, user, NOT_SIGNED_IN)
            if not posted:
                return await self.site.do(lambda: shown(request, user))
            return await self.received(request, longest, lambda form: taken(request, Signed(user, form)))

        return self.site.form(path, name, answer, "GET", "POST")

    def admits(self, user: str, token: str) -> bool:
        """Whether they belong together, now. Blocks."""
        return bool(token) and self._admission.admits(Credentials.of(user, token))

    async def refusal(self, request: Request, posted: bool) -> Response | None:
        """The answer to who may not write from where they are; None to others. Only who `posted` tries to."""
        if posted and not origin.is_own(request, self._settings.public_url):
            user, peer = self.proof.shown(request)[0], self._watching.peer(request)
            self._watching.refused(403, peer, user, of_another_site=True)
            return await self.site.do(lambda: self.site.error(request, 403, NOT_FROM_THERE))
        if not contains(self._settings.write_networks, self._watching.peer(request)):
            if posted:
                return await self.turned_away(request, 403, self.proof.shown(request)[0], NOT_FROM_HERE)
            return await self.site.do(lambda: self.site.error(request, 403, NOT_FROM_HERE))
        return None

    async def turned_away(self, request: Request, status: int, user: str, text: str) -> Response:
        """The page that says so; it is logged, as all attempts to write are that come to nothing."""
        self.tell(request, status, user)
        headers = {"WWW-Authenticate": 'Cookie realm="cdb"'} if status == 401 else {}
        return await self.site.do(lambda: self.site.error(request, status, text, headers))

    def tell(self, request: Request, status: int, user: str) -> None:
        """Log an attempt that was refused."""
        self._watching.refused(status, self._watching.peer(request), user)

    async def received(self, request: Request, longest: int, taken: Callable[[Form], Response]) -> Response:
        """What becomes of the form that a request brings."""
        async with self._watching.received(request, longest) as body:
            content_type = request.headers.get("content-type", "")
            return await self.site.do(lambda: taken(forms.parse(content_type, body)))


def see_other(request: Request, where: str) -> Response:
    """On to another page of this site, by GET."""
    return RedirectResponse(root(request) + where, 303, PAGE_HEADERS)
