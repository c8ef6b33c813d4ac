"""Debian's PgBouncer before PostgreSQL: in session mode all works, in any other the server says what to set."""

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import cdb
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable
from cdb_server.repository.reader import Reader
from tests import servers
from tests.interop.test_amcheck import Cluster
from tests.servers import Master


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp())
    shutil.chown(folder, "postgres", "postgres")
    with Cluster(folder).running() as url:
        yield url
    shutil.rmtree(folder)


@contextmanager
def pgbouncer(cluster: str, *settings: str) -> Iterator[str]:
    """The URL of a cluster's database by a PgBouncer with these settings."""
    behind = cluster.partition("host=")[2]
    folder = Path(tempfile.mkdtemp())
    configured = folder / "pgbouncer.ini"
    configured.write_text(
        "\n".join(
            (
                f"[databases]\n* = user=postgres host={behind}\n[pgbouncer]",
                f"unix_socket_dir = {folder}\nlisten_addr =\nlisten_port = 6432\nauth_type = any",
                "default_pool_size = 60",
                *settings,
            )
        )
    )
    shutil.chown(folder, "postgres", "postgres")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["/usr/sbin/pgbouncer", "-u", "postgres", str(configured)], stderr=log)
    try:
        servers.until(lambda: (folder / ".s.PGSQL.6432").exists())
        yield f"postgresql://postgres@/postgres?host={folder}&port=6432"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def master(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """Served by way of PgBouncer in session mode."""
    with (
        pgbouncer(cluster, "pool_mode = session") as url,
        servers.master(url, tmp_path_factory.mktemp("master")) as running,
    ):
        yield running


@contextmanager
def others(url: str) -> Iterator[None]:
    """Other clients of a pooler, who ask all the time."""
    ended = threading.Event()

    def ask() -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while not ended.is_set():
                connection.execute("SELECT pg_sleep(0.001)")

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            yield
        finally:
            ended.set()
        for each in asking:
            each.result()


def test_in_session_mode_nothing_fails(master: Master) -> None:
    """Writes and questions of many at once, again and again: each statement is prepared in the session that has it."""
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)

    def work(number: int) -> None:
        client = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        for repeated in range(20):
            data = f"{number} {repeated}".encode()
            stored = client.add_calibration(f"TOF{number}", "t0", "2016-03-01", data)
            assert client.get_calibration_for_id(stored.id).data == data
            assert client.get_current_calibration(f"TOF{number}", "t0").data == data
            assert client.get_ids("2016-03-01", "2016-04-01")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert writer.get_status().serial == 160
    assert "failed" not in master.log.read_text()


def test_in_session_mode_a_copy_is_read_only(master: Master) -> None:
    """What a mirror's workers open: PgBouncer takes no options of a connection, and none are sent."""
    with Database.open(master.database, read_only=True) as database:
        assert Reader(database).status().role == "master"
        with database.read() as connection:
            assert connection.exec_driver_sql("SHOW default_transaction_read_only").scalar_one() == "on"


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("turns", ["0", "1"])
def test_in_any_other_mode_the_server_does_not_start(mode: str, turns: str, master: Master, cluster: str) -> None:
    """However busy the pooler is, and whichever connection it gives out next: one sentence says what to set."""
    with pgbouncer(cluster, f"pool_mode = {mode}", f"server_round_robin = {turns}") as url:
        with pytest.raises(DatabaseUnusable, match="set pool_mode = session for this database in PgBouncer"):
            Database.open(url)
        with others(url):
            for _ in range(20):
                with pytest.raises(DatabaseUnusable, match="set pool_mode = session for this database in PgBouncer"):
                    Database.open(url)
        serve = [sys.executable, "-m", "cdb_server", "serve", "--database", url, "--bind", "127.0.0.1:0"]
        ended = subprocess.run(serve, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1


def test_sessions_that_are_not_reset_are_refused(master: Master, cluster: str) -> None:
    """What one leaves behind, the next one would find: prepared statements among it."""
    with (
        pgbouncer(cluster, "pool_mode = session", "server_reset_query =") as url,
        pytest.raises(DatabaseUnusable, match="set server_reset_query = DISCARD ALL in PgBouncer"),
    ):
        Database.open(url)
