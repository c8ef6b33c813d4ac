"""A token as it is kept, and as it is never shown: in no message, log or repr, whoever repeats it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import quote, urlsplit

# What stands where a secret stood.
HIDDEN = "***"
# Shorter ones are found in any text, and keep nothing secret.
LEAST_CHARACTERS = 6


class Token(str):
    """A token that a traceback with its variables, or a printed object, does not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


class Secrets:
    """The spellings in which a server may repeat what it was sent as `Authorization`."""

    def __init__(self, auth: tuple[str, str] | None) -> None:
        """`auth` is user and token, None where nothing secret is sent."""
        self._spellings = [] if auth is None else sorted(_spellings(*auth), key=len, reverse=True)

    def hidden(self, text: str) -> str:
        """A text of a server, as it may be shown."""
        for spelling in self._spellings:
            text = text.replace(spelling, HIDDEN)
        return text


def _spellings(user: str, token: str) -> set[str]:
    plain = {str(token)} if len(token) >= LEAST_CHARACTERS else set()
    plain.add(f"{user}:{token}")
    encoded = {base64.b64encode(text.encode()).decode("ascii") for text in plain}
    # Without the padding, which some programs leave out, and as an address has it.
    bare = {text.rstrip("=") for text in encoded}
    return plain | encoded | bare | {quote(text, safe="") for text in plain | encoded}


def exposed(servers: Sequence[str]) -> frozenset[str]:
    """The servers that are sent no token, for it would travel in clear, and others of them are asked over TLS.

    Who names servers with http:// alone says that it may. What does not leave the machine is not exposed.
    """
    if not any(server.startswith("https:") for server in servers):
        return frozenset()
    return frozenset(_in_clear(servers))


def _in_clear(servers: Iterable[str]) -> Iterable[str]:
    return (server for server in servers if server.startswith("http:") and not _is_here(urlsplit(server).hostname))


def _is_here(host: str | None) -> bool:
    """Whether a host is this machine, whatever its networks say."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
