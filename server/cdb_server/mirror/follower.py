"""Following a master over its public service: entry by entry, each verified before it is repeated.

A mirror asks for the entries after the one before its last, so that each answer begins with an entry that it has: where
the digest is another, the two have different histories, and it follows no longer.

The master is not trusted: a mirror must survive whatever comes, and serve only what the rules and the digests admit.
What comes is bounded before it is read. No digest covers what the master says of itself in its status: of that, only
what cannot change an answer is believed.
"""

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import cdb
from cdb._exceptions import ForeignAnswer
from cdb_server import instants
from cdb_server.errors import CdbError, Diverged, TooLarge, Unavailable
from cdb_server.model import COMPLETE_AFTER, GREATEST_NUMBER, Clock, Entry, NewCalibration, RunTimes, Withdrawal
from cdb_server.repository import Following, check_size
from cdb_server.settings import MAX_PAYLOAD

log = logging.getLogger(__name__)

# Seconds between two questions to a master that has nothing new; and, doubled at each failure, to one that is away.
INTERVAL = 0.5
LONGEST_WAIT = 60.0
ANSWER_SECONDS = 60.0
# Seconds. What was changed on its way comes right when asked for again: another doubt within this time is not of that.
DOUBT_SECONDS = 60.0
# A mirror that was cut off from the master for longer than this has forgotten since when.
LONGEST_LAG = timedelta(days=36_525)

LONGEST_PROBLEM = 500

# What is fetched before it is applied: enough to keep the way busy, and no more than fits. While it is read, a payload
# takes several times its size: a large one is fetched alone.
ENTRIES_AT_ONCE = 100
PAYLOADS_AT_ONCE = 4
BYTES_AHEAD = 2**23

# What is applied in one transaction: each costs the disk the same, and readers of SQLite wait for its end.
ENTRIES_TOGETHER = 50
BYTES_TOGETHER = 2**20

_KINDS: dict[str, type[NewCalibration | Withdrawal | RunTimes]] = {
    kind.kind: kind for kind in (NewCalibration, Withdrawal, RunTimes)
}
_OPTIONAL = ("comment", "stop_time")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Said:
    """What a master says of itself, as far as it is believed: `known_serial` counts entries that it has only heard of,
    and `heard` is when what it says was so."""

    serial: int
    known_serial: int
    digest: str
    complete_until: datetime
    heard: datetime


class Follower:
    """Keeps a database in step with a master. `progress` is told the serial reached, and the one to reach.

    Payloads of more than `max_payload` bytes are not fetched. `interval` and `answer_seconds` are the seconds between
    two questions, and until an answer must be there.
    """

    def __init__(
        self,
        master: str,
        following: Following,
        *,
        progress: Progress = lambda done, of: None,
        clock: Clock = instants.now,
        max_payload: int = MAX_PAYLOAD,
        interval: float = INTERVAL,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        # follow() tries again by itself, and tells of the first failure at once.
        self._client = cdb.Calibration(master, timeout=answer_seconds, direct=True)
        self._master = master
        self._following = following
        self._progress = progress
        self._clock = clock
        self._max_payload = max_payload
        self._interval = interval
        self._most_entries = ENTRIES_AT_ONCE
        # Kept, and with them their connections.
        self._threads = ThreadPoolExecutor(PAYLOADS_AT_ONCE, thread_name_prefix="payload")
        # What the status was told last: unknown, for it was by a process before this one. And until when a doubt lasts.
        self._problem: str | None = ""
        self._doubted_until = -math.inf

    def follow(self, ended: threading.Event) -> None:
        """Follow until `ended` is set, or until the histories part: that is noted, and a person must look into it."""
        failures = 0
        while not ended.is_set():
            pause = self._interval
            try:
                if not self.catch_up(ended):
                    raise ForeignAnswer("it says that it has more entries than it gives")
                if failures:
                    log.info("%s answers again", self._master)
                failures = 0
                self._tell(None)
            except Diverged as error:
                # What was changed on its way comes right when asked again; another history does not, nor do two that
                # take turns.
                problem = _shown(error)
                if time.monotonic() < self._doubted_until:
                    log.error("this mirror follows %s no longer, and serves what it has: %s", self._master, problem)
                    self._following.stop(problem)
                    return
                self._doubted_until = time.monotonic() + DOUBT_SECONDS
                log.warning("what %s says is not right, and is asked for again: %s", self._master, problem)
            except Exception as error:
                failures += 1
                # Mirrors shall not all come at once; nobody gains by guessing when.
                spread = 0.5 + random.random() / 2  # noqa: S311
                pause = min(self._interval * 2 ** min(failures, 30), LONGEST_WAIT) * spread
                self._failed(error, failures)
            ended.wait(pause)

    def _failed(self, error: Exception, failures: int) -> None:
        """Tell of a failure: in the log of the first of several, and in the status of what is more than an absence."""
        known = isinstance(error, cdb.CdbError | CdbError)
        problem = _shown(error) if known else f"an unexpected error: {type(error).__name__}"
        if failures == 1 or (problem != self._problem and not _is_absence(error)):
            # The process would die of what nobody thought of, and be begun again for ever.
            log.warning("following %s failed, and is tried again: %s", self._master, problem, exc_info=not known)
        if not _is_absence(error):
            self._tell(problem)

    def _tell(self, problem: str | None) -> None:
        """Have the status say what is wrong with the master's answers; None when nothing is."""
        if problem != self._problem:
            with suppress(Unavailable):
                self._following.note(problem)
                self._problem = problem

    def catch_up(self, ended: threading.Event) -> bool:
        """Repeat all that the master has now. False when it gives less than it says that it has.

        Raises Diverged, the client's errors, TooLarge, and Unavailable.
        """
        said = self._said()
        last = self._following.head()
        if said.serial < last.serial:
            raise Diverged(
                f"it has {said.serial} entries and this mirror {last.serial}: it was restored from a backup, or is "
                "another server"
            )
        if said.serial == last.serial and said.digest != last.digest:
            raise Diverged(f"its entry {last.serial} has another digest: the two have different histories")
        if last.serial < said.serial:
            self._following.heard(said.known_serial, None, said.heard)
        # Asked for, whatever the status says: one that is old, or wrong, must not have this mirror promise that nothing
        # is new until an instant up to which something is.
        while not ended.is_set():
            before = last.serial
            self._repeat(before, last.digest, ended)
            last = self._following.head()
            self._progress(last.serial, max(last.serial, said.serial))
            is_all = last.serial == before
            # Created increases: all that is missing is later.
            is_enough = last.serial >= said.serial and last.created is not None and last.created > said.complete_until
            if is_all and last.serial < said.serial:
                return False
            if is_all or is_enough:
                self._following.heard(max(said.known_serial, last.serial), said.complete_until, said.heard)
                return True
        return True

    def _said(self) -> _Said:
        """The master's status. Raises ForeignAnswer for one that cannot be."""
        # Before it is asked: what it accepts while the answer is on its way may be created at any instant since.
        asked = self._clock()
        status = self._client.get_status()
        lag_entries, lag_seconds = status.lag_entries or 0, status.lag_seconds or 0.0
        known_serial = status.serial + lag_entries
        if status.serial < 0 or lag_entries < 0 or known_serial > GREATEST_NUMBER:
            raise ForeignAnswer(f"its status tells of {status.serial} entries, and of {lag_entries} that it lacks")
        if not 0 <= lag_seconds <= LONGEST_LAG.total_seconds():
            raise ForeignAnswer(f"its status says that it is {lag_seconds} seconds behind")
        # No digest covers this. A master says ten seconds before now (rule 7), so that it cannot be a later instant
        # than this: had the master's clock been ahead, a little less would be believed; had it been behind, it would
        # have said less.
        complete_until = min(status.complete_until, asked - COMPLETE_AFTER)
        # The master's own knowledge may be old, when it is a mirror.
        heard = asked - timedelta(seconds=lag_seconds)
        return _Said(status.serial, known_serial, status.digest, complete_until, heard)

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
                    is_next = self._following.repeat(together)
                    # The next payload shall not come on top of this one.
                    del together, data
                    if not is_next or ended.is_set():
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
        if len(found) > self._most_entries + 1:
            raise Diverged(f"it gives {len(found)} entries at once, and was asked for {self._most_entries + 1}")
        for expected, entry in enumerate(found, start=serial + 1):
            if entry.serial != expected:
                raise Diverged(f"it gives entry {entry.serial} where {expected} comes next")
        return [(_entry(entry), entry.digest) for entry in found]

    def _with_payloads(self, entries: list[tuple[Entry, str]]) -> Iterator[tuple[Entry, str, bytes | None]]:
        """The entries in their order, each with its payload's bytes unless they are here. Some are fetched ahead."""
        waiting: deque[tuple[Entry, str, Future[bytes] | None]] = deque()
        left = deque(entries)
        contents = [entry.content for entry, _ in entries]
        named = {content.sha256 for content in contents if isinstance(content, NewCalibration)}
        here = self._following.payloads(named)
        ahead = 0
        try:
            while left or waiting:
                while left and len(waiting) < 4 * PAYLOADS_AT_ONCE:
                    entry, kept = left[0]
                    content = entry.content
                    fetched = None
                    if isinstance(content, NewCalibration) and content.sha256 not in here:
                        self._check_size(entry.serial, content.size)
                        if ahead and ahead + content.size > BYTES_AHEAD:
                            break
                        fetched = self._threads.submit(self._payload, entry.serial, content)
                        ahead += content.size
                    waiting.append((entry, kept, fetched))
                    left.popleft()
                entry, kept, fetched = waiting.popleft()
                data = None
                if fetched is not None:
                    data = fetched.result()
                    ahead -= len(data)
                    fetched = None
                yield entry, kept, data
                data = None
        finally:
            for _, _, fetched in waiting:
                if fetched is not None:
                    fetched.cancel()
            # Else what is under way would come on top of what is fetched next.
            wait([fetched for _, _, fetched in waiting if fetched is not None and not fetched.cancelled()])

    def _check_size(self, serial: int, size: int) -> None:
        if size < 0:
            raise Diverged(f"entry {serial} names a payload of {size} bytes")
        try:
            check_size(size, self._max_payload)
        except TooLarge as error:
            told = f"entry {serial}: {error.message} (CDB_MAX_PAYLOAD)"
            raise TooLarge(self._max_payload, told) from None

    def _payload(self, serial: int, content: NewCalibration) -> bytes:
        try:
            return self._client.get_payload(content.sha256, content.size)
        except (cdb.Integrity, cdb.PayloadNotFound) as error:
            raise Diverged(f"the payload of entry {serial} cannot be had: {error}") from error


def _shown(error: Exception) -> str:
    """An error in one line of log and status: it may repeat what the master says."""
    return " ".join(str(error).split())[:LONGEST_PROBLEM]


def _is_absence(error: Exception) -> bool:
    """Whether nobody answered, here or there: of that, the age of what is known tells."""
    absent = cdb.ServerUnreachable, cdb.Unavailable
    return isinstance(error, absent) and not isinstance(error, ForeignAnswer)


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
