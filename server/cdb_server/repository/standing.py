"""What a server may say of its own knowledge: on a master that it is complete, on a copy how far behind it is.

A copy is a mirror, which repeats its master's entries, or a hot standby, to which PostgreSQL itself replicates.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, text

from cdb_server import instants
from cdb_server.instants import UTC
from cdb_server.model import Clock, Role
from cdb_server.repository.database import Kind
from cdb_server.repository.following import followed
from cdb_server.schema import journal

# Rule 7: complete_until lies "some seconds before now, longer than any write may take between its created and its
# commit". Writer gives a write up well before that.
COMPLETE_AFTER = timedelta(seconds=10)


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


def standing(connection: Connection, kind: Kind, clock: Clock) -> Standing:
    """How the server stands, of the same moment as all else that is asked in the transaction."""
    if kind == "mirror":
        return _of_mirror(connection)
    if kind == "standby":
        return _of_standby(connection, clock)
    # No entry will be created at this instant or before it, unless the clock is set back by more than COMPLETE_AFTER
    # while nothing is written.
    return Standing("master", clock() - COMPLETE_AFTER)


def _of_mirror(connection: Connection) -> Standing:
    known = followed(connection)
    if known is None:
        raise LookupError("a mirror's database follows nobody")
    status = "OK" if known.stopped is None else f"stopped following at {instants.spell(known.stopped)}: {known.reason}"
    return Standing(
        "mirror", known.complete_until or instants.EPOCH, status, known.master, known.heard, known.known_serial
    )


def _of_standby(connection: Connection, clock: Clock) -> Standing:
    """Entries arrive in the order of their commits, so that up to the last one's `created` nothing is missing."""
    created: datetime | None = connection.execute(
        select(journal.c.created).order_by(journal.c.serial.desc()).limit(1)
    ).scalar()
    complete_until = created or instants.EPOCH
    # Who may see it learns more: all that the primary had when it last sent is replayed.
    received: Any = connection.execute(_RECEIVED).first()
    heard = None
    if received is not None and received.sent is not None and received.replayed:
        heard = received.sent.astimezone(UTC)
        complete_until = max(complete_until, heard - COMPLETE_AFTER)
    elif (replayed := connection.execute(_REPLAYED).scalar()) is not None:
        heard = replayed.astimezone(UTC)
    return Standing("mirror", complete_until, heard=heard)


_RECEIVED = text(
    "SELECT last_msg_send_time AS sent, pg_last_wal_replay_lsn() >= latest_end_lsn AS replayed "
    "FROM pg_stat_wal_receiver"
)
_REPLAYED = text("SELECT pg_last_xact_replay_timestamp()")
