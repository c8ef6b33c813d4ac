"""`cdb copy`: what an earlier CDB holds is taken over by its own services, whatever interrupts it."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdb
from demo import samples
from tests import servers
from tests.client.cdb_process import shell, under_a_terminal
from tests.client.legacy_cdb import Kept, LegacyCdb, error, serving
from tests.servers import Master


@pytest.fixture
def new_master(tmp_path: Path) -> Iterator[Master]:
    """A master that holds nothing yet."""
    with servers.master(f"sqlite:///{tmp_path}/new.sqlite", tmp_path) as master:
        yield master


@pytest.fixture
def earlier() -> Iterator[LegacyCdb]:
    """An earlier CDB with calibrations and cabling."""
    kept = LegacyCdb(
        {
            12: Kept("TOF1", "t0", "2011-11-23 12:00:00.0", "2011-12-01 10:00:00.123", b"t0 of 2011" * 1000),
            7: Kept("TOF1", "t0", "2013-08-01 00:00:00.0", "2011-11-01 10:00:00.0", bytes(range(256))),
            13: Kept("CKOV A", "gain", "2013-08-01 00:00:00.5", "null", b""),
        },
        {12: Kept("DAQ", "cabling", "2011-11-23 12:00:00.0", "2012-01-01 10:00:00.0", b"<map/>")},
    )
    with serving(kept) as running:
        yield running


def copied(master: Master, *arguments: str) -> str:
    """What a copy that takes over all says on standard error."""
    done = shell(master, "copy", *arguments)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    return done.stderr.decode()


def test_calibrations_and_cabling_are_taken_over(new_master: Master, earlier: LegacyCdb) -> None:
    """The exact bytes, under device, type and valid from, in the order in which they were created; the rest is said."""
    assert copied(new_master, "--from", earlier.url) == "4 listed, 4 copied, 0 stored before, 0 not taken over\n"
    client = cdb.Calibration(new_master.url)
    of_calibrations = f"the earlier CDB at {earlier.url}/cdb/calibration"
    of_cabling = f"the earlier CDB at {earlier.url}/cdb/cabling"
    found = [client.get_calibration_for_id(id) for id in range(1, 5)]
    assert [(text.comment, text.data) for text in found] == [
        (f"id 7 of {of_calibrations}, created 2011-11-01 10:00:00.0", bytes(range(256))),
        (f"id 12 of {of_calibrations}, created 2011-12-01 10:00:00.123", b"t0 of 2011" * 1000),
        (f"id 12 of {of_cabling}, created 2012-01-01 10:00:00.0", b"<map/>"),
        (f"id 13 of {of_calibrations}", b""),
    ]
    assert client.get_current_calibration("Ckov A", "gain").valid_from.microsecond == 500_000
    assert client.get_current_calibration("DAQ", "cabling") == "<map/>"


def test_the_sample_database_moves_from_its_earlier_soaps(new_master: Master, tmp_path: Path) -> None:
    """From a server of ours, asked as clients of the earlier CDB ask it: all that is in force at any time, once."""
    samples.write(tmp_path)
    (tmp_path / "old").mkdir()
    with servers.master(f"sqlite:///{tmp_path}/old.sqlite", tmp_path / "old") as old:
        assert shell(old, "add", "--from", str(tmp_path / "uploads.csv")).returncode == 0
        copy = ("--from", f"{old.url}/")
        # Two of the 17 were never in force: others were stored under their valid from.
        assert copied(new_master, *copy) == "15 listed, 15 copied, 0 stored before, 0 not taken over\n"
        there, here = cdb.Calibration(old.url), cdb.Calibration(new_master.url)
        serial = here.get_status().serial
        assert copied(new_master, *copy) == "15 listed, 0 copied, 15 stored before, 0 not taken over\n"
        assert here.get_status().serial == serial == 15
        assert here.list_devices() == there.list_devices()
        for date in ("2011-11-23 12:00:00", "2013-08-01", "2015-09-14 00:00:01", "2016-10-01", "2017-09-20"):
            for fields in there.get_ids(date).values():
                asked = fields["device"], fields["calibration_type"], date
                original, copy_of_it = (client.get_calibration_for_date(*asked) for client in (there, here))
                assert (copy_of_it.data, copy_of_it.valid_from) == (original.data, original.valid_from)
                assert copy_of_it.valid_until == original.valid_until
                assert str(copy_of_it.comment).startswith(f"id {original.id} of the earlier CDB at {old.url}/cdb/")


def test_a_second_time_nothing_is_fetched_or_stored(new_master: Master, earlier: LegacyCdb) -> None:
    """But for what is new there; what was withdrawn here stays withdrawn."""
    copied(new_master, "--from", earlier.url)
    writer = cdb.CalibrationSuperMouse(new_master.url, user=new_master.user, token=new_master.token)
    writer.withdraw_calibration(2, "was wrong there already")
    serial = writer.get_status().serial
    earlier.asked.clear()
    assert copied(new_master, "--from", earlier.url) == "4 listed, 0 copied, 4 stored before, 0 not taken over\n"
    assert (earlier.asked, writer.get_status().serial) == ([], serial)
    earlier.calibrations[14] = Kept("KL", "gain", "2014-01-01 00:00:00.0", "2014-01-02 00:00:00.0", b"new")
    assert copied(new_master, "--from", earlier.url) == "5 listed, 1 copied, 4 stored before, 0 not taken over\n"
    assert earlier.asked == ["14"]


@pytest.mark.parametrize("address", ["calibration?wsdl", "calibration", "cabling?wsdl"])
def test_one_service_is_named_by_its_address(new_master: Master, earlier: LegacyCdb, address: str) -> None:
    """As clients of the earlier CDB name it."""
    copied(new_master, "--from", f"{earlier.url}/cdb/{address}")
    devices = cdb.Calibration(new_master.url).list_devices(with_cabling=True)
    assert devices == (["DAQ"] if address.startswith("cabling") else ["CKOV A", "TOF1"])


def test_what_cannot_be_taken_over_is_reported_and_the_rest_goes_on(new_master: Master, earlier: LegacyCdb) -> None:
    """With the reason of whoever refused it; and tried again the next time."""
    when = ("2014-01-01 00:00:00.0", "2014-01-02 00:00:00.0")
    earlier.calibrations |= {
        20: Kept("TOF1", "t0", *when, answered=error("no such data &amp; no hope")),
        21: Kept("TOF1", "t0", "null", when[1], b"when?"),
        22: Kept("TOF1", "0t", *when, b"a type that is none"),
        23: Kept("TOF1", "t0", *when, answered="*not base64*"),
        24: Kept("TOF1", "t0", *when, b"<errors>of the detector</errors>"),
    }
    for repetition in range(2):
        done = shell(new_master, "copy", "--from", f"{earlier.url}/cdb/calibration?wsdl")
        assert done.returncode == 1
        counts = f"{0 if repetition else 4} copied, {4 if repetition else 0} stored before, 4 not taken over"
        assert done.stderr.decode() == f"8 listed, {counts}\n"
        rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
        assert [row[:5] for row in rows] == [
            ["20", "TOF1", "t0", *when],
            ["21", "TOF1", "t0", "null", when[1]],
            ["22", "TOF1", "0t", *when],
            ["23", "TOF1", "t0", *when],
        ]
        reasons = ("no such data & no hope", "'null' is not a time", "calibration_type", "not base64")
        assert all(reason in row[5] for reason, row in zip(reasons, rows, strict=True))


def test_a_period_that_is_not_listed_is_told(new_master: Master, earlier: LegacyCdb) -> None:
    """What the other periods list is taken over all the same."""
    earlier.unlisted = {"1900-01-01 00:00:00", "2012-01-01 00:00:00"}
    done = shell(new_master, "copy", "--from", f"{earlier.url}/cdb/calibration")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        f"what was valid from {period} is not listed: {earlier.url}/cdb/calibration: no data"
        for period in ("1900 to 2000", "2012 to 2013")
    ] + ["3 listed, 3 copied, 0 stored before, 0 not taken over"]


def test_json_tells_what_became_of_each(new_master: Master, earlier: LegacyCdb) -> None:
    """The ids there and here; also of what was stored before."""
    earlier.calibrations[20] = Kept("TOF1", "t0", "null", "null", b"when?")
    arguments = ("copy", "--from", f"{earlier.url}/cdb/calibration", "--json")
    told = [json.loads(shell(new_master, *arguments).stdout) for _ in range(2)]
    for is_new, found in zip((True, False), told, strict=True):
        by_id = {one["original"]["id"]: one for one in found}
        assert {id: (one["id"], one["is_new"]) for id, one in by_id.items()} == {
            7: (1, is_new),
            12: (2, is_new),
            13: (3, is_new),
            20: (None, False),
        }
        assert by_id[7]["service"] == f"{earlier.url}/cdb/calibration"
        assert by_id[7]["refused"] is None
        assert "is not a time" in by_id[20]["refused"]


def test_what_is_stored_already_is_not_stored_again(new_master: Master, earlier: LegacyCdb) -> None:
    """Rule 9, where somebody has uploaded the same file by hand."""
    writer = cdb.CalibrationSuperMouse(new_master.url, user=new_master.user, token=new_master.token)
    writer.add_calibration("TOF1", "t0", "2011-11-23 12:00:00", b"t0 of 2011" * 1000, comment="by hand")
    told = copied(new_master, "--from", f"{earlier.url}/cdb/calibration")
    assert told == "3 listed, 2 copied, 1 stored before, 0 not taken over\n"
    assert writer.get_history("TOF1", "t0")[0].comment == "by hand"


def test_a_copy_that_was_killed_goes_on_where_it_was(new_master: Master, earlier: LegacyCdb) -> None:
    """What was stored before is not fetched again."""
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> str:
        reached.set()
        go_on.wait(60)
        return ""

    slow = earlier.calibrations[12]
    slow.answered = wait
    command = [sys.executable, "-m", "cdb.cli", "copy", "--from", earlier.url]
    with subprocess.Popen(command, env=new_master.environment) as process:
        assert reached.wait(60)
        process.kill()
    slow.answered = None
    go_on.set()
    earlier.asked.clear()
    assert copied(new_master, "--from", earlier.url) == "4 listed, 3 copied, 1 stored before, 0 not taken over\n"
    assert earlier.asked == ["12", "12", "13"]


def test_a_large_payload_is_taken_over(new_master: Master, earlier: LegacyCdb) -> None:
    """Longer, as text, than XML parsers take unless they are told to."""
    data = bytes(range(256)) * 60_000
    earlier.calibrations = {1: Kept("EMR", "eps", "2014-01-01 00:00:00.0", "2014-01-02 00:00:00.0", data)}
    copied(new_master, "--from", f"{earlier.url}/cdb/calibration")
    assert cdb.Calibration(new_master.url).get_calibration_for_id(1).data == data


def test_a_server_that_cannot_answer_now_ends_it(new_master: Master, earlier: LegacyCdb) -> None:
    """What the earlier CDB called a warning: repeated later, the command goes on."""
    warning = "<warning>the database is busy</warning>"
    earlier.told["getCalibrationIds"] = warning
    done = shell(new_master, "copy", "--from", earlier.url)
    assert (done.returncode, b"the database is busy" in done.stderr) == (1, True)
    del earlier.told["getCalibrationIds"]
    earlier.calibrations[12].answered = base64.b64encode(warning.encode()).decode()
    done = shell(new_master, "copy", "--from", earlier.url)
    assert done.returncode == 1
    assert b"4 listed, 1 copied, 0 stored before, 0 not taken over, 3 not tried: repeat the command\n" in done.stderr


@pytest.mark.parametrize("answered", ["<html>hello</html>", "", "<ids><id name='x'/></ids>", "<ids><id/></ids>"])
def test_what_is_no_earlier_cdb_ends_it(new_master: Master, earlier: LegacyCdb, answered: str) -> None:
    """Exit status 3, for no server of that kind was reached."""
    earlier.told["getCalibrationIds"] = answered
    done = shell(new_master, "copy", "--from", earlier.url)
    assert (done.returncode, b"does not answer as the earlier CDB did" in done.stderr) == (3, True)


def test_a_service_that_is_not_there_is_told(new_master: Master, earlier: LegacyCdb) -> None:
    """With the way to leave it out; and an address that is none is wrong usage."""
    with serving(LegacyCdb(), cabling=False) as other:
        done = shell(new_master, "copy", "--from", other.url)
        assert (done.returncode, b"--from takes the address of one service, too" in done.stderr) == (3, True)
    for address in ("earlier", "http://earlier.example/services?wsdl", "ftp://earlier.example"):
        assert shell(new_master, "copy", "--from", address).returncode == 2
    assert shell(new_master, "copy").returncode == 2


def test_without_a_token_nothing_is_taken_over(new_master: Master, earlier: LegacyCdb) -> None:
    """It is not the calibrations that are refused."""
    done = shell(new_master, "copy", "--from", earlier.url, CDB_TOKEN="wrong")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"4 not tried" in done.stderr


def test_a_terminal_shows_how_far_it_is(new_master: Master, earlier: LegacyCdb) -> None:
    """A bar for the periods, one for the calibrations."""
    shown = under_a_terminal(new_master, "copy", "--from", earlier.url)
    assert "periods" in shown
    assert "4/4" in shown


def test_ids_begin_above_the_earlier_ones(new_master: Master, earlier: LegacyCdb) -> None:
    """Runs take the places below: an id of the earlier CDB is then an error, and stays one."""
    refused = shell(new_master, "copy", "--from", earlier.url, "--first-id", "4")
    assert refused.returncode == 2
    assert b"the next id is 1, and none can be left out; 3 runs registered before" in refused.stderr
    writer = cdb.CalibrationSuperMouse(new_master.url, user=new_master.user, token=new_master.token)
    for run in (1, 2, 3):
        writer.add_run(run, f"2016-03-0{run}")
    for _ in range(2):
        copied(new_master, "--from", earlier.url, "--first-id", "4")
    assert sorted(writer.get_ids("1900-01-01", "2100-01-01"))[0] == 4
    for id in (1, 2, 3):
        with pytest.raises(cdb.CalibrationNotFound):
            writer.get_calibration_for_id(id)
    told = shell(new_master, "copy", "--from", earlier.url, "--first-id", "5")
    assert (told.returncode, b"4 is the id of" in told.stderr) == (2, True)
