"""PostgreSQL's own check, by its extension amcheck, which Debian's PostgreSQL brings: part of `cdb-server verify`."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from cdb_server import maintenance
from cdb_server.database.transactions import Database
from tests.server.test_verification import filled

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))


def run_as_postgres(*command: str) -> None:
    subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, capture_output=True, cwd="/")


class Cluster:
    """A cluster of Debian's PostgreSQL, without checksums, as Debian makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        run_as_postgres(str(PROGRAMS / "initdb"), "--auth=trust", f"--pgdata={folder}/data", "--no-sync")

    @contextmanager
    def running(self) -> Iterator[str]:
        control = [str(PROGRAMS / "pg_ctl"), f"--pgdata={self.folder}/data", "--wait", "-l", f"{self.folder}/log"]
        run_as_postgres(*control, "-o", f"-c listen_addresses='' -k {self.folder}", "start")
        try:
            yield self.url
        finally:
            run_as_postgres(*control, "--mode=fast", "stop")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp())
    shutil.chown(folder, "postgres", "postgres")
    yield Cluster(folder)
    shutil.rmtree(folder)


def verified(url: str) -> maintenance.Verification:
    with Database.open(url) as database:
        return maintenance.verify(database)


def test_an_index_is_checked_against_its_table(cluster: Cluster) -> None:
    """Without amcheck verify says what it left out; with it, an index that names another row is found."""
    with cluster.running() as url:
        filled(url)
        without = verified(url)
        assert without.problems == ()
        assert "CREATE EXTENSION amcheck" in str(without.unchecked)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE EXTENSION amcheck")
            row = connection.execute("SELECT pg_relation_filepath('calibration_by_start')").fetchone()
        sound = verified(url)
        assert (sound.problems, sound.unchecked) == ((), None)
    assert row is not None
    # The first page tells of the others; the entries are in the second, from its end downwards.
    file = cluster.folder / "data" / row[0]
    content = bytearray(file.read_bytes())
    content[2 * 8192 - 16 - 8] ^= 1
    file.write_bytes(content)
    with cluster.running() as url:
        problems = verified(url).problems
    assert any(problem.startswith("the database's own check: calibration_by_start: ") for problem in problems), problems
