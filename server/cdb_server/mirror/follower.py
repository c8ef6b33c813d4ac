"""Following a master over its public service: entry by entry, each verified before it is repeated.

A mirror asks for the entries after the one before its last, so that each answer begins with an entry that it has: where
the digest is another, the two have different histories, and it follows no longer.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from datetime import timedelta

import cdb
from cdb_server import instants
from cdb_server.errors import CdbError, Diverged
from cdb_server.model import Clock, Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository import Following

log = logging.getLogger(__name__)

# Seconds between two questions to a master that has nothing new; and, doubled at each failure, to one that is away.
INTERVAL = 0.5
LONGEST_WAIT = 60.0
ANSWER_SECONDS = 60.0

# What is fetched before it is applied: enough to keep the way busy, and no more than fits.
ENTRIES_AT_ONCE = 200
PAYLOADS_AT_ONCE = 4
BYTES_AHEAD = 2**26

# What is applied in one transaction: each costs the disk the same, and readers of SQLite wait for its end.
ENTRIES_TOGETHER = 50
BYTES_TOGETHER = 2**20

_KINDS: dict[str, type[NewCalibration | Withdrawal | RunTimes]] = {
    kind.kind: kind for kind in (NewCalibration, Withdrawal, RunTimes)
}
_OPTIONAL = ("comment", "stop_time")

Progress = Callable[[int, int], None]


class Follower:
    """Keeps a database in step with a master. `progress` is told the serial reached, and the one to reach."""

    def __init__(
        self,
        master: str,
        following: Following,
        *,
        progress: Progress = lambda done, of: None,
        clock: Clock = instants.now,
    ) -> None:
        # follow() tries again by itself, and tells of the first failure at once.
        self._client = cdb.Calibration(master, timeout=ANSWER_SECONDS, direct=True)
        self._master = master
        self._following = following
        self._progress = progress
        self._clock = clock
        self._most_entries = ENTRIES_AT_ONCE
        # Kept, and with them their connections.
        self._threads = ThreadPoolExecutor(PAYLOADS_AT_ONCE, thread_name_prefix="payload")

    def follow(self, ended: threading.Event) -> None:
        """Follow until `ended` is set, or until the histories part: that is noted, and a person must look into it."""
        failures = 0
        doubted = False
        while not ended.is_set():
            try:
                self.catch_up(ended)
                if failures:
                    log.info("%s answers again", self._master)
                failures, doubted = 0, False
                wait = INTERVAL
            except Diverged as error:
                # What was changed on its way comes right when asked again; another history does not.
                if doubted:
                    log.error("this mirror follows %s no longer, and serves what it has: %s", self._master, error)
                    self._following.stop(str(error))
                    return
                doubted, wait = True, INTERVAL
            except (cdb.CdbError, CdbError) as error:
                failures += 1
                # Mirrors shall not all come at once; nobody gains by guessing when.
                spread = 0.5 + random.random() / 2  # noqa: S311
                wait = min(INTERVAL * 2**failures, LONGEST_WAIT) * spread
                if failures == 1:
                    log.warning("following %s failed, and is tried again: %s", self._master, error)
            ended.wait(wait)

    def catch_up(self, ended: threading.Event) -> None:
        """Repeat all that the master has now. Raises Diverged, the client's errors, and Unavailable."""
        status = self._client.get_status()
        at = self._clock()
        # The master's own knowledge may be old, when it is a mirror.
        heard = at - timedelta(seconds=status.lag_seconds or 0)
        known_serial = status.serial + (status.lag_entries or 0)
        last = self._following.head()
        if status.serial < last.serial:
            raise Diverged(
                f"it has {status.serial} entries and this mirror {last.serial}: it was restored from a backup, or is "
                "another server"
            )
        if status.serial == last.serial and status.digest != last.digest:
            raise Diverged(f"its entry {last.serial} has another digest: the two have different histories")
        if last.serial < status.serial:
            self._following.heard(known_serial, None, heard)
        while last.serial < status.serial and not ended.is_set():
            before = last.serial
            self._repeat(before, last.digest, ended)
            last = self._following.head()
            self._progress(last.serial, status.serial)
            if last.serial == before:
                # It says that it has more than it gives: it is asked again after a while.
                return
        if last.serial >= status.serial:
            # No digest covers what the master says of itself. It cannot be complete until a later instant than this.
            self._following.heard(known_serial, min(status.complete_until, at), heard)

    def _repeat(self, serial: int, digest: str, ended: threading.Event) -> None:
        """Repeat some of the entries after `serial`."""
        coming: list[tuple[Entry, str, bytes | None]] = []
        size = 0
        try:
            for entry, kept, data in self._with_payloads(self._entries(serial, digest)):
                coming.append((entry, kept, data))
                size += len(data or b"")
                if len(coming) == ENTRIES_TOGETHER or size >= BYTES_TOGETHER:
                    together, coming, size = coming, [], 0
                    if not self._following.repeat(together) or ended.is_set():
                        return
        finally:
            # Also when the next payload could not be had.
            if coming:
                self._following.repeat(coming)

    def _entries(self, serial: int, digest: str) -> list[tuple[Entry, str]]:
        try:
            found = self._client.get_journal(max(serial - 1, 0), self._most_entries + 1)
        except cdb.TooLarge as error:
            if not error.limit or error.limit > self._most_entries or error.limit < 2:
                raise
            self._most_entries = error.limit - 1
            return self._entries(serial, digest)
        if serial:
            if not found or found[0].serial != serial:
                raise Diverged(f"it does not give entry {serial}")
            if found[0].digest != digest:
                raise Diverged(f"its entry {serial} has another digest: the two have different histories")
            found = found[1:]
        for expected, entry in enumerate(found, start=serial + 1):
            if entry.serial != expected:
                raise Diverged(f"it gives entry {entry.serial} where {expected} comes next")
        return [(_entry(entry), entry.digest) for entry in found]

    def _with_payloads(self, entries: list[tuple[Entry, str]]) -> Iterator[tuple[Entry, str, bytes | None]]:
        """The entries in their order, each with its payload's bytes unless they are here. Some are fetched ahead."""
        waiting: deque[tuple[Entry, str, Future[bytes] | None]] = deque()
        left = deque(entries)
        contents = [entry.content for entry, _ in entries]
        here = self._following.payloads({found.sha256 for found in contents if isinstance(found, NewCalibration)})
        ahead = 0
        try:
            while left or waiting:
                while left and (not waiting or (ahead < BYTES_AHEAD and len(waiting) < 4 * PAYLOADS_AT_ONCE)):
                    entry, kept = left.popleft()
                    content = entry.content
                    fetched = None
                    if isinstance(content, NewCalibration) and content.sha256 not in here:
                        fetched = self._threads.submit(self._payload, entry.serial, content.sha256)
                        ahead += content.size
                    waiting.append((entry, kept, fetched))
                entry, kept, fetched = waiting.popleft()
                data = None
                if fetched is not None:
                    data = fetched.result()
                    ahead -= len(data)
                yield entry, kept, data
        finally:
            for _, _, fetched in waiting:
                if fetched is not None:
                    fetched.cancel()

    def _payload(self, serial: int, sha256: str) -> bytes:
        try:
            return self._client.get_payload(sha256)
        except (cdb.Integrity, cdb.PayloadNotFound) as error:
            raise Diverged(f"the payload of entry {serial} cannot be had: {error}") from error


def _entry(record: cdb.JournalEntry) -> Entry:
    """An entry as the journal keeps it. Raises Diverged for one that lacks what its kind has."""
    kind = _KINDS.get(record.kind)
    if kind is None:
        raise Diverged(f"entry {record.serial} is of the unknown kind {record.kind!r}")
    values = {field.name: getattr(record, field.name) for field in fields(kind)}
    missing = [name for name, value in values.items() if value is None and name not in _OPTIONAL]
    if missing:
        raise Diverged(f"entry {record.serial}, of kind {record.kind}, lacks {', '.join(missing)}")
    return Entry(record.serial, record.created, record.author, kind(**values))
