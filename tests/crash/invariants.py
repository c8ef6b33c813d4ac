"""What a database holds, judged from its rows alone: no gap, nothing partial, nothing twice, nothing lost."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.crash.traffic import Acknowledged, Content, spelled

GENESIS = "0" * 64


@dataclass
class Findings:
    """What is wrong, in sentences, by what it is a case of."""

    lost: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Take in others."""
        for name, found in vars(other).items():
            getattr(self, name).extend(found)

    def __bool__(self) -> bool:
        return bool(self.lost or self.partial or self.gaps or self.other)

    def __str__(self) -> str:
        return "\n".join([*self.lost, *self.partial, *self.gaps, *self.other])


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection to the database itself, past all of our code, in one reading transaction."""
    if url.startswith("sqlite"):
        # Whoever opens it first after a kill rolls the journal back: that may be this.
        file = url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as sqlite:
            sqlite.execute("BEGIN")
            yield sqlite
    else:
        with psycopg.connect(url, autocommit=True) as postgresql:
            postgresql.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield postgresql
            postgresql.execute("COMMIT")


class Ledger:
    """The entries of a journal as far as they were looked at, in order."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.serial, self.created, self.digest = 0, -(2**62), GENESIS
        self.entries: dict[int, tuple[Content, int]] = {}
        # Rule 9: under a key and content, at most one calibration that is not withdrawn.
        self._standing: dict[Content, int] = {}
        # The serials of what is no calibration: withdrawals and runs are found by what they say.
        self.serials: dict[Content, list[int]] = {}

    def advance(self, findings: Findings) -> None:
        """Look at what was added since this was last called."""
        with connected(self._url) as connection:

            def rows(table: str, columns: str, key: str = "serial") -> list[tuple[Any, ...]]:
                statement = f"SELECT {columns} FROM {table} WHERE {key} > {self.serial} ORDER BY {key}"
                found: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
                return found

            journal = rows("journal", "serial, kind, created, author, digest")
            contents: dict[int, Content] = {}
            columns = "id, device_name, calibration_type, valid_from, comment, size, sha256"
            for serial, *values in rows("calibration", columns, "id"):
                contents[serial] = ("calibration", *values)
            for serial, *values in rows("withdrawal", "serial, calibration_id, reason"):
                contents[serial] = ("withdrawal", *values)
            for serial, *values in rows("run", "serial, run_number, start_time, stop_time"):
                contents[serial] = ("run", *values)
            for id, size, sha256, data in connection.execute(
                "SELECT id, size, calibration.sha256, data FROM calibration LEFT JOIN payload "
                f"ON payload.sha256 = calibration.sha256 WHERE id > {self.serial}"
            ):
                if data is None:
                    findings.partial.append(f"calibration {id} has no payload")
                elif (len(data), hashlib.sha256(data).hexdigest()) != (size, sha256):
                    findings.partial.append(f"calibration {id} has {len(data)} bytes that are not its {size}")
        for entry in journal:
            self._add(entry, contents.pop(entry[0], None), findings)
        findings.partial += [f"{content} has no entry {serial}" for serial, content in contents.items()]

    def _add(self, entry: tuple[Any, ...], content: Content | None, findings: Findings) -> None:
        serial, kind, created, author, digest = entry
        if serial != self.serial + 1:
            findings.gaps.append(f"entry {serial} follows {self.serial}")
        if created <= self.created:
            findings.other.append(f"entry {serial} was created before {self.serial}")
        if content is None or content[0] != kind:
            findings.partial.append(f"entry {serial}, a {kind}, has no row of its own")
            content = (kind,)
        else:
            self.digest = _digest(self.digest, serial, created, author, content)
            if self.digest != digest:
                findings.other.append(f"entry {serial} has the digest {digest}, not {self.digest}")
        self.serial, self.created, self.digest = serial, created, digest
        self.entries[serial] = content, created
        if kind == "calibration":
            if content in self._standing:
                findings.other.append(f"calibration {serial} is stored as {self._standing[content]} already")
            self._standing[content] = serial
        else:
            if kind == "withdrawal":
                withdrawn = self.entries[int(str(content[1]))][0]
                if self._standing.pop(withdrawn, None) is None or content in self.serials:
                    findings.other.append(f"entry {serial} withdraws what is withdrawn")
            self.serials.setdefault(content, []).append(serial)

    def check(self, acknowledged: Iterable[Acknowledged], sent: set[Content], findings: Findings, since: int) -> None:
        """Compare with what the clients know: of entries after `since` each was sent, of acknowledged ones each is."""
        for serial in range(since + 1, self.serial + 1):
            if serial in self.entries and self.entries[serial][0] not in sent:
                findings.other.append(f"entry {serial} was never sent: {self.entries[serial][0]}")
        for answer in acknowledged:
            if answer.content[0] == "calibration":
                content, created = self.entries.get(answer.id, ((), 0))
                if content != answer.content or spelled(created) != answer.created:
                    findings.lost.append(f"acknowledged as {answer.id} was {answer.content}, there is {content}")
            elif answer.content not in self.serials:
                findings.lost.append(f"acknowledged was {answer.content}")
            elif answer.content[0] == "run" and len(self.serials[answer.content]) != 1:
                # No run is given back an earlier time by these clients.
                findings.other.append(f"{answer.content} is registered {len(self.serials[answer.content])} times")


def whole(url: str, acknowledged: Iterable[Acknowledged], sent: set[Content]) -> tuple[Ledger, Findings]:
    """Everything, from the first entry on, and what else the database itself can check."""
    ledger, findings = Ledger(url), Findings()
    ledger.advance(findings)
    ledger.check(acknowledged, sent, findings, 0)
    with connected(url) as connection:
        orphans = connection.execute(
            "SELECT sha256 FROM payload WHERE sha256 NOT IN (SELECT sha256 FROM calibration)"
        ).fetchall()
        findings.partial += [f"payload {sha256} is of no calibration" for (sha256,) in orphans]
        if url.startswith("sqlite"):
            said = connection.execute("PRAGMA integrity_check").fetchall()
            said += connection.execute("PRAGMA foreign_key_check").fetchall()
            if said != [("ok",)]:
                findings.other.append(f"SQLite says {said}")
    return ledger, findings


def _digest(previous: str, serial: int, created: int, author: str, content: Content) -> str:
    """Rule 12, in its own words."""
    kind, *values = content
    if kind == "calibration":
        values[2] = spelled(values[2])
    elif kind == "run":
        values[1:] = [value if value is None else spelled(value) for value in values[1:]]
    form = b""
    for value in (serial, kind, spelled(created), author, *values):
        text = b"" if value is None else str(value).encode("utf-8")
        form += b"%d:%b," % (len(text), text)
    return hashlib.sha256(previous.encode("ascii") + form).hexdigest()
