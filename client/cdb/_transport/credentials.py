"""Keep the token secret: redact it in texts, and decide which servers may receive it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

# What stands where a secret stood.
REDACTED = "***"
# Shorter ones are found in any text, and keep nothing secret.
MIN_REDACTED_CHARACTERS = 6


class Token(str):
    """A token that a traceback with its variables, or a printed object, does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(REDACTED)


class TokenRedactor:
    """The spellings in which a server may repeat what it was sent as `Authorization`."""

    def __init__(self, auth: tuple[str, str] | None) -> None:
        """`auth` is user and token, None where nothing secret is sent."""
        self._encodings = [] if auth is None else sorted(_encodings(*auth), key=len, reverse=True)

    def redact(self, text: str) -> str:
        """A text of a server, as it may be shown."""
        for spelling in self._encodings:
            text = text.replace(spelling, REDACTED)
        return text


def _encodings(user: str, token: str) -> set[str]:
    plain = {str(token)} if len(token) >= MIN_REDACTED_CHARACTERS else set()
    plain.add(f"{user}:{token}")
    encoded = {base64.b64encode(text.encode()).decode("ascii") for text in plain}
    # Without the padding, which some programs leave out, and as an address has it.
    bare = {text.rstrip("=") for text in encoded}
    return plain | encoded | bare | {quote(text, safe="") for text in plain | encoded}


def servers_in_clear(servers: Sequence[str]) -> frozenset[str]:
    """The servers that are sent no token, for it would travel in clear, and others of them are asked over TLS.

    Who names servers with http:// alone says that it may. What does not leave the machine is not exposed.
    """
    if not any(server.startswith("https:") for server in servers):
        return frozenset()
    return frozenset(
        server for server in servers if server.startswith("http:") and not _is_loopback(urlsplit(server).hostname)
    )


def _is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, whatever its networks say."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
