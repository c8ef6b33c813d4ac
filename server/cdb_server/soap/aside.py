"""A payload is put aside while its request is parsed and judged, which would take longer for it than for all the rest.

A mark that nobody can guess takes its place. Where that turns up as the text of an argument, the payload was that text;
where it does not, or anything else is not plain, nothing is put aside.
"""

import secrets
from typing import NamedTuple

# The end of the tag before a payload, and the bytes from which on putting it aside pays.
OPENING = b"data>"
LEAST = 4 * 2**10


class Aside(NamedTuple):
    """A request with a mark in place of its payload, and the base64 that stood there."""

    request: bytes
    mark: str
    base64: bytes


def put_aside(body: bytes) -> Aside | None:
    """The request without what may be its payload; None where it has none that is large.

    What is put aside has no markup but may be other than base64: for whoever decodes it to see.
    """
    start = body.find(OPENING) + len(OPENING)
    end = body.find(b"<", start)
    if start < len(OPENING) or end - start < LEAST:
        return None
    mark = secrets.token_hex(16)
    return Aside(b"%s%s%s" % (body[:start], mark.encode("ascii"), body[end:]), mark, body[start:end])
