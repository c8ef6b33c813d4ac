"""Rule 12: the journal proves itself, to anyone who has its rows and a SHA-256."""

import hashlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from cdb_server import journal
from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound, TooLarge, Unavailable
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.model import CalibrationRecord, Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests.server.oracle import Clock

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
CREATED = datetime(2016, 3, 2, 10, 11, 12, 345678, tzinfo=UTC)

CALIBRATION = Entry(
    1,
    CREATED,
    "alice",
    NewCalibration("CKOV A", "t0", MARCH, "Käfig 3,\nrow 2", 6, hashlib.sha256(b"1 2 3\n").hexdigest()),
)
RUN = Entry(2, CREATED + MICROSECOND, "daq", RunTimes(7662, MARCH, None))
WITHDRAWAL = Entry(13, CREATED.replace(microsecond=0), "bob", Withdrawal(12, "wrong cable"))


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a question, asked of the database itself."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def recomputed(url: str) -> list[tuple[int, str, str]]:
    """Serial, digest kept and digest recomputed of every entry, from nothing but the rows and the words of rule 12."""

    def netstring(value: object) -> bytes:
        text = b"" if value is None else str(value).encode("utf-8")
        return str(len(text)).encode("ascii") + b":" + text + b","

    def instant(microseconds: int | None) -> str | None:
        if microseconds is None:
            return None
        seconds, fraction = divmod(microseconds, 1_000_000)
        return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat() + f".{fraction:06}Z"

    contents = {}
    for serial, device_name, calibration_type, valid_from, comment, size, sha256 in rows(
        url, "SELECT id, device_name, calibration_type, valid_from, comment, size, sha256 FROM calibration"
    ):
        contents[serial] = [device_name, calibration_type, instant(valid_from), comment, size, sha256]
    for serial, calibration_id, reason in rows(url, "SELECT serial, calibration_id, reason FROM withdrawal"):
        contents[serial] = [calibration_id, reason]
    for serial, run_number, start, stop in rows(url, "SELECT serial, run_number, start_time, stop_time FROM run"):
        contents[serial] = [run_number, instant(start), instant(stop)]
    previous, found = "0" * 64, []
    for serial, kind, created, author, digest in rows(
        url, "SELECT serial, kind, created, author, digest FROM journal ORDER BY serial"
    ):
        fields = [serial, kind, instant(created), author, *contents.pop(serial)]
        canonical = b"".join(netstring(field) for field in fields)
        previous = hashlib.sha256(previous.encode("ascii") + canonical).hexdigest()
        found.append((serial, digest, previous))
    assert not contents
    return found


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    Database.create(database_url)
    database = Database.open(database_url)
    yield database
    database.close()


def test_the_canonical_form_of_a_calibration() -> None:
    """The canonical form is netstrings in the order of rule 12: lengths count bytes of UTF-8, not characters."""
    assert journal.canonical_form(CALIBRATION) == (
        b"1:1,"
        b"11:calibration,"
        b"27:2016-03-02T10:11:12.345678Z,"
        b"5:alice,"
        b"6:CKOV A,"
        b"2:t0,"
        b"27:2016-03-01T08:00:00.000000Z,"
        b"15:K\xc3\xa4fig 3,\nrow 2,"
        b"1:6,"
        b"64:" + hashlib.sha256(b"1 2 3\n").hexdigest().encode("ascii") + b","
    )


def test_the_canonical_form_of_a_withdrawal() -> None:
    """A withdrawal's content is the calibration's id and the reason; whole seconds are spelled with six digits too."""
    assert journal.canonical_form(WITHDRAWAL) == (
        b"2:13,10:withdrawal,27:2016-03-02T10:11:12.000000Z,3:bob,2:12,11:wrong cable,"
    )


def test_the_canonical_form_of_a_run() -> None:
    """An absent field is the empty netstring."""
    assert journal.canonical_form(RUN) == (
        b"1:2,3:run,27:2016-03-02T10:11:12.345679Z,3:daq,4:7662,27:2016-03-01T08:00:00.000000Z,0:,"
    )


def test_a_worked_example() -> None:
    """Two entries give the digests that a shell gives: printf and sha256sum over the previous digest and the form."""
    first = journal.digest(journal.GENESIS, CALIBRATION)
    assert first == "648edd5749d4ff81a90ab9bb7f8d2703e2ace61ec97a74e4ffa210d76346b821"
    assert journal.digest(first, RUN) == "dbb22332d0998d1fc718202764b212f16cc3228ed6d7d9c5bb5a55aa3a843874"


def test_years_are_spelled_with_four_digits() -> None:
    """An instant of the year 1 is spelled like any other."""
    entry = Entry(1, datetime(1, 1, 1, tzinfo=UTC), "", Withdrawal(1, "x"))
    assert journal.canonical_form(entry) == b"1:1,10:withdrawal,27:0001-01-01T00:00:00.000000Z,0:,1:1,1:x,"


def test_fields_cannot_flow_into_each_other() -> None:
    """Entries that differ only in where one text ends and the next begins have different digests."""
    one = Entry(1, CREATED, "a", NewCalibration("AB", "c", MARCH, None, 0, "0" * 64))
    other = Entry(1, CREATED, "a", NewCalibration("A", "Bc", MARCH, None, 0, "0" * 64))
    assert journal.digest(journal.GENESIS, one) != journal.digest(journal.GENESIS, other)


def test_a_stored_history_is_proved_by_its_rows(database: Database, database_url: str) -> None:
    """Every digest in the database is what the rows give; the status tells the last; serials are 1, 2, 3 … gapless."""
    clock = Clock(CREATED)
    writer, reader = Writer(database, clock=clock), Reader(database, clock=clock)

    def store(
        valid_from: datetime, data: bytes, comment: str | None = None, device_name: str = "TOF1"
    ) -> CalibrationRecord:
        clock.now += timedelta(milliseconds=7)
        upload = Upload.validated(device_name, "t0", valid_from, data, None, comment, max_payload=100)
        return writer.add_calibration(upload, "alice")

    store(MARCH, b"1", "Käfig 3, row 2: 4:text,\n")
    store(datetime(1, 1, 1, tzinfo=UTC), b"2", device_name="ckov a")
    store(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), b"1", "\U0001f600")
    writer.add_run(7662, MARCH, None, "daq")
    writer.add_run(7662, MARCH - MICROSECOND, MARCH, "daq")
    writer.withdraw_calibration(2, "wrong ⌁ cable", "bob")
    store(MARCH, b"1")  # writes nothing
    with pytest.raises(CalibrationNotFound):
        writer.withdraw_calibration(99, "none such", "bob")
    clock.now -= timedelta(days=1)
    with pytest.raises(Unavailable):
        store(MARCH, b"3")
    clock.now += timedelta(days=1)
    store(MARCH, b"3")

    found = recomputed(database_url)
    assert [serial for serial, _, _ in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [kept for _, kept, _ in found] == [digest for _, _, digest in found]
    assert (reader.status().serial, reader.status().digest) == (7, found[-1][2])


def asked(reader: Reader, after_serial: int = 0, limit: int = 1000) -> list[tuple[Entry, str]]:
    return reader.journal(after_serial, limit)


def filled(database: Database, entries: int) -> list[NewCalibration | Withdrawal | RunTimes]:
    """A database of so many entries, of the three kinds by turns, and what was written."""
    clock = Clock(CREATED)
    writer = Writer(database, clock=clock)
    content: list[NewCalibration | Withdrawal | RunTimes] = []
    for number in range(1, entries + 1):
        clock.now += MICROSECOND
        if number % 3 == 1:
            upload = Upload.validated("TOF1", "t0", MARCH, b"%d" % number, None, None, max_payload=100)
            writer.add_calibration(upload, "alice")
            content.append(upload.content)
        elif number % 3 == 2:
            content.append(Withdrawal(number - 1, f"reason {number}"))
            writer.withdraw_calibration(number - 1, f"reason {number}", "bob")
        else:
            content.append(RunTimes(number, MARCH, None))
            writer.add_run(number, MARCH, None, "daq")
    return content


def test_the_journal_is_answered_as_it_was_written(database: Database) -> None:
    """Entries come in the order of their serials, each with what was written, when and by whom, and its digest."""
    written = filled(database, 7)
    found = asked(Reader(database))
    assert [entry.content for entry, _ in found] == written
    assert [entry.serial for entry, _ in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [entry.author for entry, _ in found] == ["alice", "bob", "daq"] * 2 + ["alice"]
    assert [entry.created for entry, _ in found] == [CREATED + n * MICROSECOND for n in range(1, 8)]
    digest = journal.GENESIS
    for entry, kept in found:
        digest = journal.digest(digest, entry)
        assert kept == digest
    assert Reader(database).status().digest == digest


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
def test_the_journal_is_read_in_parts_to_its_end(database: Database, limit: int) -> None:
    """Asked again and again for what came after the last serial, it gives every entry once; fewer are the last."""
    filled(database, 7)
    reader = Reader(database)
    parts: list[list[tuple[Entry, str]]] = []
    while True:
        parts.append(asked(reader, parts[-1][-1][0].serial if parts else 0, limit))
        assert len(parts[-1]) <= limit
        if len(parts[-1]) < limit:
            break
    assert [found for part in parts for found in part] == asked(reader)
    assert all(len(part) == limit for part in parts[:-1])


def test_after_the_end_there_is_nothing(database: Database) -> None:
    """After the last serial, or any later one, the answer is empty; and so it is of an empty journal."""
    reader = Reader(database)
    assert asked(reader) == []
    filled(database, 3)
    assert [entry.serial for entry, _ in asked(reader, 2)] == [3]
    for after_serial in (3, 4, 2**63 - 1):
        assert asked(reader, after_serial) == []


def test_no_more_entries_are_given_at_once_than_the_server_is_set_to(database: Database) -> None:
    """The greatest limit is answered, one more is too large, and the error says the greatest."""
    filled(database, 3)
    reader = Reader(database, max_entries=2)
    assert len(asked(reader, 0, 2)) == 2
    with pytest.raises(TooLarge) as caught:
        asked(reader, 0, 3)
    assert caught.value.details == {"limit": 2}


def test_an_empty_journal_has_the_first_digest(database: Database) -> None:
    """Before the first entry the serial is 0 and the digest 64 zeros."""
    status = Reader(database).status()
    assert (status.serial, status.digest) == (0, "0" * 64)
