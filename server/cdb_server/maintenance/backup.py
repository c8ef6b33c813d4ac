"""Backup of a database while it serves, and its return: `restore` verifies before it replaces anything.

SQLite is copied by its online backup, PostgreSQL by its own programs pg_dump and pg_restore. What is replaced is kept
under another name: nothing is deleted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cdb_server import instants
from cdb_server.errors import DatabaseRefused
from cdb_server.maintenance import postgresql, sqlite
from cdb_server.maintenance.verification import Progress, Verification, verify
from cdb_server.repository import Database, Inspection, parse_url
from cdb_server.repository.durable import new_file


class _Kind(Protocol):
    """How one kind of database is backed up and put back in place."""

    def back_up(self, file: Path, progress: Progress) -> None:
        """Fill a file with the backup."""

    def unpack(self, file: Path) -> str:
        """Put the backup into a new database beside the one it is for; its URL."""

    def take_over(self) -> str | None:
        """Put the new database in the place of the old; the name under which the old is kept, if there was one."""

    def discard(self) -> None:
        """Remove the new database, if it is still there."""


def back_up(url: str, file: Path, progress: Progress = lambda done, of: None) -> None:
    """Write a backup of a database of ours to a new file, readable by its owner alone, and on disk when this returns.

    Raises DatabaseRefused when the file exists or the copy fails; there is no file then.
    """
    if file.exists():
        raise DatabaseRefused(f"{file} already exists: name a new file")
    # Whatever is served under this name is one of ours, or there is no backup of it.
    Database.open(url, threads=1).close()
    try:
        with new_file(file) as unfinished:
            _kind(url).back_up(unfinished, progress)
    except FileExistsError:
        raise DatabaseRefused(f"{file} already exists: name a new file") from None
    except OSError as error:
        raise DatabaseRefused(f"{file} cannot be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Restored:
    """A backup that is in place: what was looked at in it, and under which name the database before it is `kept`.

    `kept` is None where there was none.
    """

    verification: Verification
    kept: str | None


def restore(url: str, file: Path, progress: Progress = lambda done, of: None) -> Restored:
    """Put a backup in the place of a database, once every byte of it is verified.

    Raises DatabaseRefused, having replaced nothing, when the backup is damaged, foreign, or the database is in use.
    """
    kind = _kind(url)
    try:
        unpacked = kind.unpack(file)
        with Database.open(unpacked, threads=1) as database:
            verification = verify(database, progress)
            if verification.problems:
                found = "; ".join(verification.problems[:5])
                raise DatabaseRefused(f"the backup {file} is damaged, and nothing was replaced: {found}")
            Inspection(database).mark_restored(instants.now())
        return Restored(verification, kind.take_over())
    finally:
        kind.discard()


def _kind(url: str) -> _Kind:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return sqlite.File(Path(str(parsed.database)))
    return postgresql.Cluster(parsed)
