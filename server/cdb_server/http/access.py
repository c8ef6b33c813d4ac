"""Who may write: first from where, then with which token ("network (403) is judged before token (401)")."""

import base64
import contextlib
import logging

from starlette.requests import Request

from cdb_server.http.refusals import Refused
from cdb_server.repository import Tokens
from cdb_server.settings import Network, contains

log = logging.getLogger(__name__)


def check_network(request: Request, allowed: tuple[Network, ...]) -> None:
    """Refuse (403) a peer outside the allowed networks. Judged by the socket, not by what a header claims."""
    peer = request.client.host if request.client else ""
    if not contains(allowed, peer):
        log.warning("refused to write: %s is outside the allowed networks", peer)
        raise Refused(403, "writing is not allowed from this address: write from within the experiment's network")


def author_of(request: Request, tokens: Tokens) -> str:
    """The user whose token the request shows by HTTP Basic. Refuses (401) all others. Reads the database: blocks."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    name, token = "", ""
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            name, _, token = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    if not token or not tokens.admits(name, token):
        log.warning("refused to write: no valid token of %r from %s", name[:64], request.client and request.client.host)
        if token:
            problem = f"{name[:64]!a} and this token do not belong together (upper and lower case matter)"
        else:
            problem = "writing needs user and token by HTTP Basic authentication, and none were sent"
        raise Refused(
            401,
            f"{problem}: ask the operator, who makes tokens with 'cdb-server token add'",
            {"WWW-Authenticate": 'Basic realm="cdb", charset="UTF-8"'},
        )
    return name
