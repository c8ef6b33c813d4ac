"""Verifies, backs up, restores and compares databases: what an operator does beside serving.

Rule 12: "The journal proves itself. Each entry has digest = sha256(previous digest + canonical form of the entry), the
payload entering through its sha256." Rule 13: "The sha256 travels with every calibration and is checked".

SQLite is copied by its online backup, PostgreSQL by its own programs pg_dump and pg_restore. What is replaced is kept
under another name: nothing is deleted.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cdb_server import instants, journal, model
from cdb_server.database import parse_url, postgresql, sqlite
from cdb_server.database.inspection import Inspection, Unreadable
from cdb_server.database.sqlite import create_atomically
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable
from cdb_server.instants import format_instant
from cdb_server.model import Entry, NewCalibration, Progress
from cdb_server.repository.journal_entries import read_entries
from cdb_server.repository.reader import Reader

# Entries, and bytes of payloads, that are read in one transaction.
ENTRIES_PER_READ = 500

PAYLOAD_BYTES_PER_READ = 2**26

# A database with more wrong than this is wrong altogether, and each line more says nothing new.
MAX_PROBLEMS = 1000


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
    return _Verifier(Inspection(database), progress).verify_all()


class _Verifier:
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

    def verify_all(self) -> Verification:
        unchecked = None
        length = 0
        try:
            unchecked = self._inspection.missing_backend_check()
            for problem in self._inspection.backend_check():
                self._add_problem(f"the database's own check: {problem}")
        except Unreadable as error:
            self._add_problem(f"the database's own check: {error}")
        self._collect(self._inspection.schema_drift)
        try:
            length = self._inspection.last_serial()
        except Unreadable as error:
            self._add_problem(f"the journal cannot be read: {error}")
        for expected, found in self._entries(length):
            if len(self._problems) >= MAX_PROBLEMS:
                self._add_problem("more is wrong than is worth telling: the rest was not looked at")
                break
            self._check_entry(expected, found)
            if expected % ENTRIES_PER_READ == 0 or expected == length:
                self._check_payloads()
                self._progress(expected, length)
        else:
            self._collect(self._inspection.orphan_rows)
            self._collect(self._unused_payloads)
        return Verification(
            length, len(self._seen), self._payload_bytes, self._digest, tuple(self._problems), unchecked
        )

    def _entries(self, length: int) -> Iterator[tuple[int, tuple[Entry, str] | Unreadable | None]]:
        """For each serial its entry, what came in its place, or None when there is none."""
        serial = 0
        while serial < length:
            try:
                batch = {found[0].serial: found for found in self._entries_after(serial, ENTRIES_PER_READ)}
                for expected in range(serial + 1, min(serial + ENTRIES_PER_READ, length) + 1):
                    yield expected, batch.get(expected)
            except Unreadable:
                for expected in range(serial + 1, min(serial + ENTRIES_PER_READ, length) + 1):
                    yield expected, self._read_one(expected)
            serial += ENTRIES_PER_READ

    def _entries_after(self, serial: int, limit: int) -> list[tuple[Entry, str]]:
        with self._inspection.reading() as connection:
            return read_entries(connection, serial, limit)

    def _read_one(self, serial: int) -> tuple[Entry, str] | Unreadable | None:
        try:
            found = self._entries_after(serial - 1, 1)
        except Unreadable as error:
            return error
        return found[0] if found and found[0][0].serial == serial else None

    def _check_entry(self, serial: int, found: tuple[Entry, str] | Unreadable | None) -> None:
        if found is None:
            self._add_problem(f"entry {serial}: missing")
            self._previous = set()
            return
        if isinstance(found, Unreadable):
            self._add_problem(f"entry {serial}: cannot be read: {found}")
            self._previous = set()
            return
        entry, kept = found
        try:
            right = {journal.digest(previous, entry) for previous in self._previous}
        except (ValueError, TypeError, AttributeError) as error:
            right = set()
            self._add_problem(f"{_entry_name(entry)}: a value is not of its kind: {error}")
        # After an entry that is lost nobody knows on which digest this one stands.
        if self._previous and kept not in right:
            self._add_problem(f"{_entry_name(entry)}: its digest is not that of its content and of the entry before it")
        self._previous = right | {kept}
        self._digest = kept
        if self._created is not None and entry.created <= self._created:
            self._add_problem(
                f"{_entry_name(entry)}: created {format_instant(entry.created)}, not after the entry before it"
            )
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
            self._add_problem(f"calibration {id}: its payload {content.sha256!r} has no name: {error}")
        if self._waiting_bytes > PAYLOAD_BYTES_PER_READ:
            self._check_payloads()

    def _check_payloads(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        try:
            found = self._inspection.payloads(list(waiting))
        except Unreadable as error:
            if len(waiting) == 1:
                [(sha256, (id, _))] = waiting.items()
                self._add_problem(f"calibration {id}: its payload {sha256} cannot be read: {error}")
                return
            for sha256, of in waiting.items():
                self._waiting = {sha256: of}
                self._check_payloads()
            return
        for sha256, (id, size) in waiting.items():
            self._check_payload(id, sha256, size, found.get(sha256))

    def _check_payload(self, id: int, sha256: str, size: int, data: bytes | None) -> None:
        if data is None:
            self._add_problem(f"calibration {id}: its payload {sha256} is missing")
            return
        self._payload_bytes += len(data)
        actual = model.sha256_of(data)
        if actual != sha256:
            self._add_problem(f"calibration {id}: its payload {sha256} has the sha256 {actual}")
        elif len(data) != size:
            self._add_problem(f"calibration {id}: its payload has {len(data)} bytes, and its size is {size}")

    def _unused_payloads(self) -> list[str]:
        if self._inspection.payload_count() == len(self._seen):
            return []
        return [f"payload {sha256}: no calibration has it" for sha256 in self._inspection.unused_payloads()]

    def _collect(self, look: Callable[[], list[str]]) -> None:
        try:
            for problem in look():
                self._add_problem(problem)
        except Unreadable as error:
            self._add_problem(f"the database cannot be read: {error}")

    def _add_problem(self, problem: str) -> None:
        self._problems.append(problem)


def _entry_name(entry: Entry) -> str:
    return f"{entry.content.kind} {entry.serial}"


class BackupBackend(Protocol):
    """How one kind of database is backed up and put back in place."""

    def back_up(self, file: Path, progress: Progress) -> None:
        """Fill a file with the backup."""

    def restore_beside(self, file: Path) -> str:
        """Put the backup into a new database beside the one it is for; its URL."""

    def replace_current(self) -> str | None:
        """Put the new database in the place of the old; the name under which the old is kept, if there was one."""

    def discard(self) -> None:
        """Remove the new database, if it is still there."""


def back_up(url: str, file: Path, progress: Progress = lambda done, of: None) -> None:
    """Write a backup of a database of ours to a new file, readable by its owner alone, and on disk when this returns.

    Raises DatabaseUnusable when the file exists or the copy fails; there is no file then.
    """
    if file.exists():
        raise DatabaseUnusable(f"{file} already exists: name a new file")
    # Whatever is served under this name is one of ours, or there is no backup of it.
    Database.open(url, threads=1).close()
    try:
        with create_atomically(file) as unfinished:
            backup_backend(url).back_up(unfinished, progress)
    except FileExistsError:
        raise DatabaseUnusable(f"{file} already exists: name a new file") from None
    except OSError as error:
        raise DatabaseUnusable(f"{file} cannot be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Restored:
    """A backup that is in place: what was looked at in it, and under which name the database before it is `kept`.

    `kept` is None where there was none.
    """

    verification: Verification
    replaced_name: str | None


def restore(url: str, file: Path, progress: Progress = lambda done, of: None) -> Restored:
    """Put a backup in the place of a database, once every byte of it is verified.

    Raises DatabaseUnusable, having replaced nothing, when the backup is damaged, foreign, or the database is in use.
    """
    kind = backup_backend(url)
    try:
        unpacked = kind.restore_beside(file)
        with Database.open(unpacked, threads=1) as database:
            verification = verify(database, progress)
            if verification.problems:
                found = "; ".join(verification.problems[:5])
                raise DatabaseUnusable(f"the backup {file} is damaged, and nothing was replaced: {found}")
            Inspection(database).mark_restored(instants.now())
        return Restored(verification, kind.replace_current())
    finally:
        kind.discard()


def backup_backend(url: str) -> BackupBackend:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return sqlite.SqliteBackup(Path(str(parsed.database)))
    return postgresql.PostgresqlBackup(parsed)


class Journal(Protocol):
    """A journal that can be asked for its length and for the digest of an entry."""

    name: str

    def length(self) -> int: ...

    def entry(self, serial: int) -> tuple[str, str]:
        """What an entry is, in a few words, and its digest."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two journals: `common` entries are the same. Both lengths beyond it: the two part there."""

    names: tuple[str, str]
    lengths: tuple[int, int]
    common: int
    next: tuple[str | None, str | None]

    @property
    def diverged(self) -> bool:
        """Whether each has an entry that the other has not: neither is merely behind."""
        return min(self.lengths) > self.common


class _LocalJournal:
    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self._reader = Reader(database)

    def length(self) -> int:
        return self._reader.status().serial

    def entry(self, serial: int) -> tuple[str, str]:
        entry, digest = self._reader.journal(serial - 1, 1)[0]
        return _description(entry.content.kind, entry.created, entry.author), digest


def local_journal(name: str, database: Database) -> Journal:
    """The journal of a database that is opened here."""
    return _LocalJournal(name, database)


def compare(one: Journal, other: Journal) -> Comparison:
    """Find where two journals part. A digest covers all entries before it: one question halves what is left.

    Raises Unavailable when one of them cannot be asked.
    """
    journals = one, other
    lengths = one.length(), other.length()

    def differs(serial: int) -> bool:
        return one.entry(serial)[1] != other.entry(serial)[1]

    shared = range(1, min(lengths) + 1)
    common = bisect_left(shared, True, key=differs)
    following = tuple(
        journal.entry(common + 1)[0] if length > common else None
        for journal, length in zip(journals, lengths, strict=True)
    )
    return Comparison((one.name, other.name), lengths, common, (following[0], following[1]))


def _description(kind: str, created: object, author: str) -> str:
    return f"{kind}, accepted {created} from {author}"
