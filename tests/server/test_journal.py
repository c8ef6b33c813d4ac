"""Rule 12: the journal proves itself, to anyone who has its rows and a SHA-256."""

import hashlib
import sqlite3
from datetime import datetime, timedelta

import psycopg
import pytest

from cdb_server import journal
from cdb_server.errors import CalibrationNotFound, Unavailable
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository import Database, Reader, Upload, Writer
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


def rows(url, statement):
    """The rows of a question, asked of the database itself."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def recomputed(url):
    """Serial, digest kept and digest recomputed of every entry, from nothing but the rows and the words of rule 12."""

    def netstring(value):
        text = b"" if value is None else str(value).encode("utf-8")
        return str(len(text)).encode("ascii") + b":" + text + b","

    def instant(microseconds):
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
def database(database_url):
    Database.create(database_url)
    database = Database.open(database_url)
    yield database
    database.close()


def test_the_canonical_form_of_a_calibration():
    """The canonical form is netstrings in the order of rule 12: lengths count bytes of UTF-8, not characters."""
    assert journal.canonical(CALIBRATION) == (
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


def test_the_canonical_form_of_a_withdrawal():
    """A withdrawal's content is the calibration's id and the reason; whole seconds are spelled with six digits too."""
    assert journal.canonical(WITHDRAWAL) == (
        b"2:13,10:withdrawal,27:2016-03-02T10:11:12.000000Z,3:bob,2:12,11:wrong cable,"
    )


def test_the_canonical_form_of_a_run():
    """An absent field is the empty netstring."""
    assert journal.canonical(RUN) == (
        b"1:2,3:run,27:2016-03-02T10:11:12.345679Z,3:daq,4:7662,27:2016-03-01T08:00:00.000000Z,0:,"
    )


def test_a_worked_example():
    """Two entries give the digests that a shell gives: printf and sha256sum over the previous digest and the form."""
    first = journal.digest(journal.GENESIS, CALIBRATION)
    assert first == "648edd5749d4ff81a90ab9bb7f8d2703e2ace61ec97a74e4ffa210d76346b821"
    assert journal.digest(first, RUN) == "dbb22332d0998d1fc718202764b212f16cc3228ed6d7d9c5bb5a55aa3a843874"


def test_years_are_spelled_with_four_digits():
    """An instant of the year 1 is spelled like any other."""
    entry = Entry(1, datetime(1, 1, 1, tzinfo=UTC), "", Withdrawal(1, "x"))
    assert journal.canonical(entry) == b"1:1,10:withdrawal,27:0001-01-01T00:00:00.000000Z,0:,1:1,1:x,"


def test_fields_cannot_flow_into_each_other():
    """Entries that differ only in where one text ends and the next begins have different digests."""
    one = Entry(1, CREATED, "a", NewCalibration("AB", "c", MARCH, None, 0, "0" * 64))
    other = Entry(1, CREATED, "a", NewCalibration("A", "Bc", MARCH, None, 0, "0" * 64))
    assert journal.digest(journal.GENESIS, one) != journal.digest(journal.GENESIS, other)


def test_a_stored_history_is_proved_by_its_rows(database, database_url):
    """Every digest in the database is what the rows give; the status tells the last; serials are 1, 2, 3 … gapless."""
    clock = Clock(CREATED)
    writer, reader = Writer(database, clock=clock), Reader(database, clock=clock)

    def store(valid_from, data, comment=None, device_name="TOF1"):
        clock.now += timedelta(milliseconds=7)
        upload = Upload.checked(device_name, "t0", valid_from, data, None, comment, max_payload=100)
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


def test_an_empty_journal_has_the_first_digest(database):
    """Before the first entry the serial is 0 and the digest 64 zeros."""
    status = Reader(database).status()
    assert (status.serial, status.digest) == (0, "0" * 64)
