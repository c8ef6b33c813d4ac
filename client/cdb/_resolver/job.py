"""Read and set a job's environment: CDB_AS_OF, CDB_LOCK, CDB_OFFLINE; `recording` and `replaying`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdb._exceptions import InvalidArgument, ServerUnreachable
from cdb._instants import format_instant, instant


def is_offline() -> bool:
    """Whether CDB_OFFLINE says that no server may be asked. Raises InvalidArgument where it says neither."""
    said = os.environ.get("CDB_OFFLINE", "").lower()
    if said in ("1", "true", "t", "yes", "y", "on"):
        return True
    if said in ("", "0", "false", "f", "no", "n", "off"):
        return False
    raise InvalidArgument(f"CDB_OFFLINE is {said!r}: set it to 1, or to 0", argument="CDB_OFFLINE")


def check_online(operation: str) -> None:
    """Raise ServerUnreachable where CDB_OFFLINE says that no server may be asked."""
    if is_offline():
        raise ServerUnreachable(f"CDB_OFFLINE is set, and {operation} needs a server: unset it")


def job_as_of() -> str | None:
    """The as_of of the whole job, from CDB_AS_OF, in the contract's spelling. Raises InvalidArgument."""
    named = os.environ.get("CDB_AS_OF") or None
    return named if named in (None, "now") else format_instant(instant("CDB_AS_OF", named))


@contextmanager
def recording(file: str | os.PathLike[str]) -> Iterator[None]:
    """Note in a lock file what is asked in the block, and its answers; what is noted there already is answered from it.

    As `CDB_LOCK=FILE` does for a whole job: it holds for every client, thread and process that the block uses. In the
    block, questions raise InvalidArgument where the file cannot be written, or is no lock file.
    """
    with temporary_environment(CDB_LOCK=str(Path(file).absolute())):
        yield


@contextmanager
def replaying(file: str | os.PathLike[str]) -> Iterator[None]:
    """Answer the questions of the block from a lock file and the cache alone, without any network.

    As `CDB_LOCK=FILE CDB_OFFLINE=1` does for a whole job. A question that is not noted, and a payload that is not in
    the cache, raise ServerUnreachable; `cdb lock fetch FILE` fills the cache. Raises FileNotFoundError.
    """
    Path(file).stat()
    with temporary_environment(CDB_LOCK=str(Path(file).absolute()), CDB_OFFLINE="1"):
        yield


@contextmanager
def temporary_environment(**settings: str) -> Iterator[None]:
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


def clear_job() -> None:
    """Ask for what is so now, whatever is set for a job."""
    for setting in ("CDB_AS_OF", "CDB_LOCK"):
        os.environ.pop(setting, None)
