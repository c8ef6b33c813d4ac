"""What is set for a whole job, in its environment: CDB_AS_OF and CDB_OFFLINE. Looked at with every question."""

from __future__ import annotations

import os

from cdb._exceptions import InvalidArgument, ServerUnreachable
from cdb._instants import instant, spell


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


def as_of_job() -> str | None:
    """The as_of of the whole job, from CDB_AS_OF, in the contract's spelling. Raises InvalidArgument."""
    named = os.environ.get("CDB_AS_OF") or None
    return named if named in (None, "now") else spell(instant("CDB_AS_OF", named))
