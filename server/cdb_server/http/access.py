"""Who may write: first from where, then with which token ("network (403) is judged before token (401)")."""

import base64
import contextlib

from starlette.requests import Request

from cdb_server.http.refusals import Refused
from cdb_server.settings import Network, contains


def check_network(peer: str, allowed: tuple[Network, ...]) -> None:
    """Refuse (403) a peer outside the allowed networks."""
    if not contains(allowed, peer):
        raise Refused(403, "writing is not allowed from this address: write from within the experiment's network")


def credentials(request: Request) -> tuple[str, str]:
    """The user and the token that a request shows by HTTP Basic, unchecked; empty where it shows none."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    name, token = "", ""
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            name, _, token = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    return name, token


def nothing_shown() -> Refused:
    """401, to who shows no token."""
    return _unknown("writing needs user and token by HTTP Basic authentication, and none were sent")


def not_together(name: str) -> Refused:
    """401, to who shows a token that is not valid."""
    return _unknown(f"{name[:64]!a} and this token do not belong together (upper and lower case matter)")


def _unknown(problem: str) -> Refused:
    return Refused(
        401,
        f"{problem}: ask the operator, who makes tokens with 'cdb-server token add'",
        {"WWW-Authenticate": 'Basic realm="cdb", charset="UTF-8"'},
    )
