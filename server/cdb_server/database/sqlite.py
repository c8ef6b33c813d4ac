"""SQLite backend: pragmas, retries while locked, the queue of writers, file locks, online backup and restore.

SQLite lets writers wait by trying again, ever more seldom: a busy process would have its lock again before another
looks, and keep it for seconds. So each first passes a gate, one at a time, and leaves it only when it has SQLite's
lock. Whoever gives that lock up and wants it again finds the gate taken by the next. The gate is a lock on the
database's folder, which ends with its process; it is for fairness alone, and what is written is guarded by SQLite.

SQLite's own locks are there while something is read or written. A server that is asked nothing has none, and would go
on with the file that it has open. This lock lasts as long as the processes that serve, however they end. It is not on
the database's own file, where a network file system would take it for one of SQLite's.
"""

import contextlib
import fcntl
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, exc

from cdb_server.database import parse_url, statements
from cdb_server.errors import DatabaseUnusable, too_many_writes
from cdb_server.instants import UTC
from cdb_server.model import Progress
from cdb_server.settings import LOCK_POLL_SECONDS, LOCK_WAIT_SECONDS


def _configure_sqlite(connection: Any, _record: object) -> None:
    # A file of somebody else is left as it is: another journal mode would be written into it.
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'cdb_schema'").fetchone():
        return
    for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "foreign_keys=ON", "recursive_triggers=ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    # From here on `_patiently` waits.
    connection.execute("PRAGMA busy_timeout=0").close()
    connection.set_progress_handler(statements.is_cancelled, statements.SQLITE_CHECK_STEPS)


def _make_sqlite_read_only(connection: Any, _record: object) -> None:
    # Not mode=ro: what a writer that was killed left half done, whoever reads next must undo, or nobody could read.
    connection.execute("PRAGMA query_only=ON").close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("cdb_writes"):
        _retry_while_locked(connection, "BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
        # Whoever reads has the lock from here on, and need not wait any more.
        _retry_while_locked(connection, "SELECT 1 FROM sqlite_master LIMIT 1")


def _commit_sqlite(connection: Connection) -> None:
    # What SQLAlchemy does after it finds nothing left to commit.
    _retry_while_locked(connection, "COMMIT")


def _retry_while_locked(connection: Connection, statement: str) -> None:
    """Say what needs a lock again and again: SQLite itself would look ever more seldom, long after the lock is free.

    What fails otherwise is not said again: a COMMIT after a failed one could succeed, on a disk that lost its pages.
    """
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    driver: Any = connection.connection.driver_connection
    while True:
        try:
            driver.execute(statement).fetchall()
            return
        except sqlite3.Error as error:
            if str(error) != "database is locked" or time.monotonic() > deadline:
                raise exc.DBAPIError(statement, None, error) from error
        statements.check_cancelled()
        time.sleep(LOCK_POLL_SECONDS)


# Bytes of a page of a new SQLite file. A payload is read page by page: half as many as with SQLite's own 4,096 are
# quicker read, and a tree is lower; with pages larger still, an upload, which writes one of each tree, takes longer.
SQLITE_PAGE_BYTES = 8_192


def _file_identity(file: Path | None) -> tuple[int, int] | None:
    """Which file stands under a name, by device and number; None when none does."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino)


class WriteQueue:
    """The place of one process among the writers of a database."""

    def __init__(self, folder: Path, patience: float) -> None:
        """`patience` is how many seconds a writer waits, at most, for the threads of its process, and for the gate."""
        self._max_wait_seconds = patience
        # One of a process waits at the gate; the others queue here.
        self._thread_lock = threading.Lock()
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    @contextmanager
    def queued(self) -> Iterator[Callable[[], None]]:
        """Wait for a turn; the block calls what it is given once it has SQLite's lock. Raises Unavailable."""
        if not self._thread_lock.acquire(timeout=self._max_wait_seconds):
            raise too_many_writes()
        try:
            self._lock_folder()
            try:
                yield self._unlock_folder
            finally:
                self._unlock_folder()
        finally:
            self._thread_lock.release()

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._folder)

    def _lock_folder(self) -> None:
        deadline = time.monotonic() + self._max_wait_seconds
        # A file system without such locks has no gate.
        with suppress(OSError):
            while True:
                try:
                    return fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise too_many_writes() from None
                    # flock itself would wait without end, and no other call waits for a lock with a deadline.
                    time.sleep(LOCK_POLL_SECONDS)

    def _unlock_folder(self) -> None:
        with suppress(OSError):
            fcntl.flock(self._folder, fcntl.LOCK_UN)


@contextmanager
def create_atomically(path: Path) -> Iterator[Path]:
    """An empty file that gets the name `path` once the block has filled it; its owner alone may read and write it.

    Nobody ever sees half of it, and no file is written over. Raises OSError when the disk fails, and FileExistsError
    when there is a file of that name; nothing half done is left then. To the journal beside a database, SQLite gives
    the mode of the database.
    """
    path = path.absolute()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield unfinished
        flush_to_disk(unfinished)
        os.link(unfinished, path)
    finally:
        # SQLite leaves its journal where it could not undo a write.
        for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            left.unlink(missing_ok=True)
    # A file whose name is lost is lost, with all that is written into it.
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Have a file's content, or the names in a folder, on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_while_serving(url: str) -> None:
    """Hold the database until this process and those that it forks have ended. Raises DatabaseUnusable.

    PostgreSQL knows by itself who is connected.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return
    path = Path(str(parsed.database))
    try:
        # Never closed, nor is the file removed: the next server takes it again.
        _acquire_lock(_lock_file(path), os.O_CREAT, fcntl.LOCK_SH)
    except BlockingIOError:
        raise DatabaseUnusable(f"{path} is being replaced by 'cdb-server restore': start again later") from None


@contextmanager
def locked_for_replacement(path: Path) -> Iterator[None]:
    """Keep servers from a file in the block. Raises DatabaseUnusable while one serves it."""
    try:
        descriptor = _acquire_lock(_lock_file(path), 0, fcntl.LOCK_EX)
    except BlockingIOError:
        raise DatabaseUnusable(f"{path} is in use: stop the server, then restore again") from None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}-served")


def _acquire_lock(file: Path, flags: int, kind: int) -> int | None:
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


def _sqlite_check(connection: Connection) -> Iterator[str]:
    for (said,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if said != "ok":
            yield from str(said).splitlines()
    for table, rowid, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"{table}, row {rowid}: what it refers to in {parent} is not there"


SQLITE_HEADER = b"SQLite format 3\0"

# Pages copied between two looks whether a writer waits: 16 MiB of ours.
PAGES_PER_STEP = 2048

# A write by another process makes the copy begin anew. After so many times it goes in one step, and writers wait.
MAX_RESTARTS = 5

BUSY_SECONDS = 5


class SqliteBackup:
    """A database in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._unfinished = self._path.with_name(f".{path.name}.restoring.{os.getpid()}")

    def back_up(self, file: Path, progress: Progress) -> None:
        try:
            with contextlib.closing(_connected(self._path)) as source, contextlib.closing(_connected(file)) as target:
                _copy(source, target, progress)
        except sqlite3.Error as error:
            raise DatabaseUnusable(f"{self._path} cannot be backed up: {error}") from error

    def restore_beside(self, file: Path) -> str:
        try:
            with file.open("rb") as backup:
                if backup.read(len(SQLITE_HEADER)) != SQLITE_HEADER:
                    raise DatabaseUnusable(f"{file} is not a backup of an SQLite database")
                # https://www.sqlite.org/fileformat.html: "[…] or the value 1 representing a page size of 65536."
                page = int.from_bytes(backup.read(2), "big")
                # SQLite itself takes what lacks of the last page for zeros.
                if file.stat().st_size % (2**16 if page == 1 else page or 1):
                    raise DatabaseUnusable(f"{file} is cut off: copy it again from where it was made")
            os.close(os.open(self._unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            shutil.copyfile(file, self._unfinished)
        except OSError as error:
            raise DatabaseUnusable(f"{file} cannot be copied to {self._path.parent}: {error.strerror}") from error
        return f"sqlite:///{self._unfinished}"

    def replace_current(self) -> str | None:
        flush_to_disk(self._unfinished)
        if not self._path.exists():
            # A journal without its database would be played back into the new one.
            self._rename_away(self._journal(self._path), datetime.now(UTC))
            os.rename(self._unfinished, self._path)
            flush_to_disk(self._path.parent)
            return None
        with locked_for_replacement(self._path), contextlib.closing(_connected(self._path)) as current:
            try:
                current.execute("BEGIN EXCLUSIVE").close()
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise DatabaseUnusable(f"{self._path} is in use: stop the server, then restore again") from error
            except sqlite3.DatabaseError:
                # So damaged that it cannot be locked: it is what shall be replaced.
                pass
            # As before, whoever restores: the server must be able to write it. Others need not read it.
            before = self._path.stat()
            os.chown(self._unfinished, before.st_uid, before.st_gid)
            os.chmod(self._unfinished, before.st_mode & 0o770)
            now = datetime.now(UTC)
            kept = self._rename_away(self._path, now)
            self._rename_away(self._journal(self._path), now)
            os.rename(self._unfinished, self._path)
            flush_to_disk(self._path.parent)
        return str(kept)

    def discard(self) -> None:
        for path in (self._unfinished, self._journal(self._unfinished)):
            path.unlink(missing_ok=True)

    def _rename_away(self, path: Path, now: datetime) -> Path | None:
        if not path.exists():
            return None
        stamp = f".replaced-{now:%Y%m%dT%H%M%SZ}"
        suffix = "-journal" if path != self._path else ""
        kept = self._path.with_name(f"{self._path.name}{stamp}{suffix}")
        if kept.exists():
            raise DatabaseUnusable(f"{kept} already exists: restore again in a second")
        os.rename(path, kept)
        return kept

    @staticmethod
    def _journal(path: Path) -> Path:
        return path.with_name(f"{path.name}-journal")


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, progress: Progress) -> None:
    beginnings = 1
    left_before = None

    def step(_: int, left: int, total: int) -> None:
        nonlocal beginnings, left_before
        if left_before is not None and left >= left_before:
            beginnings += 1
        left_before = left
        progress(total - left, total)
        if beginnings > MAX_RESTARTS:
            raise _Overtaken

    try:
        source.backup(target, pages=PAGES_PER_STEP, progress=step, sleep=0.01)
    except _Overtaken:
        source.backup(target, pages=-1)


class _Overtaken(Exception):
    """Writers were faster than the copy, too often."""
