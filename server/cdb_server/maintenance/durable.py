"""Files that are there whole, and on disk, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdb_server.errors import DatabaseRefused


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """An empty file, for its owner alone, that gets the name `path` when the block has filled it.

    Raises DatabaseRefused when there is a file of that name or the disk fails; nothing is left of it then.
    """
    path = path.absolute()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield unfinished
        sync(unfinished)
        os.link(unfinished, path)
        sync(path.parent)
    except FileExistsError:
        raise DatabaseRefused(f"{path} already exists: name a new file") from None
    except OSError as error:
        raise DatabaseRefused(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
