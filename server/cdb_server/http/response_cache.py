"""Caches encoded answers by request; decides how long one may be reused; keeps long ones in memory files for sendfile.

A copy for each of 256 peers is more than the processor's caches hold, and took longer than all the rest of an answer.
"""

import asyncio
import base64
import contextlib
import hashlib
import math
import os
import socket
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

from cdb_server import instants
from cdb_server.http.admission import MemoryBudget, MemoryReservation
from cdb_server.model import Clock, JournalPosition
from cdb_server.soap.endpoint import SoapResult
from cdb_server.soap.operations import Cacheability

# Bytes from which on a file is quicker; not fewer, as each answer in a memory file is an open file.
MIN_FILE_BYTES = 2**16


class MemoryFiles:
    """Creates files in memory, for at most `max_files` answers. For one thread."""

    def __init__(self, max_files: int) -> None:
        self.free_count: float = max_files

    def create_file(self, parts: tuple[bytes, ...]) -> "MemoryFile | None":
        """A copy of an answer in a file; None where the system gives no file."""
        length = sum(map(len, parts))
        if self.free_count <= 0:
            return None
        try:
            copy = MemoryFile(self, os.memfd_create("cdb-answer"), length)
            # Nothing is ever written over: what peers still get is the file itself.
            if os.writev(copy._file, parts) == length:
                return copy
        except (AttributeError, OSError):
            # Only Linux has such files, and limits their number.
            pass
        # Otherwise it would be tried again for every answer.
        self.free_count = -math.inf
        return None


class MemoryFile:
    """An answer in a file of its own, which lies in memory until nobody holds this, and no peer still gets it."""

    __slots__ = ("_file", "_files", "length")

    def __init__(self, memory_files: MemoryFiles, file: int, length: int) -> None:
        self._files = memory_files
        self._file = file
        self.length = length
        memory_files.free_count -= 1

    def __del__(self) -> None:
        os.close(self._file)
        self._files.free_count += 1

    def send(self, transport: asyncio.Transport, head: bytes) -> int:
        """Send the head and the answer, and tell how many bytes of both together the peer had room for.

        The transport has nothing left to send, and TLS is not on it. Raises OSError when there is no peer any more.
        """
        its = transport.get_extra_info("socket")
        beneath = socket.socket(its.family, its.type, its.proto, fileno=its.fileno())
        sent = 0
        try:
            with contextlib.suppress(BlockingIOError):
                sent = beneath.send(head, socket.MSG_MORE)
                if sent == len(head):
                    sent += os.sendfile(beneath.fileno(), self._file, 0, self.length)
        finally:
            # The transport closes it.
            beneath.detach()
        return sent


def position_headers(position: JournalPosition | None) -> list[tuple[bytes, bytes]]:
    """`cdb-serial`: the answer knows the journal at least up to there. `cdb-age`, on a copy: seconds since the master
    was heard. Neither when nothing is known."""
    if position is None:
        return []
    headers = [(b"cdb-serial", b"%d" % position.serial)]
    if position.last_contact is not None:
        headers.append((b"cdb-age", b"%d" % max(0, (instants.now() - position.last_contact).total_seconds())))
    return headers


XML_CONTENT_TYPE = "text/xml; charset=utf-8"

# The sha256s of payloads that the caller has: an answer need not bring them.
HAVE_HEADER = "CDB-Have"

# Bytes up to which an answer is copied into one piece with its headers: that is quicker than to send it in several.
MAX_JOINED_BYTES = 2**14

# Bytes of a longer answer that are written at once.
PIECE_BYTES = 2**16

# Keys with long answers that are remembered: so many of the last, and at most as many before them.
MAX_REMEMBERED_KEYS = 5_000

Headers = list[tuple[bytes, bytes]]

_XML, _HAVE = XML_CONTENT_TYPE.encode("ascii"), HAVE_HEADER.encode("ascii")


class CacheKey(NamedTuple):
    """The parts of a request on which its answer depends: the body, and two headers."""

    soap_action: str
    have: str
    body: bytes


@dataclass(eq=False)
class EncodedResponse:
    """The bytes of an answer; `digest` is that of the journal's last entry when it was found.

    `operation` and `fault` are those of SoapResult; `was_sent` says whether it was sent once already.
    """

    parts: tuple[bytes, ...]
    operation: str
    fault: str
    cacheability: Cacheability | None
    digest: str
    length: int
    _content_digest: bytes
    # The position and the headers of which a response head was built, and its bytes.
    _built_head: tuple[JournalPosition, Headers, bytes] | None = None
    was_sent: bool = False
    memory_file: MemoryFile | None = None
    # The memory of this answer, returned when nobody refers to the answer any more.
    reservation: MemoryReservation | None = None
    # The memory of an answer that was made without a reservation, shared by all to whom it is being sent.
    _shared_reservation: "weakref.ref[MemoryReservation] | None" = None

    @classmethod
    def from_result(cls, answer: SoapResult, position: JournalPosition | None) -> "EncodedResponse":
        """An answer that was found at a journal position."""
        parts = answer.parts
        # The payload's own sha256 speaks for it. RFC 9530's Content-Digest, in whose form this is, would take as long
        # as all the rest of an answer; and TCP's checksum lets some damage through.
        content_digest = base64.b64encode(hashlib.sha256(parts[0] + parts[2]).digest())
        cacheability = answer.cacheability if position else None
        digest = position.digest if position else ""
        return cls(parts, answer.operation, answer.fault, cacheability, digest, sum(map(len, parts)), content_digest)

    def with_reservation(self, reservation: MemoryReservation) -> "EncodedResponse":
        """This answer, which keeps what it needs of the memory that was reserved for making it."""
        reservation.shrink(self.length)
        self.reservation = reservation
        return self

    def header_lines(self, position: JournalPosition | None) -> bytes:
        """The header lines of this answer in HTTP/1.1, from a server at this journal position."""
        # A digest covers no header, so that the serial is repeated here. `vary`: a cache that keeps answers to POST
        # must not give one without its payload to a client that lacks the payload.
        return b"content-type: %s\r\ncontent-length: %d\r\nvary: %s\r\ncdb-digest: sha-256=:%s:%s\r\n" % (
            _XML,
            self.length,
            _HAVE,
            self._content_digest,
            b";serial=%d" % position.serial if position else b"",
        ) + b"".join(b"%s: %s\r\n" % header for header in position_headers(position))

    def memory_while_sent(self, budget: MemoryBudget) -> MemoryReservation | None:
        """The reservation to be held while this is sent; None where there is no memory for it."""
        if self.reservation is not None:
            return self.reservation
        sent = None if self._shared_reservation is None else self._shared_reservation()
        if sent is None:
            sent = budget.try_reserve(self.length if self.length > PIECE_BYTES else 0)
            self._shared_reservation = None if sent is None else weakref.ref(sent)
        return sent

    def response_head(self, position: JournalPosition, common: Headers, *, closes: bool) -> bytes:
        """The status line and headers of the answer in HTTP/1.1, with headers `common` to all."""
        # Both are the same objects until something is written or a second is over.
        if (
            self._built_head is None
            or self._built_head[0] is not position
            or self._built_head[1] is not common
            or position.last_contact
        ):
            head = b"".join(b"%s: %s\r\n" % header for header in common) + self.header_lines(position)
            self._built_head = position, common, b"HTTP/1.1 200 OK\r\n" + head
        return self._built_head[2] + (b"connection: close\r\n\r\n" if closes else b"\r\n")

    def remaining_pieces(self, beginning: bytes, sent: int) -> list[bytes | memoryview]:
        """The pieces of a head and the answer that remain after `sent` bytes of both."""
        if self.length <= MAX_JOINED_BYTES and not sent:
            return [b"".join((beginning, *self.parts))]
        rest: list[bytes | memoryview] = []
        for part in (beginning, *self.parts):
            if sent < len(part):
                rest += [memoryview(part)[at : at + PIECE_BYTES] for at in range(sent, len(part), PIECE_BYTES)]
            sent = max(0, sent - len(part))
        return rest

    def headers(self, position: JournalPosition | None) -> list[tuple[bytes, bytes]]:
        """The same headers as ASGI has them."""
        lines = self.header_lines(position).split(b"\r\n")[:-1]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


class ResponseCache:
    """Keeps at most `max_bytes` of answers and their keys; evicts the least recently used first. For one thread."""

    def __init__(self, max_bytes: int, clock: Clock = instants.now, memory_files: MemoryFiles | None = None) -> None:
        """Long answers that are found again are copied into `memory_files`, where there are such."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._responses: OrderedDict[CacheKey, EncodedResponse] = OrderedDict()
        self._memory_files = memory_files
        # Hashes of keys with long answers.
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._weak: WeakValueDictionary[CacheKey, EncodedResponse] = WeakValueDictionary()

    def find(self, key: CacheKey, position: JournalPosition) -> EncodedResponse | None:
        """The answer while it is still right, for a database at this journal position."""
        response = self._responses.get(key)
        if response is None:
            response = self._weak.get(key)
            return response if response and self._is_valid(response, position) else None
        if not self._is_valid(response, position):
            return None
        self._responses.move_to_end(key)
        if self._memory_files and response.memory_file is None and response.length >= MIN_FILE_BYTES:
            response.memory_file = self._memory_files.create_file(response.parts)
            self._bytes += response.length if response.memory_file else 0
            self._evict()
        return response

    def put(self, key: CacheKey, response: EncodedResponse) -> None:
        """Keep an answer, if it may be cached; a long one only if its key came before.

        Long answers that are never asked for again would displace those that are. And each would be written into memory
        that none of the processor's caches holds: that takes a tenth of the time of an answer.
        """
        size = _size(key, response)
        # One long answer shall not displace all others.
        if response.cacheability is None or size > self._max_bytes // 8:
            return
        if response.length >= MIN_FILE_BYTES and not self._was_seen(key):
            return
        replaced = self._responses.pop(key, None)
        if replaced is not None:
            self._bytes -= _size(key, replaced)
        self._responses[key] = response
        self._bytes += size
        self._evict()

    def put_weak(self, key: CacheKey, response: EncodedResponse) -> None:
        """Let an answer be found for as long as something else refers to it."""
        self._weak[key] = response

    def _was_seen(self, key: CacheKey) -> bool:
        mark = hash(key)
        if mark in self._seen or mark in self._seen_before:
            return True
        self._seen.add(mark)
        if len(self._seen) == MAX_REMEMBERED_KEYS:
            self._seen, self._seen_before = set(), self._seen
        return False

    def _evict(self) -> None:
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._responses.popitem(last=False))

    def _is_valid(self, response: EncodedResponse, position: JournalPosition) -> bool:
        cacheability = response.cacheability
        if cacheability is None:
            return False
        if cacheability.forever:
            return True
        if response.digest != position.digest:
            return False
        if cacheability.not_before is None and cacheability.expires is None:
            return True
        now = self._clock()
        return (cacheability.not_before is None or cacheability.not_before <= now) and (
            cacheability.expires is None or now < cacheability.expires
        )


# Bytes that Python needs for an answer and its key beside their texts.
_OVERHEAD = 1_000


def _size(key: CacheKey, response: EncodedResponse) -> int:
    of_answer = 2 * response.length if response.memory_file else response.length
    return len(key.body) + len(key.soap_action) + len(key.have) + of_answer + _OVERHEAD
