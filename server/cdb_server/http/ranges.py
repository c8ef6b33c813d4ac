"""A part of an answer, when that is asked for: RFC 9110, section 14, for one range of bytes.

Several ranges at once are answered with the whole, as the RFC allows; so is a number too long to be one.
"""

import re

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.http.refusals import Refused

OCTETS = "application/octet-stream"
_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


def response(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """The bytes asked for, of `data`, with `headers`, among which is the ETag that If-Range is held against.

    Raises Refused (416) for a range that lies outside.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    # "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
    # handling is not defined. For this specification, GET is the only method".
    if request.method != "GET" or match is None or request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        return Response(data, media_type=OCTETS, headers=headers)
    first, last = match.groups()
    if not first and not last:
        return Response(data, media_type=OCTETS, headers=headers)
    if first:
        start, stop = int(first), min(int(last) + 1, len(data)) if last else len(data)
    else:
        start, stop = max(0, len(data) - int(last)), len(data)
    if first and last and int(last) < int(first):
        return Response(data, media_type=OCTETS, headers=headers)
    if start >= stop:
        raise Refused(
            416, f"there are {len(data)} bytes: none of them is asked for", {"Content-Range": f"bytes */{len(data)}"}
        )
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Response(data[start:stop], 206, media_type=OCTETS, headers=headers)
