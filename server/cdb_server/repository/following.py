"""What a mirror writes: entries repeated from its master, each verified, and what it knows of its master.

Rule 12 is what a mirror rests on: an entry is added only if its digest is that of its content and of the entry before
it, and a payload only if its bytes have the sha256 that the entry names.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from cdb_server import instants, journal, model
from cdb_server.errors import DatabaseRefused, Diverged
from cdb_server.instants import spell
from cdb_server.model import Clock, Entry, Followed, NewCalibration
from cdb_server.repository.append import Head, append, has_payload, head
from cdb_server.repository.database import Database
from cdb_server.repository.prepared import Connected, Prepared
from cdb_server.schema import following, payload


class Following:
    """The following side of a mirror's database. Every method raises Unavailable when it cannot be written."""

    def __init__(self, database: Database, *, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock

    def begin(self, master: str, *, resume: bool = False) -> str | None:
        """Follow a server from now on; with `resume` also after the following was stopped.

        Without, such a mirror stays as it is, and why it stopped is returned. Raises DatabaseRefused for a master's
        database.
        """
        with self._database.write() as connection:
            known = followed(connection)
            if known is None:
                if head(connection).serial:
                    raise DatabaseRefused(
                        "this database has entries of its own and follows nobody: name another for the mirror"
                    )
                connection.execute(following.insert().values(master=master, known_serial=0))
            elif known.stopped is not None and not resume:
                return f"it stopped following at {spell(known.stopped)}: {known.reason}"
            else:
                connection.execute(following.update().values(master=master, stopped=None, reason=None))
        return None

    def head(self) -> Head:
        """The last entry that was repeated."""
        with self._database.read() as connection:
            return head(connection)

    def payloads(self, sha256s: Collection[str]) -> set[str]:
        """Which of these payloads are here, and need not be fetched."""
        with self._database.read() as connection:
            return set(connection.execute(select(payload.c.sha256).where(payload.c.sha256.in_(sha256s))).scalars())

    def repeat(self, coming: Sequence[tuple[Entry, str, bytes | None]]) -> bool:
        """Add the next entries in one transaction, each with its digest, and its payload's bytes unless they are here.

        Raises Diverged at the first that is not right, when those before it are added. False when another entry has
        become the last meanwhile: nothing is added then.
        """
        wrong = None
        with self._database.write() as connection:
            last = head(connection)
            if coming[0][0].serial != last.serial + 1:
                return False
            for entry, digest, data in coming:
                try:
                    _check(connection, last, entry, digest, data)
                except Diverged as error:
                    wrong = error
                    break
                append(connection, entry, digest, data)
                last = Head(entry.serial, digest, entry.created)
        if wrong is not None:
            raise wrong
        return True

    def heard(self, known_serial: int, complete_until: datetime | None, at: datetime) -> None:
        """Note what the master said at an instant: its serial and, once all up to that is here, what it is complete
        until."""
        known: dict[str, Any] = {"heard": at, "known_serial": known_serial}
        if complete_until is not None:
            known["complete_until"] = complete_until
        with self._database.write() as connection:
            connection.execute(following.update().values(**known))

    def stop(self, reason: str) -> None:
        """Follow no longer, until a person says so."""
        with self._database.write() as connection:
            connection.execute(following.update().values(stopped=self._clock(), reason=reason))


_FOLLOWED = Prepared(select(following))


def followed(connection: Connected) -> Followed | None:
    """What a mirror knows of its master; None on a master."""
    row = _FOLLOWED.row(connection)
    return None if row is None else Followed(*row)


def _check(connection: Connected, last: Head, entry: Entry, digest: str, data: bytes | None) -> None:
    if entry.serial != last.serial + 1:
        raise Diverged(f"entry {entry.serial} came where {last.serial + 1} comes next")
    if journal.digest(last.digest, entry) != digest:
        raise Diverged(
            f"entry {entry.serial} does not have the digest of its content and of entry {last.serial}: either it was "
            "changed on its way, or the two servers have different histories"
        )
    if last.created is not None and entry.created <= last.created:
        raise Diverged(f"entry {entry.serial} was created no later than the one before it")
    content = entry.content
    if not isinstance(content, NewCalibration):
        return
    if data is None and not has_payload(connection, content.sha256):
        raise Diverged(f"entry {entry.serial} came without its payload {content.sha256}")
    if data is not None and (len(data), model.sha256_of(data)) != (content.size, content.sha256):
        raise Diverged(f"the payload of entry {entry.serial} does not have its size and its sha256 {content.sha256}")
