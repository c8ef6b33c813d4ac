"""Judges requests: heads by RFC 9112; bodies by size, time, content type and encoding. Defines HttpError.

The parser below uvicorn is strict about line ends, white space, lengths and chunks. It takes heads, though, that RFC
9112 has a server refuse, and a request that offers another protocol for one without a body. It is therefore given one
head or a part of one body at a time: each head passes through here first, at whatever bytes the network has split it.
"""

import asyncio
import contextlib
import math
import re
from typing import NamedTuple

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Send

from cdb_server.http.admission import LARGE_PAYLOAD_BYTES, REQUEST_MEMORY_FACTOR, RequestMemory
from cdb_server.settings import Settings


class HttpError(Exception):
    """A request turned away before SOAP looks at it."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers

    def response(self) -> PlainTextResponse:
        """The answer that says so."""
        # What is refused now may be answered later: no cache shall remember it, as some do a 404 without this.
        return PlainTextResponse(f"{self.text}\n", self.status, {"Cache-Control": "no-store", **(self.headers or {})})


# Of a head, and of a body in chunks.
HEAD_END = b"\r\n\r\n"

RawHeaders = list[tuple[bytes, bytes]]

_MAY_BEGIN = re.compile(rb"[A-Z-]{1,20}(?: |\Z)|\r?\Z")

_REQUEST_LINE = re.compile(rb"[A-Z-]{1,20} [^\x00-\x20\x7f#]+ HTTP/([0-9])\.[0-9]\r\n")

_TUNNEL = b"CONNECT "

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)

_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?@]+)(/[^?]*)?(\?.*)?")

# RFC 3986: a name or an IPv4 address, or an IPv6 one in brackets; then a port, perhaps. RFC 9112 lets it be empty.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class HeadRefusal(NamedTuple):
    """Why a head is refused: HTTP's status, and a line of text."""

    status: int
    text: str


class HeadRefused(Exception):
    """Ends the parsing of a head."""


def skip_empty_lines(data: bytes, start: int) -> int:
    """Where a head begins that may come after empty lines."""
    while data.startswith(b"\r\n", start):
        start += 2
    return start


def may_start_head(data: bytes, start: int) -> bool:
    """Whether what is there may become a head."""
    return _MAY_BEGIN.match(data, start) is not None


def check_request_line(head: bytes) -> HeadRefusal | None:
    """Judge the first line of a head."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        return HeadRefusal(400, "the first line of the request is not one of HTTP/1.1")
    if line[1] != b"1":
        return HeadRefusal(505, "use HTTP/1.1")
    return None


def without_upgrade(head: bytes) -> bytes:
    """A head that asks for no other protocol and no tunnel: the parser takes such a request for one without a body.

    Java's client offers another protocol with every request. A tunnel is refused like any other method but those known.
    """
    if head.startswith(_TUNNEL):
        head = b"OPTIONS " + head[len(_TUNNEL) :]
    return _UPGRADE.sub(b"\r\nOffered:", head)


def check_head(method: str, target: bytes, version: str, headers: RawHeaders) -> HeadRefusal | None:
    """Judge what the parser has found in a head, by RFC 9112: sections 3.2 (Host and the target) and 6.1 (lengths)."""
    hosts = [value.strip(b" \t") for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return HeadRefusal(400, "a request has one Host header")
    if not all(map(_HOST.fullmatch, hosts)):
        return HeadRefusal(400, "the Host header is not a host and, perhaps, a port")
    if not target.startswith(b"/") and (target != b"*" or method != "OPTIONS") and _absolute(target) is None:
        return HeadRefusal(400, "the target of the request is neither a path nor an http address")
    codings = [
        coding.strip(b" \t").lower()
        for name, value in headers
        if name == b"transfer-encoding"
        for coding in value.split(b",")
    ]
    if codings and (version != "1.1" or codings[-1] != b"chunked"):
        return HeadRefusal(400, "where this request ends cannot be known: use Content-Length, or HTTP/1.1 and chunked")
    if len(codings) > 1:
        return HeadRefusal(501, "the only Transfer-Encoding that is known here is chunked")
    return None


def to_origin_form(target: bytes, headers: RawHeaders) -> bytes:
    """The path and query of a target; where it is a whole address, that is the Host, whatever the header says."""
    absolute = None if target.startswith(b"/") else _absolute(target)
    if absolute is None:
        return target
    headers[:] = [(name, absolute[1] if name == b"host" else value) for name, value in headers]
    return (absolute[2] or b"/") + (absolute[3] or b"")


def _absolute(target: bytes) -> re.Match[bytes] | None:
    found = _ABSOLUTE.fullmatch(target)
    return found if found and _HOST.fullmatch(found[1]) else None


class ChunkScanner:
    """Finds where a body in chunks may end: behind an empty line, though not behind each.

    The parser knows which; what follows the body must not be shown to it before.
    """

    def __init__(self) -> None:
        # The last bytes before those that are looked at: an empty line may have begun there.
        self._before = b""

    def end(self, data: bytes, start: int) -> int:
        """How far the parser may be given the data, from a start on."""
        seam = (self._before + data[start : start + 3]).find(HEAD_END)
        found = data.find(HEAD_END, start)
        end = len(data) if found < 0 else found + len(HEAD_END)
        if seam >= 0:
            end = start + seam + len(HEAD_END) - len(self._before)
        self._before = (self._before + data[max(start, end - 3) : end])[-3:]
        return end


_UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")

_UTF8_MARK = b"\xef\xbb\xbf"

# Those of UTF-16 and UTF-7; without one, the first letter of an XML document in UTF-16, UTF-32 and EBCDIC.
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"+/v", b"\0<", b"<\0", b"\0\0\0<", b"\x4c")

_DECLARED = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([^"']*)["']""")

_MAX_DECLARATION_BYTES = 4096

_MAX_CONTENT_TYPE_CHARACTERS = 500

_CONTENT_TYPE = re.compile(r"""text/xml\s*(?:;\s*[^\s=;"]+=(?:"[^"]*"|[^\s;"]+)\s*)*;?\s*""", re.IGNORECASE)

_CHARSET = re.compile(r""";\s*(charset[^\s=;"]*)=("[^"]*"|[^\s;"]+)""", re.IGNORECASE)

_ADVICE = "send SOAP 1.1 as text/xml in UTF-8"


def check_content_type(headers: Headers) -> None:
    """Refuse (415) a Content-Type that is not text/xml in UTF-8 or US-ASCII, and any Content-Encoding."""
    given = headers.getlist("content-type")
    if len(given) != 1 or len(given[0]) > _MAX_CONTENT_TYPE_CHARACTERS or not _CONTENT_TYPE.fullmatch(given[0].strip()):
        raise HttpError(415, f"the Content-Type is not text/xml: {_ADVICE}")
    charsets = _CHARSET.findall(given[0])
    if len(charsets) > 1 or any(
        name.lower() != "charset" or value.strip('"').lower() not in _UTF8 for name, value in charsets
    ):
        raise HttpError(415, f"the charset is not UTF-8: {_ADVICE}")
    if any(coding.strip().lower() != "identity" for coding in headers.getlist("content-encoding")):
        raise HttpError(415, f"the body has a Content-Encoding: {_ADVICE}, not compressed")


def check_encoding(body: bytes) -> None:
    """Refuse (415) a body whose byte order mark or XML declaration names another encoding."""
    start = body[:_MAX_DECLARATION_BYTES].removeprefix(_UTF8_MARK)
    declared = _DECLARED.match(start)
    if start.startswith(_OTHER_MARKS) or (declared and declared[1].decode("latin-1").lower() not in _UTF8):
        raise HttpError(415, f"the body is not in UTF-8: {_ADVICE}")


class RequestAborted(Exception):
    """The sender went away, or was too slow, before the body was whole."""


class ReceiveTracker:
    """What comes of a request, and whether all of it has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_complete = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.is_complete = True
        return message


def has_body(request: Request) -> bool:
    """Whether something comes after the headers."""
    return request.headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in request.headers


async def receive_body(
    request: Request, settings: Settings, memory: RequestMemory, max_bytes: int | None = None
) -> bytes:
    """The whole body, of at most `longest` bytes or those of the settings; a large one only once there is room for it.

    Raises HttpError (413) as soon as it is known to be too long, RequestAborted, and Unavailable.
    """
    limit = settings.max_body if max_bytes is None else max_bytes
    announced = request.headers.get("content-length", "")
    expected = int(announced) if announced.isdigit() else limit
    if announced and expected > limit:
        raise _too_long(limit, settings)
    chunks: list[bytes] = []
    length = 0
    deadline = anyio.current_time() + settings.stall_seconds
    with anyio.CancelScope() as patience:
        while True:
            # Whoever sends at the least rate is waited for; whoever trickles, or stops after much, is not.
            stalled = anyio.current_time() + settings.stall_seconds
            patience.deadline = min(deadline + length / settings.min_bytes_per_second, stalled)
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise RequestAborted
            chunk = message.get("body", b"")
            if length <= LARGE_PAYLOAD_BYTES < length + len(chunk):
                began = anyio.current_time()
                patience.deadline = math.inf
                await memory.reserve(expected * REQUEST_MEMORY_FACTOR)
                deadline += anyio.current_time() - began
            length += len(chunk)
            if length > limit:
                raise _too_long(limit, settings)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)
    raise RequestAborted


async def respond_and_linger(response: Response, incoming: ReceiveTracker, send: Send, seconds: float) -> None:
    """Answer while the sender may still be sending, and take in what comes until it stops, goes, or the time is up.

    To close at once would reset the connection and destroy the answer on its way.
    """
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await _linger(incoming, seconds)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(incoming: ReceiveTracker, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_drain(incoming), seconds)


async def _drain(incoming: ReceiveTracker) -> None:
    while not incoming.is_complete:
        await incoming()


def _too_long(limit: int, settings: Settings) -> HttpError:
    return HttpError(413, f"a request has at most {limit} bytes, its payload {settings.max_payload}")
