"""Where two servers part: the last entry that both journals have, found by their digests in few questions."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import cdb
from cdb_server.errors import Unavailable
from cdb_server.repository import Database, Reader


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
    def parted(self) -> bool:
        """Whether each has an entry that the other has not: neither is merely behind."""
        return min(self.lengths) > self.common


class _OverSoap:
    def __init__(self, url: str) -> None:
        self.name = url
        self._client = cdb.Calibration(url)

    def length(self) -> int:
        with _unavailable():
            return self._client.get_status().serial

    def entry(self, serial: int) -> tuple[str, str]:
        with _unavailable():
            answered = self._client.get_journal(serial - 1, 1)
        if len(answered) != 1 or answered[0].serial != serial:
            raise Unavailable(f"{self.name} does not give its entry {serial}")
        found = answered[0]
        return _told(found.kind, found.created, found.author), found.digest


class _Own:
    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self._reader = Reader(database)

    def length(self) -> int:
        return self._reader.status().serial

    def entry(self, serial: int) -> tuple[str, str]:
        entry, digest = self._reader.journal(serial - 1, 1)[0]
        return _told(entry.content.kind, entry.created, entry.author), digest


def journal_of(url: str) -> Journal:
    """The journal of a server."""
    return _OverSoap(url)


def own_journal(name: str, database: Database) -> Journal:
    """The journal of a database that is opened here."""
    return _Own(name, database)


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


def _told(kind: str, created: object, author: str) -> str:
    return f"{kind}, accepted {created} from {author}"


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except cdb.CdbError as error:
        raise Unavailable(error.message) from error
