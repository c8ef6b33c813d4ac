"""SQLite's own means: the online backup, and a file put in the place of another."""

import contextlib
import os
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path

from cdb_server.errors import DatabaseRefused
from cdb_server.instants import UTC
from cdb_server.maintenance.verification import Progress
from cdb_server.repository.durable import sync
from cdb_server.repository.occupancy import vacant

HEADER = b"SQLite format 3\0"
# Pages copied between two looks whether a writer waits: 16 MiB of ours.
STEP = 2048
# A write by another process makes the copy begin anew. After so many times it goes in one step, and writers wait.
MOST_BEGINNINGS = 5
BUSY_SECONDS = 5


class File:
    """A database in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._unfinished = self._path.with_name(f".{path.name}.restoring.{os.getpid()}")

    def back_up(self, file: Path, progress: Progress) -> None:
        try:
            with contextlib.closing(_connected(self._path)) as source, contextlib.closing(_connected(file)) as target:
                _copy(source, target, progress)
        except sqlite3.Error as error:
            raise DatabaseRefused(f"{self._path} cannot be backed up: {error}") from error

    def unpack(self, file: Path) -> str:
        try:
            with file.open("rb") as backup:
                if backup.read(len(HEADER)) != HEADER:
                    raise DatabaseRefused(f"{file} is not a backup of an SQLite database")
                # https://www.sqlite.org/fileformat.html: "[…] or the value 1 representing a page size of 65536."
                page = int.from_bytes(backup.read(2), "big")
                # SQLite itself takes what lacks of the last page for zeros.
                if file.stat().st_size % (2**16 if page == 1 else page or 1):
                    raise DatabaseRefused(f"{file} is cut off: copy it again from where it was made")
            os.close(os.open(self._unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            shutil.copyfile(file, self._unfinished)
        except OSError as error:
            raise DatabaseRefused(f"{file} cannot be copied to {self._path.parent}: {error.strerror}") from error
        return f"sqlite:///{self._unfinished}"

    def take_over(self) -> str | None:
        sync(self._unfinished)
        if not self._path.exists():
            # A journal without its database would be played back into the new one.
            self._keep_away(self._journal(self._path), datetime.now(UTC))
            os.rename(self._unfinished, self._path)
            sync(self._path.parent)
            return None
        with vacant(self._path), contextlib.closing(_connected(self._path)) as current:
            try:
                current.execute("BEGIN EXCLUSIVE").close()
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    raise DatabaseRefused(f"{self._path} is in use: stop the server, then restore again") from error
            except sqlite3.DatabaseError:
                # So damaged that it cannot be locked: it is what shall be replaced.
                pass
            # As before, whoever restores: the server must be able to write it. Others need not read it.
            before = self._path.stat()
            os.chown(self._unfinished, before.st_uid, before.st_gid)
            os.chmod(self._unfinished, before.st_mode & 0o770)
            now = datetime.now(UTC)
            kept = self._keep_away(self._path, now)
            self._keep_away(self._journal(self._path), now)
            os.rename(self._unfinished, self._path)
            sync(self._path.parent)
        return str(kept)

    def discard(self) -> None:
        for path in (self._unfinished, self._journal(self._unfinished)):
            path.unlink(missing_ok=True)

    def _keep_away(self, path: Path, now: datetime) -> Path | None:
        if not path.exists():
            return None
        stamp = f".replaced-{now:%Y%m%dT%H%M%SZ}"
        suffix = "-journal" if path != self._path else ""
        kept = self._path.with_name(f"{self._path.name}{stamp}{suffix}")
        if kept.exists():
            raise DatabaseRefused(f"{kept} already exists: restore again in a second")
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
        if beginnings > MOST_BEGINNINGS:
            raise _Overtaken

    try:
        source.backup(target, pages=STEP, progress=step, sleep=0.01)
    except _Overtaken:
        source.backup(target, pages=-1)


class _Overtaken(Exception):
    """Writers were faster than the copy, too often."""
