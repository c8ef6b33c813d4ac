"""The verified cache: what is kept is right, whatever happens to its files, and is asked for once."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import cdb
from cdb._resolver.cache import Cache
from cdb._resolver.store import Store
from tests import servers
from tests.client.as_of import as_of_after
from tests.client.counting_proxy import CountingProxy
from tests.servers import Master

DATA = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(32))
SHA256 = hashlib.sha256(DATA).hexdigest()
RUN = 7662


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Master, str]]:
    """A master with calibrations of one run, and the instant after which as_of can be asked about them."""
    folder = tmp_path_factory.mktemp("asked")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        writer.add_run(RUN, "2016-03-01 08:00:00")
        writer.add_calibration("TOF1", "t0", "2016-01-01", DATA)
        writer.add_calibration("TOF1", "tw", "2016-01-01", b"walk")
        last = writer.add_calibration("KL", "gain", "2017-01-01", b"too late for the run").created
        yield master, as_of_after(writer, last)


def folder() -> Path:
    """The cache of the test."""
    return Path(os.environ["CDB_CACHE"])


def payloads() -> list[Path]:
    return [path for path in (folder() / "payloads").rglob("*") if path.is_file()]


def test_a_pinned_question_is_answered_without_a_server(
    asked: tuple[Master, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By run, by date, the current one, by id, and lists: with as_of, the second time needs nobody."""
    master, as_of = asked
    client = cdb.Calibration(master.url)

    def answers() -> list[object]:
        texts = [
            client.get_calibration_for_run("tof1", "T0", RUN, as_of),
            client.get_calibration_for_date("TOF1", "t0", "2016-03-01", as_of),
            client.get_current_calibration("TOF1", "t0", as_of),
            client.get_calibration_for_id(2, as_of),
        ]
        assert [text.data for text in texts] == [DATA] * 4
        return [
            [text.record for text in texts],
            client.get_ids("2016-01-01", "2017-01-01", as_of),
            client.get_calibrations_for_run(RUN, as_of),
            client.get_history("TOF1", "t0", as_of),
            client.list_devices(as_of),
            client.get_run(RUN, as_of),
            client.get_runs("2016-01-01", "2017-01-01", as_of),
        ]

    first = answers()
    monkeypatch.setenv("CDB_OFFLINE", "1")
    assert answers() == first
    with pytest.raises(cdb.ServerUnreachable, match="cdb prefetch --run 7662'"):
        client.get_calibration_for_run("TOF1", "t0", RUN)
    with pytest.raises(cdb.CalibrationNotFound) as nothing:
        client.get_calibration_for_run("TOF1", "none", RUN, as_of)
    assert (nothing.value.run_number, nothing.value.calibration_type) == (RUN, "none")


def test_as_of_holds_for_a_whole_job(asked: tuple[Master, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """CDB_AS_OF stands in for the argument, and the argument goes before it."""
    master, as_of = asked
    client = cdb.Calibration(master.url)
    later = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    stored = later.add_calibration("EMR", "gain", "2016-01-01", b"stored later")
    assert client.get_history("EMR", "gain") == [stored]
    monkeypatch.setenv("CDB_AS_OF", as_of)
    assert client.get_history("EMR", "gain") == []
    with pytest.raises(cdb.AsOfNotReached):
        client.get_history("EMR", "gain", "2100-01-01")
    monkeypatch.setenv("CDB_AS_OF", "now")
    assert client.get_history("TOF1", "t0")
    monkeypatch.setenv("CDB_AS_OF", "yesterday")
    with pytest.raises(cdb.InvalidArgument, match="CDB_AS_OF: 'yesterday' is not a time"):
        client.get_history("EMR", "gain")


@pytest.mark.parametrize(
    "damaged",
    [b"", DATA[:-1], DATA + b"\0", DATA.replace(b"\0", b"\1", 1)[:-1] + b"?", b"another file"],
    ids=["empty", "cut off", "longer", "changed", "another"],
)
def test_a_damaged_file_is_quarantined_and_fetched_again(asked: tuple[Master, str], damaged: bytes) -> None:
    """A wrong payload is never given, and is there for whoever wants to see what happened."""
    master, as_of = asked
    client = cdb.Calibration(master.url)
    assert client.get_calibration_for_run("TOF1", "t0", RUN, as_of).data == DATA
    (kept,) = payloads()
    kept.write_bytes(damaged)
    assert client.get_calibration_for_run("TOF1", "t0", RUN, as_of).data == DATA
    assert kept.read_bytes() == DATA
    assert [path.read_bytes() for path in (folder() / "quarantine").iterdir()] == [damaged]


def test_a_damaged_answer_is_quarantined_and_queried_again(asked: tuple[Master, str]) -> None:
    """Each byte of a kept answer matters: one flipped, and it is not believed."""
    master, as_of = asked
    client = cdb.Calibration(master.url)
    expected = client.get_calibrations_for_run(RUN, as_of)
    (kept,) = (path for path in (folder() / "answers").rglob("*") if path.is_file())
    right = kept.read_bytes()
    for position in range(0, len(right), 17):
        kept.write_bytes(right[:position] + bytes([right[position] ^ 1]) + right[position + 1 :])
        assert client.get_calibrations_for_run(RUN, as_of) == expected
    assert kept.read_bytes() == right


def test_an_answer_under_another_questions_name_is_not_believed(asked: tuple[Master, str]) -> None:
    """Files of a cache that were copied over one another are told apart."""
    master, as_of = asked
    client = cdb.Calibration(master.url)
    t0 = client.get_history("TOF1", "t0", as_of)
    (first,) = (path for path in (folder() / "answers").rglob("*") if path.is_file())
    tw = client.get_history("TOF1", "tw", as_of)
    (second,) = (path for path in (folder() / "answers").rglob("*") if path.is_file() and path != first)
    second.write_bytes(first.read_bytes())
    assert (client.get_history("TOF1", "t0", as_of), client.get_history("TOF1", "tw", as_of)) == (t0, tw)


def test_a_query_without_as_of_is_sent_each_time(shared_master: Master) -> None:
    """Which calibration applies is remembered with as_of only: what was stored since is seen."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    reader = cdb.Calibration(shared_master.url)
    writer.add_run(9101, "2016-03-01")
    for number in range(3):
        stored = writer.add_calibration("NOT PINNED", "t0", "2016-01-01", f"number {number}")
        assert reader.get_calibration_for_run("NOT PINNED", "t0", 9101).record == stored
        assert reader.get_calibration_for_date("NOT PINNED", "t0", "2016-03-01") == f"number {number}"
        assert reader.get_current_calibration("NOT PINNED", "t0").id == stored.id
    withdrawn = writer.withdraw_calibration(stored.id, "a try")
    assert reader.get_calibration_for_id(stored.id).record == withdrawn
    assert reader.get_calibration_for_run("NOT PINNED", "t0", 9101) == "number 1"


def test_a_cached_payload_is_not_sent_again(asked: tuple[Master, str]) -> None:
    """Who does not pin asks each time, by whatever way, and is sent the payload the first time only."""
    master, _ = asked
    with CountingProxy(urlsplit(master.url).port or 0) as door:
        client = cdb.Calibration(f"http://127.0.0.1:{door.port}")

        def given() -> int:
            before = door.given
            answers = {
                client.get_calibration_for_run("TOF1", "t0", RUN),
                client.get_calibration_for_date("tof1", "T0", "2016-03-01"),
                client.get_current_calibration("TOF1", "t0"),
            }
            assert answers == {DATA.decode("utf-8", "surrogateescape")}
            return door.given - before

        first, second = given(), given()
        # In base64, once, with the element's tags.
        assert 0 < first - second - -(-len(DATA) // 3) * 4 < 40
        assert door.asked["get_payload"] == 0
        # What is no longer right, or has gone, is fetched.
        for damage in (lambda path: path.write_bytes(b"wrong"), Path.unlink):
            damage(next(path for path in payloads() if path.name == SHA256))
            given()
        assert door.asked["get_payload"] == 1


def test_a_direct_client_asks_servers_and_nothing_else(
    asked: tuple[Master, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror's follower is one: neither cache nor lock file nor the settings of a job reach it."""
    master, as_of = asked
    monkeypatch.setenv("CDB_OFFLINE", "1")
    monkeypatch.setenv("CDB_AS_OF", "2000-01-01")
    monkeypatch.setenv("CDB_LOCK", str(tmp_path / "run.lock"))
    client = cdb.Calibration(master.url, direct=True)
    for pinned in (None, as_of, "now"):
        assert client.get_calibration_for_run("TOF1", "t0", RUN, pinned).data == DATA
        assert client.get_run(RUN, pinned).run_number == RUN
    assert client.get_payload(SHA256) == DATA
    assert not folder().exists()
    assert not (tmp_path / "run.lock").exists()


def test_servers_do_not_answer_for_one_another(asked: tuple[Master, str], tmp_path: Path) -> None:
    """A cache that serves two databases gives each its own answers."""
    master, as_of = asked
    assert cdb.Calibration(master.url).get_history("TOF1", "t0", as_of)
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as other:
        other_client = cdb.Calibration(other.url)
        as_of_after(other_client, datetime.fromisoformat(as_of))
        assert other_client.get_history("TOF1", "t0", as_of) == []


@pytest.mark.parametrize("sha256", ["../../precious", "", "..", SHA256.upper(), f"{SHA256}/../../../precious"])
def test_what_is_no_sha256_names_no_file(sha256: str, tmp_path: Path) -> None:
    """A server, or a lock file, may say anything: it neither reads nor moves a file of the user's."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    cache = Cache(tmp_path / "cache" / "of" / "mine")
    assert cache.payload(sha256) is None
    assert precious.read_bytes() == b"mine"
    assert not list(tmp_path.rglob("quarantine"))


@pytest.mark.parametrize("trouble", ["a file in its place", "no folder can be made"])
def test_an_unusable_cache_is_bypassed(
    asked: tuple[Master, str],
    trouble: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Answers come all the same, and the trouble is told once."""
    master, as_of = asked
    if trouble == "a file in its place":
        (tmp_path / "cache").write_text("not a folder")
        monkeypatch.setenv("CDB_CACHE", str(tmp_path / "cache"))
    else:
        monkeypatch.setenv("CDB_CACHE", "/proc/1/cache")
    client = cdb.Calibration(master.url)
    for _ in range(2):
        assert client.get_calibration_for_run("TOF1", "t0", RUN, as_of).data == DATA
        assert client.get_current_calibration("TOF1", "tw", as_of) == "walk"
    assert len([record for record in caplog.records if "cache" in record.message]) == 1


def test_a_disk_that_fills_up_leaves_no_half_payload(asked: tuple[Master, str]) -> None:
    """What can be written in part only is not kept, and the answer comes all the same."""
    master, as_of = asked
    program = (
        "import resource, sys, cdb\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        f"print(len(cdb.Calibration('{master.url}').get_calibration_for_run('TOF1', 't0', {RUN}, '{as_of}').data))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == f"{len(DATA)}\n", done.stderr
    assert [path for path in folder().rglob("*") if path.is_file() and path.parent.name != "locks"] == []


def test_least_recently_used_files_are_evicted_first(tmp_path: Path) -> None:
    """The cache stays within its bound, and what was used lately stays in it."""
    cache = Cache(tmp_path, limit=10_000)
    names = []
    for number in range(40):
        data = bytes([number]) * 1_000
        names.append(hashlib.sha256(data).hexdigest())
        cache.store_payload(data)
        # An hour apart, for no clock need be finer.
        os.utime(tmp_path / "payloads" / names[-1][:2] / names[-1], times=(number * 3600, number * 3600))
        if number >= 5:
            # The fifth is used all the time.
            assert cache.payload(names[5]) is not None
    cache.store.evict()
    assert sum(file.size for file in cache.store.files()) <= 10_000
    assert cache.payload(names[5]) is not None
    assert [name for name in names if cache.payload(name)] == [names[5], *names[-9:]]


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Unfinished files go after a day; those that are being written stay."""
    store = Store(tmp_path, 10_000)
    name = f"payloads/{SHA256[:2]}/{SHA256}"
    store.write(name, DATA)
    old, new = (tmp_path / "payloads" / SHA256[:2] / f".{SHA256}.host.{number}.ab" for number in (1, 2))
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, times=(time.time() - 90_000,) * 2)
    store.evict()
    assert (old.exists(), new.exists()) == (False, True)
    assert [file.path.name for file in store.files()] == [SHA256]


def test_foreign_files_in_the_cache_folder_are_kept(tmp_path: Path) -> None:
    """Where CDB_CACHE names a folder with other things in it, hidden ones too, they stay and do not count."""
    names = ("src/project/.gitignore", "answers/thesis/chapter", "payloads/ab/readme", "quarantine/notes", ".profile")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine" * 1000)
        os.utime(tmp_path / name, times=(0, 0))
    cache = Cache(tmp_path, limit=2_000)
    cache.store_payload(DATA)
    cache.store.evict()
    assert cache.payload(SHA256) == DATA
    cache.store.remove_all()
    assert cache.payload(SHA256) is None
    assert all((tmp_path / name).exists() for name in names)


def test_quarantine_is_bounded(tmp_path: Path) -> None:
    """A disk that fails fills no other with what it made of files."""
    cache = Cache(tmp_path)
    for number in range(130):
        data = number.to_bytes(2, "big")
        cache.store_payload(data)
        sha256 = hashlib.sha256(data).hexdigest()
        (tmp_path / "payloads" / sha256[:2] / sha256).write_bytes(b"wrong")
        assert cache.payload(sha256) is None
    assert len(cache.store.quarantined()) == 100


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        {"question": {}},
        {"answer": 3},
        5,
        None,
        "text",
        [[[]]],
        {"answer": [{"id": 1}]},
        [5, "a"],
        ["no sha256"],
    ],
)
def test_answers_cached_by_another_version_are_queried_again(asked: tuple[Master, str], said: Any) -> None:
    """Sealed, and of another shape: neither believed nor an error."""
    master, as_of = asked
    client = cdb.Calibration(master.url)
    expected = client.get_history("KL", "gain", as_of), client.get_current_calibration("TOF1", "t0")
    for path in [path for path in (folder() / "answers").rglob("*") if path.is_file()]:
        kept = json.loads(path.read_bytes().partition(b"\n")[2])
        if isinstance(said, dict) and "answer" in said and isinstance(kept, dict):
            said["question"] = kept["question"]
        text = json.dumps(said).encode()
        path.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    assert (client.get_history("KL", "gain", as_of), client.get_current_calibration("TOF1", "t0")) == expected


def test_a_call_does_not_deadlock_on_its_own_lock(asked: tuple[Master, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all names of locks are one, as some are now and then."""
    master, as_of = asked
    monkeypatch.setattr("cdb._resolver.store.lock_name", lambda name: "000")
    client = cdb.Calibration(master.url, timeout=9)
    begun = time.monotonic()
    assert client.get_current_calibration("TOF1", "t0", as_of).data == DATA
    assert time.monotonic() - begun < 3


def test_half_a_character_is_refused_with_as_of_too(asked: tuple[Master, str]) -> None:
    """As it is without."""
    master, as_of = asked
    for pinned in (None, as_of):
        with pytest.raises(cdb.InvalidArgument):
            cdb.Calibration(master.url).get_history("A\ud800", "t0", pinned)


def _read_and_write(folder: Path, seed: int) -> int:
    """Read and write a few payloads over and over; how often something wrong was read."""
    cache = Cache(folder, limit=300_000)
    wrong = 0
    for turn in range(300):
        number = (seed * 7 + turn) % 11
        data = bytes([number]) * (20_000 + number)
        found = cache.payload(hashlib.sha256(data).hexdigest())
        wrong += found not in (None, data)
        cache.store_payload(data)
        if turn % 50 == seed:
            cache.store.evict()
    return wrong


def test_many_processes_share_a_folder(tmp_path: Path) -> None:
    """Whoever reads while others write and remove reads a whole file or none; nothing is put aside."""
    with multiprocessing.get_context("spawn").Pool(8) as processes:
        assert sum(processes.starmap(_read_and_write, [(tmp_path, seed) for seed in range(8)])) == 0
    assert Store(tmp_path, 1).quarantined() == []


def test_a_killed_writer_leaves_no_damaged_file(tmp_path: Path) -> None:
    """Killed over and over while it writes: each payload is there whole or not at all."""
    program = (
        "import sys; from pathlib import Path; from cdb._resolver.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "print('begun', flush=True)\n"
        "for number in range(10**9): cache.store_payload(number.to_bytes(8, 'big') * 100_000)"
    )
    for _ in range(10):
        with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            # Somewhere in a write.
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
    files = Store(tmp_path, 1).files()
    assert files
    assert all(hashlib.sha256(file.path.read_bytes()).hexdigest() == file.path.name for file in files)


def test_single_flight_fetches_once(tmp_path: Path) -> None:
    """In `lock` there is one at a time, of threads too."""
    store = Store(tmp_path, 1)
    inside, most = [0], [0]

    def enter(_: int) -> None:
        with store.lock("a payload", 30):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            # Long enough for another to come in, were it let in.
            time.sleep(0.01)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enter, range(40)))
    assert most == [1]


def test_single_flight_waits_for_a_limited_time(tmp_path: Path) -> None:
    """A process that is stopped while it fetches costs the others their patience, and no more."""
    program = (
        "import sys, time; from pathlib import Path; from cdb._resolver.store import Store\n"
        "with Store(Path(sys.argv[1]), 1).lock('a payload', 1): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        begun = time.monotonic()
        with Store(tmp_path, 1).lock("a payload", 0.5):
            assert 0.5 <= time.monotonic() - begun < 2
        holder.kill()
        holder.wait()
    begun = time.monotonic()
    with Store(tmp_path, 1).lock("a payload", 10):
        assert time.monotonic() - begun < 1, "a lock outlives who held it"
