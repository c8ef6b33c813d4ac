"""Open regular files only, and write files atomically: a pipe in a file's place is an error, not an endless wait.

Opening a pipe waits for a writer, and a device may have no end: a call could miss its deadline.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class NotRegular(OSError):
    """The path leads to a folder, a pipe, a device or a socket."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", os.fspath(path))


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the status of a regular file. Raises NotRegular, and OSError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(path)
    return status


@contextmanager
def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a regular file for the block, as a descriptor. Raises NotRegular, and OSError."""
    try:
        # Before opening: opening alone makes a pipe or a device act.
        check_regular(path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    # Check again: another process may have replaced the file since. O_NONBLOCK keeps the open itself from waiting.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular(path)
        yield descriptor
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError; then nothing of it is left."""
    # A name may have 255 bytes, also that of the unfinished file.
    name = path.name.encode("utf-8", "surrogateescape")[:150].decode("utf-8", "ignore")
    # Other machines may share the folder.
    unfinished = path.with_name(f".{name}.{os.uname().nodename[:60]}.{os.getpid()}.{random.getrandbits(64):x}")
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """Read at most `size` bytes of an open file, from an offset."""
    parts = []
    while size > 0 and (part := os.pread(descriptor, min(size, 2**24), offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)
