"""The database as it lies there, sound or not: what verification looks at, and the mark of a restored one.

Everything is asked in short transactions: on SQLite a long one would keep writers waiting. Because the journal only
grows, what was read once stays true.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, LargeBinary, cast, exc, exists, func, literal, select, text, union_all

from cdb_server import schema
from cdb_server.model import Entry
from cdb_server.repository import entries
from cdb_server.repository.database import Database
from cdb_server.repository.drift import drift
from cdb_server.schema import calibration, following, journal, payload, restoration, run, withdrawal

_OF_KIND = {"calibration": calibration.c.id, "withdrawal": withdrawal.c.serial, "run": run.c.serial}


class Unreadable(Exception):
    """The database cannot give what was asked for: it is damaged. The text is the driver's."""


class Inspection:
    """Looks at a database without trusting it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def length(self) -> int:
        """The serial of the last entry; 0 without any. Raises Unreadable."""
        with self._reading() as connection:
            return int(connection.execute(select(func.max(journal.c.serial))).scalar() or 0)

    def entries(self, after_serial: int, limit: int) -> list[tuple[Entry, str]]:
        """At most `limit` entries after a serial, each with the digest kept with it. Raises Unreadable."""
        with self._reading() as connection:
            return entries.entries(connection, after_serial, limit)

    def payloads(self, sha256: list[str]) -> dict[str, bytes]:
        """The bytes of payloads as they are, whatever their hash, without those that are missing. Raises Unreadable."""
        statement = select(payload.c.sha256, cast(payload.c.data, LargeBinary)).where(payload.c.sha256.in_(sha256))
        with self._reading() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def strays(self) -> list[str]:
        """What the journal does not speak of: rows of another kind than their entry, or of none. Raises Unreadable."""
        with self._reading() as connection:
            of_none = [
                select(literal(kind).label("kind"), serial.label("serial")).where(
                    ~exists().where(journal.c.serial == serial, journal.c.kind == kind)
                )
                for kind, serial in _OF_KIND.items()
            ]
            found = connection.execute(union_all(*of_none)).all()
            return [f"{row.kind} {row.serial}: the journal has no such entry" for row in found]

    def payload_count(self) -> int:
        """How many payloads there are. Raises Unreadable."""
        with self._reading() as connection:
            return connection.execute(select(func.count()).select_from(payload)).scalar_one()

    def payloads_of_none(self) -> list[str]:
        """The sha256 of payloads that belong to no calibration. Raises Unreadable."""
        with self._reading() as connection:
            used = select(calibration.c.sha256)
            return list(connection.execute(select(payload.c.sha256).where(payload.c.sha256.not_in(used))).scalars())

    def own_check(self) -> Iterator[str]:
        """What the database's own check finds, if it has one. Raises Unreadable."""
        with self._reading() as connection:
            if connection.dialect.name == "sqlite":
                yield from _sqlite_check(connection)
            else:
                yield from _postgresql_check(connection)

    def lacks_own_check(self) -> str | None:
        """Why there is no such check, for the operator; None when there is."""
        with self._reading() as connection:
            if connection.dialect.name == "sqlite" or _amcheck(connection):
                return None
            return "without the extension amcheck PostgreSQL's indexes are not checked: CREATE EXTENSION amcheck"

    def guards(self) -> list[str]:
        """Where tables, triggers and all else that the database holds are not as it was made. Raises Unreadable."""
        with self._reading() as connection:
            return drift(connection)

    def mark_restored(self, at: datetime) -> None:
        """Note that this database was put in place from a backup. That of a mirror becomes a master's by it."""
        length = self.length()
        with self._database.write() as connection:
            connection.execute(restoration.insert().values(restored=at, serial=length))
            connection.execute(following.delete())

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.read() as connection:
            try:
                yield connection
            except exc.DBAPIError as error:
                raise Unreadable(str(error.orig).strip().partition("\n")[0]) from error
            except (ValueError, TypeError, OverflowError) as error:
                raise Unreadable(f"a value is not of its kind: {error}") from error


def _sqlite_check(connection: Connection) -> Iterator[str]:
    for (said,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if said != "ok":
            yield from str(said).splitlines()
    for table, rowid, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"{table}, row {rowid}: what it refers to in {parent} is not there"


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
