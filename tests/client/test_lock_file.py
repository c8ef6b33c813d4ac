"""Lock files: what a job asked and was answered, and the same answers again."""

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cdb
from cdb._resolver.lock_file import LockFile
from cdb._resolver.query import Query
from cdb._resolver.store import Store
from tests.client.cdb_process import said, shell
from tests.servers import Master

RUN = 9201
EVERY_BYTE = bytes(range(256))
ABOUT_RUN_1 = b'{"question": {"get_run": {"run_number": 1}}, '


@pytest.fixture
def writer(shared_master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)


def job(client: cdb.Calibration, device: str) -> list[object]:
    """All that a job may ask about a device and a run."""
    answers: list[object] = []
    for text in (
        client.get_calibration_for_run(device, "t0", RUN),
        client.get_calibration_for_date(device, "t0", "2016-03-01"),
        client.get_current_calibration(device, "t0"),
    ):
        answers += [text.data, text.record]
    answers += [client.get_calibration_for_id(text.id).data, client.get_history(device, "t0"), client.get_run(RUN)]
    for question in (
        lambda: client.get_calibration_for_run(device, "none", RUN),
        lambda: client.get_calibration_for_run(device, "t0", 999_999),
    ):
        with pytest.raises(LookupError) as missing:
            question()
        answers += [type(missing.value), str(missing.value), vars(missing.value)]
    return answers


@pytest.mark.parametrize("network", ["gone", "with newer uploads"])
def test_a_lock_file_replays_byte_for_byte(
    writer: cdb.CalibrationSuperMouse, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the network off, and against a server that has since got newer uploads, withdrawals and corrected runs."""
    device = f"LOCKED {network}".upper()
    first = writer.add_calibration(device, "t0", "2016-01-01", EVERY_BYTE)
    writer.add_run(RUN, "2016-03-01")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        answers = job(writer, device)
    writer.add_calibration(device, "t0", "2016-02-01", b"newer")
    writer.add_calibration(device, "none", "2016-02-01", b"there was none")
    writer.withdraw_calibration(first.id, "wrong")
    writer.add_run(RUN, "2016-04-01")
    assert writer.get_calibration_for_run(device, "t0", RUN) == "newer"
    before = lock.read_bytes()
    monkeypatch.setenv("CDB_LOCK", str(lock))
    if network == "gone":
        assert job(cdb.Calibration("http://127.0.0.1:1"), device) == answers
        with cdb.replaying(lock):
            assert job(cdb.Calibration("http://127.0.0.1:1"), device) == answers
    else:
        monkeypatch.setenv("CDB_CACHE", str(tmp_path / "another cache"))
        assert job(cdb.Calibration(writer._servers), device) == answers
    assert lock.read_bytes() == before


def test_a_query_that_is_not_recorded_fails_when_replayed(writer: cdb.CalibrationSuperMouse, tmp_path: Path) -> None:
    """No question is answered from elsewhere, and the error says where it was looked for."""
    writer.add_calibration("LOUD", "t0", "2016-01-01", b"t0")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        writer.get_current_calibration("LOUD", "t0")
    with cdb.replaying(lock):
        with pytest.raises(cdb.ServerUnreachable, match=r"not in the lock file .*run\.lock"):
            writer.get_current_calibration("LOUD", "tw")
        with pytest.raises(cdb.ServerUnreachable, match="CDB_OFFLINE"):
            writer.get_status()
    with pytest.raises(FileNotFoundError), cdb.replaying(tmp_path / "none.lock"):
        pass


def test_a_payload_that_is_not_in_the_cache_fails_loudly_until_it_is_fetched(
    writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cdb lock fetch` brings what a lock file needs to where there will be no network."""
    writer.add_calibration("FETCHED", "t0", "2016-01-01", EVERY_BYTE)
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        writer.get_current_calibration("FETCHED", "t0")
    monkeypatch.setenv("CDB_CACHE", str(tmp_path / "elsewhere"))
    elsewhere = cdb.Calibration(shared_master.url)
    with cdb.replaying(lock), pytest.raises(cdb.ServerUnreachable, match="cdb lock fetch"):
        elsewhere.get_current_calibration("FETCHED", "t0")
    assert shell(shared_master, "lock", "verify", str(lock)).returncode == 1
    assert shell(shared_master, "lock", "fetch", str(lock)).returncode == 0
    with cdb.replaying(lock):
        assert elsewhere.get_current_calibration("FETCHED", "t0").data == EVERY_BYTE
    assert said(shared_master, "lock", "verify", str(lock)).endswith("\tyes\tthe same\n")


def test_a_lock_file_tells_what_became_of_its_calibrations(
    writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path
) -> None:
    """Withdrawn since is told and is no error; another calibration under an id is one."""
    stored = writer.add_calibration("VERIFIED", "t0", "2016-01-01", b"t0")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        writer.get_current_calibration("VERIFIED", "t0")
    writer.withdraw_calibration(stored.id, "measured with the wrong trigger")
    assert "withdrawn since: measured with the wrong trigger" in said(shared_master, "lock", "verify", str(lock))
    lock.write_text(lock.read_text().replace('"valid_from": "2016', '"valid_from": "2015'))
    done = shell(shared_master, "lock", "verify", str(lock))
    assert (done.returncode, b"another calibration" in done.stdout) == (1, True)
    assert b"yes\tnot asked" in shell(shared_master, "lock", "verify", str(lock), CDB_OFFLINE="1").stdout


def test_a_lock_file_can_be_read(writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path) -> None:
    """One JSON object a line, in the order in which was asked, each question once; and as a table."""
    stored = writer.add_calibration("READ", "t0", "2016-01-01", EVERY_BYTE, comment="µ\u2028line")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        for _ in range(2):
            writer.get_calibration_for_date("read", "T0", "2016-03-01")
            writer.list_devices()
    first, second = (json.loads(line) for line in lock.read_text().removesuffix("\n").split("\n"))
    assert first["question"] == {
        "get_calibration_for_date": {
            "device_name": "READ",
            "calibration_type": "t0",
            "date": "2016-03-01T00:00:00.000000Z",
        }
    }
    assert (first["answer"]["id"], first["answer"]["sha256"]) == (stored.id, stored.sha256)
    assert first["answer"]["comment"] == "µ\u2028line"
    assert list(second["question"]) == ["list_devices"]
    rows = [row.split("\t") for row in said(shared_master, "lock", "show", str(lock)).splitlines()]
    assert rows[0][1:] == [str(stored.id), "2016-01-01T00:00:00.000000Z", "256", stored.sha256]
    assert json.loads(said(shared_master, "lock", "show", "--json", str(lock)))[0] == first


def test_child_processes_of_a_job_are_recorded(
    writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path
) -> None:
    """What holds for a job holds for its threads and for the programs that it starts."""
    writer.add_calibration("CHILDREN", "t0", "2016-01-01", b"t0")
    writer.add_calibration("CHILDREN", "tw", "2016-01-01", b"tw")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock), ThreadPoolExecutor(1) as thread:
        command = [sys.executable, "-m", "cdb.cli", "get", "CHILDREN", "t0"]
        subprocess.run(command, env={**os.environ, "CDB_SERVER": shared_master.url}, check=True, capture_output=True)
        thread.submit(writer.get_current_calibration, "CHILDREN", "tw").result()
    assert [dict(question.arguments)["calibration_type"] for question, _ in LockFile(lock).entries()] == ["t0", "tw"]
    assert "CDB_LOCK" not in os.environ


def _ask(url: str, lock: Path, turn: int) -> list[bytes]:
    os.environ["CDB_LOCK"] = str(lock)
    client = cdb.CalibrationSuperMouse(url)
    return [client.get_current_calibration("SHARED LOCK", f"t{number % 7}").data for number in range(turn, turn + 14)]


def test_processes_that_share_a_lock_file_get_the_same_answers(
    writer: cdb.CalibrationSuperMouse, tmp_path: Path
) -> None:
    """While calibrations are stored all the time, each question has one answer in all processes; the first stands."""
    lock = tmp_path / "farm.lock"
    for number in range(7):
        writer.add_calibration("SHARED LOCK", f"t{number}", "2016-01-01", f"first {number}")
    with multiprocessing.get_context("spawn").Pool(6) as processes:
        jobs = [processes.apply_async(_ask, (writer._servers[0], lock, turn)) for turn in range(12)]
        stored = 0
        while not all(each.ready() for each in jobs):
            writer.add_calibration("SHARED LOCK", f"t{stored % 7}", "2016-01-02", f"number {stored}")
            stored += 1
        answers = {
            ((turn + place) % 7, data) for turn, each in enumerate(jobs) for place, data in enumerate(each.get())
        }
    assert len(answers) == 7
    assert len(lock.read_text().splitlines()) == 7


def test_a_torn_last_line_is_ignored(writer: cdb.CalibrationSuperMouse, tmp_path: Path) -> None:
    """At whatever byte it was cut off: what stands before it holds, and the next answer is noted after that."""
    writer.add_calibration("HALF", "t0", "2016-01-01", b"t0")
    writer.add_calibration("HALF", "tw", "2016-01-01", b"tw")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        writer.get_current_calibration("HALF", "t0")
        one = len(lock.read_bytes())
        writer.get_current_calibration("HALF", "tw")
    whole = lock.read_bytes()
    tw = Query.of("get_current_calibration", device_name="HALF", calibration_type="tw")
    answer = LockFile(lock).find(tw)
    assert answer is not None
    for cut in range(one, len(whole)):
        lock.write_bytes(whole[:cut])
        again = LockFile(lock)
        # Of a line that lacks its end alone, all is there: an editor took it away.
        assert again.find(tw) == (answer if cut == len(whole) - 1 else None)
        again.record(tw, answer)
        assert lock.read_bytes() == whole[: None if cut < len(whole) - 1 else -1]
        again.record(Query.of("get_run", run_number=1), cdb.RunNotFound("none", run_number=1))
        assert lock.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 100 + b"\n",
        b"not JSON\n",
        b"not JSON and no line",
        b"a\rb\nmany\nlines\n" * 10,
        b"[]\n",
        b"[]",
        ABOUT_RUN_1 + b'"answer": ' + b"[" * 100_000 + b"\n",
        # About another run than was asked for.
        ABOUT_RUN_1 + b'"fault": {"name": "RunNotFound", "message": "", "run_number": 2}}\n',
        ABOUT_RUN_1 + b'"fault": {"name": "RunNotFound", "message": 5, "run_number": 1}}\n',
        b'{"question": {"get_later": {}}, "answer": {}}\n',
        b'{"question": {}}\n',
        b'{"question": {"get_run": {}}, "answer": 3}\n',
    ],
)
def test_another_file_is_refused_and_left_as_it_is(
    writer: cdb.CalibrationSuperMouse, tmp_path: Path, content: bytes
) -> None:
    """A file that is no lock file is neither believed nor written to."""
    lock = tmp_path / "results.txt"
    lock.write_bytes(content)
    with cdb.recording(lock), pytest.raises(cdb.InvalidArgument, match="is not a lock file"):
        writer.list_devices()
    assert lock.read_bytes() == content


def test_an_answer_that_cannot_be_recorded_is_an_error(writer: cdb.CalibrationSuperMouse, tmp_path: Path) -> None:
    """A job whose lock file cannot be written would not be one that can be repeated."""
    with cdb.recording(tmp_path / "no folder" / "run.lock"), pytest.raises(cdb.InvalidArgument, match="cannot be"):
        writer.list_devices()


def test_the_shells_flags_are_the_settings(
    writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path
) -> None:
    """--lock, --offline, --cache and --as-of do what CDB_LOCK, CDB_OFFLINE, CDB_CACHE and CDB_AS_OF do."""
    writer.add_calibration("FLAGS", "t0", "2016-01-01", EVERY_BYTE)
    flags = ("--lock", str(tmp_path / "run.lock"), "--cache", str(tmp_path / "cache"))
    assert shell(shared_master, "get", "FLAGS", "t0", *flags).stdout == EVERY_BYTE
    nowhere = {"CDB_SERVER": "http://127.0.0.1:1"}
    assert shell(shared_master, "get", "FLAGS", "t0", *flags, "--offline", **nowhere).stdout == EVERY_BYTE
    done = shell(shared_master, "get", "FLAGS", "tw", *flags, "--offline", **nowhere)
    assert (done.returncode, b"CDB_OFFLINE is set" in done.stderr) == (3, True)
    done = shell(shared_master, "get", "FLAGS", "t0", CDB_AS_OF="2000-01-01")
    assert (done.returncode, b"no calibration" in done.stderr) == (1, True)


def test_writing_commands_ignore_the_jobs_settings(
    writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of a job do not reach what `cdb add` compares with; and offline nothing is written."""
    lock = tmp_path / "run.lock"
    writer.add_calibration("WRITTEN NOW", "t0", "2016-01-01", "first")
    (tmp_path / "t0.txt").write_text("second")
    arguments = ("add", "WRITTEN NOW", "t0", str(tmp_path / "t0.txt"), "--valid-from", "2016-01-02")
    job = {"CDB_LOCK": str(lock), "CDB_AS_OF": "2000-01-01"}
    assert b"new device" not in shell(shared_master, *arguments, "--dry-run", **job).stdout
    assert not lock.exists()
    assert shell(shared_master, *arguments, "--yes", CDB_OFFLINE="1").returncode == 3
    monkeypatch.setenv("CDB_OFFLINE", "1")
    with pytest.raises(cdb.ServerUnreachable, match="CDB_OFFLINE"):
        writer.add_run(1, "2016-01-01")


def test_a_lock_file_with_two_answers_is_refused(writer: cdb.CalibrationSuperMouse, tmp_path: Path) -> None:
    """Two files that were joined may contradict each other: neither is right."""
    lock = tmp_path / "run.lock"
    writer.add_calibration("TWICE", "t0", "2016-01-01", b"first")
    with cdb.recording(lock):
        writer.get_current_calibration("TWICE", "t0")
    first = lock.read_bytes()
    lock.write_bytes(first * 2)
    with cdb.replaying(lock):
        assert writer.get_current_calibration("TWICE", "t0") == "first"
    lock.write_bytes(first + first.replace(b'"author": "alice"', b'"author": "bob"'))
    with cdb.replaying(lock), pytest.raises(cdb.InvalidArgument, match="two answers"):
        writer.get_current_calibration("TWICE", "t0")


def test_a_replay_takes_nothing_from_elsewhere(writer: cdb.CalibrationSuperMouse, tmp_path: Path) -> None:
    """What was prefetched does not stand in for what was not noted, and the file stays as it is."""
    lock = tmp_path / "run.lock"
    writer.add_calibration("ELSEWHERE", "t0", "2016-01-01", b"t0")
    with cdb.recording(lock):
        writer.get_history("ELSEWHERE", "t0", "2016-01-01")
    writer.get_history("ELSEWHERE", "tw", "2016-01-01")
    before = lock.read_bytes()
    with cdb.replaying(lock), pytest.raises(cdb.ServerUnreachable, match="not in the lock file"):
        writer.get_history("ELSEWHERE", "tw", "2016-01-01")
    assert lock.read_bytes() == before


def test_a_lock_file_that_was_replaced_is_read_anew(writer: cdb.CalibrationSuperMouse, tmp_path: Path) -> None:
    """By one of the same size, by a longer one, by none."""
    lock, other = tmp_path / "run.lock", tmp_path / "other"
    writer.add_calibration("REPLACED", "t0", "2016-01-01", b"t0", comment="old")
    with cdb.recording(lock):
        writer.get_history("REPLACED", "t0")
        old = lock.read_bytes()
        for comment in (b"new", b"and longer"):
            other.write_bytes(old.replace(b"old", comment))
            other.replace(lock)
            assert [record.comment for record in writer.get_history("REPLACED", "t0")] == [comment.decode()]
        lock.unlink()
        assert [record.comment for record in writer.get_history("REPLACED", "t0")] == ["old"]
        assert lock.read_bytes() == old


def test_overlapping_recordings_are_an_error(tmp_path: Path) -> None:
    """One inside the other is well; else the first to end would leave the other's file behind for ever."""
    with cdb.recording(tmp_path / "outer"):
        with cdb.recording(tmp_path / "inner"):
            assert os.environ["CDB_LOCK"].endswith("inner")
        assert os.environ["CDB_LOCK"].endswith("outer")
    assert "CDB_LOCK" not in os.environ
    first, second = cdb.recording(tmp_path / "first"), cdb.recording(tmp_path / "second")
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match="one at a time"):
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    del os.environ["CDB_LOCK"]


def test_a_full_disk_leaves_no_half_line(shared_master: Master, tmp_path: Path) -> None:
    """An answer that cannot be noted whole is not given, and what stands in the file still holds."""
    program = (
        "import resource, sys, cdb\n"
        f"c = cdb.Calibration({shared_master.url!r})\n"
        f"with cdb.recording({str(tmp_path / 'run.lock')!r}):\n"
        "    c.get_history('NONE', 't0')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (120, 120))\n"
        "    try: c.get_history('NONE', 'tw')\n"
        "    except cdb.InvalidArgument as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "cannot be written" in done.stdout, done.stderr
    assert len(LockFile(tmp_path / "run.lock").entries()) == 1
    assert (tmp_path / "run.lock").read_bytes().count(b"\n") == 1


def test_a_lock_file_that_is_kept_by_another_is_waited_for_in_time(shared_master: Master, tmp_path: Path) -> None:
    """A job that was stopped while it notes does not hold the others up for ever."""
    lock = tmp_path / "run.lock"
    with open(lock, "a+b") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        with cdb.recording(lock), pytest.raises(cdb.Unavailable, match="locked by another process"):
            cdb.Calibration(shared_master.url, timeout=1).list_devices()
    with cdb.recording(lock):
        cdb.Calibration(shared_master.url).list_devices()


def test_the_settings_of_a_job_do_not_spoil_its_lock_files_check(
    writer: cdb.CalibrationSuperMouse, shared_master: Master, tmp_path: Path
) -> None:
    """With CDB_LOCK and CDB_AS_OF exported, `cdb lock verify` looks at what is so now, and notes nothing."""
    stored = writer.add_calibration("EXPORTED", "t0", "2016-01-01", b"t0")
    lock = tmp_path / "run.lock"
    with cdb.recording(lock):
        writer.get_current_calibration("EXPORTED", "t0")
    before = lock.read_bytes()
    writer.withdraw_calibration(stored.id, "bad")
    job = {"CDB_LOCK": str(lock), "CDB_AS_OF": "2016-01-01"}
    for _ in range(2):
        done = shell(shared_master, "lock", "verify", str(lock), **job)
        assert (done.returncode, b"withdrawn since: bad" in done.stdout) == (0, True)
    assert lock.read_bytes() == before


def test_a_fork_does_not_keep_a_lock(tmp_path: Path) -> None:
    """A child that was forked while its parent held a lock has the open file; what it lives on with is no lock."""
    store = Store(tmp_path, 1)
    with store.lock("a payload", 5):
        child = os.fork()
        if child == 0:
            # Longer than the parent's patience below.
            time.sleep(20)
            os._exit(0)
    try:
        begun = time.monotonic()
        with store.lock("a payload", 5):
            assert time.monotonic() - begun < 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
