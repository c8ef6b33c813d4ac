"""What comes in one turn of the event loop is found in one transaction: of one moment, and seldom in a writer's way."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from cdb_server.database.nonblocking import NonblockingConnection, WouldBlock
from cdb_server.database.transactions import Database
from cdb_server.errors import RunNotFound
from cdb_server.http.routes import reading
from cdb_server.http.routes.reading import NonblockingPosition
from cdb_server.instants import UTC
from cdb_server.model import JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Writer

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
# Seconds after which what should have happened will not, and after which what waits is taken to wait.
PATIENCE, SHORT = 30.0, 0.1

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])


@dataclass
class Looking:
    """What a worker looks with, and one that writes beside it."""

    glance: NonblockingConnection
    glancing: NonblockingPosition
    reader: Reader
    writer: Writer

    def writes(self, number: int) -> threading.Thread:
        """Somebody who registers a run, and is under way."""
        thread = threading.Thread(target=self.writer.add_run, args=(number, MARCH, None, "daq"))
        thread.start()
        return thread

    def traced(self) -> list[str]:
        """What SQLite is told from here on; grows."""
        told: list[str] = []
        self.glance._raw.driver.set_trace_callback(told.append)
        return told


@pytest.fixture
def looking(database_url: str) -> Iterator[Looking]:
    Database.create(database_url)
    with Database.open(database_url) as database:
        writer = Writer(database)
        writer.add_run(1, MARCH, None, "daq")
        glance = NonblockingConnection(database)
        reader = Reader(glance)
        yield Looking(glance, NonblockingPosition(glance, reader), reader, writer)
        glance.close()


@pytest.fixture
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_SNAPSHOT_SECONDS", PATIENCE)


@pytest.mark.usefixtures("long_turns")
def test_a_loop_iteration_reads_one_snapshot(looking: Looking) -> None:
    """However much is asked in it; it ends with the turn, and the next begins another."""

    async def scenario() -> None:
        looking.glancing.current_position()
        await asyncio.sleep(0)
        told = looking.traced()
        for _ in range(3):
            looking.glancing.current_position()
            looking.reader.run(1)
        assert [word for word in told if not word.startswith("SELECT")] == ["BEGIN", "PRAGMA data_version"]
        await asyncio.sleep(0)
        assert told[-1] == "ROLLBACK"
        assert not looking.glance.in_snapshot
        looking.glancing.current_position()
        assert told[-2:] == ["BEGIN", "PRAGMA data_version"]

    asyncio.run(scenario())


@pytest.mark.usefixtures("long_turns")
def test_a_concurrent_write_is_seen_by_the_next_snapshot(looking: Looking) -> None:
    """Rule 11: "An acknowledged write is […] seen by every later read": in a turn, nobody is acknowledged."""

    async def scenario() -> None:
        assert looking.glancing.current_position().serial == 1
        writing = looking.writes(2)
        writing.join(SHORT)
        assert writing.is_alive()
        assert looking.glancing.current_position().serial == 1
        with pytest.raises(RunNotFound):
            looking.reader.run(2)
        await asyncio.sleep(0)
        writing.join(PATIENCE)
        assert not writing.is_alive()
        assert looking.glancing.current_position().serial == 2
        assert looking.reader.run(2).run_number == 2

    asyncio.run(scenario())


def test_a_long_loop_iteration_releases_its_snapshot(looking: Looking) -> None:
    """A turn of many questions is a transaction a millisecond: who waits to commit does not wait for its end."""

    async def scenario() -> None:
        assert looking.glancing.current_position().serial == 1
        writing = looking.writes(2)
        # Without giving the turn up; while the writer commits, nothing is known at once.
        while writing.is_alive():
            with suppress(WouldBlock):
                looking.glancing.current_position()
                looking.reader.run(1)
        await asyncio.sleep(0)
        assert looking.glancing.current_position().serial == 2

    # A writer that is kept out gives up after some seconds, and the thread ends in an error.
    asyncio.run(scenario())


@pytest.mark.usefixtures("long_turns")
def test_a_failed_read_updates_no_position(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged last entry is an error at each look, and not what was known before it."""

    def damaged() -> JournalPosition:
        raise TypeError("a value is not of its kind")

    async def scenario() -> None:
        assert looking.glancing.current_position().serial == 1
        await asyncio.sleep(0)
        looking.writer.add_run(2, MARCH, None, "daq")
        with monkeypatch.context() as patched:
            patched.setattr(looking.reader, "journal_position", damaged)
            for _ in range(3):
                with pytest.raises(TypeError):
                    looking.glancing.current_position()
        assert looking.glancing.current_position().serial == 2

    asyncio.run(scenario())


def test_a_closed_non_blocking_reader_would_block(looking: Looking) -> None:
    """As at a server's end, when a turn is not over."""

    async def scenario() -> None:
        looking.glancing.current_position()
        looking.glance._raw.driver.close()
        with pytest.raises(WouldBlock):
            looking.reader.run(1)
        with pytest.raises(WouldBlock):
            looking.glance.end_snapshot()

    asyncio.run(scenario())


@pytest.mark.usefixtures("long_turns")
def test_a_question_that_fails_ends_the_transaction(looking: Looking) -> None:
    """And the next in the same turn has another: what SQLite may have given up is not relied on."""

    async def scenario() -> None:
        driver: Any = looking.glance._raw.driver
        looking.glancing.current_position()
        driver.set_progress_handler(lambda: True, 1)
        with pytest.raises(WouldBlock):
            looking.reader.run(1)
        driver.set_progress_handler(None, 0)
        assert not looking.glance.in_snapshot
        assert looking.reader.run(1).run_number == 1
        assert not driver.in_transaction
        assert looking.glancing.current_position().serial == 1
        assert driver.in_transaction
        # A fault is none.
        with pytest.raises(RunNotFound):
            looking.reader.run(99)
        assert driver.in_transaction

    asyncio.run(scenario())
