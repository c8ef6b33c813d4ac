"""Files that are there whole, and on disk, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
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
        sync(unfinished)
        os.link(unfinished, path)
    finally:
        # SQLite leaves its journal where it could not undo a write.
        for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            left.unlink(missing_ok=True)
    # A file whose name is lost is lost, with all that is written into it.
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
