"""`cdb log`: the journal, for people and for programs."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

import cdb
from cdb.cli import main
from cdb_server.database.transactions import Database
from cdb_server.instants import UTC, format_instant
from cdb_server.repository.writer import Upload, Writer
from tests import servers
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.server.oracle import Clock
from tests.servers import Master

START = datetime(2016, 3, 1, 8, tzinfo=UTC)
MARCH = datetime(2016, 3, 1, tzinfo=UTC)
# Serial, minutes after START, author, and what it is about.
ENTRIES = (
    (1, 0, "alice", "TOF1 t0"),
    (2, 1, "bob", "TOF1 tw"),
    (3, 2, "daq", "run 7662"),
    (4, 3, "alice", "KL t0"),
    (5, 4, "bob", "withdrew 1"),
    (6, 5, "daq", "run 7662"),
    (7, 6, "alice", "withdrew 4"),
    (8, 7, "alice", "TOF1 t0"),
)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master with the entries above."""
    folder = tmp_path_factory.mktemp("log")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as master:
        clock = Clock(START)
        with Database.open(master.database) as database:
            writer = Writer(database, clock=clock)
            for serial, minutes, author, what in ENTRIES:
                clock.now = START + timedelta(minutes=minutes)
                first, _, second = what.partition(" ")
                if first == "run":
                    writer.add_run(int(second), MARCH, MARCH + timedelta(hours=serial), author)
                elif first == "withdrew":
                    writer.withdraw_calibration(int(second), f"reason {serial}", author)
                else:
                    upload = Upload.validated(first, second, MARCH, b"%d" % serial, None, "a note", max_payload=10)
                    writer.add_calibration(upload, author)
        yield master


def serials(master: Master, *filters: str) -> list[int]:
    """Those that are shown, as lines and as JSON alike."""
    lines, parsed = (
        CliRunner().invoke(main, ["log", *filters, *more], env=master.environment) for more in ([], ["--json"])
    )
    assert (lines.exit_code, parsed.exit_code) == (0, 0), lines.output
    shown = [int(line.partition("\t")[0]) for line in lines.stdout.splitlines()]
    assert [entry["serial"] for entry in json.loads(parsed.stdout)] == shown
    return shown


def test_an_entry_is_a_line(history: Master) -> None:
    """Serial, time, author, what and why; at a calibration also when, by whom and why it was withdrawn."""
    assert said(history, "log").splitlines() == [
        "1\t2016-03-01T08:00:00.000000Z\talice\tTOF1 t0 from 2016-03-01 00:00:00, 1 bytes\ta note\t"
        "2016-03-01 08:04:00 by bob: reason 5",
        "2\t2016-03-01T08:01:00.000000Z\tbob\tTOF1 tw from 2016-03-01 00:00:00, 1 bytes\ta note\t",
        "3\t2016-03-01T08:02:00.000000Z\tdaq\trun 7662: 2016-03-01 00:00:00 to 2016-03-01 03:00:00\t\t",
        "4\t2016-03-01T08:03:00.000000Z\talice\tKL t0 from 2016-03-01 00:00:00, 1 bytes\ta note\t"
        "2016-03-01 08:06:00 by alice: reason 7",
        "5\t2016-03-01T08:04:00.000000Z\tbob\twithdrew 1: TOF1 t0 from 2016-03-01 00:00:00\treason 5\t",
        "6\t2016-03-01T08:05:00.000000Z\tdaq\trun 7662: 2016-03-01 00:00:00 to 2016-03-01 06:00:00\t\t",
        "7\t2016-03-01T08:06:00.000000Z\talice\twithdrew 4: KL t0 from 2016-03-01 00:00:00\treason 7\t",
        "8\t2016-03-01T08:07:00.000000Z\talice\tTOF1 t0 from 2016-03-01 00:00:00, 1 bytes\ta note\t",
    ]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["--device", "tof1"], [1, 2, 5, 8]),
        (["--device", "KL"], [4, 7]),
        (["--device", "EMR"], []),
        (["--type", "T0"], [1, 4, 5, 7, 8]),
        (["--device", "TOF1", "--type", "t0"], [1, 5, 8]),
        (["--author", "bob"], [2, 5]),
        (["--author", "Bob"], []),
        (["--author", "alice", "--type", "t0", "--device", "KL"], [4, 7]),
        (["--since", "2016-03-01 08:04:00"], [5, 6, 7, 8]),
        (["--since", "2016-03-01 08:04:00.000001"], [6, 7, 8]),
        (["--since", "2016-03-01 08:03:59.999999"], [5, 6, 7, 8]),
        (["--since", "2016-03-01"], [1, 2, 3, 4, 5, 6, 7, 8]),
        (["--since", "2016-03-01 08:07"], [8]),
        (["--since", "2016-03-02"], []),
        (["--until", "2016-03-01 08:02:00"], [1, 2, 3]),
        (["--until", "2016-03-01 08:01:59.999999"], [1, 2]),
        (["--until", "2016-03-01"], []),
        (["--since", "2016-03-01 08:01", "--until", "2016-03-01 08:06", "--device", "TOF1"], [2, 5]),
        (["--since", "2016-03-01 08:04", "--device", "TOF1", "--author", "bob", "--type", "t0"], [5]),
        (["--since", "2016-03-01 08:05", "--device", "KL"], [7]),
        (["--since", "2016-03-01 08:06", "--until", "2016-03-01 08:05"], []),
    ],
)
def test_filters_hold_together(history: Master, filters: list[str], expected: list[int]) -> None:
    """A withdrawal is about the device and type of its calibration, also where that was stored before --since."""
    assert serials(history, *filters) == expected


def test_what_is_withdrawn_later_than_asked_for_says_so_all_the_same(history: Master) -> None:
    """Filters choose entries; the calibration that is shown stands as it does now."""
    line = said(history, "log", "--until", "2016-03-01 08:00:00")
    assert line.endswith("\t2016-03-01 08:04:00 by bob: reason 5\n")
    [entry] = json.loads(said(history, "log", "--until", "2016-03-01 08:00:00", "--json"))
    assert {name: entry["withdrawn"][name] for name in ("serial", "created", "author", "reason")} == {
        "serial": 5,
        "created": "2016-03-01T08:04:00.000000Z",
        "author": "bob",
        "reason": "reason 5",
    }


def test_as_json_an_entry_has_the_names_of_the_contract(history: Master) -> None:
    """All fields of JournalEntry, and its withdrawal."""
    entries = json.loads(said(history, "log", "--json"))
    found = cdb.Calibration(history.url).get_journal()
    assert [entry["digest"] for entry in entries] == [entry.digest for entry in found]
    assert [entry["created"] for entry in entries] == [format_instant(entry.created) for entry in found]
    assert entries[2]["run_number"] == 7662
    assert entries[2]["withdrawn"] is None
    assert entries[4]["calibration_id"] == 1
    assert set(entries[0]) == {*cdb.JournalEntry.__dataclass_fields__, "withdrawn"}


def test_on_a_terminal_it_is_a_table(history: Master) -> None:
    """With a heading, times as people write them, and the withdrawal beside the calibration."""
    shown = under_a_terminal(history, "log", "--device", "KL")
    assert all(heading in shown for heading in ("serial", "when", "who", "what", "why", "withdrawn"))
    assert "2016-03-01 08:03:00" in shown
    assert "reason 7" in shown


def test_an_empty_journal_is_no_line(tmp_path: Path) -> None:
    """And an empty list in JSON; with a filter too."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        for filters in ([], ["--since", "2016-03-01"], ["--device", "TOF1"]):
            assert serials(master, *filters) == []


def test_thousands_of_entries_are_shown(backend: str, new_database_url: Callable[[str], str], tmp_path: Path) -> None:
    """In parts, each once and in order; and --since asks for little more than what it shows."""
    with servers.master(new_database_url(backend), tmp_path) as master:
        with Database.open(master.database) as database, database.write() as connection:
            first = int(START.timestamp()) * 1_000_000
            numbers = "WITH RECURSIVE n(n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM n WHERE n < 2501)"
            entry = f"n, 'run', {first} + n * 1000000, 'daq', '{'0' * 64}'"
            connection.exec_driver_sql(f"INSERT INTO journal {numbers} SELECT {entry} FROM n")
            connection.exec_driver_sql(f"INSERT INTO run {numbers} SELECT n, n, {first}, NULL FROM n")
        everything = CliRunner().invoke(main, ["log"], env=master.environment).stdout.splitlines()
        assert [int(line.partition("\t")[0]) for line in everything] == list(range(1, 2502))
        since = START + timedelta(seconds=2490)
        asked = []

        def counted(client: cdb.Calibration, after_serial: int = 0, limit: int = 1000) -> list[cdb.JournalEntry]:
            asked.append(limit)
            return get_journal(client, after_serial, limit)

        get_journal = cdb.Calibration.get_journal
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cdb.Calibration, "get_journal", counted)
            assert serials(master, "--since", format_instant(since)) == list(range(2490, 2502))
        # Twice, as lines and as JSON: a search among 2,501, then the entries.
        assert len(asked) <= 2 * 13
        assert sum(asked) < 60


def test_a_reader_that_goes_away_is_no_error(history: Master) -> None:
    """`cdb log | head -1`."""
    command = f"{sys.executable} -m cdb.cli log | head -1"
    done = subprocess.run(["bash", "-c", command], env=history.environment, capture_output=True, timeout=60)
    assert (done.stdout.count(b"\n"), done.stderr) == (1, b"")


def test_wrong_usage_is_told(history: Master) -> None:
    """A time that is none, and an argument too many: exit status 2."""
    assert shell(history, "log", "--since", "yesterday").returncode == 2
    assert shell(history, "log", "TOF1").returncode == 2
    assert shell(history, "log", "--timeout", "0.5", CDB_SERVER="http://127.0.0.1:1").returncode == 3


def test_a_server_that_is_behind_is_told(history: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another server answers than was asked how long the journal is, and lacks entries, none is left out in
    silence."""
    get_status = cdb.Calibration.get_status
    ahead = cdb.Status(
        "OK", "master", 20, "0" * 64, datetime(2016, 1, 1, tzinfo=timezone.utc), "", None, None, None, None
    )
    monkeypatch.setattr(cdb.Calibration, "get_status", lambda client: get_status(client) and ahead)
    for filters in ([], ["--since", "2016-03-02"]):
        done = CliRunner().invoke(main, ["log", *filters], env=history.environment)
        assert done.exit_code == 1
        assert "does not have entry" in done.stderr
