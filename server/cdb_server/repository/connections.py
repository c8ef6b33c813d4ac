"""Connections to a database by URL, prepared so that rule 11 holds and a read is of one moment, whatever the defaults.

SQLite runs with a rollback journal (TRUNCATE) and synchronous=EXTRA: an acknowledged write is on disk (rule 11), and
the write-ahead log's fault with several processes, in SQLite before 3.51.3, does not arise. PostgreSQL reads in one
snapshot.
"""

import os
import sqlite3
import time
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from cdb_server.errors import DatabaseRefused
from cdb_server.repository import cancellation

# Seconds. A commit waits at most this long for readers on SQLite, a writer at most this long for another.
BUSY = 5
# Seconds between two looks at a lock that another has: much less than a write takes.
LOOK = 0.0003


def parse_url(url: str) -> URL:
    """The database that an URL names. Raises DatabaseRefused for one that cannot be used."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise DatabaseRefused(f"{url!r} is not a database URL like sqlite:///cdb.sqlite") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise DatabaseRefused(
        f"{name_of(parsed)} cannot be used: name a file, as sqlite:///cdb.sqlite, or postgresql://user@host/database"
    )


def name_of(url: URL) -> str:
    """The URL as it may be shown: without its password."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def engine_of(url: URL, threads: int, *, read_only: bool = False) -> Engine:
    """Up to `threads` connections at once, each prepared; `read_only`, they cannot write."""
    pool = _pool(threads)
    if url.get_backend_name() == "sqlite":
        # mode=rw: opening never makes an empty database where one was expected.
        path = quote(os.path.abspath(str(url.database)))
        engine = create_engine(
            URL.create("sqlite", database=f"file:{path}", query={"mode": "rw", "uri": "true"}),
            connect_args={"timeout": BUSY, "isolation_level": None},
            **pool,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        if read_only:
            event.listen(engine, "connect", _forbid_writing)
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "commit", _commit_sqlite)
    else:
        try:
            engine = create_engine(url, connect_args={"connect_timeout": BUSY}, pool_pre_ping=True, **pool)
        except ImportError as error:
            raise DatabaseRefused(
                "PostgreSQL's driver is not installed: pip install 'mice-cdb[server,postgresql]' brings it"
            ) from error
        event.listen(engine, "connect", _prepare_postgresql)
        if read_only:
            event.listen(engine, "connect", _forbid_writing_postgresql)
    return engine


def alone(engine: Engine) -> Engine:
    """Other connections to the same database on PostgreSQL: each statement is a transaction, and cannot write."""
    pool: Any = engine.pool
    other = create_engine(
        engine.url,
        connect_args={"connect_timeout": BUSY},
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        **_pool(pool.size()),
    )
    event.listen(other, "connect", _prepare_postgresql)
    event.listen(other, "connect", _forbid_writing_postgresql)
    return other


def reading(engine: Engine) -> Engine:
    """The same connections, for transactions in which all is of one moment."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine


def writing(engine: Engine, *, read_only: bool) -> Engine:
    """The same connections, for transactions that write; `read_only`, they still cannot."""
    if engine.dialect.name == "postgresql":
        # The default of the session is not enough: a connection that comes back to the pool is made READ WRITE.
        return engine.execution_options(isolation_level="READ COMMITTED", postgresql_readonly=read_only)
    return engine.execution_options(cdb_writes=True)


def _pool(threads: int) -> dict[str, Any]:
    return {"pool_size": threads, "max_overflow": 2, "pool_timeout": BUSY}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # A file of somebody else is left as it is: another journal mode would be written into it.
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cdb_schema'").fetchone():
        return
    for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "foreign_keys=ON", "recursive_triggers=ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    # From here on `_patiently` waits.
    connection.execute("PRAGMA busy_timeout=0").close()
    connection.set_progress_handler(cancellation.is_requested, cancellation.STEPS)


def _forbid_writing(connection: Any, _record: object) -> None:
    # Not mode=ro: what a writer that was killed left half done, whoever reads next must undo, or nobody could read.
    connection.execute("PRAGMA query_only=ON").close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("cdb_writes"):
        _patiently(connection, "BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
        # Whoever reads has the lock from here on, and need not wait any more.
        _patiently(connection, "SELECT 1 FROM sqlite_master LIMIT 1")


def _commit_sqlite(connection: Connection) -> None:
    # What SQLAlchemy does after it finds nothing left to commit.
    _patiently(connection, "COMMIT")


def _patiently(connection: Connection, statement: str) -> None:
    """Say what needs a lock again and again: SQLite itself would look ever more seldom, long after the lock is free.

    What fails otherwise is not said again: a COMMIT after a failed one could succeed, on a disk that lost its pages.
    """
    deadline = time.monotonic() + BUSY
    driver: Any = connection.connection.driver_connection
    while True:
        try:
            driver.execute(statement).fetchall()
            return
        except sqlite3.Error as error:
            if str(error) != "database is locked" or time.monotonic() > deadline:
                raise exc.DBAPIError(statement, None, error) from error
        cancellation.check()
        time.sleep(LOOK)


def _prepare_postgresql(connection: Any, _record: object) -> None:
    # Rule 11 holds whatever the cluster's default: a commit that is not flushed is not acknowledged.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    # Every query of ours goes from row to row along an index; statistics, old or none, must not lead to another plan.
    for plan in ("seqscan", "hashjoin", "mergejoin"):
        connection.execute(f"SET enable_{plan} = off")
    connection.execute("SET jit = off")
    connection.execute(f"SET lock_timeout = '{BUSY}s'")
    connection.commit()


def _forbid_writing_postgresql(connection: Any, _record: object) -> None:
    # Not among the options of the connection, which some who stand between refuse.
    connection.execute("SET default_transaction_read_only = on")
    connection.commit()
