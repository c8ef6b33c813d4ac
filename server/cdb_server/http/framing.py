"""The framing of HTTP/1.1: where heads and bodies end in what a connection receives, and which heads are refused.

The parser below uvicorn is strict about line ends, white space, lengths and chunks. It takes heads, though, that RFC
9112 has a server refuse, and a request that offers another protocol for one without a body. It is therefore given one
head or a part of one body at a time: each head passes through here first, at whatever bytes the network has split it.
"""

import re
from typing import NamedTuple

# Of a head, and of a body in chunks.
END = b"\r\n\r\n"

Headers = list[tuple[bytes, bytes]]

_MAY_BEGIN = re.compile(rb"[A-Z-]{1,20}(?: |\Z)|\r?\Z")
_REQUEST_LINE = re.compile(rb"[A-Z-]{1,20} [^\x00-\x20\x7f#]+ HTTP/([0-9])\.[0-9]\r\n")
_TUNNEL = b"CONNECT "
_OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?@]+)(/[^?]*)?(\?.*)?")
# RFC 3986: a name or an IPv4 address, or an IPv6 one in brackets; then a port, perhaps. RFC 9112 lets it be empty.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class Refusal(NamedTuple):
    """Why a head is refused: HTTP's status, and a line of text."""

    status: int
    text: str


class Refused(Exception):
    """Ends the parsing of a head."""


def skip_empty_lines(data: bytes, start: int) -> int:
    """Where a head begins that may come after empty lines."""
    while data.startswith(b"\r\n", start):
        start += 2
    return start


def may_begin(data: bytes, start: int) -> bool:
    """Whether what is there may become a head."""
    return _MAY_BEGIN.match(data, start) is not None


def check_line(head: bytes) -> Refusal | None:
    """Judge the first line of a head."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        return Refusal(400, "the first line of the request is not one of HTTP/1.1")
    if line[1] != b"1":
        return Refusal(505, "use HTTP/1.1")
    return None


def without_offer(head: bytes) -> bytes:
    """A head that asks for no other protocol and no tunnel: the parser takes such a request for one without a body.

    Java's client offers another protocol with every request. A tunnel is refused like any other method but those known.
    """
    if head.startswith(_TUNNEL):
        head = b"OPTIONS " + head[len(_TUNNEL) :]
    return _OFFER.sub(b"\r\nOffered:", head)


def check_headers(method: str, target: bytes, version: str, headers: Headers) -> Refusal | None:
    """Judge what the parser has found in a head, by RFC 9112: sections 3.2 (Host and the target) and 6.1 (lengths)."""
    hosts = [value.strip(b" \t") for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return Refusal(400, "a request has one Host header")
    if not all(map(_HOST.fullmatch, hosts)):
        return Refusal(400, "the Host header is not a host and, perhaps, a port")
    if not target.startswith(b"/") and (target != b"*" or method != "OPTIONS") and _absolute(target) is None:
        return Refusal(400, "the target of the request is neither a path nor an http address")
    codings = [
        coding.strip(b" \t").lower()
        for name, value in headers
        if name == b"transfer-encoding"
        for coding in value.split(b",")
    ]
    if codings and (version != "1.1" or codings[-1] != b"chunked"):
        return Refusal(400, "where this request ends cannot be known: use Content-Length, or HTTP/1.1 and chunked")
    if len(codings) > 1:
        return Refusal(501, "the only Transfer-Encoding that is known here is chunked")
    return None


def in_origin_form(target: bytes, headers: Headers) -> bytes:
    """The path and query of a target; where it is a whole address, that is the Host, whatever the header says."""
    absolute = None if target.startswith(b"/") else _absolute(target)
    if absolute is None:
        return target
    headers[:] = [(name, absolute[1] if name == b"host" else value) for name, value in headers]
    return (absolute[2] or b"/") + (absolute[3] or b"")


def _absolute(target: bytes) -> re.Match[bytes] | None:
    found = _ABSOLUTE.fullmatch(target)
    return found if found and _HOST.fullmatch(found[1]) else None


class Chunks:
    """Finds where a body in chunks may end: behind an empty line, though not behind each.

    The parser knows which; what follows the body must not be shown to it before.
    """

    def __init__(self) -> None:
        # The last bytes before those that are looked at: an empty line may have begun there.
        self._before = b""

    def end(self, data: bytes, start: int) -> int:
        """How far the parser may be given the data, from a start on."""
        seam = (self._before + data[start : start + 3]).find(END)
        found = data.find(END, start)
        end = len(data) if found < 0 else found + len(END)
        if seam >= 0:
            end = start + seam + len(END) - len(self._before)
        self._before = (self._before + data[max(start, end - 3) : end])[-3:]
        return end
