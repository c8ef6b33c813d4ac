"""Writers of one process wait for one another, seen by their calls to the system."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from cdb_server.database.transactions import Database
from cdb_server.instants import UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Writer
from tests.crash import strace


def test_one_writer_per_process_holds_the_write_queue(new_database_url: Callable[[str], str], tmp_path: Path) -> None:
    """Its threads wait for one another in a queue: none finds the database taken, and sleeps before it tries again."""
    url = new_database_url("sqlite")
    Database.create(url)
    with Database.open(url) as database, ThreadPoolExecutor(8) as pool:

        def write(number: int) -> None:
            Writer(database).add_run(number, datetime(2016, 3, 1, tzinfo=UTC), None, "alice")

        sleeps = "nanosleep,clock_nanosleep,select,pselect6"
        with strace.attached([os.getpid()], tmp_path / "strace", calls=sleeps):
            list(pool.map(write, range(1, 80)))
        assert Reader(database).status().serial == 79
    assert "sleep" not in (tmp_path / "strace").read_text()
