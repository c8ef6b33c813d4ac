"""Keep the token secret: redact it in texts, and decide which servers may receive it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

# Replaces a secret.
REDACTED = "***"
# Shorter tokens would match ordinary text.
MIN_REDACTED_CHARACTERS = 6


class Token(str):
    """A token that tracebacks and printed objects do not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(REDACTED)


class TokenRedactor:
    """Removes the credentials from texts, in every encoding in which a server may repeat them."""

    def __init__(self, auth: tuple[str, str] | None) -> None:
        """`auth` is user and token, None where none are sent."""
        self._encodings = [] if auth is None else sorted(_encodings(*auth), key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Replace the credentials in a text of a server."""
        for spelling in self._encodings:
            text = text.replace(spelling, REDACTED)
        return text


def _encodings(user: str, token: str) -> set[str]:
    plain = {str(token)} if len(token) >= MIN_REDACTED_CHARACTERS else set()
    plain.add(f"{user}:{token}")
    encoded = {base64.b64encode(text.encode()).decode("ascii") for text in plain}
    # Some programs leave out the padding; URLs have percent-encoding.
    bare = {text.rstrip("=") for text in encoded}
    return plain | encoded | bare | {quote(text, safe="") for text in plain | encoded}


def servers_in_clear(servers: Sequence[str]) -> frozenset[str]:
    """Return the servers that must not receive the token: it would be unencrypted, and others are named with https://.

    A user who names only servers with http:// accepts that. Requests to this machine are not exposed.
    """
    if not any(server.startswith("https:") for server in servers):
        return frozenset()
    return frozenset(
        server for server in servers if server.startswith("http:") and not _is_loopback(urlsplit(server).hostname)
    )


def _is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
