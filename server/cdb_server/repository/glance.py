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
# Of SQLite's pages, in kB: the inner pages of a few million calibrations. Of what is at the leaves, twenty times as
# much would hold few more; and payloads are read the quicker, the fewer pages they pass through.
CACHE = 3_000


class Busy(Exception):
    """The database did not answer at once."""


class Glance:
    """One connection to a database, for one thread. Each question has a transaction of its own, unless one is begun."""

    def __init__(self, database: Database) -> None:
        """The database is one that `answers_at_once`."""
        self.kind: Kind = database.kind
        self.refusal = database.refusal
        self._connection = database.connect()
        driver: Any = self._connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout=0").close()
        driver.execute("PRAGMA query_only=ON").close()
        driver.execute(f"PRAGMA cache_size={-CACHE}").close()
        self._worked = self._waited = math.inf
        # Whether a transaction is under way that lasts until its end.
        self.begun = False
        driver.set_progress_handler(self._is_late, STEPS)
        self._held = Held(driver, self._connection.dialect)

    def read(self) -> "Glance":
        """A reading transaction, as Database.read, or a part of the one that is begun; the block raises Busy."""
        return self

    # A transaction costs the same, however much is asked in it.
    read_one = read

    def __enter__(self) -> Held:
        # A generator's context would cost as much as the transaction.
        if not self.begun:
            self.end()
            self._say("BEGIN")
        self._worked = time.thread_time() + LONGEST
        self._waited = time.monotonic() + LONGEST_WAIT
        return self._held

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # SQLite asks after so many steps of a statement in all its runs: the ROLLBACK of a query that is late would be
        # given up too, some day, and its lock be kept for ever.
        self._worked = self._waited = math.inf
        failed = isinstance(error, exc.DBAPIError)
        if failed or not self.begun:
            self.end()
        if failed:
            raise Busy from error

    def begin(self) -> int:
        """Begin a transaction for all that is read until its end, and tell the version. Raises Busy.

        All of it is of one moment, and nobody can commit meanwhile. It ends earlier when a query fails.
        """
        self.end()
        self._say("BEGIN")
        # From here on it has the lock.
        version = self.version()
        self.begun = True
        return version

    def end(self) -> None:
        """End the transaction that is begun, and whatever could not be ended before. Raises Busy."""
        self.begun = False
        try:
            under_way = self._held.driver.in_transaction
        except self._held.dialect.loaded_dbapi.Error as error:
            # The connection is closed.
            raise Busy from error
        if under_way:
            self._say("ROLLBACK")

    def version(self) -> int:
        """A number that stays the same until another connection has written. Raises Busy."""
        [found] = self._say("PRAGMA data_version")
        return int(found)

    def _say(self, statement: str) -> Any:
        try:
            return self._held.driver.execute(statement).fetchone()
        except self._held.dialect.loaded_dbapi.Error as error:
            raise Busy from error

    def _is_late(self) -> bool:
        return time.thread_time() > self._worked or time.monotonic() > self._waited

    def close(self) -> None:
        """Give the connection back."""
        # Not to the pool: it is not what others expect of one.
        self._connection.invalidate()
        self._connection.close()
