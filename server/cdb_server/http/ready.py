"""Answers kept ready: those given lately, each found again by its question as it was received."""

import base64
import hashlib
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

from cdb_server import instants
from cdb_server.http import knowledge
from cdb_server.http.budget import Budget, Reservation
from cdb_server.http.shelf import LEAST, Shelf, Shelved
from cdb_server.model import Clock, Knowledge
from cdb_server.soap import Answer, Lasting

XML = "text/xml; charset=utf-8"
# The sha256s of payloads that the caller has: an answer need not bring them.
HAVE = "CDB-Have"
# Bytes up to which an answer is copied into one piece with its headers: that is quicker than to send it in several.
JOINED = 2**14
# Bytes of a longer one that are handed on at once.
PIECE = 2**16
# Of questions with long answers, so many of the last and at most as many before them are known to have come.
REMEMBERED = 5_000
Headers = list[tuple[bytes, bytes]]
_XML, _HAVE = XML.encode("ascii"), HAVE.encode("ascii")


class Question(NamedTuple):
    """What an answer depends on of a request: its body, and two of its headers."""

    soap_action: str
    have: str
    body: bytes


@dataclass(eq=False)
class Ready:
    """The bytes of an answer; `digest` is that of the journal's last entry when it was found.

    `operation` and `fault` are as Answer has them; `given` says whether it was given once already.
    """

    parts: tuple[bytes, ...]
    operation: str
    fault: str
    lasting: Lasting | None
    digest: str
    length: int
    _proof: bytes
    # What the beginning of a response was made of, and its bytes.
    _begun: tuple[Knowledge, Headers, bytes] | None = None
    given: bool = False
    shelved: Shelved | None = None
    # Of memory, until nobody has this any more.
    reservation: Reservation | None = None
    # The same of one that is made without, shared by all who are sent it now.
    _sent: "weakref.ref[Reservation] | None" = None

    @classmethod
    def of(cls, answer: Answer, known: Knowledge | None) -> "Ready":
        """An answer, found when this much was known."""
        parts = answer.parts
        # The payload's own sha256 speaks for it. RFC 9530's Content-Digest, in whose form this is, would take as long
        # as all the rest of an answer; and TCP's checksum lets some damage through.
        proof = base64.b64encode(hashlib.sha256(parts[0] + parts[2]).digest())
        lasting = answer.lasting if known else None
        digest = known.digest if known else ""
        return cls(parts, answer.operation, answer.fault, lasting, digest, sum(map(len, parts)), proof)

    def holding(self, reservation: Reservation) -> "Ready":
        """This answer, which keeps what it needs of the memory that was reserved for making it."""
        reservation.shrink(self.length)
        self.reservation = reservation
        return self

    def head(self, known: Knowledge | None) -> bytes:
        """The headers of an answer of a server that knows this much, as HTTP/1.1 has them."""
        # A digest covers no header, so that the serial is told here again. A cache that keeps answers to POST must not
        # give one without its payload to who has it not.
        return b"content-type: %s\r\ncontent-length: %d\r\nvary: %s\r\ncdb-digest: sha-256=:%s:%s\r\n" % (
            _XML,
            self.length,
            _HAVE,
            self._proof,
            b";serial=%d" % known.serial if known else b"",
        ) + b"".join(b"%s: %s\r\n" % header for header in knowledge.headers(known))

    def under_way(self, budget: Budget) -> Reservation | None:
        """What is to be held while this is sent; None where there is no memory for it."""
        if self.reservation is not None:
            return self.reservation
        sent = None if self._sent is None else self._sent()
        if sent is None:
            sent = budget.reserve_at_once(self.length if self.length > PIECE else 0)
            self._sent = None if sent is None else weakref.ref(sent)
        return sent

    def beginning(self, known: Knowledge, common: Headers, *, closes: bool) -> bytes:
        """What comes before the bytes of the answer in HTTP/1.1, with headers `common` to all."""
        # Both are the same objects until something is written or a second is over.
        if self._begun is None or self._begun[0] is not known or self._begun[1] is not common or known.heard:
            head = b"".join(b"%s: %s\r\n" % header for header in common) + self.head(known)
            self._begun = known, common, b"HTTP/1.1 200 OK\r\n" + head
        return self._begun[2] + (b"connection: close\r\n\r\n" if closes else b"\r\n")

    def rest(self, beginning: bytes, sent: int) -> list[bytes | memoryview]:
        """What remains to be sent of a beginning and the answer, after so many bytes of both, in pieces."""
        if self.length <= JOINED and not sent:
            return [b"".join((beginning, *self.parts))]
        rest: list[bytes | memoryview] = []
        for part in (beginning, *self.parts):
            if sent < len(part):
                rest += [memoryview(part)[at : at + PIECE] for at in range(sent, len(part), PIECE)]
            sent = max(0, sent - len(part))
        return rest

    def headers(self, known: Knowledge | None) -> list[tuple[bytes, bytes]]:
        """The same as ASGI has them."""
        lines = self.head(known).split(b"\r\n")[:-1]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


class ReadyAnswers:
    """At most `most_bytes` of answers and their questions, those asked least recently going first. For one thread."""

    def __init__(self, most_bytes: int, clock: Clock = instants.now, shelf: Shelf | None = None) -> None:
        """Long ones that are found again are put on the shelf, where there is one."""
        self._most_bytes = most_bytes
        self._clock = clock
        self._bytes = 0
        self._found: OrderedDict[Question, Ready] = OrderedDict()
        self._shelf = shelf
        # Hashes of questions with long answers.
        self._came: set[int] = set()
        self._came_before: set[int] = set()
        self._lent: WeakValueDictionary[Question, Ready] = WeakValueDictionary()

    def find(self, question: Question, known: Knowledge) -> Ready | None:
        """The answer where it is still right, for a database that stands as `known`."""
        ready = self._found.get(question)
        if ready is None:
            ready = self._lent.get(question)
            return ready if ready and self._is_right(ready, known) else None
        if not self._is_right(ready, known):
            return None
        self._found.move_to_end(question)
        if self._shelf and ready.shelved is None and ready.length >= LEAST:
            ready.shelved = self._shelf.put(ready.parts)
            self._bytes += ready.length if ready.shelved else 0
            self._shrink()
        return ready

    def keep(self, question: Question, ready: Ready) -> None:
        """Keep an answer, if it lasts; a long one only if its question came before.

        Long answers to questions that never come again would displace those that do. And each would be written into
        memory that none of the processor's caches holds, not where the one before it was: a tenth of all its time.
        """
        size = _size(question, ready)
        # One long answer shall not displace all others.
        if ready.lasting is None or size > self._most_bytes // 8:
            return
        if ready.length >= LEAST and not self._has_come(question):
            return
        replaced = self._found.pop(question, None)
        if replaced is not None:
            self._bytes -= _size(question, replaced)
        self._found[question] = ready
        self._bytes += size
        self._shrink()

    def lend(self, question: Question, ready: Ready) -> None:
        """Let an answer be found for as long as somebody else holds it."""
        self._lent[question] = ready

    def _has_come(self, question: Question) -> bool:
        mark = hash(question)
        if mark in self._came or mark in self._came_before:
            return True
        self._came.add(mark)
        if len(self._came) == REMEMBERED:
            self._came, self._came_before = set(), self._came
        return False

    def _shrink(self) -> None:
        while self._bytes > self._most_bytes:
            self._bytes -= _size(*self._found.popitem(last=False))

    def _is_right(self, ready: Ready, known: Knowledge) -> bool:
        lasting = ready.lasting
        if lasting is None:
            return False
        if lasting.for_ever:
            return True
        if ready.digest != known.digest:
            return False
        if lasting.since is None and lasting.until is None:
            return True
        now = self._clock()
        return (lasting.since is None or lasting.since <= now) and (lasting.until is None or now < lasting.until)


# Bytes that Python needs for what an answer and its question hold beside their texts.
_OVERHEAD = 1_000


def _size(question: Question, ready: Ready) -> int:
    of_answer = 2 * ready.length if ready.shelved else ready.length
    return len(question.body) + len(question.soap_action) + len(question.have) + of_answer + _OVERHEAD
