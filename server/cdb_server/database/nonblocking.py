"""Reads SQLite on the event loop without blocking: a locked database or a slow query raises WouldBlock.

SQLite's only. "a writer that commits locks out readers": such a moment, a query that would take long, and whatever else
goes wrong end in WouldBlock.
"""

import math
import time
from typing import Any

from sqlalchemy import exc

from cdb_server.database.statements import RawConnection
from cdb_server.database.transactions import Database
from cdb_server.model import DatabaseKind

# Seconds after which a query is given up: those that it works, and those in which it may also wait, for the disk or
# while other processes have the processor. What is given up is done again by a thread, from its beginning.
MAX_CPU_SECONDS = 0.005

MAX_WALL_SECONDS = 0.05

# Of SQLite's virtual machine, between two looks at the clocks.
SQLITE_CHECK_STEPS = 10_000

# Of SQLite's pages, in kB: the inner pages of a few million calibrations. Of what is at the leaves, twenty times as
# much would hold few more; and payloads are read the quicker, the fewer pages they pass through.
PAGE_CACHE_KILOBYTES = 3_000


class WouldBlock(Exception):
    """The database did not answer at once."""


class NonblockingConnection:
    """One connection to a database, for one thread. Each question has a transaction of its own, unless one is begun."""

    def __init__(self, database: Database) -> None:
        """The database is one that `supports_nonblocking`."""
        self.kind: DatabaseKind = database.kind
        self.write_refusal = database.write_refusal
        self._connection = database.connect()
        driver: Any = self._connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout=0").close()
        driver.execute("PRAGMA query_only=ON").close()
        driver.execute(f"PRAGMA cache_size={-PAGE_CACHE_KILOBYTES}").close()
        self._cpu_deadline = self._wall_deadline = math.inf
        # Whether a transaction is under way that lasts until its end.
        self.in_snapshot = False
        driver.set_progress_handler(self._is_late, SQLITE_CHECK_STEPS)
        self._raw = RawConnection(driver, self._connection.dialect)

    def read(self) -> "NonblockingConnection":
        """A reading transaction, as Database.read, or a part of the one that is begun; the block raises WouldBlock."""
        return self

    # A transaction costs the same, however much is asked in it.
    read_statement = read

    def __enter__(self) -> RawConnection:
        # A generator's context would cost as much as the transaction.
        if not self.in_snapshot:
            self.end_snapshot()
            self._execute("BEGIN")
        self._cpu_deadline = time.thread_time() + MAX_CPU_SECONDS
        self._wall_deadline = time.monotonic() + MAX_WALL_SECONDS
        return self._raw

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # SQLite asks after so many steps of a statement in all its runs: the ROLLBACK of a query that is late would be
        # given up too, some day, and its lock be kept for ever.
        self._cpu_deadline = self._wall_deadline = math.inf
        failed = isinstance(error, exc.DBAPIError)
        if failed or not self.in_snapshot:
            self.end_snapshot()
        if failed:
            raise WouldBlock from error

    def begin_snapshot(self) -> int:
        """Begin a transaction for all that is read until its end, and tell the version. Raises WouldBlock.

        All of it is of one moment, and nobody can commit meanwhile. It ends earlier when a query fails.
        """
        self.end_snapshot()
        self._execute("BEGIN")
        # From here on it has the lock.
        version = self.data_version()
        self.in_snapshot = True
        return version

    def end_snapshot(self) -> None:
        """End the transaction that is begun, and whatever could not be ended before. Raises WouldBlock."""
        self.in_snapshot = False
        try:
            under_way = self._raw.driver.in_transaction
        except self._raw.dialect.loaded_dbapi.Error as error:
            # The connection is closed.
            raise WouldBlock from error
        if under_way:
            self._execute("ROLLBACK")

    def data_version(self) -> int:
        """A number that stays the same until another connection has written. Raises WouldBlock."""
        [found] = self._execute("PRAGMA data_version")
        return int(found)

    def _execute(self, statement: str) -> Any:
        try:
            return self._raw.driver.execute(statement).fetchone()
        except self._raw.dialect.loaded_dbapi.Error as error:
            raise WouldBlock from error

    def _is_late(self) -> bool:
        return time.thread_time() > self._cpu_deadline or time.monotonic() > self._wall_deadline

    def close(self) -> None:
        """Give the connection back."""
        # Not to the pool: it is not what others expect of one.
        self._connection.invalidate()
        self._connection.close()
