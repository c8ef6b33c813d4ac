"""PostgreSQL backend: session settings, autocommit reads, pooler check, standby replay position, pg_dump backup.

To look whether the connection still stands, to begin and to end would be three ways more to the server and back, for
one that answers.

Plans, locks, prepared statements and whether one may write are set for a session. A pooler that hands its connections
to PostgreSQL on after every transaction (pool_mode = transaction) or statement gives each of them to somebody else, and
what was set or prepared is found there by others.
"""

import contextlib
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, exc, text

from cdb_server import schema
from cdb_server.database import display_url, statements
from cdb_server.errors import DatabaseUnusable
from cdb_server.instants import UTC
from cdb_server.model import Progress
from cdb_server.settings import LOCK_WAIT_SECONDS

if TYPE_CHECKING:
    import psycopg


def _configure_postgresql(connection: Any, _record: object) -> None:
    # Rule 11 holds whatever the cluster's default: a commit that is not flushed is not acknowledged.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    # Every query of ours goes from row to row along an index; statistics, old or none, must not lead to another plan.
    for plan in ("seqscan", "hashjoin", "mergejoin"):
        connection.execute(f"SET enable_{plan} = off")
    connection.execute("SET jit = off")
    connection.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
    connection.commit()


def _make_postgresql_read_only(connection: Any, _record: object) -> None:
    # Not among the options of the connection, which some who stand between refuse.
    connection.execute("SET default_transaction_read_only = on")
    connection.commit()


# In the pool's own notes on a connection: it was made for an earlier statement, and may have been lost since.
_USED = "used"


class AutocommitPool:
    """As a driver's connection is to what is prepared. Safe for use by many threads."""

    def __init__(self, engine: Engine) -> None:
        """Connections of the engine commit every statement by themselves, and cannot write."""
        self._engine = engine

    def execute(self, statement: str, values: Mapping[str, Any], *, binary: bool) -> Any:
        """The driver's cursor, with all rows. Raises the driver's errors, and SQLAlchemy's where none can connect.

        What was lost since its last use, when the server was restarted, is made anew: whoever only reads may ask again.
        """
        while True:
            connection = self._engine.raw_connection()
            driver: Any = connection.driver_connection
            used = _USED in connection.info
            connection.info[_USED] = True
            try:
                with statements.query_running(driver):
                    return driver.execute(statement, values, binary=binary)
            except self._engine.dialect.loaded_dbapi.Error:
                if not (used and driver.closed):
                    raise
                connection.invalidate()
            finally:
                connection.close()

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


# A pooler gives out at once what was given back last, unless others are quicker, again and again.
POOLER_PROBES = 10

_SHARED_TEXT = (
    "a pooler hands its connections to PostgreSQL on after every transaction or statement, with what was set and "
    "prepared in them: set pool_mode = session for this database in PgBouncer, or name PostgreSQL itself"
)

_KEPT_TEXT = (
    "a pooler hands its connections to PostgreSQL on with what was set and prepared in them: set server_reset_query = "
    "DISCARD ALL in PgBouncer, or name PostgreSQL itself"
)


def pooler_problem(engine: Engine) -> str | None:
    """Why sessions are not this program's own, and what to do about it; None where they are.

    Raises the driver's errors as SQLAlchemy's.
    """
    try:
        return _pooler_problem(engine)
    except engine.dialect.loaded_dbapi.Error as error:
        raise exc.DBAPIError(None, None, error) from error


def _pooler_problem(engine: Engine) -> str | None:
    connected = _connecting(engine)
    with contextlib.closing(connected()) as one:
        own = _process(one)
        # PostgreSQL tells its process when one connects; a pooler tells what it made up.
        if own == one.info.backend_pid:
            return None
        with contextlib.closing(connected()) as other:
            if any(_process(other) == own or _process(one) != own for _ in range(POOLER_PROBES)):
                return _SHARED_TEXT
        mark = secrets.token_hex()
        one.execute(f"SET cdb.mark = '{mark}'".encode(), prepare=False)
    with contextlib.closing(connected()) as later:
        kept = later.execute("SELECT current_setting('cdb.mark', true)", prepare=False).fetchone()
    return _KEPT_TEXT if kept == (mark,) else None


def _connecting(engine: Engine) -> Callable[[], Any]:
    arguments, named = engine.dialect.create_connect_args(engine.url)
    connect: Any = engine.dialect.connect
    # A pooler in statement mode refuses to begin a transaction.
    return lambda: connect(*arguments, **named, connect_timeout=LOCK_WAIT_SECONDS, autocommit=True)


def _process(connection: Any) -> object:
    """The process of PostgreSQL that answers."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return row and row[0]


_KNOWN = "replicated"

# The receiver's row is read before the position of the replay. Only who has pg_read_all_stats is shown it. A receiver
# that has just been connected has heard nothing yet: both its times are those of its own start.
_QUESTION = text(
    "WITH receiver AS MATERIALIZED (SELECT * FROM pg_stat_wal_receiver) "
    "SELECT pg_last_xact_replay_timestamp() AS committed, (SELECT last_msg_send_time FROM receiver "
    "WHERE last_msg_send_time <> last_msg_receipt_time AND latest_end_lsn <= pg_last_wal_replay_lsn()) AS said"
)


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """What is replayed, by the primary's clock: all that was committed until `committed`, and all that there was when
    the primary last `said` something. None where that is not known."""

    committed: datetime | None
    last_message: datetime | None


def note_replay_position(connection: Connection) -> None:
    """Note how far the replay has come. To be called before the transaction in which that is used.

    What is replayed by now, every snapshot taken from now on shows; one taken before might lack it.
    """
    row: Any = connection.execute(_QUESTION).one()
    known = [None if at is None else at.astimezone(UTC) for at in (row.committed, row.said)]
    connection.info[_KNOWN] = ReplayPosition(*known)


def noted_replay_position(connection: Connection) -> ReplayPosition:
    """What was noted before the connection's transaction."""
    known: ReplayPosition = connection.info[_KNOWN]
    return known


def _postgresql_check(connection: Connection) -> Iterator[str]:
    """By the extension amcheck: tables with their large values, and every index against its table."""
    amcheck = _amcheck(connection)
    if amcheck is None:
        return
    # amcheck's schema is what PostgreSQL itself spelled as an identifier.
    of_table = text(f"SELECT * FROM {amcheck}.verify_heapam(:table, check_toast => true)")  # noqa: S608
    for table in schema.metadata.tables:
        for block, offset, _, said in connection.execute(of_table, {"table": table}):
            yield f"{table}, block {block}, row {offset}: {said}"
    of_ours = text("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = ANY(CAST(:tables AS regclass[]))")
    for index in connection.execute(of_ours, {"tables": list(schema.metadata.tables)}).scalars().all():
        try:
            with connection.begin_nested():
                connection.execute(
                    text(f"SELECT {amcheck}.bt_index_check(CAST(:index AS regclass), true)"), {"index": index}
                )
        except exc.DBAPIError as error:
            yield f"{index}: {str(error.orig).strip().partition(chr(10))[0]}"


def _amcheck(connection: Connection) -> str | None:
    """The schema in which the extension amcheck lies; None without it."""
    statement = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'amcheck'"
    found: str | None = connection.exec_driver_sql(statement).scalar()
    return found


POSTGRESQL_HEADER = b"PGDMP"

# A line of pg_restore's list of what a backup holds: "2; 3079 16384 EXTENSION - amcheck", and its comment.
_EXTENSION = re.compile(r"\d+; \d+ \d+ (COMMENT - )?EXTENSION ")

# Where one connects to make and rename databases: every cluster has it.
MAINTENANCE_DATABASE = "postgres"


class PostgresqlBackup:
    """A database in a cluster; `url` is what repository.parse_url gave."""

    def __init__(self, url: Any) -> None:
        self._url = url
        self._unfinished = f"{url.database}_restoring_{os.getpid()}"
        self._made = False

    def back_up(self, file: Path, progress: Progress) -> None:
        self._run("pg_dump", "--format=custom", f"--file={file}", f"--dbname={self._address(None)}")

    def restore_beside(self, file: Path) -> str:
        try:
            with file.open("rb") as backup:
                if backup.read(len(POSTGRESQL_HEADER)) != POSTGRESQL_HEADER:
                    raise DatabaseUnusable(f"{file} is not a backup of a PostgreSQL database")
        except OSError as error:
            raise DatabaseUnusable(f"{file} cannot be read: {error.strerror}") from error
        with self._connected() as connection:
            connection.execute(_sql("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0", self._unfinished))
            self._made = True
            # As the guide makes it: nobody else connects to it.
            connection.execute(_sql("REVOKE ALL ON DATABASE {} FROM PUBLIC", self._unfinished))
        options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        with tempfile.NamedTemporaryFile("w") as wanted:
            # Extensions are for a superuser to make, and no table needs one.
            listed = self._run("pg_restore", "--list", str(file)).splitlines(keepends=True)
            wanted.writelines(line for line in listed if not _EXTENSION.match(line))
            wanted.flush()
            into = f"--dbname={self._address(self._unfinished)}"
            self._run("pg_restore", *options, f"--use-list={wanted.name}", into, str(file))
        return str(self._url.set(database=self._unfinished).render_as_string(hide_password=False))

    def replace_current(self) -> str | None:
        kept = f"{self._url.database}_replaced_{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
        with self._connected() as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self._url.database]).fetchone()
            with connection.transaction():
                if there:
                    connection.execute(_sql("ALTER DATABASE {} RENAME TO {}", self._url.database, kept))
                connection.execute(_sql("ALTER DATABASE {} RENAME TO {}", self._unfinished, self._url.database))
        self._made = False
        return kept if there else None

    def discard(self) -> None:
        if self._made:
            with self._connected() as connection:
                connection.execute(_sql("DROP DATABASE IF EXISTS {}", self._unfinished))

    def _run(self, program: str, *arguments: str) -> str:
        """What one of PostgreSQL's programs prints."""
        password = {"PGPASSWORD": self._url.password} if self._url.password else {}
        try:
            ended = subprocess.run(  # noqa: S603  # pg_dump or pg_restore, without a shell
                [program, "--no-password", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, **password},
                check=False,
            )
        except FileNotFoundError:
            raise DatabaseUnusable(
                f"{program} is not there: install PostgreSQL's client programs, of the server's version or a newer one"
            ) from None
        if ended.returncode:
            said = ended.stderr.decode("utf-8", "replace").strip()
            raise DatabaseUnusable(f"{program} failed for {display_url(self._url)}: {said}")
        return ended.stdout.decode("utf-8", "replace")

    def _address(self, database: str | None) -> str:
        """As PostgreSQL's programs take it, without the password: command lines can be read by others."""
        url = self._url.set(drivername="postgresql", password=None)
        return str((url.set(database=database) if database else url).render_as_string(hide_password=False))

    @contextmanager
    def _connected(self) -> Iterator["psycopg.Connection[Any]"]:
        import psycopg

        url = self._url.set(drivername="postgresql", database=MAINTENANCE_DATABASE)
        try:
            with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
                yield connection
        except psycopg.errors.ObjectInUse as error:
            raise DatabaseUnusable(
                f"{display_url(self._url)} is in use: stop the server, then restore again"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseUnusable(
                f"{display_url(self._url)} cannot be restored: {str(error).strip()}; its role must own this database "
                "and may need to make another, until this is done: ALTER ROLE … CREATEDB, by a superuser"
            ) from error
        except psycopg.Error as error:
            raise DatabaseUnusable(f"{display_url(self._url)} cannot be restored: {str(error).strip()}") from error


def _sql(statement: str, *names: str) -> Any:
    from psycopg import sql

    return sql.SQL(statement).format(*map(sql.Identifier, names))
