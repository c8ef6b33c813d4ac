"""Whose request it is: the socket's peer, or whom a trusted proxy names for it in X-Forwarded-For.

uvicorn's own reading of that header is not used: it takes an empty entry for none and an IPv4 address on an IPv6 socket
for another one, and either way the proxy itself, which may write, would stand for everybody behind it.
"""

import ipaddress
import re

from starlette.requests import Request

from cdb_server.settings import Network, contains

# In no network, whatever the settings say.
UNKNOWN = "unknown"

_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def peer_of(request: Request, trusted: tuple[Network, ...]) -> str:
    """The address that a request comes from, or UNKNOWN.

    Each proxy appends whom it was asked by: believed is the last entry, and the one before it as far as the later ones
    are trusted proxies themselves. What is not an address among those makes the whole UNKNOWN.
    """
    # A link-local address comes with its interface.
    peer = _address(request.client.host.partition("%")[0]) if request.client else UNKNOWN
    entries = [entry for header in request.headers.getlist("x-forwarded-for") for entry in header.split(",")]
    while entries and contains(trusted, peer):
        peer = _named(entries.pop().strip(" \t"))
    return peer


def _named(entry: str) -> str:
    with_port = _WITH_PORT.fullmatch(entry)
    text = with_port[1] or with_port[2] if with_port else entry
    return UNKNOWN if "%" in text else _address(text)


def _address(text: str) -> str:
    """An address in its usual form, an IPv4 one on an IPv6 socket as what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
