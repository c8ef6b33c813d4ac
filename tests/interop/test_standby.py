"""`cdb-server serve` on a hot standby of PostgreSQL: a mirror that never claims more than what was replayed."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests

import cdb
from cdb_server import instants
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable
from cdb_server.instants import UTC
from cdb_server.model import COMPLETENESS_DELAY
from cdb_server.repository.lookups import journal_state, last_entry
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from cdb_server.repository.writer import Writer
from tests import servers, standbys
from tests.fuzz import wire
from tests.standbys import Standby

QUOTE = "'"
MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)

SLACK = timedelta(seconds=0.5)


@pytest.fixture(scope="module")
def replica(postgresql_cluster: str) -> Iterator[Standby]:
    """A standby of the test cluster, which every test but the last leaves in step."""
    with standbys.standby(postgresql_cluster) as made:
        yield made


def in_step(cluster: str, replica: Standby) -> None:
    """Wait until all that the primary has is replayed."""
    position = standbys.said(cluster, "SELECT pg_current_wal_lsn()")
    servers.until(lambda: bool(replica.say(f"SELECT pg_last_wal_replay_lsn() >= '{position}'")), 20)


def cut(replica: Standby) -> object:
    """The way to the primary is gone: nothing listens where the standby looks for it. Where it was."""
    way = replica.say("SHOW primary_conninfo")
    replica.say("ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
    replica.say("SELECT pg_reload_conf()")
    servers.until(lambda: replica.say("SELECT count(*) FROM pg_stat_wal_receiver") == 0, 20)
    return way


def pause(replica: Standby) -> None:
    """What arrives is not replayed."""
    replica.say("SELECT pg_wal_replay_pause()")
    servers.until(lambda: replica.say("SELECT pg_get_wal_replay_pause_state()") == "paused", 20)


def mend(replica: Standby, way: object) -> None:
    """The way is there again."""
    replica.say(f"ALTER SYSTEM SET primary_conninfo = '{str(way).replace(QUOTE, QUOTE * 2)}'")
    replica.say("SELECT pg_reload_conf()")


def test_a_standby_is_served_as_a_mirror(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby, tmp_path: Path
) -> None:
    """What is written on the primary is read on the standby; nothing is written there; a pause of the replay shows."""
    url = new_database_url("postgresql")
    (tmp_path / "copy").mkdir()
    with servers.master(url, tmp_path, "--workers", "1") as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        first = writer.add_calibration("STANDBY", "t0", "2016-03-01", b"1")
        in_step(postgresql_cluster, replica)
        with servers.serving(replica.of(url), tmp_path / "copy", master.token, "--workers", "1") as copy:
            reader = cdb.Calibration(copy.url)
            assert reader.get_current_calibration("STANDBY", "t0").data == b"1"
            status = reader.get_status()
            assert (status.role, status.serial, status.lag_seconds is None) == ("mirror", 1, False)
            # What was replayed last is known; of what came later only its clock could tell.
            assert status.complete_until < datetime.now(UTC)

            answer = requests.post(copy.url + wire.WRITING, timeout=10)
            assert (answer.status_code, answer.text) == (
                404,
                "this is a mirror, and takes no writes: write to the master\n",
            )
            mirrored = cdb.CalibrationSuperMouse(copy.url, user=master.user, token=master.token)
            with pytest.raises(cdb.NotAuthorised, match="this is a mirror"):
                mirrored.add_run(1, "2016-03-01")
            plain = requests.get(f"{copy.url}/cdb/v2/calibration/STANDBY/t0", timeout=10)
            assert (plain.content, plain.headers["CDB-Serial"], "CDB-Age" in plain.headers) == (b"1", "1", True)

            pause(replica)
            try:
                second = writer.add_calibration("STANDBY", "t0", "2016-03-01", b"2")
                servers.until(lambda: (reader.get_status().lag_seconds or 0) >= 1, 20)
                status = reader.get_status()
                assert status.serial == 1
                assert status.complete_until < second.created
                assert reader.get_current_calibration("STANDBY", "t0").data == b"1"
                with pytest.raises(cdb.AsOfNotReached) as refused:
                    reader.get_current_calibration("STANDBY", "t0", as_of=second.created)
                assert refused.value.complete_until < second.created
                assert reader.get_current_calibration("STANDBY", "t0", as_of=first.created).data == b"1"
            finally:
                replica.say("SELECT pg_wal_replay_resume()")
            servers.until(lambda: reader.get_status().serial == 2, 20)
            assert reader.get_current_calibration("STANDBY", "t0").data == b"2"
            # Without waiting for the clock: what was committed before the last entry is all there.
            assert reader.get_current_calibration("STANDBY", "t0", as_of=second.created).data == b"2"
    assert "ERROR" not in copy.log.read_text()


def test_last_contact_with_an_idle_primary_needs_a_privilege(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby
) -> None:
    """complete_until goes on while nothing is written, with pg_read_all_stats; without it, as transactions come."""
    url = new_database_url("postgresql")
    Database.create(url)
    role = f"reader{url.rpartition('/')[2].partition('?')[0]}"
    standbys.said(postgresql_cluster, f"CREATE ROLE {role} LOGIN")
    standbys.said(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    in_step(postgresql_cluster, replica)
    # The primary says something when it is asked, which an idle standby does after half of this.
    replica.say("ALTER SYSTEM SET wal_receiver_timeout = '2s'")
    replica.say("SELECT pg_reload_conf()")
    with Database.open(replica.of(url).replace("//postgres:", f"//{role}:"), read_only=True) as database:
        reader = Reader(database)

        def advanced() -> bool:
            return reader.status().complete_until > before and (reader.status().lag_seconds or 0) < 3

        before = reader.status().complete_until
        assert database.kind == "standby"
        assert before > MARCH
        standbys.said(postgresql_cluster, "SELECT pg_current_xact_id()")
        servers.until(advanced, 20)
        assert reader.status().complete_until < datetime.now(UTC) - COMPLETENESS_DELAY
        standbys.said(postgresql_cluster, f"GRANT pg_read_all_stats TO {role}")
        in_step(postgresql_cluster, replica)
        for _ in range(3):
            before = reader.status().complete_until
            servers.until(advanced, 20)
            assert reader.status().complete_until < datetime.now(UTC) - COMPLETENESS_DELAY
        # Cut off, it does not go on.
        way = cut(replica)
        stood = reader.status()
        servers.until(lambda: (reader.status().lag_seconds or 0) > (stood.lag_seconds or 0) + 1, 20)
        assert reader.status().complete_until == stood.complete_until
        mend(replica, way)
        before = stood.complete_until
        servers.until(advanced, 20)
    replica.say("ALTER SYSTEM RESET wal_receiver_timeout")
    replica.say("SELECT pg_reload_conf()")


def test_what_is_replayed_after_a_question_began_is_not_complete_for_it(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby
) -> None:
    """How far the replay had come is that of the moment before: what a question cannot see, it calls missing."""
    url = new_database_url("postgresql")
    Database.create(url)
    in_step(postgresql_cluster, replica)
    with Database.open(url) as primary, Database.open(replica.of(url), read_only=True) as database:
        writer = Writer(primary, clock=lambda: datetime.now(UTC) - COMPLETENESS_DELAY + SLACK)
        with database.read() as connection:
            assert last_entry(connection).serial == 0
            written = writer.add_run(1, MARCH, None, author="alice").created
            servers.until(lambda: datetime.now(UTC) > written + COMPLETENESS_DELAY, 20)
            standbys.said(postgresql_cluster, "SELECT pg_current_xact_id()")
            in_step(postgresql_cluster, replica)
            assert last_entry(connection).serial == 0
            assert journal_state(connection, database.kind, instants.now).complete_until < written
        assert Reader(database).status().complete_until >= written


def test_a_standby_of_a_mirror_is_as_old_as_the_mirror(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby
) -> None:
    """What a replicated mirror calls complete came with it: its own primary knows no more."""
    url = new_database_url("postgresql")
    Database.create(url)
    with Database.open(url) as database:
        following = MirrorWriter(database)
        following.start_following("http://master.example:8080")
        following.record_contact(0, MARCH, MARCH)
    in_step(postgresql_cluster, replica)
    with Database.open(replica.of(url), read_only=True) as database:
        status = Reader(database).status()
        assert (status.role, status.master, status.complete_until) == ("mirror", "http://master.example:8080", MARCH)
        assert status.lag_seconds is not None
        assert status.lag_seconds > 10 * 365 * 86400


def test_a_standby_of_an_older_database_is_refused(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby
) -> None:
    """It cannot be brought up there: a sentence says where."""
    url = new_database_url("postgresql")
    Database.create(url)
    standbys.said(url, "UPDATE cdb_schema SET version = 1")
    in_step(postgresql_cluster, replica)
    with pytest.raises(DatabaseUnusable, match="has schema version 1: serve its primary with this software first"):
        Database.open(replica.of(url))


def test_a_promoted_standby_is_a_master(
    postgresql_cluster: str, new_database_url: Callable[[str], str], replica: Standby, tmp_path: Path
) -> None:
    """Served anew, it takes writes, after all that the primary had; served on, it takes none and stays honest.

    The last test: afterwards it is a standby no longer.
    """
    url = new_database_url("postgresql")
    Database.create(url)
    with Database.open(url) as database:
        Writer(database).add_run(1, MARCH, None, author="alice")
        token = Tokens(database).add(servers.USER)
    in_step(postgresql_cluster, replica)
    with servers.serving(replica.of(url), tmp_path, token, "--workers", "1") as copy:
        # Its worker has the database open once it answers.
        assert cdb.Calibration(copy.url).get_status().role == "mirror"
        replica.promote()
        with servers.serving(replica.of(url), tmp_path, token, "--workers", "1") as master:
            writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=token)
            assert writer.get_status().role == "master"
            added = writer.add_run(2, MARCH)
            assert [run.run_number for run in writer.get_runs(MARCH)] == [1, 2]
            status = cdb.Calibration(copy.url).get_status()
            assert (status.role, status.serial, status.complete_until) == ("mirror", 2, added.created)
