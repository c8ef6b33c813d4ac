"""Read and set a job's environment: CDB_AS_OF, CDB_LOCK, CDB_OFFLINE; `recording` and `replaying`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdb._exceptions import InvalidArgument, ServerUnreachable
from cdb._instants import format_instant, instant


def is_offline() -> bool:
    """Return whether CDB_OFFLINE forbids to ask servers. Raises InvalidArgument for another value than yes or no."""
    said = os.environ.get("CDB_OFFLINE", "").lower()
    if said in ("1", "true", "t", "yes", "y", "on"):
        return True
    if said in ("", "0", "false", "f", "no", "n", "off"):
        return False
    raise InvalidArgument(f"CDB_OFFLINE is {said!r}: set it to 1, or to 0", argument="CDB_OFFLINE")


def check_online(operation: str) -> None:
    """Raise ServerUnreachable where CDB_OFFLINE forbids to ask servers."""
    if is_offline():
        raise ServerUnreachable(f"CDB_OFFLINE is set, and {operation} needs a server: unset it")


def job_as_of() -> str | None:
    """Return the as_of of the whole job, from CDB_AS_OF, in the contract's format. Raises InvalidArgument."""
    named = os.environ.get("CDB_AS_OF") or None
    return named if named in (None, "now") else format_instant(instant("CDB_AS_OF", named))


@contextmanager
def recording(file: str | os.PathLike[str]) -> Iterator[None]:
    """Record the queries of the block and their answers in a lock file; answer recorded queries from it.

    Sets `CDB_LOCK=FILE`: for every client, thread and process that the block uses. In the block, queries raise
    InvalidArgument where the file cannot be written, or is not a lock file.
    """
    with temporary_environment(CDB_LOCK=str(Path(file).absolute())):
        yield


@contextmanager
def replaying(file: str | os.PathLike[str]) -> Iterator[None]:
    """Answer the queries of the block from a lock file and the cache alone, without any network.

    Sets `CDB_LOCK=FILE CDB_OFFLINE=1`. A query that is not recorded, and a payload that is not in the cache, raise
    ServerUnreachable; `cdb lock fetch FILE` fills the cache. Raises FileNotFoundError.
    """
    Path(file).stat()
    with temporary_environment(CDB_LOCK=str(Path(file).absolute()), CDB_OFFLINE="1"):
        yield


@contextmanager
def temporary_environment(**settings: str) -> Iterator[None]:
    """Set variables for the block and the processes that it starts. Raises RuntimeError where two blocks overlap."""
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


def clear_job() -> None:
    """Remove the settings that pin a job to earlier answers."""
    for setting in ("CDB_AS_OF", "CDB_LOCK"):
        os.environ.pop(setting, None)
