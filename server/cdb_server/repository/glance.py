"""Reading that waits for nobody, for the event loop: what cannot be had at once is for a thread to ask again.

SQLite's only. "a writer that commits locks out readers": such a moment, a query that would take long, and whatever else
goes wrong end in Busy.
"""

import math
import time
from typing import Any

from sqlalchemy import exc

from cdb_server.repository.database import Database, Kind
from cdb_server.repository.prepared import Held

# Seconds after which a query is given up: those that it works, and those in which it may also wait, for the disk or
# while other processes have the processor. What is given up is done again by a thread, from its beginning.
LONGEST = 0.005
LONGEST_WAIT = 0.05
# Of SQLite's virtual machine, between two looks at the clocks.
STEPS = 10_000
# Of SQLite's pages, in kB. Its own default holds the payloads of some twenty answers, and nothing of the indexes then;
# this one nearly all inner pages of a million calibrations.
CACHE = 48_000


class Busy(Exception):
    """The database did not answer at once."""


class Glance:
    """One connection to a database, for one thread."""

    def __init__(self, database: Database) -> None:
        """The database is one that `answers_at_once`."""
        self.kind: Kind = database.kind
        self._connection = database.connect()
        driver: Any = self._connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout=0").close()
        driver.execute("PRAGMA query_only=ON").close()
        driver.execute(f"PRAGMA cache_size={-CACHE}").close()
        self._worked = self._waited = math.inf
        driver.set_progress_handler(self._is_late, STEPS)
        self._held = Held(driver, self._connection.dialect)

    def read(self) -> "Glance":
        """A reading transaction, as Database.read; the block raises Busy."""
        return self

    def __enter__(self) -> Held:
        # A generator's context would cost as much as the transaction.
        try:
            self._held.driver.execute("BEGIN")
        except self._held.dialect.loaded_dbapi.Error as error:
            raise Busy from error
        self._worked = time.thread_time() + LONGEST
        self._waited = time.monotonic() + LONGEST_WAIT
        return self._held

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # SQLite asks after so many steps of a statement in all its runs: the ROLLBACK of a query that is late would be
        # given up too, some day, and its lock be kept for ever.
        self._worked = self._waited = math.inf
        try:
            self._held.driver.execute("ROLLBACK")
        except self._held.dialect.loaded_dbapi.Error as failed:
            raise Busy from failed
        if isinstance(error, exc.DBAPIError):
            raise Busy from error

    def version(self) -> int:
        """A number that stays the same until another connection has written. Raises Busy."""
        try:
            found: int = self._held.driver.execute("PRAGMA data_version").fetchone()[0]
        except self._held.dialect.loaded_dbapi.Error as error:
            raise Busy from error
        return found

    def _is_late(self) -> bool:
        return time.thread_time() > self._worked or time.monotonic() > self._waited

    def close(self) -> None:
        """Give the connection back."""
        # Not to the pool: it is not what others expect of one.
        self._connection.invalidate()
        self._connection.close()
