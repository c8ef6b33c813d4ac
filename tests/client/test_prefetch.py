"""`cdb prefetch`: what jobs will ask is brought into the cache, and they run without any network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cdb
from tests.client.as_of import as_of_after
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.servers import Master

RUNS = range(9301, 9305)


@pytest.fixture(scope="module")
def stored(shared_master: Master) -> dict[str, bytes]:
    """Calibrations of three types and four runs: the payload in force at each run, by type and run."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    payloads = {}
    for number in RUNS:
        writer.add_run(number, f"2016-03-{number - 9300:02} 08:00:00")
        for kind in ("t0", "tw", "gain"):
            data = f"{kind} of {number}".encode()
            last = writer.add_calibration("PREFETCHED", kind, f"2016-03-{number - 9300:02}", data).created
            payloads[f"{kind} {number}"] = data
    as_of_after(writer, last)
    return payloads


JOB = """
import sys, cdb
c = cdb.Calibration()
for run in map(int, sys.argv[1:]):
    c.get_run(run)
    for kind in ("t0", "tw", "gain"):
        print(c.get_calibration_for_run("PREFETCHED", kind, run))
"""


def offline_job(master: Master, *runs: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """A job of its own process, at a server of which the address is right and that it must not ask."""
    return subprocess.run(
        [sys.executable, "-c", JOB, *map(str, runs)],
        env={**os.environ, "CDB_SERVER": master.url, "CDB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_jobs_run_without_network_after_a_prefetch(shared_master: Master, stored: dict[str, bytes]) -> None:
    """With CDB_OFFLINE=1, and with the as_of that was printed or without."""
    done = offline_job(shared_master, 9301)
    assert (done.returncode, "cdb prefetch --run 9301" in done.stderr) == (1, True)
    printed = said(shared_master, "prefetch", "--run", "9301-9303", "--run", "9304,9399", "--as-of", "now")
    setting, _, as_of = printed.strip().partition("=")
    assert setting == "CDB_AS_OF"
    expected = "".join(f"{data.decode()}\n" for key, data in stored.items())
    for environment in ({}, {"CDB_AS_OF": as_of}):
        assert offline_job(shared_master, *RUNS, **environment).stdout == expected
    done = offline_job(shared_master, 9399)
    assert (done.returncode, "9399" in done.stderr) == (1, True)


def test_a_prefetch_says_what_it_brought(shared_master: Master, stored: dict[str, bytes]) -> None:
    """As a table for people, as JSON for programs; runs that nobody registered are named."""
    answer = shell(shared_master, "prefetch", "--run", "9301-9302,9398", "--as-of", "now", "--json")
    brought = json.loads(answer.stdout)
    assert (brought["runs"], brought["runs_not_registered"]) == (2, [9398])
    assert brought["calibrations"] >= 6
    assert answer.stderr == b"cdb: not registered: 9398\n"
    shown = under_a_terminal(shared_master, "prefetch", "--run", "9301")
    assert "CDB_AS_OF=20" in shown
    assert "payloads" in shown
    done = shell(shared_master, "prefetch", "--run", "9398")
    assert (done.returncode, b"not registered: 9398" in done.stderr) == (1, True)


def test_dates_can_be_prefetched(
    shared_master: Master, stored: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What applies at a time, for all devices and types."""
    moment = "2016-03-02 12:00:00"
    said(shared_master, "prefetch", "--date", moment, "--as-of", "now")
    monkeypatch.setenv("CDB_OFFLINE", "1")
    client = cdb.Calibration(shared_master.url)
    assert client.get_calibration_for_date("prefetched", "T0", moment).data == stored["t0 9302"]
    with pytest.raises(cdb.ServerUnreachable, match="cdb prefetch --date"):
        client.get_calibration_for_date("prefetched", "T0", "2016-03-02 12:00:01")


@pytest.mark.parametrize("runs", ["", "x", "1-", "7664-7661", "1-10000000", "1,,2", "-1"])
def test_runs_that_are_none_are_wrong_usage(shared_master: Master, runs: str) -> None:
    """Exit status 2, and nothing is asked."""
    assert shell(shared_master, "prefetch", f"--run={runs}", CDB_SERVER="http://127.0.0.1:1").returncode == 2
    assert shell(shared_master, "prefetch", CDB_SERVER="http://127.0.0.1:1").returncode == 2


def test_a_cache_without_room_is_an_error(shared_master: Master, stored: dict[str, bytes], tmp_path: Path) -> None:
    """A prefetch that could not keep what it fetched does not say that it did."""
    for place in ("file", "half/answers"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("not a folder")
        cache = tmp_path / place.partition("/")[0]
        done = shell(shared_master, "prefetch", "--run", "9301", CDB_CACHE=str(cache))
        assert (done.returncode, b"did not store what was fetched" in done.stderr) == (1, True), place
        assert b"CDB_AS_OF" not in done.stdout


def test_a_jobs_lock_file_does_not_stand_for_its_cache(
    shared_master: Master, stored: dict[str, bytes], tmp_path: Path
) -> None:
    """With CDB_LOCK exported, a second prefetch fills another cache too, and notes nothing."""
    lock = tmp_path / "run.lock"
    for cache in ("first", "second"):
        settings = {"CDB_LOCK": str(lock), "CDB_CACHE": str(tmp_path / cache)}
        assert shell(shared_master, "prefetch", "--run", "9301", "--as-of", "now", **settings).returncode == 0
        done = offline_job(shared_master, 9301, CDB_CACHE=str(tmp_path / cache))
        assert done.stdout.encode().splitlines()[0] == stored["t0 9301"], done.stderr
    assert not lock.exists()


def test_status_says_what_is_set_for_the_job(shared_master: Master, tmp_path: Path) -> None:
    """As of when, from which cache, with which lock file, and whether the network is used."""
    settings = {"CDB_AS_OF": "2016-03-01", "CDB_LOCK": "run.lock", "CDB_CACHE": str(tmp_path)}
    shown = shell(shared_master, "status", **settings).stdout.decode()
    assert "this job's as of\t2016-03-01T00:00:00.000000Z\n" in shown
    assert "this job's lock\trun.lock\n" in shown
    assert f"this job's cache\t{tmp_path}\n" in shown
    offline = json.loads(shell(shared_master, "status", "--json", **settings, CDB_OFFLINE="1").stdout)
    assert offline["job"]["offline"] is True
