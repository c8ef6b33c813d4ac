"""Which questions a job asked and what it was answered, noted in a lock file; and the same answers again from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def recording(file: str | os.PathLike[str]) -> Iterator[None]:
    """Note in a lock file what is asked in the block, and its answers; what is noted there already is answered from it.

    As `CDB_LOCK=FILE` does for a whole job: it holds for every client, thread and process that the block uses. In the
    block, questions raise InvalidArgument where the file cannot be written, or is no lock file.
    """
    with environment(CDB_LOCK=str(Path(file).absolute())):
        yield


@contextmanager
def replaying(file: str | os.PathLike[str]) -> Iterator[None]:
    """Answer the questions of the block from a lock file and the cache alone, without any network.

    As `CDB_LOCK=FILE CDB_OFFLINE=1` does for a whole job. A question that is not noted, and a payload that is not in
    the cache, raise ServerUnreachable; `cdb lock fetch FILE` fills the cache. Raises FileNotFoundError.
    """
    Path(file).stat()
    with environment(CDB_LOCK=str(Path(file).absolute()), CDB_OFFLINE="1"):
        yield


@contextmanager
def environment(**settings: str) -> Iterator[None]:
    """Have settings in the block, for what it starts, too. Raises RuntimeError where another such block overlaps."""
    # The environment, for it reaches the processes that a job starts.
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        overlapping = any(os.environ.get(name) != value for name, value in settings.items())
        if not overlapping:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    if overlapping:
        raise RuntimeError("another recording or replaying began and has not ended: one at a time in a process")
