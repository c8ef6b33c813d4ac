"""`cdb why`: against a real server, with what was stored a day ago and with what is stored now."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

import cdb
from cdb.cli import main
from cdb_server.database.transactions import Database
from cdb_server.instants import UTC, format_instant
from cdb_server.repository.writer import Upload, Writer
from tests import random_histories, servers
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.server.oracle import Clock
from tests.servers import Master

START = datetime(2016, 3, 1, 8, tzinfo=UTC)
MARCH = datetime(2016, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master with a story, a minute an entry from START: see the ids."""
    folder = tmp_path_factory.mktemp("why")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as master:
        clock = Clock(START)
        with Database.open(master.database) as database:
            writer = Writer(database, clock=clock)

            def store(days: int, content: bytes, comment: str | None = None) -> None:
                clock.now += timedelta(minutes=1)
                upload = Upload.validated("TOF1", "t0", MARCH + days * DAY, content, None, comment, max_payload=10)
                writer.add_calibration(upload, "alice")

            def run(number: int, start: datetime) -> None:
                clock.now += timedelta(minutes=1)
                writer.add_run(number, start, None, "daq")

            store(0, b"one", "the first")  # 1
            run(7662, MARCH + 2 * DAY)  # 2
            store(1, b"three", "a day later")  # 3
            store(1, b"four", "again")  # 4
            store(5, b"five")  # 5
            store(2, b"six", "wrong")  # 6
            clock.now += timedelta(minutes=1)
            writer.withdraw_calibration(6, "wrong cable", "bob")  # 7
            run(7662, MARCH + 3 * DAY)  # 8
            run(7661, MARCH - DAY)  # 9
            clock.now += timedelta(minutes=1)
            upload = Upload.validated("TOF2", "t0", datetime(2999, 1, 1, tzinfo=UTC), b"x", None, None, max_payload=10)
            writer.add_calibration(upload, "alice")  # 10
        yield master


def test_it_tells_the_winner_and_what_stands_beside_it(told: Master) -> None:
    """By run: the rule in words, the calibrations around it, and each entry that changed the answer."""
    assert said(told, "why", "tof1", "T0", "--run", "7662").splitlines() == [
        "TOF1 t0 at 2016-03-04 00:00:00, the start of run 7662 "
        "(last registered 2016-03-01 08:08:00 by daq, 2 times in all; before that with the start 2016-03-03 00:00:00)",
        "4 applies: of those not withdrawn and valid from that time or earlier (3), it has the greatest valid from; "
        "2 have that valid from, and of these it has the greatest id",
        "5 replaces it from 2016-03-06 00:00:00",
        "6 would apply instead were it not withdrawn",
        "applies\t4\t2016-03-02T00:00:00.000000Z\t2016-03-06T00:00:00.000000Z\t2016-03-01T08:04:00.000000Z\talice\t"
        "again",
        "superseded\t3\t2016-03-02T00:00:00.000000Z\t2016-03-02T00:00:00.000000Z\t2016-03-01T08:03:00.000000Z\talice\t"
        "a day later",
        "before\t1\t2016-03-01T00:00:00.000000Z\t2016-03-02T00:00:00.000000Z\t2016-03-01T08:01:00.000000Z\talice\t"
        "the first",
        "next\t5\t2016-03-06T00:00:00.000000Z\t\t2016-03-01T08:05:00.000000Z\talice\t",
        "withdrawn\t6\t2016-03-03T00:00:00.000000Z\t\t2016-03-01T08:06:00.000000Z\talice\t"
        "withdrawn 2016-03-01 08:07:00: wrong cable",
        "what changed the answer:",
        "2016-03-01T08:01:00.000000Z\talice\t1 stored\tnothing\t1\tthe first",
        "2016-03-01T08:03:00.000000Z\talice\t3 stored\t1\t3\ta day later",
        "2016-03-01T08:04:00.000000Z\talice\t4 stored\t3\t4\tagain",
        "2016-03-01T08:06:00.000000Z\talice\t6 stored\t4\t6\twrong",
        "2016-03-01T08:07:00.000000Z\tbob\t6 withdrawn\t6\t4\twrong cable",
    ]


def test_what_is_not_there_is_said(told: Master) -> None:
    """Nothing before it, nothing next; and a question as of a time knows nothing later."""
    lines = said(told, "why", "TOF1", "t0", "--date", "2016-03-01", "--as-of", "2016-03-01 08:02").splitlines()
    assert lines == [
        "TOF1 t0 at 2016-03-01 00:00:00",
        "1 applies: of those not withdrawn and valid from that time or earlier (1), it has the greatest valid from",
        "before its valid from, nothing applies",
        "it is valid until replaced",
        "applies\t1\t2016-03-01T00:00:00.000000Z\t\t2016-03-01T08:01:00.000000Z\talice\tthe first",
        "what changed the answer:",
        "2016-03-01T08:01:00.000000Z\talice\t1 stored\tnothing\t1\tthe first",
    ]


def test_the_setting_of_a_job_is_explained(told: Master) -> None:
    """CDB_AS_OF is as good as --as-of, also where it says now."""
    for as_of in ("2016-03-01 08:02", "now"):
        done = shell(told, "why", "TOF1", "t0", CDB_AS_OF=as_of)
        assert (
            done.stdout.decode().splitlines()[1:] == said(told, "why", "TOF1", "t0", "--as-of", as_of).splitlines()[1:]
        )
        assert done.returncode == 0


def test_where_nothing_applies_it_tells_what_would(told: Master) -> None:
    """With the words of the error elsewhere, and exit status 1."""
    for question, first in (
        (["TOF1", "t0", "--run", "7661"], "the first to apply is 1, from 2016-03-01 00:00:00"),
        (["TOF1", "t0", "--date", "2016-02-29 23:59:59.999999"], "the first to apply is 1, from 2016-03-01 00:00:00"),
        (["TOF2", "t0"], "the first to apply is 10, from 2999-01-01 00:00:00"),
        (["TOF2", "t0", "--as-of", "now"], "the first to apply is 10, from 2999-01-01 00:00:00"),
    ):
        done, got = shell(told, "why", *question), shell(told, "get", *question)
        assert done.returncode == 1
        assert first in done.stdout.decode().splitlines()
        assert done.stderr.startswith(b"cdb: no calibration of TOF")
        if "now" not in question:
            assert done.stderr.splitlines()[0] == got.stderr.splitlines()[0]
    for question, words in (
        (["TOF9", "t0"], b"nothing is stored for this device"),
        (["TOF1", "t0", "--run", "1"], b"run 1 is not registered"),
        (["TOF1 ", "t0"], b"device_name"),
        (["TOF1", "t0", "--as-of", "2999-01-01"], b"is not reached"),
    ):
        done = shell(told, "why", *question)
        assert (done.returncode, done.stdout) == (1, b"")
        assert words in done.stderr


def test_as_json_it_has_the_names_of_the_contract(told: Master) -> None:
    """The question with the run's entries, the records around it and the steps, each with who made it."""
    explained = json.loads(said(told, "why", "TOF1", "t0", "--run", "7662", "--json"))
    client = cdb.Calibration(told.url)
    text = client.get_calibration_for_run("TOF1", "t0", 7662)
    assert set(explained["winner"]) == {*cdb.CalibrationRecord.__dataclass_fields__}
    assert explained["winner"]["sha256"] == text.sha256
    assert [run["start_time"] for run in explained["question"]["registrations"]] == [
        format_instant(MARCH + 2 * DAY),
        format_instant(MARCH + 3 * DAY),
    ]
    assert [(step["kind"], step["author"], step["before"], step["after"]) for step in explained["timeline"]][-2:] == [
        ("calibration", "alice", 4, 6),
        ("withdrawal", "bob", 6, 4),
    ]
    nothing = shell(told, "why", "TOF2", "t0", "--json")
    assert (nothing.returncode, json.loads(nothing.stdout)["winner"]) == (1, None)


def test_on_a_terminal_it_is_tables(told: Master) -> None:
    """With headings, and times as people write them."""
    shown = under_a_terminal(told, "why", "TOF1", "t0", "--run", "7662")
    assert all(heading in shown for heading in ("valid from", "stored", "before", "after", "why", "━"))
    assert "2016-03-01 08:07:00" in shown


def test_what_is_stored_now_is_explained_at_once(shared_master: Master) -> None:
    """The last seconds, which no as_of reaches, count: the present instant is the server's, and a run may just have
    been corrected."""
    client = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    first = client.add_calibration("why one", "t0", "2016-01-01", b"1")
    second = client.add_calibration("why one", "t0", first.created, b"2")
    client.add_calibration("why one", "t0", "2999-01-01", b"3")
    client.add_run(740, "2016-02-01")
    client.add_run(740, "2015-01-01")
    explained = json.loads(said(shared_master, "why", "why one", "t0", "--json"))
    assert explained["winner"]["id"] == second.id == client.get_current_calibration("why one", "t0").id
    done = shell(shared_master, "why", "why one", "t0", "--run", "740")
    assert (done.returncode, b"\trun 740 registered with start 2015-01-01 00:00:00\t" in done.stdout) == (1, True)


def test_every_explanation_of_any_history_is_so(tmp_path: Path) -> None:
    """On a generated history, for every device and type by run, by date and now, the winner is what the server
    answers, and each step is what it answers with its instant as as_of."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        random_histories.write(master.database, 60)
        client = cdb.Calibration(master.url)

        def answer(question: list[str], as_of: str | None) -> int | None:
            (device, kind), asked = question[:2], question[3:]
            try:
                if not asked:
                    return client.get_calibration_for_date(device, kind, datetime.now(UTC), as_of).id
                if question[2] == "--run":
                    return client.get_calibration_for_run(device, kind, int(asked[0]), as_of).id
                return client.get_calibration_for_date(device, kind, asked[0], as_of).id
            except cdb.CalibrationNotFound:
                return None

        steps = 0
        runs = [run.run_number for run in client.get_runs("2016-03-01", "2016-03-04")]
        for key in [(device, kind) for device in random_histories.DEVICES[:2] for kind in random_histories.TYPES]:
            for asked in ([], ["--date", "2016-03-01 20:00"], *(["--run", str(number)] for number in runs[:4])):
                question = [*key, *asked]
                done = CliRunner().invoke(main, ["why", *question, "--json"], env=master.environment)
                assert done.exit_code in (0, 1)
                explained = json.loads(done.stdout)
                winner = explained["winner"]["id"] if explained["winner"] else None
                assert winner == answer(question, None)
                assert done.exit_code == (0 if winner else 1)
                for step in explained["timeline"]:
                    assert step["after"] == answer(question, step["at"])
                    steps += 1
        assert steps > 20


def test_wrong_usage_is_told(told: Master) -> None:
    """Exit status 2, and what to write instead."""
    assert b"exclude each other" in shell(told, "why", "TOF1", "t0", "--run", "1", "--date", "2016-01-01").stderr
    assert shell(told, "why", "TOF1").returncode == 2
