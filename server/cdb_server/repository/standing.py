"""What a server may say of its own knowledge: on a master that it is complete, on a copy how far behind it is.

A copy is a mirror, which repeats its master's entries, or a hot standby, to which PostgreSQL itself replicates.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam

from cdb_server import instants, validity
from cdb_server.errors import AsOfNotReached
from cdb_server.model import COMPLETE_AFTER, Clock, Followed, Role
from cdb_server.repository.append import head
from cdb_server.repository.database import Kind
from cdb_server.repository.following import followed
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.repository.replication import replicated
from cdb_server.schema import Instant

_SERIAL_AS_OF = Prepared(validity.serial_as_of(bindparam("instant", type_=Instant)))


@dataclass(frozen=True, slots=True)
class Standing:
    """How complete a server's journal is, and how old its knowledge.

    `complete_until` is the latest as_of that it can answer; `heard` when the master last said what the server knows,
    `known_serial` how many entries there are as far as it knows; both None on a master.
    """

    role: Role
    complete_until: datetime
    status: str = "OK"
    master: str | None = None
    heard: datetime | None = None
    known_serial: int | None = None


def standing(connection: Connected, kind: Kind, clock: Clock) -> Standing:
    """How the server stands, of the same moment as all else that is asked in the transaction."""
    # A mirror's database may be replicated as well: what it says of itself came with it.
    if kind == "mirror" or (kind == "standby" and followed(connection) is not None):
        return _of_mirror(connection)
    # A standby is asked in transactions of SQLAlchemy's alone.
    if kind == "standby" and isinstance(connection, Connection):
        return _of_standby(connection)
    # No entry will be created at this instant or before it, unless the clock is set back by more than COMPLETE_AFTER
    # while nothing is written.
    return Standing("master", clock() - COMPLETE_AFTER)


def serial_as_of(connection: Connected, kind: Kind, clock: Clock, as_of: datetime | None) -> int | None:
    """The journal up to which serial an as_of means; None for all of it. Raises AsOfNotReached (rule 7)."""
    if as_of is None:
        return None
    complete_until = standing(connection, kind, clock).complete_until
    if as_of > complete_until:
        raise AsOfNotReached(as_of, complete_until)
    serial: int | None = _SERIAL_AS_OF.value(connection, instant=as_of)
    return serial or 0


def _of_mirror(connection: Connected) -> Standing:
    known = followed(connection)
    if known is None:
        raise LookupError("a mirror's database follows nobody")
    return Standing(
        "mirror", known.complete_until or instants.EPOCH, _status(known), known.master, known.heard, known.known_serial
    )


def _status(known: Followed) -> str:
    if known.stopped is not None:
        return f"stopped following at {instants.spell(known.stopped)}: {known.reason}"
    return "OK" if known.reason is None else f"cannot rely on its master: {known.reason}"


def _of_standby(connection: Connection) -> Standing:
    """Entries arrive in the order of their commits, so that up to the last one's `created` nothing is missing.

    Nor is anything that was created COMPLETE_AFTER before what is replayed was said or committed: by then it had its
    commit, which was replayed first.
    """
    created = head(connection).created
    known = replicated(connection)
    sure = [created, *(at - COMPLETE_AFTER for at in (known.committed, known.said) if at is not None)]
    heard = known.said or known.committed
    return Standing("mirror", max((at for at in sure if at is not None), default=instants.EPOCH), heard=heard)
