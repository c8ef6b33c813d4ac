"""A part of an answer, when that is asked for: RFC 9110, section 14, for one range of bytes.

Several ranges at once are answered with the whole, as the RFC allows; so is a number too long to be one.
"""

import re
from typing import NamedTuple

from starlette.requests import Request

from cdb_server.http.refusals import Refused

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


class Part(NamedTuple):
    """The bytes from `start` to `stop`, and what an answer with them says of itself."""

    start: int
    stop: int
    status: int
    headers: dict[str, str]


def part(request: Request, size: int, headers: dict[str, str]) -> Part:
    """What is asked for of `size` bytes, with `headers`, among which is the ETag that If-Range is held against.

    Raises Refused (416) for a range that lies outside.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    whole = Part(0, size, 200, headers)
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    # "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
    # handling is not defined. For this specification, GET is the only method".
    if request.method != "GET" or match is None or request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        return whole
    first, last = match.groups()
    if not first and not last:
        return whole
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = max(0, size - int(last)), size
    if first and last and int(last) < int(first):
        return whole
    if start >= stop:
        raise Refused(416, f"there are {size} bytes: none of them is asked for", {"Content-Range": f"bytes */{size}"})
    return Part(start, stop, 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})
