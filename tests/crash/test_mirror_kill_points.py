"""The following process of a mirror killed at each system call by which an entry gets to the disk.

After each kill the database must hold the master's first entries, whole, and the following go on from there.
"""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import cdb
from cdb_server import maintenance
from cdb_server.database.transactions import Database
from cdb_server.mirror import Follower
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from tests import random_histories, servers

CALLS = "pwrite64,write,fsync,fdatasync,ftruncate,unlink"
PROGRAM = """
import sys, threading
from cdb_server import mirror
from cdb_server.database.transactions import Database
from cdb_server.repository.mirror_writer import MirrorWriter
mirror.ENTRIES_PER_TRANSACTION = 4
with Database.open(sys.argv[2]) as database:
    mirror.Follower(sys.argv[1], MirrorWriter(database)).catch_up(threading.Event())
"""
LENGTH = 20


@pytest.fixture
def strace() -> str:
    """The program, which must be there."""
    program = shutil.which("strace")
    assert program, "strace is missing: install the package strace"
    return program


def test_killed_at_any_point_of_applying_it_goes_on(strace: str, tmp_path: Path) -> None:
    """On SQLite: at every fifth call on the database's file or its journal, until it gets by without being killed."""
    url, file = f"sqlite:///{tmp_path}/master.sqlite", tmp_path / "mirror.sqlite"
    Database.create(url)
    random_histories.write(url, LENGTH)
    with servers.serving(url, tmp_path, "") as master:
        expected = [entry.digest for entry in cdb.Calibration(master.url).get_journal()]
        reached = set()
        for when in range(1, 2_000, 5):
            file.unlink(missing_ok=True)
            Database.create(f"sqlite:///{file}")
            with Database.open(f"sqlite:///{file}") as database:
                MirrorWriter(database).start_following(master.url)
            injected = ["-e", f"inject={CALLS}:signal=KILL:when={when}", "-e", f"trace={CALLS}"]
            paths = ["-P", str(file), "-P", f"{file}-journal"]
            command = [strace, "-f", "-qq", "-o", "/dev/null", *injected, *paths]
            done = subprocess.run(
                [*command, sys.executable, "-c", PROGRAM, master.url, f"sqlite:///{file}"], check=False
            )
            with Database.open(f"sqlite:///{file}") as database:
                found = [digest for _, digest in Reader(database).journal(0, 1_000)]
                assert found == expected[: len(found)]
                assert not maintenance.verify(database).problems
                reached.add(len(found))
                Follower(master.url, MirrorWriter(database)).catch_up(threading.Event())
                assert [digest for _, digest in Reader(database).journal(0, 1_000)] == expected
                assert not maintenance.verify(database).problems
            if done.returncode == 0:
                break
        else:
            raise AssertionError("it was never done")
        assert len(reached) > 3
