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

# Bytes from which on it pays; not less, for each answer on the shelf is an open file.
MIN_FILE_BYTES = 2**16


class MemoryFiles:
    """For at most so many answers. For one thread."""

    def __init__(self, max_files: int) -> None:
        self.free_count: float = max_files

    def create_file(self, parts: tuple[bytes, ...]) -> "MemoryFile | None":
        """A copy of an answer; None where it cannot be had."""
        length = sum(map(len, parts))
        if self.free_count <= 0:
            return None
        try:
            copy = MemoryFile(self, os.memfd_create("cdb-answer"), length)
            # Nothing is ever written over: what peers still get is the file itself.
            if os.writev(copy._file, parts) == length:
                return copy
        except (AttributeError, OSError):
            # Only Linux has such files, and not without limit.
            pass
        # It would be tried again for every answer.
        self.free_count = -math.inf
        return None


class MemoryFile:
    """An answer in a file of its own, which lies in memory until nobody holds this, and no peer still gets it."""

    __slots__ = ("_file", "_files", "length")

    def __init__(self, shelf: MemoryFiles, file: int, length: int) -> None:
        self._files = shelf
        self._file = file
        self.length = length
        shelf.free_count -= 1

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


def position_headers(knowledge: JournalPosition | None) -> list[tuple[bytes, bytes]]:
    """`cdb-serial`: the answer knows the journal at least up to there. `cdb-age`, on a copy: seconds since the master
    was heard. Neither when nothing is known."""
    if knowledge is None:
        return []
    told = [(b"cdb-serial", b"%d" % knowledge.serial)]
    if knowledge.last_contact is not None:
        told.append((b"cdb-age", b"%d" % max(0, (instants.now() - knowledge.last_contact).total_seconds())))
    return told


XML_CONTENT_TYPE = "text/xml; charset=utf-8"

# The sha256s of payloads that the caller has: an answer need not bring them.
HAVE_HEADER = "CDB-Have"

# Bytes up to which an answer is copied into one piece with its headers: that is quicker than to send it in several.
MAX_JOINED_BYTES = 2**14

# Bytes of a longer one that are handed on at once.
PIECE_BYTES = 2**16

# Of questions with long answers, so many of the last and at most as many before them are known to have come.
MAX_REMEMBERED_KEYS = 5_000

Headers = list[tuple[bytes, bytes]]

_XML, _HAVE = XML_CONTENT_TYPE.encode("ascii"), HAVE_HEADER.encode("ascii")


class CacheKey(NamedTuple):
    """What an answer depends on of a request: its body, and two of its headers."""

    soap_action: str
    have: str
    body: bytes


@dataclass(eq=False)
class EncodedResponse:
    """The bytes of an answer; `digest` is that of the journal's last entry when it was found.

    `operation` and `fault` are as Answer has them; `given` says whether it was given once already.
    """

    parts: tuple[bytes, ...]
    operation: str
    fault: str
    cacheability: Cacheability | None
    digest: str
    length: int
    _content_digest: bytes
    # What the beginning of a response was made of, and its bytes.
    _built_head: tuple[JournalPosition, Headers, bytes] | None = None
    was_sent: bool = False
    memory_file: MemoryFile | None = None
    # Of memory, until nobody has this any more.
    reservation: MemoryReservation | None = None
    # The same of one that is made without, shared by all who are sent it now.
    _shared_reservation: "weakref.ref[MemoryReservation] | None" = None

    @classmethod
    def from_result(cls, answer: SoapResult, known: JournalPosition | None) -> "EncodedResponse":
        """An answer, found when this much was known."""
        parts = answer.parts
        # The payload's own sha256 speaks for it. RFC 9530's Content-Digest, in whose form this is, would take as long
        # as all the rest of an answer; and TCP's checksum lets some damage through.
        proof = base64.b64encode(hashlib.sha256(parts[0] + parts[2]).digest())
        lasting = answer.cacheability if known else None
        digest = known.digest if known else ""
        return cls(parts, answer.operation, answer.fault, lasting, digest, sum(map(len, parts)), proof)

    def with_reservation(self, reservation: MemoryReservation) -> "EncodedResponse":
        """This answer, which keeps what it needs of the memory that was reserved for making it."""
        reservation.shrink(self.length)
        self.reservation = reservation
        return self

    def header_lines(self, known: JournalPosition | None) -> bytes:
        """The headers of an answer of a server that knows this much, as HTTP/1.1 has them."""
        # A digest covers no header, so that the serial is told here again. A cache that keeps answers to POST must not
        # give one without its payload to who has it not.
        return b"content-type: %s\r\ncontent-length: %d\r\nvary: %s\r\ncdb-digest: sha-256=:%s:%s\r\n" % (
            _XML,
            self.length,
            _HAVE,
            self._content_digest,
            b";serial=%d" % known.serial if known else b"",
        ) + b"".join(b"%s: %s\r\n" % header for header in position_headers(known))

    def memory_while_sent(self, budget: MemoryBudget) -> MemoryReservation | None:
        """What is to be held while this is sent; None where there is no memory for it."""
        if self.reservation is not None:
            return self.reservation
        sent = None if self._shared_reservation is None else self._shared_reservation()
        if sent is None:
            sent = budget.try_reserve(self.length if self.length > PIECE_BYTES else 0)
            self._shared_reservation = None if sent is None else weakref.ref(sent)
        return sent

    def response_head(self, known: JournalPosition, common: Headers, *, closes: bool) -> bytes:
        """What comes before the bytes of the answer in HTTP/1.1, with headers `common` to all."""
        # Both are the same objects until something is written or a second is over.
        if (
            self._built_head is None
            or self._built_head[0] is not known
            or self._built_head[1] is not common
            or known.last_contact
        ):
            head = b"".join(b"%s: %s\r\n" % header for header in common) + self.header_lines(known)
            self._built_head = known, common, b"HTTP/1.1 200 OK\r\n" + head
        return self._built_head[2] + (b"connection: close\r\n\r\n" if closes else b"\r\n")

    def remaining_pieces(self, beginning: bytes, sent: int) -> list[bytes | memoryview]:
        """What remains to be sent of a beginning and the answer, after so many bytes of both, in pieces."""
        if self.length <= MAX_JOINED_BYTES and not sent:
            return [b"".join((beginning, *self.parts))]
        rest: list[bytes | memoryview] = []
        for part in (beginning, *self.parts):
            if sent < len(part):
                rest += [memoryview(part)[at : at + PIECE_BYTES] for at in range(sent, len(part), PIECE_BYTES)]
            sent = max(0, sent - len(part))
        return rest

    def headers(self, known: JournalPosition | None) -> list[tuple[bytes, bytes]]:
        """The same as ASGI has them."""
        lines = self.header_lines(known).split(b"\r\n")[:-1]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


class ResponseCache:
    """At most `most_bytes` of answers and their questions, those asked least recently going first. For one thread."""

    def __init__(self, max_bytes: int, clock: Clock = instants.now, memory_files: MemoryFiles | None = None) -> None:
        """Long ones that are found again are put on the shelf, where there is one."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._responses: OrderedDict[CacheKey, EncodedResponse] = OrderedDict()
        self._memory_files = memory_files
        # Hashes of questions with long answers.
        self._seen: set[int] = set()
        self._seen_before: set[int] = set()
        self._weak: WeakValueDictionary[CacheKey, EncodedResponse] = WeakValueDictionary()

    def find(self, question: CacheKey, known: JournalPosition) -> EncodedResponse | None:
        """The answer where it is still right, for a database that stands as `known`."""
        ready = self._responses.get(question)
        if ready is None:
            ready = self._weak.get(question)
            return ready if ready and self._is_valid(ready, known) else None
        if not self._is_valid(ready, known):
            return None
        self._responses.move_to_end(question)
        if self._memory_files and ready.memory_file is None and ready.length >= MIN_FILE_BYTES:
            ready.memory_file = self._memory_files.create_file(ready.parts)
            self._bytes += ready.length if ready.memory_file else 0
            self._evict()
        return ready

    def put(self, question: CacheKey, ready: EncodedResponse) -> None:
        """Keep an answer, if it lasts; a long one only if its question came before.

        Long answers to questions that never come again would displace those that do. And each would be written into
        memory that none of the processor's caches holds, not where the one before it was: a tenth of all its time.
        """
        size = _size(question, ready)
        # One long answer shall not displace all others.
        if ready.cacheability is None or size > self._max_bytes // 8:
            return
        if ready.length >= MIN_FILE_BYTES and not self._was_seen(question):
            return
        replaced = self._responses.pop(question, None)
        if replaced is not None:
            self._bytes -= _size(question, replaced)
        self._responses[question] = ready
        self._bytes += size
        self._evict()

    def put_weak(self, question: CacheKey, ready: EncodedResponse) -> None:
        """Let an answer be found for as long as somebody else holds it."""
        self._weak[question] = ready

    def _was_seen(self, question: CacheKey) -> bool:
        mark = hash(question)
        if mark in self._seen or mark in self._seen_before:
            return True
        self._seen.add(mark)
        if len(self._seen) == MAX_REMEMBERED_KEYS:
            self._seen, self._seen_before = set(), self._seen
        return False

    def _evict(self) -> None:
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._responses.popitem(last=False))

    def _is_valid(self, ready: EncodedResponse, known: JournalPosition) -> bool:
        lasting = ready.cacheability
        if lasting is None:
            return False
        if lasting.forever:
            return True
        if ready.digest != known.digest:
            return False
        if lasting.not_before is None and lasting.expires is None:
            return True
        now = self._clock()
        return (lasting.not_before is None or lasting.not_before <= now) and (
            lasting.expires is None or now < lasting.expires
        )


# Bytes that Python needs for what an answer and its question hold beside their texts.
_OVERHEAD = 1_000


def _size(question: CacheKey, ready: EncodedResponse) -> int:
    of_answer = 2 * ready.length if ready.memory_file else ready.length
    return len(question.body) + len(question.soap_action) + len(question.have) + of_answer + _OVERHEAD
