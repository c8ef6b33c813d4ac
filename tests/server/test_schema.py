"""Rules 8, 10 and 11 in the database itself: what it refuses, what is refused as one, and many writers at once."""

import itertools
import multiprocessing
import os
import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from cdb_server import schema
from cdb_server.database.sqlite import SQLITE_PAGE_BYTES
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable
from cdb_server.instants import UTC
from cdb_server.maintenance import verify
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
REFUSAL = "the journal is append-only: withdraw, or store again"

# The journal's tables, and the columns by which a row of each can be told, SQLite's own number of a row among them.
UNIQUE = {
    "journal": ["serial", "created", "rowid"],
    "payload": ["sha256", "rowid", "oid", "_rowid_"],
    "calibration": ["id", "rowid"],
    "withdrawal": ["serial", "calibration_id", "rowid"],
    "run": ["serial", "rowid"],
}
COLUMNS = {name: [column.name for column in schema.metadata.tables[name].columns] for name in UNIQUE}


def connect(url: str) -> sqlite3.Connection | psycopg.Connection:
    """The database without any of our software: as another tool would open it."""
    if url.startswith("sqlite"):
        return sqlite3.connect(url.removeprefix("sqlite:///"))
    return psycopg.connect(url)


def content(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of the journal's tables."""
    connection = connect(url)
    try:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in UNIQUE}
    finally:
        connection.close()


def refused(url: str, statement: str) -> bool:
    """Whether the database itself refuses a statement, with the triggers' words, and holds afterwards what it held."""
    before = content(url)
    assert all(before.values())
    connection = connect(url)
    try:
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match=REFUSAL):
            connection.execute(statement)
        connection.rollback()
    finally:
        connection.close()
    return content(url) == before


@pytest.fixture
def filled_url(database_url: str) -> str:
    """A database with a row or two in every table of the journal, and nobody connected."""
    Database.create(database_url)
    database = Database.open(database_url)
    writer = Writer(database)
    for data in (b"1", b"2"):
        writer.add_calibration(Upload.validated("TOF1", "t0", MARCH, data, None, None, max_payload=10), "alice")
    writer.withdraw_calibration(1, "wrong cable", "bob")
    writer.add_run(7662, MARCH, None, "daq")
    database.close()
    return database_url


class TestNothingIsChanged:
    def test_every_table_of_the_journal_is_guarded(self) -> None:
        """The tables tested here are all there are but those that tell of this copy alone, and of who may write."""
        assert set(UNIQUE) == set(schema.metadata.tables) - {"token", "cdb_schema", "restoration", "following"}

    @pytest.mark.parametrize("table", UNIQUE)
    def test_update(self, filled_url: str, table: str) -> None:
        """UPDATE is refused for every column, even where it would change nothing."""
        for column in COLUMNS[table]:
            assert refused(filled_url, f"UPDATE {table} SET {column} = {column}")

    @pytest.mark.parametrize("table", UNIQUE)
    def test_delete(self, filled_url: str, table: str) -> None:
        """DELETE is refused, of all rows and of one."""
        assert refused(filled_url, f"DELETE FROM {table}")
        column = UNIQUE[table][0]
        assert refused(filled_url, f"DELETE FROM {table} WHERE {column} = (SELECT max({column}) FROM {table})")

    @pytest.mark.parametrize("table", UNIQUE)
    def test_upsert(self, filled_url: str, table: str) -> None:
        """INSERT … ON CONFLICT DO UPDATE is refused, on every column by which there can be a conflict."""
        for column in set(UNIQUE[table]) & set(COLUMNS[table]):
            assert refused(
                filled_url,
                f"INSERT INTO {table} SELECT * FROM {table} WHERE true "
                f"ON CONFLICT ({column}) DO UPDATE SET {COLUMNS[table][-1]} = excluded.{COLUMNS[table][-1]}",
            )

    @pytest.mark.parametrize("backend", ["sqlite"])
    @pytest.mark.parametrize(("table", "column"), [(table, column) for table in UNIQUE for column in UNIQUE[table]])
    def test_replace(self, filled_url: str, table: str, column: str) -> None:
        """INSERT OR REPLACE is refused, whichever column finds the row, from a connection that asks for no triggers."""
        connection = connect(filled_url)
        assert connection.execute("PRAGMA recursive_triggers").fetchone() == (0,)
        [(key,)] = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchall()
        connection.close()
        # A new row in all else: other unique columns hold values that no row has.
        values = {name: "1000" if name in UNIQUE[table] else "1" for name in COLUMNS[table]}
        if column == "rowid":  # which is the column of an integer key under another name
            values = {name: value for name, value in values.items() if name not in ("serial", "id")}
        values[column] = repr(key)
        names, row = ", ".join(values), ", ".join(values.values())
        assert refused(filled_url, f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({row})")
        assert refused(filled_url, f"REPLACE INTO {table} ({names}) VALUES ({row})")
        assert refused(filled_url, f"UPDATE OR REPLACE {table} SET {column} = {column}")

    @pytest.mark.parametrize("backend", ["postgresql"])
    @pytest.mark.parametrize("table", UNIQUE)
    def test_truncate(self, filled_url: str, table: str) -> None:
        """TRUNCATE is refused, with what refers to the table and with all tables at once."""
        assert refused(filled_url, f"TRUNCATE {table} CASCADE")
        assert refused(filled_url, f"TRUNCATE {', '.join(UNIQUE)}")

    @pytest.mark.parametrize("backend", ["postgresql"])
    @pytest.mark.parametrize("table", UNIQUE)
    @pytest.mark.parametrize("action", ["DELETE", "UPDATE SET {last} = old.{last}"])
    def test_merge(self, filled_url: str, table: str, action: str) -> None:
        """MERGE is refused where it would update or delete."""
        key, action = UNIQUE[table][0], action.format(last=COLUMNS[table][-1])
        assert refused(
            filled_url, f"MERGE INTO {table} old USING {table} new ON old.{key} = new.{key} WHEN MATCHED THEN {action}"
        )


class TestMaking:
    @pytest.mark.parametrize("backend", ["sqlite"])
    @pytest.mark.parametrize("there", [b"", b"a letter home", None])
    def test_an_existing_file_is_left_as_it_is(self, filled_url: str, tmp_path: Path, there: bytes | None) -> None:
        """Where there is a file of any kind, init is refused and not one byte of the folder changes."""
        path = filled_url.removeprefix("sqlite:///")
        if there is not None:
            with open(path, "wb") as file:
                file.write(there)
        before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
        with pytest.raises(DatabaseUnusable, match=f"{path} already exists: name a new file, or serve this one"):
            Database.create(filled_url)
        assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("backend", ["sqlite"])
    def test_a_new_file_is_its_owners_alone(self, database_url: str, tmp_path: Path) -> None:
        """Whatever the umask, and so is the journal that SQLite keeps beside it: tokens' hashes are in both."""
        before = os.umask(0)
        try:
            Database.create(database_url)
            with Database.open(database_url) as database:
                Writer(database).add_run(1, MARCH, None, "daq")
        finally:
            os.umask(before)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}
        name = database_url.rpartition("/")[2]
        assert modes == {name: 0o600, f"{name}-journal": 0o600}

    @pytest.mark.parametrize("backend", ["postgresql"])
    def test_an_existing_database_is_left_as_it_is(self, filled_url: str) -> None:
        """Where a database holds our tables, init is refused and they hold what they held."""
        before = content(filled_url)
        with pytest.raises(
            DatabaseUnusable,
            match="already holds calibration, cdb_schema, following, journal, payload, restoration, run, token",
        ):
            Database.create(filled_url)
        assert content(filled_url) == before

    @pytest.mark.parametrize("backend", ["postgresql"])
    def test_one_table_of_such_a_name_is_enough(self, database_url: str) -> None:
        """A foreign database in which one of our names is taken is refused, and no other table made in it."""
        with psycopg.connect(database_url) as connection:
            connection.execute("CREATE TABLE run (number integer)")
        with pytest.raises(DatabaseUnusable, match="already holds run: "):
            Database.create(database_url)
        with psycopg.connect(database_url) as connection:
            made = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert made == [("run",)]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        """init makes no folders."""
        with pytest.raises(DatabaseUnusable, match="cannot be made: No such file or directory"):
            Database.create(f"sqlite:///{tmp_path}/none/cdb.sqlite")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("url", ["", "cdb.sqlite", "sqlite://", "sqlite:///:memory:", "mysql://localhost/cdb"])
    def test_what_is_no_database_of_a_known_kind(self, url: str) -> None:
        """A URL that names neither a file nor a PostgreSQL database is refused, to make and to open."""
        for act in (Database.create, Database.open):
            with pytest.raises(DatabaseUnusable):
                act(url)


class TestOpening:
    @pytest.mark.parametrize("backend", ["sqlite"])
    def test_a_missing_file_is_not_made(self, database_url: str, tmp_path: Path) -> None:
        """Opening a database that is not there is refused, and makes no file."""
        with pytest.raises(
            DatabaseUnusable, match=f"there is no database {tmp_path}/.*: make it with 'cdb-server init'"
        ):
            Database.open(database_url)
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_server_does_not_tell_the_password(self) -> None:
        """A server that cannot be reached is refused, without the password in the text."""
        with pytest.raises(DatabaseUnusable, match="cannot be used") as caught:
            Database.open("postgresql://alice:secret@127.0.0.1:1/cdb")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("backend", ["sqlite"])
    @pytest.mark.parametrize("content", [b"", b"a letter home " * 1000])
    def test_a_file_that_is_no_database(self, database_url: str, tmp_path: Path, content: bytes) -> None:
        """A file that SQLite did not make is refused and left as it is."""
        file = tmp_path / database_url.rpartition("/")[2]
        file.write_bytes(content)
        with pytest.raises(DatabaseUnusable):
            Database.open(database_url)
        assert file.read_bytes() == content

    def test_a_foreign_database(self, database_url: str) -> None:
        """A database that holds other tables is refused, and no table made in it."""
        connection = connect(database_url)
        connection.execute("CREATE TABLE journal (serial integer)")
        connection.commit()
        connection.close()
        with pytest.raises(DatabaseUnusable, match="is not a calibration database: make one with 'cdb-server init'"):
            Database.open(database_url)

    @pytest.mark.parametrize("version", [schema.SCHEMA_VERSION + 1, 0])
    def test_another_version(self, filled_url: str, version: int) -> None:
        """A database of a newer schema, or of one that never was, is refused, naming both versions."""
        connection = connect(filled_url)
        connection.execute(f"UPDATE cdb_schema SET version = {version}")
        connection.commit()
        connection.close()
        expected = f"has schema version {version}, and this software knows version {schema.SCHEMA_VERSION}"
        with pytest.raises(DatabaseUnusable, match=expected):
            Database.open(filled_url)

    def test_the_version_before_is_brought_up(self, filled_url: str) -> None:
        """A database of version 1 gets what it lacks, and keeps what it has."""
        before = content(filled_url)
        connection = connect(filled_url)
        connection.execute("DROP TABLE restoration")
        connection.execute("DROP TABLE following")
        connection.execute("UPDATE cdb_schema SET version = 1")
        connection.commit()
        connection.close()
        with Database.open(filled_url) as database:
            assert Reader(database).status().restored is None
            assert not verify(database).problems
        assert content(filled_url) == before

    def test_no_version(self, filled_url: str) -> None:
        """A database that does not say which version it is, is refused."""
        connection = connect(filled_url)
        connection.execute("DELETE FROM cdb_schema")
        connection.commit()
        connection.close()
        with pytest.raises(DatabaseUnusable, match="has schema version unknown"):
            Database.open(filled_url)


class TestDurability:
    @pytest.mark.parametrize("backend", ["sqlite"])
    def test_sqlite_syncs_every_commit(self, filled_url: str) -> None:
        """Rule 11: readers and writers use a rollback journal, with the folder synced too."""
        database = Database.open(filled_url)
        for transaction in (database.read, database.write):
            with transaction() as connection:
                settings = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
                }
            assert settings == {
                "journal_mode": "truncate",
                "synchronous": 3,
                "foreign_keys": 1,
                "recursive_triggers": 1,
            }
        database.close()

    @pytest.mark.parametrize("backend", ["postgresql"])
    @pytest.mark.parametrize(("default", "expected"), [("off", "on"), ("on", "on"), ("local", "local")])
    def test_postgresql_flushes_every_commit(self, filled_url: str, default: str, expected: str) -> None:
        """Rule 11: a database whose default is not to wait for the disk does not have its way."""
        with psycopg.connect(filled_url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = '{default}'")
        database = Database.open(filled_url)
        with database.write() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == expected
        database.close()


THREADS, PROCESSES, WRITES = 3, 2, 8


def write_many(url: str, process: int, barrier: threading.Barrier) -> None:
    """What each of several processes does at once: open the database, and write from several threads at once."""
    database = Database.open(url)
    writer = Writer(database)
    failures = []

    def write(thread: int) -> None:
        author = f"{process}.{thread}"
        try:
            barrier.wait(60)
            for count in range(WRITES):
                name, data = f"{author}-{count}", b"%d" % count
                upload = Upload.validated(name, "t0", MARCH, data, None, None, max_payload=10)
                id = writer.add_calibration(upload, author).id
                writer.add_run(1, MARCH.replace(minute=count, second=process, microsecond=thread), None, author)
                if count % 2:
                    writer.withdraw_calibration(id, "a mistake", author)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    if failures:
        raise failures[0]


def assert_in_order(url: str, per_thread: int) -> set[str]:
    """Serials are 1, 2, 3 … without gaps, created strictly increases with them, and every thread's writes are there."""
    connection = connect(url)
    rows = connection.execute("SELECT serial, created, author FROM journal ORDER BY serial").fetchall()
    contents = connection.execute(
        "SELECT id FROM calibration UNION ALL SELECT serial FROM run UNION ALL SELECT serial FROM withdrawal"
    ).fetchall()
    connection.close()
    serials, created, authors = zip(*rows, strict=True)
    assert serials == tuple(range(1, len(rows) + 1))
    assert sorted(serial for (serial,) in contents) == list(serials)
    assert all(earlier < later for earlier, later in itertools.pairwise(created))
    assert all(authors.count(author) == per_thread for author in set(authors))
    return set(authors)


class TestManyWriters:
    def test_threads(self, database_url: str) -> None:
        """Threads that write at once give gapless serials and created that strictly increases."""
        Database.create(database_url)
        write_many(database_url, 0, threading.Barrier(THREADS))
        assert assert_in_order(database_url, WRITES * 2 + WRITES // 2) == {f"0.{thread}" for thread in range(THREADS)}

    def test_processes(self, database_url: str) -> None:
        """So do two processes that have nothing in common but the database."""
        Database.create(database_url)
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(PROCESSES * THREADS)
        processes = [
            context.Process(target=write_many, args=(database_url, process, barrier)) for process in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
        authors = assert_in_order(database_url, WRITES * 2 + WRITES // 2)
        assert len(authors) == PROCESSES * THREADS


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("page", [SQLITE_PAGE_BYTES, 4096, 65536])
def test_pages_of_any_size_are_served(page: int, database_url: str) -> None:
    """A new file has pages of our size; one made before, or rewritten by SQLite itself, keeps its own."""
    Database.create(database_url)
    file = database_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(file, isolation_level=None)
    assert connection.execute("PRAGMA page_size").fetchone() == (SQLITE_PAGE_BYTES,)
    connection.execute(f"PRAGMA page_size={page}")
    connection.execute("VACUUM")
    connection.close()
    data = bytes(range(256)) * 1_000
    with Database.open(database_url) as database:
        stored = Writer(database).add_calibration(
            Upload.validated("TOF1", "t0", MARCH, data, None, None, max_payload=2**20), "alice"
        )
        assert Reader(database).calibration_for_id(stored.id).data == data
        assert not verify(database).problems
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (page,)
