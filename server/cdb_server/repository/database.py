"""A database of ours: made, opened and checked; reading and writing transactions on it.

Writers are alone: on SQLite by BEGIN IMMEDIATE, in turns. On PostgreSQL they lock one row first, so that serials are
taken in commit order.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, event, exc, inspect, select

from cdb_server import schema
from cdb_server.errors import DatabaseExists, DatabaseRefused, Unavailable
from cdb_server.repository import connections, pooler, replication
from cdb_server.repository.alone import Alone
from cdb_server.repository.connections import BUSY, engine_of, name_of, parse_url
from cdb_server.repository.durable import new_file
from cdb_server.repository.fuse import FAILED, FULL, Fuse, is_disk_error, is_full
from cdb_server.repository.prepared import Connected, Held
from cdb_server.repository.turn import Turn

log = logging.getLogger(__name__)

# What a database is to the process that serves it: a copy is a mirror's, which repeats its master's entries, or a hot
# standby's, to which PostgreSQL itself replicates.
Kind = Literal["master", "mirror", "standby"]

# Bytes of a page of a new SQLite file. A payload is read page by page: half as many as with SQLite's own 4,096 are
# quicker read, and a tree is lower; with pages larger still, an upload, which writes one of each tree, takes longer.
PAGE = 8_192

_DISK_FAILED = (
    "the disk failed under a write: nothing is accepted until its operator has seen to it and restarted the server"
)
_FILE_GONE = "the database was removed or replaced: nothing is accepted until its operator has seen to it"


class Database:
    """Connections to one database of ours. Safe for use by many threads; make one a process."""

    def __init__(
        self, engine: Engine, file: Path | None = None, fuse: Fuse | None = None, *, read_only: bool = False
    ) -> None:
        self._engine = engine
        self._file = file
        self._fuse = fuse or Fuse()
        self._identity = _identity(file)
        self._turn = Turn(file.parent, BUSY) if file else None
        self._postgresql = engine.dialect.name == "postgresql"
        self.kind: Kind = "master"
        self._reading = connections.reading(engine)
        self._writing = connections.writing(engine, read_only=read_only)
        self._alone = Alone(connections.alone(engine)) if self._postgresql else None

    @classmethod
    def create(cls, url: str) -> None:
        """Make a new, empty database.

        Raises DatabaseExists, having touched nothing, where there is one already, and DatabaseRefused where none can
        be made.
        """
        parsed = parse_url(url)
        with _for_operator(parsed):
            if parsed.get_backend_name() == "sqlite":
                _create_sqlite(Path(str(parsed.database)))
            else:
                engine = engine_of(parsed, threads=1)
                try:
                    with engine.begin() as connection:
                        taken = set(inspect(connection).get_table_names()) & set(schema.metadata.tables)
                        if taken:
                            raise DatabaseExists(
                                f"{name_of(parsed)} already holds {', '.join(sorted(taken))}: "
                                "name a new database, or serve this one"
                            )
                        _create_tables(connection)
                finally:
                    engine.dispose()

    @classmethod
    def open(cls, url: str, threads: int = 8, fuse: Fuse | None = None, *, read_only: bool = False) -> "Database":
        """Open an existing database, for up to `threads` connections at once; `read_only`, they cannot write.

        One that an earlier version made is brought up to this one. Processes that share a `fuse` stop writing
        together. Raises DatabaseRefused when there is none, or when it is foreign or newer. Makes none.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).is_file():
            raise DatabaseRefused(
                f"there is no database {parsed.database}: make it with 'cdb-server init', or correct CDB_DATABASE"
            )
        file = Path(str(parsed.database)).absolute() if parsed.get_backend_name() == "sqlite" else None
        database = cls(engine_of(parsed, threads, read_only=read_only), file, fuse, read_only=read_only)
        with _for_operator(parsed):
            try:
                database._check(parsed)
            except BaseException:
                database.close()
                raise
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A reading transaction: all that is asked in it is of one moment. Raises Unavailable if the database fails."""
        with _unavailable(), self._reading.connect() as connection:
            if self.kind == "standby":
                replication.look(connection)
                connection.rollback()
            with connection.begin():
                yield connection

    @contextmanager
    def read_one(self) -> Iterator[Connected]:
        """For who asks one thing, by what is prepared: it is of one moment, where several may be of several.

        On PostgreSQL a third of what a transaction takes. Raises Unavailable if the database fails.
        """
        if self._alone is None or self.kind == "standby":
            with self.read() as connection:
                yield connection
        else:
            with _unavailable():
                yield Held(self._alone, self._engine.dialect)

    @property
    def answers_at_once(self) -> bool:
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
            self._in_turn() as begun,
            self._noted(),
            _unavailable(),
            self._fused(),
            self._writing.begin() as connection,
        ):
            begun()
            self._check_fuse()
            if self._postgresql:
                connection.execute(select(schema.cdb_schema.c.version).with_for_update()).one()
            yield connection
        self._check_file()

    def refusal(self) -> str | None:
        """Why the database takes no writes, as far as it is known, for everybody; None when it takes them."""
        if self._fuse.blown:
            return _DISK_FAILED
        return _FILE_GONE if _identity(self._file) != self._identity else self._fuse.refused

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()
        if self._alone:
            self._alone.close()
        if self._turn:
            self._turn.close()
            self._turn = None

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_turn(self) -> AbstractContextManager[Callable[[], None]]:
        # PostgreSQL queues the writers itself.
        return self._turn.taken() if self._turn else nullcontext(lambda: None)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note why the block's write was refused by the database, or that it was taken."""
        try:
            yield
        except Unavailable as error:
            self._fuse.refused = FULL if is_full(error) else FAILED
            raise
        self._fuse.refused = None

    @contextmanager
    def _fused(self) -> Iterator[None]:
        """Blow the fuse when the disk fails in the block, and refuse while it is blown, before the block and after."""
        self._check_fuse()
        try:
            yield
        except BaseException as error:
            if is_disk_error(error) and self._fuse.blow():
                log.error(
                    "the disk failed under a write to %s: nothing is written until the server is restarted; "
                    "before that, see to the disk",
                    self._file,
                )
            raise
        self._check_fuse()

    def _check_fuse(self) -> None:
        if self._fuse.blown:
            raise Unavailable(_DISK_FAILED)

    def _check_file(self) -> None:
        """Refuse to write into a file that was removed or replaced: its connections would go on, and all be lost."""
        if _identity(self._file) != self._identity:
            log.error(
                "the database %s was removed or replaced: nothing is written until the server is restarted", self._file
            )
            raise Unavailable(_FILE_GONE)

    def _check(self, url: URL) -> None:
        if self._postgresql and (problem := pooler.unfit(self._engine)) is not None:
            raise DatabaseRefused(f"{name_of(url)} cannot be used: {problem}")
        with self._reading.begin() as connection:
            if not inspect(connection).has_table(schema.cdb_schema.name):
                raise DatabaseRefused(f"{name_of(url)} is not a calibration database: make one with 'cdb-server init'")
            version = _version(connection, url)
            standby = self._postgresql and bool(connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar())
        if version < schema.VERSION and standby:
            raise DatabaseRefused(
                f"{name_of(url)} has schema version {version}: serve its primary with this software first"
            )
        if version < schema.VERSION:
            with self.write() as connection:
                # Another process may have done it by now.
                if (version := _version(connection, url)) < schema.VERSION:
                    schema.upgrade(connection, version)
                    log.warning("%s is brought from schema version %d to %d", name_of(url), version, schema.VERSION)
        with self._reading.begin() as connection:
            follows = connection.execute(select(schema.following.c.master)).first() is not None
        self.kind = "standby" if standby else "mirror" if follows else "master"


def _version(connection: Connection, url: URL) -> int:
    versions = connection.execute(select(schema.cdb_schema.c.version)).scalars().all()
    if len(versions) != 1 or not 1 <= versions[0] <= schema.VERSION:
        raise DatabaseRefused(
            f"{name_of(url)} has schema version {', '.join(map(str, versions)) or 'unknown'}, and this software "
            f"knows version {schema.VERSION}: use the software that made it, or a newer one"
        )
    return int(versions[0])


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Which file stands under a name, by device and number; None when none does."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino)


def _create_tables(connection: Connection) -> None:
    schema.metadata.create_all(connection)
    connection.execute(schema.cdb_schema.insert().values(version=schema.VERSION))


def _create_sqlite(path: Path) -> None:
    # The link by which the file gets its name refuses as well, but only once all the work is done.
    if path.exists():
        raise _taken(path)
    try:
        with new_file(path) as unfinished:
            engine = engine_of(URL.create("sqlite", database=str(unfinished)), threads=1)
            # Before a transaction begins, and anything is in the file.
            event.listen(engine, "connect", lambda driver, _: driver.execute(f"PRAGMA page_size={PAGE}").close())
            try:
                with engine.begin() as connection:
                    _create_tables(connection)
            finally:
                engine.dispose()
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise DatabaseRefused(f"{path} cannot be made: {error.strerror}") from error


def _taken(path: Path) -> DatabaseExists:
    return DatabaseExists(f"{path} already exists: name a new file, or serve this one")


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as error:
        # The statement's parameters may hold a payload: the log gets the driver's message alone.
        log.error("the database failed: %s", str(getattr(error, "orig", None) or error).splitlines()[0][:300])
        if is_full(error):
            raise Unavailable(f"{FULL}, then ask again") from error
        raise Unavailable("the database cannot be reached or is busy: try again later") from error


@contextmanager
def _for_operator(url: URL) -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        raise DatabaseRefused(f"{name_of(url)} cannot be used: {str(error.orig).strip()}") from error
