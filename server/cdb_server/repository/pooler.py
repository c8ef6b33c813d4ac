"""A pooler between this program and PostgreSQL, such as PgBouncer: whether a connection to it is a session of its own.

Plans, locks, prepared statements and whether one may write are set for a session. A pooler that hands its connections
to PostgreSQL on after every transaction (pool_mode = transaction) or statement gives each of them to somebody else, and
what was set or prepared is found there by others.
"""

import contextlib
import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, exc

from cdb_server.repository.connections import BUSY

# A pooler gives out at once what was given back last, unless others are quicker, again and again.
TIMES = 10
_SHARED = (
    "a pooler hands its connections to PostgreSQL on after every transaction or statement, with what was set and "
    "prepared in them: set pool_mode = session for this database in PgBouncer, or name PostgreSQL itself"
)
_KEPT = (
    "a pooler hands its connections to PostgreSQL on with what was set and prepared in them: set server_reset_query = "
    "DISCARD ALL in PgBouncer, or name PostgreSQL itself"
)


def unfit(engine: Engine) -> str | None:
    """Why sessions are not this program's own, and what to do about it; None where they are.

    Raises the driver's errors as SQLAlchemy's.
    """
    try:
        return _unfit(engine)
    except engine.dialect.loaded_dbapi.Error as error:
        raise exc.DBAPIError(None, None, error) from error


def _unfit(engine: Engine) -> str | None:
    connected = _connecting(engine)
    with contextlib.closing(connected()) as one:
        own = _process(one)
        # PostgreSQL tells its process when one connects; a pooler tells what it made up.
        if own == one.info.backend_pid:
            return None
        with contextlib.closing(connected()) as other:
            if any(_process(other) == own or _process(one) != own for _ in range(TIMES)):
                return _SHARED
        mark = secrets.token_hex()
        one.execute(f"SET cdb.mark = '{mark}'".encode(), prepare=False)
    with contextlib.closing(connected()) as later:
        kept = later.execute("SELECT current_setting('cdb.mark', true)", prepare=False).fetchone()
    return _KEPT if kept == (mark,) else None


def _connecting(engine: Engine) -> Callable[[], Any]:
    arguments, named = engine.dialect.create_connect_args(engine.url)
    connect: Any = engine.dialect.connect
    # A pooler in statement mode refuses to begin a transaction.
    return lambda: connect(*arguments, **named, connect_timeout=BUSY, autocommit=True)


def _process(connection: Any) -> object:
    """The process of PostgreSQL that answers."""
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return row and row[0]
