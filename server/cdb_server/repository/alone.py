"""PostgreSQL asked one thing at a time: a statement alone is of one moment, and needs no transaction around it.

To look whether the connection still stands, to begin and to end would be three ways more to the server and back, for
one that answers.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from cdb_server.repository import cancellation

# In the pool's own notes on a connection: it was made for an earlier statement, and may have been lost since.
_USED = "used"


class Alone:
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
                with cancellation.querying(driver):
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
