"""What a hot standby of PostgreSQL knows of its primary."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from cdb_server.instants import UTC

_KNOWN = "replicated"

# The receiver's row is read before the position of the replay. Only who has pg_read_all_stats is shown it. A receiver
# that has just been connected has heard nothing yet: both its times are those of its own start.
_QUESTION = text(
    "WITH receiver AS MATERIALIZED (SELECT * FROM pg_stat_wal_receiver) "
    "SELECT pg_last_xact_replay_timestamp() AS committed, (SELECT last_msg_send_time FROM receiver "
    "WHERE last_msg_send_time <> last_msg_receipt_time AND latest_end_lsn <= pg_last_wal_replay_lsn()) AS said"
)


@dataclass(frozen=True, slots=True)
class Replicated:
    """What is replayed, by the primary's clock: all that was committed until `committed`, and all that there was when
    the primary last `said` something. None where that is not known."""

    committed: datetime | None
    said: datetime | None


def look(connection: Connection) -> None:
    """Note how far the replay has come. To be called before the transaction in which that is used.

    What is replayed by now, every snapshot taken from now on shows; one taken before might lack it.
    """
    row: Any = connection.execute(_QUESTION).one()
    known = [None if at is None else at.astimezone(UTC) for at in (row.committed, row.said)]
    connection.info[_KNOWN] = Replicated(*known)


def replicated(connection: Connection) -> Replicated:
    """What was noted before the connection's transaction."""
    known: Replicated = connection.info[_KNOWN]
    return known
