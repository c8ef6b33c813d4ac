"""The proof of who one is that a browser keeps: user and token in a cookie, asked for anew with every request.

Nothing is kept at the server, so that any worker knows it, and a token that is revoked is worth nothing at once.
"""

import base64
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

# A working day: a browser that is left in a control room is not signed in for ever.
SECONDS = 12 * 60 * 60


class Proof:
    """How the cookie is written and read. Where the site is reached by https it is sent by nothing else."""

    def __init__(self, public_url: str) -> None:
        self._secure = public_url.startswith("https:")
        # With this prefix a browser takes it only from this very host, and by https.
        self._name = "__Host-cdb" if self._secure else "cdb"

    def give(self, response: Response, user: str, token: str) -> None:
        """Leave the proof with the browser."""
        value = base64.urlsafe_b64encode(f"{user}:{token}".encode()).decode("ascii")
        response.set_cookie(
            self._name, value, max_age=SECONDS, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    def take_back(self, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(self._name, path="/", secure=self._secure, httponly=True, samesite="strict")

    def shown(self, request: Request) -> tuple[str, str]:
        """User and token, unchecked; empty where none are shown."""
        user, token = "", ""
        with suppress(ValueError):
            encoded = request.cookies.get(self._name, "").encode("ascii")
            user, _, token = base64.b64decode(encoded, altchars=b"-_", validate=True).decode("utf-8").partition(":")
        return user, token
