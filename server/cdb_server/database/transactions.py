"""Opens, creates and checks a database; read and write transactions; circuit breaker after a disk error.

It also notes for all of them why the last write was refused, if it was, so that any can tell.

After a failed fsync the kernel may have dropped the pages and tell so nobody else: a later fsync that succeeds proves
nothing. What is refused can be sent again; what is acknowledged must be on disk (rule 11).

SQLite runs with a rollback journal (TRUNCATE) and synchronous=EXTRA: an acknowledged write is on disk (rule 11), and
the write-ahead log's fault with several processes, in SQLite before 3.51.3, does not arise. PostgreSQL reads in one
snapshot.

Writers are alone: on SQLite by BEGIN IMMEDIATE, in turns. On PostgreSQL they lock one row first, so that serials are
taken in commit order.
"""

import ctypes
import logging
import multiprocessing
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, select

from cdb_server import schema
from cdb_server.database import display_url, parse_url, postgresql
from cdb_server.database.postgresql import AutocommitPool, _configure_postgresql, _make_postgresql_read_only
from cdb_server.database.sqlite import (
    SQLITE_PAGE_BYTES,
    WriteQueue,
    _begin_sqlite,
    _commit_sqlite,
    _configure_sqlite,
    _file_identity,
    _make_sqlite_read_only,
    create_atomically,
)
from cdb_server.database.statements import AnyConnection, RawConnection
from cdb_server.errors import DatabaseExists, DatabaseUnusable, Unavailable
from cdb_server.model import DatabaseKind
from cdb_server.settings import LOCK_WAIT_SECONDS

# Why the database takes no writes, as callers and the operator are told: the last write found it so.
DISK_FULL_TEXT = "the disk of the database is full: its operator must make room"

WRITE_FAILED_TEXT = (
    "the database failed, was locked for long, or refuses to be written: its operator finds the reason in the log"
)

_REASONS = (None, DISK_FULL_TEXT, WRITE_FAILED_TEXT)


class CircuitBreaker:
    """Open once a disk error was seen, until the server is restarted. Processes that inherit it share its state."""

    def __init__(self) -> None:
        # Without a lock, which a worker killed while it held it would take from all others.
        self._tripped = multiprocessing.get_context("spawn").RawValue(ctypes.c_bool, False)
        self._last_refusal = multiprocessing.get_context("spawn").RawValue(ctypes.c_byte, 0)

    @property
    def is_tripped(self) -> bool:
        """Whether the disk has failed under a write."""
        return bool(self._tripped.value)

    def trip(self) -> bool:
        """Stop all writes. Return whether they were allowed before."""
        was_whole = not self.is_tripped
        self._tripped.value = True
        return was_whole

    @property
    def last_refusal(self) -> str | None:
        """Why the last write was refused; None when it was taken, or there was none."""
        return _REASONS[self._last_refusal.value]

    @last_refusal.setter
    def last_refusal(self, reason: str | None) -> None:
        self._last_refusal.value = _REASONS.index(reason)


def is_full(error: BaseException | None) -> bool:
    """Whether the database met a full disk on the way to this error."""
    while error is not None:
        # https://www.postgresql.org/docs/current/errcodes-appendix.html: 53100 is disk_full.
        if getattr(error, "sqlstate", None) == "53100":
            return True
        if isinstance(error, sqlite3.Error) and "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_disk_error(error: BaseException | None) -> bool:
    """Whether SQLite met an I/O error on the way to this one. A full disk is none: what did not fit was given back."""
    while error is not None:
        # Python 3.10 has the text only; SQLite has one for all its I/O errors.
        if isinstance(error, sqlite3.Error) and "disk I/O error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def create_pool(url: URL, threads: int, *, read_only: bool = False) -> Engine:
    """Up to `threads` connections at once, each prepared; `read_only`, they cannot write."""
    pool = _pool(threads)
    if url.get_backend_name() == "sqlite":
        # mode=rw: opening never makes an empty database where one was expected.
        path = quote(os.path.abspath(str(url.database)))
        engine = create_engine(
            URL.create("sqlite", database=f"file:{path}", query={"mode": "rw", "uri": "true"}),
            connect_args={"timeout": LOCK_WAIT_SECONDS, "isolation_level": None},
            **pool,
        )
        event.listen(engine, "connect", _configure_sqlite)
        if read_only:
            event.listen(engine, "connect", _make_sqlite_read_only)
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "commit", _commit_sqlite)
    else:
        try:
            engine = create_engine(url, connect_args={"connect_timeout": LOCK_WAIT_SECONDS}, pool_pre_ping=True, **pool)
        except ImportError as error:
            raise DatabaseUnusable(
                "PostgreSQL's driver is not installed: pip install 'mice-cdb[server,postgresql]' brings it"
            ) from error
        event.listen(engine, "connect", _configure_postgresql)
        if read_only:
            event.listen(engine, "connect", _make_postgresql_read_only)
    return engine


def autocommit_engine(engine: Engine) -> Engine:
    """Other connections to the same database on PostgreSQL: each statement is a transaction, and cannot write."""
    pool: Any = engine.pool
    other = create_engine(
        engine.url,
        connect_args={"connect_timeout": LOCK_WAIT_SECONDS},
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        **_pool(pool.size()),
    )
    event.listen(other, "connect", _configure_postgresql)
    event.listen(other, "connect", _make_postgresql_read_only)
    return other


def reading_engine(engine: Engine) -> Engine:
    """The same connections, for transactions in which all is of one moment."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine


def writing_engine(engine: Engine, *, read_only: bool) -> Engine:
    """The same connections, for transactions that write; `read_only`, they still cannot."""
    if engine.dialect.name == "postgresql":
        # The default of the session is not enough: a connection that comes back to the pool is made READ WRITE.
        return engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=read_only)
    return engine.execution_options(cdb_writes=True)


def _pool(threads: int) -> dict[str, Any]:
    return {"pool_size": threads, "max_overflow": 2, "pool_timeout": LOCK_WAIT_SECONDS}


log = logging.getLogger(__name__)

_DISK_FAILED_TEXT = (
    "the disk failed under a write: nothing is accepted until its operator has seen to it and restarted the server"
)

_FILE_GONE_TEXT = "the database was removed or replaced: nothing is accepted until its operator has seen to it"


class Database:
    """Connections to one database of ours. Safe for use by many threads; make one a process."""

    def __init__(
        self,
        engine: Engine,
        file: Path | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self._engine = engine
        self._file = file
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._identity = _file_identity(file)
        self._write_queue = WriteQueue(file.parent, LOCK_WAIT_SECONDS) if file else None
        self._postgresql = engine.dialect.name == "postgresql"
        self.kind: DatabaseKind = "master"
        self._reading = reading_engine(engine)
        self._writing = writing_engine(engine, read_only=read_only)
        self._autocommit = AutocommitPool(autocommit_engine(engine)) if self._postgresql else None

    @classmethod
    def create(cls, url: str) -> None:
        """Make a new, empty database.

        Raises DatabaseExists, having touched nothing, where there is one already, and DatabaseUnusable where none can
        be made.
        """
        parsed = parse_url(url)
        with _errors_for_operator(parsed):
            if parsed.get_backend_name() == "sqlite":
                _create_sqlite(Path(str(parsed.database)))
            else:
                engine = create_pool(parsed, threads=1)
                try:
                    with engine.begin() as connection:
                        taken = set(inspect(connection).get_table_names()) & set(schema.metadata.tables)
                        if taken:
                            raise DatabaseExists(
                                f"{display_url(parsed)} already holds {', '.join(sorted(taken))}: "
                                "name a new database, or serve this one"
                            )
                        _create_tables(connection)
                finally:
                    engine.dispose()

    @classmethod
    def open(
        cls, url: str, threads: int = 8, circuit_breaker: CircuitBreaker | None = None, *, read_only: bool = False
    ) -> "Database":
        """Open an existing database, for up to `threads` connections at once; `read_only`, they cannot write.

        One that an earlier version made is brought up to this one. Processes that share a circuit breaker stop
        writing together. Raises DatabaseUnusable when there is none, or when it is foreign or newer. Makes none.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
            raise DatabaseUnusable(
                f"there is no database {parsed.database}: make it with 'cdb-server init', or correct CDB_DATABASE"
            )
        file = Path(str(parsed.database)).absolute() if parsed.get_backend_name() == "sqlite" else None
        database = cls(create_pool(parsed, threads, read_only=read_only), file, circuit_breaker, read_only=read_only)
        with _errors_for_operator(parsed):
            try:
                database._check_schema(parsed)
            except BaseException:
                database.close()
                raise
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A reading transaction: all that is asked in it is of one moment. Raises Unavailable if the database fails."""
        with _errors_as_unavailable(), self._reading.connect() as connection:
            if self.kind == "standby":
                postgresql.note_replay_position(connection)
                connection.rollback()
            with connection.begin():
                yield connection

    @contextmanager
    def read_statement(self) -> Iterator[AnyConnection]:
        """For who asks one thing, by what is prepared: it is of one moment, where several may be of several.

        On PostgreSQL a third of what a transaction takes. Raises Unavailable if the database fails.
        """
        if self._autocommit is None or self.kind == "standby":
            with self.read() as connection:
                yield connection
        else:
            with _errors_as_unavailable():
                yield RawConnection(self._autocommit, self._engine.dialect)

    @property
    def supports_nonblocking(self) -> bool:
        """Whether a Glance at it is possible: SQLite answers at once or not at all, others are waited for."""
        return not self._postgresql

    def connect(self) -> Connection:
        """A connection of one's own."""
        return self._reading.connect()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A writing transaction, alone: the lock is held from its beginning, and its end is on disk.

        Raises Unavailable when the database fails or another writer holds the lock for too long, and always once the
        disk has failed under a write.
        """
        self._check_file()
        with (
            self._queued() as begun,
            self._recording_refusals(),
            _errors_as_unavailable(),
            self._breaking_circuit(),
            self._writing.begin() as connection,
        ):
            begun()
            self._check_circuit()
            if self._postgresql:
                connection.execute(select(schema.cdb_schema.c.version).with_for_update()).one()
            yield connection
        self._check_file()

    def write_refusal(self) -> str | None:
        """Why the database takes no writes, as far as it is known, for everybody; None when it takes them."""
        if self._circuit_breaker.is_tripped:
            return _DISK_FAILED_TEXT
        return _FILE_GONE_TEXT if _file_identity(self._file) != self._identity else self._circuit_breaker.last_refusal

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()
        if self._autocommit:
            self._autocommit.close()
        if self._write_queue:
            self._write_queue.close()
            self._write_queue = None

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _queued(self) -> AbstractContextManager[Callable[[], None]]:
        # PostgreSQL queues the writers itself.
        return self._write_queue.queued() if self._write_queue else nullcontext(lambda: None)

    @contextmanager
    def _recording_refusals(self) -> Iterator[None]:
        """Note why the block's write was refused by the database, or that it was taken."""
        try:
            yield
        except Unavailable as error:
            self._circuit_breaker.last_refusal = DISK_FULL_TEXT if is_full(error) else WRITE_FAILED_TEXT
            raise
        self._circuit_breaker.last_refusal = None

    @contextmanager
    def _breaking_circuit(self) -> Iterator[None]:
        """Open the circuit breaker if the disk fails in the block; refuse while it is open, before and after it."""
        self._check_circuit()
        try:
            yield
        except BaseException as error:
            if is_disk_error(error) and self._circuit_breaker.trip():
                log.error(
                    "the disk failed under a write to %s: nothing is written until the server is restarted; "
                    "before that, see to the disk",
                    self._file,
                )
            raise
        self._check_circuit()

    def _check_circuit(self) -> None:
        if self._circuit_breaker.is_tripped:
            raise Unavailable(_DISK_FAILED_TEXT)

    def _check_file(self) -> None:
        """Refuse to write into a file that was removed or replaced: its connections would go on, and all be lost."""
        if _file_identity(self._file) != self._identity:
            log.error(
                "the database %s was removed or replaced: nothing is written until the server is restarted", self._file
            )
            raise Unavailable(_FILE_GONE_TEXT)

    def _check_schema(self, url: URL) -> None:
        if self._postgresql and (problem := postgresql.pooler_problem(self._engine)) is not None:
            raise DatabaseUnusable(f"{display_url(url)} cannot be used: {problem}")
        with self._reading.begin() as connection:
            if not inspect(connection).has_table(schema.cdb_schema.name):
                raise DatabaseUnusable(
                    f"{display_url(url)} is not a calibration database: make one with 'cdb-server init'"
                )
            version = _version(connection, url)
            standby = self._postgresql and bool(connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar())
        if version < schema.SCHEMA_VERSION and standby:
            raise DatabaseUnusable(
                f"{display_url(url)} has schema version {version}: serve its primary with this software first"
            )
        if version < schema.SCHEMA_VERSION:
            with self.write() as connection:
                # Another process may have done it by now.
                if (version := _version(connection, url)) < schema.SCHEMA_VERSION:
                    schema.upgrade(connection, version)
                    log.warning(
                        "%s is brought from schema version %d to %d", display_url(url), version, schema.SCHEMA_VERSION
                    )
        with self._reading.begin() as connection:
            follows = connection.execute(select(schema.following.c.master)).first() is not None
        self.kind = "standby" if standby else "mirror" if follows else "master"


def _version(connection: Connection, url: URL) -> int:
    versions = connection.execute(select(schema.cdb_schema.c.version)).scalars().all()
    if len(versions) != 1 or not 1 <= versions[0] <= schema.SCHEMA_VERSION:
        raise DatabaseUnusable(
            f"{display_url(url)} has schema version {', '.join(map(str, versions)) or 'unknown'}, and this software "
            f"knows version {schema.SCHEMA_VERSION}: use the software that made it, or a newer one"
        )
    return int(versions[0])


def _create_tables(connection: Connection) -> None:
    schema.metadata.create_all(connection)
    connection.execute(schema.cdb_schema.insert().values(version=schema.SCHEMA_VERSION))


def _create_sqlite(path: Path) -> None:
    # The link by which the file gets its name refuses as well, but only once all the work is done.
    if path.exists():
        raise _already_exists(path)
    try:
        with create_atomically(path) as unfinished:
            engine = create_pool(URL.create("sqlite", database=str(unfinished)), threads=1)
            # Before a transaction begins, and anything is in the file.
            event.listen(
                engine, "connect", lambda driver, _: driver.execute(f"PRAGMA page_size={SQLITE_PAGE_BYTES}").close()
            )
            try:
                with engine.begin() as connection:
                    _create_tables(connection)
            finally:
                engine.dispose()
    except FileExistsError:
        raise _already_exists(path) from None
    except OSError as error:
        raise DatabaseUnusable(f"{path} cannot be made: {error.strerror}") from error


def _already_exists(path: Path) -> DatabaseExists:
    return DatabaseExists(f"{path} already exists: name a new file, or serve this one")


@contextmanager
def _errors_as_unavailable() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as error:
        # The statement's parameters may hold a payload: the log gets the driver's message alone.
        log.error("the database failed: %s", str(getattr(error, "orig", None) or error).splitlines()[0][:300])
        if is_full(error):
            raise Unavailable(f"{DISK_FULL_TEXT}, then ask again") from error
        raise Unavailable("the database cannot be reached or is busy: try again later") from error


@contextmanager
def _errors_for_operator(url: URL) -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        raise DatabaseUnusable(f"{display_url(url)} cannot be used: {str(error.orig).strip()}") from error
