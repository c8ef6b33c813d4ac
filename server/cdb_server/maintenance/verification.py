"""The proof of a database: every payload's hash, every digest of the chain, and the database's own check.

Rule 12: "The journal proves itself. Each entry has digest = sha256(previous digest + canonical form of the entry), the
payload entering through its sha256." Rule 13: "The sha256 travels with every calibration and is checked".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cdb_server import journal, model
from cdb_server.instants import spell
from cdb_server.model import Entry, NewCalibration
from cdb_server.repository import Database, Inspection, Unreadable

# Entries, and bytes of payloads, that are read in one transaction.
AT_ONCE = 500
BYTES_AT_ONCE = 2**26
# A database with more wrong than this is wrong altogether, and each line more says nothing new.
MOST_PROBLEMS = 1000

# Called now and then with how many entries are done, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what is wrong with it: nothing when `problems` is empty.

    `digest` is that of the last entry, `unchecked` what could not be looked at, for a reason that is no damage.
    """

    entries: int
    payloads: int
    payload_bytes: int
    digest: str
    problems: tuple[str, ...]
    unchecked: str | None


def verify(database: Database, progress: Progress = lambda done, of: None) -> Verification:
    """Recompute all that a database says of itself. Writers are hardly held up, but by the database's own check."""
    return _Proof(Inspection(database), progress).made()


class _Proof:
    def __init__(self, inspection: Inspection, progress: Progress) -> None:
        self._inspection = inspection
        self._progress = progress
        self._problems: list[str] = []
        self._seen: set[bytes] = set()
        self._waiting: dict[str, tuple[int, int]] = {}
        self._waiting_bytes = 0
        self._payload_bytes = 0
        # Digests on which the next entry's may stand: the one kept, and the one that should have been.
        self._previous = {journal.GENESIS}
        self._digest = journal.GENESIS
        self._created: datetime | None = None

    def made(self) -> Verification:
        unchecked = None
        length = 0
        try:
            unchecked = self._inspection.lacks_own_check()
            for problem in self._inspection.own_check():
                self._tell(f"the database's own check: {problem}")
        except Unreadable as error:
            self._tell(f"the database's own check: {error}")
        self._collect(self._inspection.guards)
        try:
            length = self._inspection.length()
        except Unreadable as error:
            self._tell(f"the journal cannot be read: {error}")
        for expected, found in self._entries(length):
            if len(self._problems) >= MOST_PROBLEMS:
                self._tell("more is wrong than is worth telling: the rest was not looked at")
                break
            self._look_at(expected, found)
            if expected % AT_ONCE == 0 or expected == length:
                self._look_at_payloads()
                self._progress(expected, length)
        else:
            self._collect(self._inspection.strays)
            self._collect(self._left_over)
        return Verification(
            length, len(self._seen), self._payload_bytes, self._digest, tuple(self._problems), unchecked
        )

    def _entries(self, length: int) -> Iterator[tuple[int, tuple[Entry, str] | Unreadable | None]]:
        """For each serial its entry, what came in its place, or None when there is none."""
        serial = 0
        while serial < length:
            try:
                batch = {found[0].serial: found for found in self._inspection.entries(serial, AT_ONCE)}
                for expected in range(serial + 1, min(serial + AT_ONCE, length) + 1):
                    yield expected, batch.get(expected)
            except Unreadable:
                for expected in range(serial + 1, min(serial + AT_ONCE, length) + 1):
                    yield expected, self._one(expected)
            serial += AT_ONCE

    def _one(self, serial: int) -> tuple[Entry, str] | Unreadable | None:
        try:
            found = self._inspection.entries(serial - 1, 1)
        except Unreadable as error:
            return error
        return found[0] if found and found[0][0].serial == serial else None

    def _look_at(self, serial: int, found: tuple[Entry, str] | Unreadable | None) -> None:
        if found is None:
            self._tell(f"entry {serial}: missing")
            self._previous = set()
            return
        if isinstance(found, Unreadable):
            self._tell(f"entry {serial}: cannot be read: {found}")
            self._previous = set()
            return
        entry, kept = found
        try:
            right = {journal.digest(previous, entry) for previous in self._previous}
        except (ValueError, TypeError, AttributeError) as error:
            right = set()
            self._tell(f"{_name(entry)}: a value is not of its kind: {error}")
        # After an entry that is lost nobody knows on which digest this one stands.
        if self._previous and kept not in right:
            self._tell(f"{_name(entry)}: its digest is not that of its content and of the entry before it")
        self._previous = right | {kept}
        self._digest = kept
        if self._created is not None and entry.created <= self._created:
            self._tell(f"{_name(entry)}: created {spell(entry.created)}, not after the entry before it")
        self._created = entry.created
        if isinstance(entry.content, NewCalibration):
            self._note_payload(entry.serial, entry.content)

    def _note_payload(self, id: int, content: NewCalibration) -> None:
        """Payloads wait until some can be read at once; each is read once, and named by the first that has it."""
        try:
            named = bytes.fromhex(content.sha256)
            if named not in self._seen:
                self._seen.add(named)
                self._waiting[content.sha256] = id, int(content.size)
                self._waiting_bytes += int(content.size)
        except (ValueError, TypeError) as error:
            self._tell(f"calibration {id}: its payload {content.sha256!r} has no name: {error}")
        if self._waiting_bytes > BYTES_AT_ONCE:
            self._look_at_payloads()

    def _look_at_payloads(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        try:
            found = self._inspection.payloads(list(waiting))
        except Unreadable as error:
            if len(waiting) == 1:
                [(sha256, (id, _))] = waiting.items()
                self._tell(f"calibration {id}: its payload {sha256} cannot be read: {error}")
                return
            for sha256, of in waiting.items():
                self._waiting = {sha256: of}
                self._look_at_payloads()
            return
        for sha256, (id, size) in waiting.items():
            self._look_at_payload(id, sha256, size, found.get(sha256))

    def _look_at_payload(self, id: int, sha256: str, size: int, data: bytes | None) -> None:
        if data is None:
            self._tell(f"calibration {id}: its payload {sha256} is missing")
            return
        self._payload_bytes += len(data)
        actual = model.sha256_of(data)
        if actual != sha256:
            self._tell(f"calibration {id}: its payload {sha256} has the sha256 {actual}")
        elif len(data) != size:
            self._tell(f"calibration {id}: its payload has {len(data)} bytes, and its size is {size}")

    def _left_over(self) -> list[str]:
        if self._inspection.payload_count() == len(self._seen):
            return []
        return [f"payload {sha256}: no calibration has it" for sha256 in self._inspection.payloads_of_none()]

    def _collect(self, look: Callable[[], list[str]]) -> None:
        try:
            for problem in look():
                self._tell(problem)
        except Unreadable as error:
            self._tell(f"the database cannot be read: {error}")

    def _tell(self, problem: str) -> None:
        self._problems.append(problem)


def _name(entry: Entry) -> str:
    return f"{entry.content.kind} {entry.serial}"
