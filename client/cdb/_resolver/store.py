"""Store the cache's files for many processes: atomic writes, eviction, quarantine, file locks.

The file system must rename a file within a folder atomically, as NFS does. Locks are used where it has them. A pipe or
a folder in the place of a file counts as damaged.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cdb._files import NotRegular, open_regular, read_at, write_atomically

# Bytes; more than any payload or answer has.
MAX_FILE_BYTES = 2**29
# Seconds: the precision of a file's last use; the age at which an unfinished file counts as abandoned.
LAST_USE_PRECISION_SECONDS = 60
ABANDONED_SECONDS = 86400
# Seconds between two attempts to take a lock, at first and at most.
FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 0.005, 0.25
# Damaged files in the quarantine.
MAX_QUARANTINED_FILES = 100

# The folder may also hold files of the user.
_STORED_NAME = re.compile("payloads/[0-9a-f]{2}/[0-9a-f]{64}|answers/[0-9a-f]{16}/((held-)?[0-9a-f]{64}|prefetched)")
_QUARANTINED_NAME = re.compile("quarantine/[0-9a-z-]+[.][0-9a-f]{8}")


@dataclass(frozen=True)
class StoredFile:
    """A file of the store: its size in bytes and when it was last used, in seconds since the epoch."""

    path: Path
    size: int
    used: float


class Store:
    """Stores files by name in a folder, at most `limit` bytes. Safe for any number of processes and threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def read(self, name: str, is_valid: Callable[[bytes], bool]) -> bytes | None:
        """Return a file's bytes; None where there is none, or where it was damaged: quarantines it. Raises OSError."""
        path = f"{self.folder}/{name}"
        try:
            data, used = read_file(path)
        except FileNotFoundError:
            return None
        if data is None or not is_valid(data):
            self.quarantine(self.folder / name)
            return None
        if time.time() - used > LAST_USE_PRECISION_SECONDS:
            with suppress(OSError):
                # The cache may be read-only.
                os.utime(path)
        return data

    def has(self, name: str) -> bool:
        """Return whether there is a file of that name, damaged or not."""
        return os.path.isfile(f"{self.folder}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically. Raises OSError; then nothing of it is left."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        # Eviction lists every file: do it, on average, once for each fiftieth of the limit that was written.
        if random.random() * self.limit < 50 * len(data):  # noqa: S311  # no secret
            self.evict()

    def files(self) -> list[StoredFile]:
        """List all files, the least recently used first."""
        return self._stat_all(self._matching(_STORED_NAME, "payloads/*/*", "answers/*/*"))

    def quarantined(self) -> list[StoredFile]:
        """List the files in quarantine, the oldest first."""
        return self._stat_all(self._matching(_QUARANTINED_NAME, "quarantine/*"))

    def evict(self) -> None:
        """Remove the least recently used files above the limit, and unfinished files of killed processes."""
        files = self.files()
        excess = sum(file.size for file in files) - self.limit
        for file in files:
            if excess <= 0:
                break
            with suppress(OSError):
                file.path.unlink()
            excess -= file.size
        for file in self._temporary_files():
            if time.time() - file.used > ABANDONED_SECONDS:
                with suppress(OSError):
                    file.path.unlink()

    def remove_all(self) -> None:
        """Remove every file. Raises OSError."""
        left: OSError | None = None
        for file in (*self.files(), *self.quarantined(), *self._temporary_files()):
            try:
                _remove(file.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                left = error
        if left is not None:
            raise left

    def quarantine(self, path: Path) -> None:
        """Move a damaged file to the quarantine, where an operator can look at it."""
        aside = self.folder / "quarantine" / f"{path.name}.{random.getrandbits(32):08x}"
        with suppress(OSError):
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
            for file in self.quarantined()[:-MAX_QUARANTINED_FILES]:
                with suppress(OSError):
                    _remove(file.path)

    @contextmanager
    def lock(self, name: str, seconds: float) -> Iterator[None]:
        """Single flight: let one process or thread at a time fetch what has this name; the others then find it.

        Waits for at most `seconds`, then enters the block without the lock.
        """
        # A fixed number of files, never removed: two processes could lock a removed and a new one.
        path = self.folder / "locks" / lock_name(name)
        with ExitStack() as stack:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                # Follow no link: in a folder that many may write to, it could create a file elsewhere.
                descriptor = stack.enter_context(open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))
                stack.enter_context(file_lock(descriptor, seconds))
            yield

    def _matching(self, names: re.Pattern[str], *patterns: str) -> Iterator[Path]:
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                if names.fullmatch(path.relative_to(self.folder).as_posix()):
                    yield path

    def _temporary_files(self) -> list[StoredFile]:
        found = (path for pattern in ("payloads/*/.*", "answers/*/.*") for path in self.folder.glob(pattern))
        return self._stat_all(
            path
            for path in found
            if _STORED_NAME.fullmatch(
                path.with_name(path.name[1:].partition(".")[0]).relative_to(self.folder).as_posix()
            )
        )

    def _stat_all(self, paths: Iterable[Path]) -> list[StoredFile]:
        found = []
        for path in paths:
            with suppress(OSError):
                status = path.stat()
                found.append(StoredFile(path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda file: file.used)


def _remove(path: Path) -> None:
    """Remove a file, or an empty folder in its place. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


def read_file(path: str | os.PathLike[str]) -> tuple[bytes | None, float]:
    """Return a file's bytes, None for what is no file of the store, and the time of its last use. Raises OSError."""
    try:
        with open_regular(path) as descriptor:
            status = os.fstat(descriptor)
            data = read_at(descriptor, 0, status.st_size) if status.st_size <= MAX_FILE_BYTES else None
            return data, status.st_mtime
    except NotRegular:
        return None, 0.0


def lock_name(name: str) -> str:
    """Return the name of the lock file for a name; many names share one."""
    return hashlib.sha256(name.encode()).hexdigest()[:3]


@contextmanager
def file_lock(descriptor: int, seconds: float) -> Iterator[bool]:
    """Lock an open file for the block; yield whether this succeeded within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = FIRST_POLL_SECONDS
    acquired = False
    while not acquired:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            acquired = True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES) or time.monotonic() > deadline:
                break
            # flock has no timeout of its own.
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # no secret
            pause = min(2 * pause, MAX_POLL_SECONDS)
    try:
        yield acquired
    finally:
        if acquired:
            # Closing the file is not enough: a child process forked meanwhile has it open, too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
