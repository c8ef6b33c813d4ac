"""Decides who may write: client address behind proxies, allowed networks (403), Basic credentials (401); logs refusals.

uvicorn's own reading of that header is not used: it takes an empty entry for none and an IPv4 address on an IPv6 socket
for another one, and either way the proxy itself, which may write, would stand for everybody behind it.
"""

import base64
import contextlib
import ipaddress
import logging
import re

from starlette.requests import Request

from cdb_server.http.protocol.request_rules import HttpError
from cdb_server.settings import Network, is_in_networks


def check_network(peer: str, allowed: tuple[Network, ...]) -> None:
    """Refuse (403) a peer outside the allowed networks."""
    if not is_in_networks(allowed, peer):
        raise HttpError(403, "writing is not allowed from this address: write from within the experiment's network")


def basic_credentials(request: Request) -> tuple[str, str]:
    """The user and the token that a request shows by HTTP Basic, unchecked; empty where it shows none."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    name, token = "", ""
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            name, _, token = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    return name, token


def credentials_missing() -> HttpError:
    """401, to who shows no token."""
    return _unauthorised("writing needs user and token by HTTP Basic authentication, and none were sent")


def credentials_invalid(name: str) -> HttpError:
    """401, to who shows a token that is not valid."""
    return _unauthorised(f"{name[:64]!a} and this token do not belong together (upper and lower case matter)")


def _unauthorised(problem: str) -> HttpError:
    return HttpError(
        401,
        f"{problem}: ask the operator, who makes tokens with 'cdb-server token add'",
        {"WWW-Authenticate": 'Basic realm="cdb", charset="UTF-8"'},
    )


# In no network, whatever the settings say.
UNKNOWN_ADDRESS = "unknown"

_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def client_address_of(request: Request, trusted: tuple[Network, ...]) -> str:
    """The address that a request comes from, or UNKNOWN.

    Each proxy appends whom it was asked by: believed is the last entry, and the one before it as far as the later ones
    are trusted proxies themselves. What is not an address among those makes the whole UNKNOWN.
    """
    # A link-local address comes with its interface.
    peer = _address(request.client.host.partition("%")[0]) if request.client else UNKNOWN_ADDRESS
    entries = [entry for header in request.headers.getlist("x-forwarded-for") for entry in header.split(",")]
    while entries and is_in_networks(trusted, peer):
        peer = _forwarded_address(entries.pop().strip(" \t"))
    return peer


def _forwarded_address(entry: str) -> str:
    with_port = _WITH_PORT.fullmatch(entry)
    text = with_port[1] or with_port[2] if with_port else entry
    return UNKNOWN_ADDRESS if "%" in text else _address(text)


def _address(text: str) -> str:
    """An address in its usual form, an IPv4 one on an IPv6 socket as what it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN_ADDRESS
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


# Operators filter the log by this name, which is older than the module's.
log = logging.getLogger("cdb_server.http.attempts")


def log_refused_write(status: int, peer: str, user: str) -> None:
    """Log an attempt that was refused (401 or 403). `peer` is an address; `user` is whatever was sent."""
    # As ASCII, for a name with a line break in it would be two lines.
    if status == 403:
        log.warning("refused to write: %s is outside the allowed networks, as user %a", peer, user[:64])
    else:
        log.warning("refused to write: no valid token of user %a, from %s", user[:64], peer)


def log_cross_site_form(peer: str, user: str) -> None:
    """Log a form that a browser sent, and not from a page of ours."""
    log.warning("refused to write: a form not of this site's pages, from %s, as user %a", peer, user[:64])


def log_unknown_host(peer: str, host: str) -> None:
    """Log a call that named the server as it is not known."""
    log.warning("refused to write: from %s, to a server named %a, by which this one is not known", peer, host[:64])
