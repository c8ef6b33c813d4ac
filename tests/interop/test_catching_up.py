"""A hot standby that falls behind, and is asked all the while it catches up."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

import pytest

from cdb_server.database.transactions import Database
from cdb_server.instants import UTC
from cdb_server.model import COMPLETENESS_DELAY
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Writer
from tests import servers, standbys
from tests.interop.test_standby import MARCH, SLACK, cut, in_step, mend, pause
from tests.standbys import Standby

# How often the standby falls behind, and by how many entries.
TURNS = 4
MANY = 100


@pytest.fixture
def replica(postgresql_cluster: str) -> Iterator[Standby]:
    """A standby of the test cluster."""
    with standbys.standby(postgresql_cluster) as made:
        yield made


def is_past(instant: datetime) -> bool:
    return datetime.now(UTC) > instant


def test_what_is_complete_is_there_while_the_standby_catches_up(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby
) -> None:
    """Asked without a pause while it replays: whatever it calls complete, it has all entries of."""
    url = new_database_url("postgresql")
    Database.create(url)
    replica.say("ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'")
    replica.say("SELECT pg_reload_conf()")
    in_step(postgresql_cluster, replica)
    with Database.open(url) as primary, Database.open(replica.of(url), read_only=True) as database:
        # As if each write took nearly as long from its `created` to its commit as it may.
        writer = Writer(primary, clock=lambda: datetime.now(UTC) - COMPLETENESS_DELAY + SLACK)
        reader = Reader(database)
        for turn in range(TURNS):
            way = None
            if turn % 2:
                way = cut(replica)
            else:
                pause(replica)
            written = [
                writer.add_run(MANY * turn + number + 1, MARCH, None, author="alice").created for number in range(MANY)
            ]
            # From here on the primary's word that nothing is missing would be wrong without them.
            servers.until(partial(is_past, written[-1] + COMPLETENESS_DELAY), 20)
            mend(replica, way) if turn % 2 else replica.say("SELECT pg_wal_replay_resume()")
            deadline = time.monotonic() + 30
            there = 0
            while there < MANY:
                status = reader.status()
                there = status.serial - MANY * turn
                assert sum(created <= status.complete_until for created in written) <= there
                assert time.monotonic() < deadline
