"""Who serves a database of SQLite: a lock on a file beside it, which whoever replaces the database must have alone.

SQLite's own locks are there while something is read or written. A server that is asked nothing has none, and would go
on with the file that it has open. This lock lasts as long as the processes that serve, however they end. It is not on
the database's own file, where a network file system would take it for one of SQLite's.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdb_server.errors import DatabaseRefused
from cdb_server.repository.connections import parse_url


def occupy(url: str) -> None:
    """Hold the database until this process and those that it forks have ended. Raises DatabaseRefused.

    PostgreSQL knows by itself who is connected.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return
    path = Path(str(parsed.database))
    try:
        # Never closed, nor is the file removed: the next server takes it again.
        _locked(_beside(path), os.O_CREAT, fcntl.LOCK_SH)
    except BlockingIOError:
        raise DatabaseRefused(f"{path} is being replaced by 'cdb-server restore': start again later") from None


@contextmanager
def vacant(path: Path) -> Iterator[None]:
    """Keep servers from a file in the block. Raises DatabaseRefused while one serves it."""
    try:
        descriptor = _locked(_beside(path), 0, fcntl.LOCK_EX)
    except BlockingIOError:
        raise DatabaseRefused(f"{path} is in use: stop the server, then restore again") from None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-served")


def _locked(file: Path, flags: int, kind: int) -> int | None:
    """The descriptor that holds the lock; None where there can be none. Raises BlockingIOError where another has it."""
    try:
        descriptor = os.open(file, os.O_RDWR | flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        # A file system without such locks.
        os.close(descriptor)
        return None
    return descriptor
