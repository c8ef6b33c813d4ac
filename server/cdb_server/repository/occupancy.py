"""Who serves a database of SQLite: a lock on its file, which whoever replaces that file must have for himself.

SQLite's own locks are there while something is read or written. A server that is asked nothing has none, and would go
on with the file that it has open. This lock lasts as long as the processes that serve, however they end; it is another
kind (flock) than SQLite's, which never meets it.
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
    # Never closed: by closing any descriptor of a file, a process gives up all the locks that SQLite has there.
    descriptor = os.open(path, os.O_RDONLY)
    if not _locked(descriptor, fcntl.LOCK_SH) or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise DatabaseRefused(f"{path} is being replaced by 'cdb-server restore': start again once that is done")


@contextmanager
def vacant(path: Path) -> Iterator[None]:
    """Keep servers from a file in the block, at whose end all connections to it must be closed.

    Raises DatabaseRefused while one serves it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX):
            raise DatabaseRefused(f"{path} is in use: stop the server, then restore again")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    """Whether the lock was had, which a file system without such locks gives to everybody."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
