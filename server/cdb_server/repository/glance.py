"""Reading that waits for nobody, for the event loop: what cannot be had at once is for a thread to ask again.

SQLite's only. "a writer that commits locks out readers": such a moment, a query that would take long, and whatever else
goes wrong end in Busy.
"""

import sys
import time
from dataclasses import replace
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
        self._worked = self._waited = 0.0
        driver.set_progress_handler(self._is_late, STEPS)
        self._held = Held(driver, self._connection.dialect)
        self._given_up = 0

    def read(self) -> "Glance":
        """A reading transaction, as Database.read; the block raises Busy."""
        return self

    def __enter__(self) -> Held:
        # A generator's context would cost as much as the transaction.
        self._worked = time.thread_time() + LONGEST
        self._waited = time.monotonic() + LONGEST_WAIT
        try:
            self._held.driver.execute("BEGIN")
        except self._held.dialect.loaded_dbapi.Error as error:
            raise Busy from error
        return self._held

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._held.driver.execute("ROLLBACK")
        except self._held.dialect.loaded_dbapi.Error as failed:
            raise Busy from failed
        if isinstance(error, exc.DBAPIError):
            if str(error.orig) == "interrupted":
                self._forget_statements()
            raise Busy from error

    def version(self) -> int:
        """A number that stays the same until another connection has written. Raises Busy."""
        try:
            found: int = self._held.driver.execute("PRAGMA data_version").fetchone()[0]
        except self._held.dialect.loaded_dbapi.Error as error:
            raise Busy from error
        return found

    def _forget_statements(self) -> None:
        if sys.version_info < (3, 12):
            # There, a statement that failed between its rows counts as under way from then on, and is compiled anew
            # each time: longer work than most queries. Under another text it is another.
            self._given_up += 1
            self._held = replace(self._held, mark=f"\n-- {self._given_up}")

    def _is_late(self) -> bool:
        return time.thread_time() > self._worked or time.monotonic() > self._waited

    def close(self) -> None:
        """Give the connection back."""
        # Not to the pool: it is not what others expect of one.
        self._connection.invalidate()
        self._connection.close()
