"""What stands where the client expects a file, and is none: pipes, devices, folders, sockets, and links to them."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cdb
from cdb._files import write_atomically
from cdb._resolver.cache import Cache
from cdb._resolver.lock_file import LockFile
from cdb._resolver.query import Query
from tests import servers
from tests.client.as_of import as_of_after
from tests.client.cdb_process import shell
from tests.servers import Master

DATA = b"a payload\n"
RUN = 7662
# A call has this many seconds, and a program beside them the time to begin.
TIMEOUT, BEGINNING = 4, 16

ASK = f"""
import sys
import cdb

url, as_of = sys.argv[1:]
client = cdb.Calibration(url, timeout={TIMEOUT})
assert client.get_calibration_for_run("TOF1", "t0", {RUN}, as_of).data == {DATA!r}
assert client.get_current_calibration("TOF1", "t0").data == {DATA!r}
"""

NOTE = f"""
import sys
from pathlib import Path
import cdb
from cdb._resolver.lock_file import LockFile
from cdb._resolver.query import Query

url, lock = sys.argv[1:]
for note in (
    lambda: cdb.Calibration(url, timeout={TIMEOUT}).list_devices(),
    lambda: LockFile(Path(lock)).record(Query.of("get_run", run_number=1), cdb.RunNotFound("no", run_number=1)),
):
    try:
        with cdb.recording(lock):
            note()
    except cdb.InvalidArgument as error:
        assert "lock file" in error.message, error.message
    else:
        raise AssertionError
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Master, str]]:
    """A master with a calibration, and an instant after which as_of can be asked about it."""
    folder = tmp_path_factory.mktemp("odd")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        writer.add_run(RUN, "2016-03-01 08:00:00")
        last = writer.add_calibration("TOF1", "t0", "2016-01-01", DATA).created
        yield master, as_of_after(writer, last)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name(f"pipe-{path.name}"))
    path.symlink_to(f"pipe-{path.name}")


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(DATA)


def listening(path: Path) -> None:
    there = os.getcwd()
    # The name of a socket is short.
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(there)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)


ODD = [pipe, link_to_pipe, link_to_device, link_to_itself, folder_with_a_file, listening, endless]


def within(program: str, *arguments: str, **environment: str) -> None:
    """Run a program that asks, within the time of a few calls."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT + BEGINNING,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("odd", ODD)
def test_an_irregular_file_in_the_cache_is_a_miss_and_is_replaced(
    asked: tuple[Master, str], odd: Callable[[Path], None]
) -> None:
    """In the place of every payload, answer and lock: answers come in time, and the cache is whole again."""
    master, as_of = asked
    within(ASK, master.url, as_of)
    folder = Path(os.environ["CDB_CACHE"])
    kept = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks"]
    assert kept
    for path in [*kept, *(folder / "locks").iterdir()]:
        path.unlink()
        odd(path)
    within(ASK, master.url, as_of)
    assert [path for path in kept if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**20] == []


@pytest.mark.parametrize("odd", [pipe, link_to_device, link_to_itself, folder_with_a_file])
def test_the_cache_is_looked_through_and_emptied_whatever_is_in_it(
    asked: tuple[Master, str], odd: Callable[[Path], None]
) -> None:
    """`cdb cache` shows, verifies and empties it within the time of a command."""
    sha256 = hashlib.sha256(DATA).hexdigest()
    Cache().store_payload(DATA)
    path = Cache().store.folder / "payloads" / sha256[:2] / sha256
    path.unlink()
    odd(path)
    assert shell(asked[0], "cache", "show").returncode == 0
    assert shell(asked[0], "cache", "verify").returncode == (0 if odd is link_to_itself else 1)
    assert Cache().payload(sha256) is None
    done = shell(asked[0], "cache", "empty", "--yes")
    # A folder that holds something is none of ours to remove.
    assert (done.returncode, b"Traceback" in done.stderr) == (1 if odd is folder_with_a_file else 0, False)


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_is_no_lock_file(
    asked: tuple[Master, str], odd: Callable[[Path], None], tmp_path: Path
) -> None:
    """CDB_LOCK naming it is an error at once, for jobs and for `cdb lock`, and it stays as it is."""
    lock = tmp_path / "run.lock"
    odd(lock)
    within(NOTE, asked[0].url, str(lock))
    assert shell(asked[0], "lock", "show", str(lock)).returncode != 0
    assert lock.is_symlink() or not lock.is_file() or lock.stat().st_size == 2**42


@pytest.mark.parametrize("setting", ["CDB_CLIENT_CERT", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("odd", [pipe, link_to_pipe, link_to_device, listening, endless])
def test_what_is_no_file_is_no_certificate(odd: Callable[[Path], None], setting: str, tmp_path: Path) -> None:
    """Named as one for TLS it is an error within the deadline."""
    file = tmp_path / "file.pem"
    odd(file)
    ask = f"""
import cdb
try:
    cdb.Calibration("https://127.0.0.1:1", timeout={TIMEOUT}).get_status()
except cdb.ServerUnreachable as error:
    assert {setting!r} in error.message, error.message
else:
    raise AssertionError
"""
    within(ask, **{setting: str(file)})


@pytest.mark.parametrize(
    "lost", [b"\0", b"\0" * 5000, b'{"quest' + b"\0" * 500, b'{"question": {"get' + b"\0" * 9 + b"}\n"]
)
@pytest.mark.parametrize("whole", [0, 2])
def test_trailing_nuls_of_a_power_loss_are_ignored(lost: bytes, whole: int, tmp_path: Path) -> None:
    """Also in the midst of the last line: what stands before them holds, the next answer takes their place."""
    lock = tmp_path / "run.lock"
    questions = [Query.of("get_run", run_number=number) for number in range(1, whole + 1)]
    for question in questions:
        LockFile(lock).record(question, cdb.RunNotFound("none", run_number=question.wire_arguments["run_number"]))
    before = lock.read_bytes() if whole else b""
    lock.write_bytes(before + lost)
    again = LockFile(lock)
    assert [question for question, _ in again.entries()] == questions
    assert lock.read_bytes() == before + lost
    again.record(Query.of("get_run", run_number=9), cdb.RunNotFound("none", run_number=9))
    lines = lock.read_bytes().splitlines()
    assert [json.loads(line)["fault"]["run_number"] for line in lines] == [*range(1, whole + 1), 9]


def test_nuls_before_a_valid_line_are_an_error(tmp_path: Path) -> None:
    """An answer that was noted and is lost is not passed over in silence."""
    lock = tmp_path / "run.lock"
    for number in (1, 2):
        LockFile(lock).record(Query.of("get_run", run_number=number), cdb.RunNotFound("none", run_number=number))
    first, second = lock.read_bytes().splitlines(keepends=True)
    lock.write_bytes(first[:20] + b"\0" * (len(first) - 21) + b"\n" + second)
    with pytest.raises(cdb.InvalidArgument, match="not a lock file"):
        LockFile(lock).entries()


def test_another_programs_file_that_begins_with_nuls_is_left_as_it_is(tmp_path: Path) -> None:
    """Only NULs, which hold nothing, give way."""
    lock = tmp_path / "image"
    lock.write_bytes(b"\0" * 100 + b"data of mine")
    with pytest.raises(cdb.InvalidArgument, match="not a lock file"):
        LockFile(lock).record(Query.of("get_run", run_number=1), cdb.RunNotFound("none", run_number=1))
    assert lock.read_bytes() == b"\0" * 100 + b"data of mine"


def test_a_recorded_answer_is_on_disk_before_it_is_returned(tmp_path: Path) -> None:
    """The file is synced with each answer, and its folder when it is new."""
    note = f"""
import cdb
from pathlib import Path
from cdb._resolver.lock_file import LockFile
from cdb._resolver.query import Query
for number in (1, 2):
    print("noting", flush=True)
    LockFile(Path({str(tmp_path / "run.lock")!r})).record(
        Query.of("get_run", run_number=number), cdb.RunNotFound("none", run_number=number)
    )
"""
    traced = tmp_path / "calls"
    command = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(traced), sys.executable, "-c", note]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    calls = [line.partition(" ")[2] for line in traced.read_text().splitlines() if "sync" in line or "noting" in line]
    seen = ["noting" if "noting" in call else "file" if "run.lock>" in call else "folder" for call in calls]
    assert seen == ["noting", "file", "folder", "noting", "file"]


def test_a_file_without_an_end_is_not_stored(shared_master: Master) -> None:
    """No server stores as much as is read of it at most."""
    added = shell(shared_master, "add", "TOF1", "t0", "/dev/zero", "--valid-from", "2016-03-01")
    assert added.returncode == 2
    assert b"/dev/zero has more than 1,000,000,000 bytes, which no server stores" in added.stderr


@pytest.mark.parametrize("name", ["n" * 255, "\N{GREEK SMALL LETTER LAMDA}" * 127, "\U0001f3af" * 63])
def test_a_file_with_the_longest_name_is_written_atomically(name: str, tmp_path: Path) -> None:
    """The unfinished file beside it needs a name too."""
    write_atomically(tmp_path / name, DATA)
    assert (tmp_path / name).read_bytes() == DATA
    assert os.listdir(tmp_path) == [name]
