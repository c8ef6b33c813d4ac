"""Reading that waits for nobody, for the event loop: what cannot be had at once is for a thread to ask again.

SQLite's only. "a writer that commits locks out readers": such a moment, a query that would take long, and whatever else
goes wrong end in Busy.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import exc

from cdb_server.repository.database import Database, Kind
from cdb_server.repository.prepared import Held

# Seconds after which a query is given up, and the steps of SQLite's virtual machine between two looks at the clock.
LONGEST = 0.005
STEPS = 10_000


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
        self._deadline = 0.0
        driver.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS)
        self._held = Held(driver, self._connection.dialect)

    @contextmanager
    def read(self) -> Iterator[Held]:
        """A reading transaction, as Database.read. Raises Busy."""
        driver = self._held.driver
        self._deadline = time.monotonic() + LONGEST
        try:
            driver.execute("BEGIN")
            try:
                yield self._held
            finally:
                driver.execute("ROLLBACK")
        except (exc.DBAPIError, self._held.dialect.loaded_dbapi.Error) as error:
            raise Busy from error

    def version(self) -> int:
        """A number that stays the same until another connection has written. Raises Busy."""
        try:
            found: int = self._held.driver.execute("PRAGMA data_version").fetchone()[0]
        except self._held.dialect.loaded_dbapi.Error as error:
            raise Busy from error
        return found

    def close(self) -> None:
        """Give the connection back."""
        # Not to the pool: it is not what others expect of one.
        self._connection.invalidate()
        self._connection.close()
