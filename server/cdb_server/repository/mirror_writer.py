"""Writes a mirror's database: appends verified entries, and records what the master said and why following stopped.

Rule 12 is what a mirror rests on: an entry is added only if its digest is that of its content and of the entry before
it, and a payload only if its bytes have the sha256 that the entry names. Rule 7 is what it promises: an entry that was
created at or before `complete_until` would change answers that were given.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from cdb_server import instants, journal, model
from cdb_server.database.statements import AnyConnection
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable, Diverged, InvalidArgument, Unavailable
from cdb_server.instants import format_instant
from cdb_server.model import MAX_CLOCK_LEAD, Clock, Entry, NewCalibration
from cdb_server.repository import lookups
from cdb_server.repository.lookups import LastEntry, followed_master, last_entry
from cdb_server.repository.writer import append_entry
from cdb_server.schema import following, payload


class MirrorWriter:
    """The following side of a mirror's database. Every method raises Unavailable when it cannot be written."""

    def __init__(self, database: Database, *, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock

    def start_following(self, master: str, *, resume: bool = False) -> str | None:
        """Follow a server from now on; with `resume` also after the following was stopped.

        Without, such a mirror stays as it is, and why it stopped is returned. Raises DatabaseUnusable for a master's
        database.
        """
        with self._database.write() as connection:
            known = followed_master(connection)
            if known is None:
                if last_entry(connection).serial:
                    raise DatabaseUnusable(
                        "this database has entries of its own and follows nobody: name another for the mirror"
                    )
                connection.execute(following.insert().values(master=master, known_serial=0))
            elif known.stopped is not None and not resume:
                return f"it stopped following at {format_instant(known.stopped)}: {known.reason}"
            else:
                connection.execute(following.update().values(master=master, stopped=None, reason=None))
        return None

    def last_entry(self) -> LastEntry:
        """The last entry that was repeated."""
        with self._database.read() as connection:
            return last_entry(connection)

    def present_payloads(self, sha256s: Collection[str]) -> set[str]:
        """Which of these payloads are here, and need not be fetched."""
        with self._database.read() as connection:
            return set(connection.execute(select(payload.c.sha256).where(payload.c.sha256.in_(sha256s))).scalars())

    def append_entries(self, coming: Sequence[tuple[Entry, str, bytes | None]]) -> bool:
        """Add the next entries in one transaction, each with its digest, and its payload's bytes unless they are here.

        Raises Diverged at the first that is not right, and Unavailable at one that was created too far ahead of this
        machine's clock, when those before it are added. False when another entry has become the last meanwhile: nothing
        is added then.
        """
        wrong: Diverged | Unavailable | None = None
        with self._database.write() as connection:
            last = last_entry(connection)
            if coming[0][0].serial != last.serial + 1:
                return False
            known = followed_master(connection)
            promised = known.complete_until if known else None
            for entry, digest, data in coming:
                try:
                    self._check(connection, last, entry, digest, promised)
                    _check_payload(connection, entry, data)
                    append_entry(connection, entry, digest, data)
                except InvalidArgument as error:
                    wrong = Diverged(f"entry {entry.serial} is one that no master may accept: {error.message}")
                    break
                except (Diverged, Unavailable) as error:
                    wrong = error
                    break
                last = LastEntry(entry.serial, digest, entry.created)
        if wrong is not None:
            raise wrong
        return True

    def record_contact(self, known_serial: int, complete_until: datetime | None, at: datetime) -> None:
        """Note what the master said at an instant: its serial and, once all up to that is here, what it is complete
        until. That is a promise, and is never lowered."""
        said: dict[str, Any] = {"heard": at, "known_serial": known_serial}
        with self._database.write() as connection:
            known = followed_master(connection)
            promised = known.complete_until if known else None
            if complete_until is not None and (promised is None or complete_until > promised):
                said["complete_until"] = complete_until
            connection.execute(following.update().values(**said))

    def record_problem(self, problem: str | None) -> None:
        """Note why the master cannot be relied on at present, for the status to tell; None when it can."""
        with self._database.write() as connection:
            connection.execute(following.update().values(reason=problem))

    def stop_following(self, reason: str) -> None:
        """Follow no longer, until a person says so."""
        with self._database.write() as connection:
            connection.execute(following.update().values(stopped=self._clock(), reason=reason))

    def _check(
        self, connection: AnyConnection, last: LastEntry, entry: Entry, digest: str, promised: datetime | None
    ) -> None:
        if entry.serial != last.serial + 1:
            raise Diverged(f"entry {entry.serial} came where {last.serial + 1} comes next")
        if journal.digest(last.digest, entry) != digest:
            raise Diverged(
                f"entry {entry.serial} does not have the digest of its content and of entry {last.serial}: either it "
                "was changed on its way, or the two servers have different histories"
            )
        if last.created is not None and entry.created <= last.created:
            raise Diverged(f"entry {entry.serial} was created no later than the one before it")
        if promised is not None and entry.created <= promised:
            raise Diverged(
                f"entry {entry.serial} was created at {format_instant(entry.created)}, and this mirror was told, "
                "and has told, "
                f"that there is nothing new until {format_instant(promised)}: with it, answers with as_of would change"
            )
        if entry.created > self._clock() + MAX_CLOCK_LEAD:
            # No divergence: it may be this machine's clock that is wrong.
            raise Unavailable(
                f"entry {entry.serial} was created at {format_instant(entry.created)}, which this machine's clock does "
                "not reach for more than a minute: one of the two clocks is wrong"
            )


def _check_payload(connection: AnyConnection, entry: Entry, data: bytes | None) -> None:
    content = entry.content
    if not isinstance(content, NewCalibration):
        return
    size = lookups.PAYLOAD_SIZE.value(connection, sha256=content.sha256) if data is None else len(data)
    if size is None:
        raise Diverged(f"entry {entry.serial} came without its payload {content.sha256}")
    if size != content.size or (data is not None and model.sha256_of(data) != content.sha256):
        raise Diverged(f"the payload of entry {entry.serial} does not have its size and its sha256 {content.sha256}")
