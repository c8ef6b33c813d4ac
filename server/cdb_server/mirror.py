"""Follows a master: fetches, verifies and appends its entries in a supervised process. Alone imports the client.

A mirror asks for the entries after the one before its last, so that each answer begins with an entry that it has: where
the digest is another, the two have different histories, and it follows no longer.

The master is not trusted: a mirror must survive whatever comes, and serve only what the rules and the digests admit.
What comes is bounded before it is read. No digest covers what the master says of itself in its status: of that, only
what cannot change an answer is believed.
"""

import logging
import math
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import cdb
from cdb._exceptions import ForeignAnswer
from cdb_server import instants
from cdb_server.arguments import MAX_NUMBER, check_payload_size
from cdb_server.errors import CdbError, Diverged, TooLarge, Unavailable
from cdb_server.maintenance import Journal, _description
from cdb_server.model import COMPLETENESS_DELAY, Clock, Entry, NewCalibration, Progress, RunTimes, Withdrawal
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.settings import MAX_PAYLOAD_BYTES

log = logging.getLogger(__name__)

# Seconds: before a process that died is begun again, and until one that is told to end is killed.
RESTART_PAUSE_SECONDS = 1.0

STOP_GRACE_SECONDS = 10.0


@contextmanager
def supervised(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a process of its own while the block lasts. It returns when done, or when its event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=_supervise, args=(work, ended), name="keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_GRACE_SECONDS + RESTART_PAUSE_SECONDS)


def _supervise(work: Callable[[threading.Event], None], ended: threading.Event) -> None:
    context = multiprocessing.get_context("spawn")
    while not ended.is_set():
        process = context.Process(target=_run, args=(work, os.getpid()), name="following")
        process.start()
        while process.is_alive() and not ended.wait(0.1):
            process.join(0.1)
        if process.is_alive():
            process.terminate()
            process.join(STOP_GRACE_SECONDS)
            process.kill()
        process.join()
        if process.exitcode == 0:
            return
        if not ended.is_set():
            log.error("the following process died (exit status %s), and is begun again", process.exitcode)
            ended.wait(RESTART_PAUSE_SECONDS)


def _run(work: Callable[[threading.Event], None], parent: int) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    # A terminal sends it to all: the parent says when it is time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            if ended.wait(RESTART_PAUSE_SECONDS):
                return
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    work(ended)


# Seconds between two questions to a master that has nothing new; and, doubled at each failure, to one that is away.
POLL_SECONDS = 0.5

MAX_BACKOFF_SECONDS = 60.0

MAX_ANSWER_SECONDS = 60.0

# Seconds. What was changed on its way comes right when asked for again: another doubt within this time is not of that.
DOUBT_SECONDS = 60.0

# A mirror that was cut off from the master for longer than this has forgotten since when.
MAX_LAG = timedelta(days=36_525)

MAX_PROBLEM_CHARACTERS = 500

# What is fetched before it is applied: enough to keep the way busy, and no more than fits. While it is read, a payload
# takes several times its size: a large one is fetched alone.
ENTRIES_PER_REQUEST = 100

MAX_CONCURRENT_PAYLOADS = 4

MAX_PREFETCH_BYTES = 2**23

# What is applied in one transaction: each costs the disk the same, and readers of SQLite wait for its end.
ENTRIES_PER_TRANSACTION = 50

BYTES_PER_TRANSACTION = 2**20

_KINDS: dict[str, type[NewCalibration | Withdrawal | RunTimes]] = {
    kind.kind: kind for kind in (NewCalibration, Withdrawal, RunTimes)
}

_OPTIONAL = ("comment", "stop_time")


@dataclass(frozen=True, slots=True)
class _MasterStatus:
    """What a master says of itself, as far as it is believed: `known_serial` counts entries that it has only heard of,
    and `heard` is when what it says was so."""

    serial: int
    known_serial: int
    digest: str
    complete_until: datetime
    last_contact: datetime


class Follower:
    """Keeps a database in step with a master. `progress` is told the serial reached, and the one to reach.

    Payloads of more than `max_payload` bytes are not fetched. `interval` and `answer_seconds` are the seconds between
    two questions, and until an answer must be there.
    """

    def __init__(
        self,
        master: str,
        following: MirrorWriter,
        *,
        progress: Progress = lambda done, of: None,
        clock: Clock = instants.now,
        max_payload: int = MAX_PAYLOAD_BYTES,
        poll_seconds: float = POLL_SECONDS,
        answer_seconds: float = MAX_ANSWER_SECONDS,
    ) -> None:
        # follow() tries again by itself, and tells of the first failure at once.
        self._client = cdb.Calibration(master, timeout=answer_seconds, direct=True)
        self._master = master
        self._following = following
        self._progress = progress
        self._clock = clock
        self._max_payload = max_payload
        self._interval = poll_seconds
        self._max_entries = ENTRIES_PER_REQUEST
        # Kept, and with them their connections.
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT_PAYLOADS, thread_name_prefix="payload")
        # What the status was told last: unknown, for it was by a process before this one. And until when a doubt lasts.
        self._problem: str | None = ""
        self._doubt_until = -math.inf

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
                self._record_problem(None)
            except Diverged as error:
                # What was changed on its way comes right when asked again; another history does not, nor do two that
                # take turns.
                problem = _one_line(error)
                if time.monotonic() < self._doubt_until:
                    log.error("this mirror follows %s no longer, and serves what it has: %s", self._master, problem)
                    self._following.stop_following(problem)
                    return
                self._doubt_until = time.monotonic() + DOUBT_SECONDS
                log.warning("what %s says is not right, and is asked for again: %s", self._master, problem)
            except Exception as error:
                failures += 1
                # Mirrors shall not all come at once; nobody gains by guessing when.
                spread = 0.5 + random.random() / 2  # noqa: S311
                pause = min(self._interval * 2 ** min(failures, 30), MAX_BACKOFF_SECONDS) * spread
                self._record_failure(error, failures)
            ended.wait(pause)

    def _record_failure(self, error: Exception, failures: int) -> None:
        """Tell of a failure: in the log of the first of several, and in the status of what is more than an absence."""
        known = isinstance(error, cdb.CdbError | CdbError)
        problem = _one_line(error) if known else f"an unexpected error: {type(error).__name__}"
        if failures == 1 or (problem != self._problem and not _is_unreachable(error)):
            # The process would die of what nobody thought of, and be begun again for ever.
            log.warning("following %s failed, and is tried again: %s", self._master, problem, exc_info=not known)
        if not _is_unreachable(error):
            self._record_problem(problem)

    def _record_problem(self, problem: str | None) -> None:
        """Have the status say what is wrong with the master's answers; None when nothing is."""
        if problem != self._problem:
            with suppress(Unavailable):
                self._following.record_problem(problem)
                self._problem = problem

    def catch_up(self, ended: threading.Event) -> bool:
        """Repeat all that the master has now. False when it gives less than it says that it has.

        Raises Diverged, the client's errors, TooLarge, and Unavailable.
        """
        said = self._master_status()
        last = self._following.last_entry()
        if said.serial < last.serial:
            raise Diverged(
                f"it has {said.serial} entries and this mirror {last.serial}: it was restored from a backup, or is "
                "another server"
            )
        if said.serial == last.serial and said.digest != last.digest:
            raise Diverged(f"its entry {last.serial} has another digest: the two have different histories")
        if last.serial < said.serial:
            self._following.record_contact(said.known_serial, None, said.last_contact)
        # Asked for, whatever the status says: one that is old, or wrong, must not have this mirror promise that nothing
        # is new until an instant up to which something is.
        while not ended.is_set():
            before = last.serial
            self._append_next(before, last.digest, ended)
            last = self._following.last_entry()
            self._progress(last.serial, max(last.serial, said.serial))
            is_all = last.serial == before
            # Created increases: all that is missing is later.
            is_enough = last.serial >= said.serial and last.created is not None and last.created > said.complete_until
            if is_all and last.serial < said.serial:
                return False
            if is_all or is_enough:
                self._following.record_contact(
                    max(said.known_serial, last.serial), said.complete_until, said.last_contact
                )
                return True
        return True

    def _master_status(self) -> _MasterStatus:
        """The master's status. Raises ForeignAnswer for one that cannot be."""
        # Before it is asked: what it accepts while the answer is on its way may be created at any instant since.
        asked = self._clock()
        status = self._client.get_status()
        lag_entries, lag_seconds = status.lag_entries or 0, status.lag_seconds or 0.0
        known_serial = status.serial + lag_entries
        if status.serial < 0 or lag_entries < 0 or known_serial > MAX_NUMBER:
            raise ForeignAnswer(f"its status tells of {status.serial} entries, and of {lag_entries} that it lacks")
        if not 0 <= lag_seconds <= MAX_LAG.total_seconds():
            raise ForeignAnswer(f"its status says that it is {lag_seconds} seconds behind")
        # No digest covers this. A master says ten seconds before now (rule 7), so that it cannot be a later instant
        # than this: had the master's clock been ahead, a little less would be believed; had it been behind, it would
        # have said less.
        complete_until = min(status.complete_until, asked - COMPLETENESS_DELAY)
        # The master's own knowledge may be old, when it is a mirror.
        heard = asked - timedelta(seconds=lag_seconds)
        return _MasterStatus(status.serial, known_serial, status.digest, complete_until, heard)

    def _append_next(self, serial: int, digest: str, ended: threading.Event) -> None:
        """Repeat some of the entries after `serial`."""
        coming: list[tuple[Entry, str, bytes | None]] = []
        size = 0
        try:
            for entry, kept, data in self._with_payloads(self._entries(serial, digest)):
                coming.append((entry, kept, data))
                size += len(data or b"")
                if len(coming) == ENTRIES_PER_TRANSACTION or size >= BYTES_PER_TRANSACTION:
                    together, coming, size = coming, [], 0
                    is_next = self._following.append_entries(together)
                    # The next payload shall not come on top of this one.
                    del together, data
                    if not is_next or ended.is_set():
                        return
        finally:
            # Also when the next payload could not be had.
            if coming:
                self._following.append_entries(coming)

    def _entries(self, serial: int, digest: str) -> list[tuple[Entry, str]]:
        try:
            found = self._client.get_journal(max(serial - 1, 0), self._max_entries + 1)
        except cdb.TooLarge as error:
            if not error.limit or error.limit > self._max_entries or error.limit < 2:
                raise
            self._max_entries = error.limit - 1
            return self._entries(serial, digest)
        if serial:
            if not found or found[0].serial != serial:
                raise Diverged(f"it does not give entry {serial}")
            if found[0].digest != digest:
                raise Diverged(f"its entry {serial} has another digest: the two have different histories")
            found = found[1:]
        if len(found) > self._max_entries + 1:
            raise Diverged(f"it gives {len(found)} entries at once, and was asked for {self._max_entries + 1}")
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
        here = self._following.present_payloads(named)
        ahead = 0
        try:
            while left or waiting:
                while left and len(waiting) < 4 * MAX_CONCURRENT_PAYLOADS:
                    entry, kept = left[0]
                    content = entry.content
                    fetched = None
                    if isinstance(content, NewCalibration) and content.sha256 not in here:
                        self._check_size(entry.serial, content.size)
                        if ahead and ahead + content.size > MAX_PREFETCH_BYTES:
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
            check_payload_size(size, self._max_payload)
        except TooLarge as error:
            told = f"entry {serial}: {error.message} (CDB_MAX_PAYLOAD)"
            raise TooLarge(self._max_payload, told) from None

    def _payload(self, serial: int, content: NewCalibration) -> bytes:
        try:
            return self._client.get_payload(content.sha256, content.size)
        except (cdb.Integrity, cdb.PayloadNotFound) as error:
            raise Diverged(f"the payload of entry {serial} cannot be had: {error}") from error


def _one_line(error: Exception) -> str:
    """An error in one line of log and status: it may repeat what the master says."""
    return " ".join(str(error).split())[:MAX_PROBLEM_CHARACTERS]


def _is_unreachable(error: Exception) -> bool:
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


class _RemoteJournal:
    def __init__(self, url: str) -> None:
        self.name = url
        self._client = cdb.Calibration(url)

    def length(self) -> int:
        with _errors_as_unavailable():
            return self._client.get_status().serial

    def entry(self, serial: int) -> tuple[str, str]:
        with _errors_as_unavailable():
            answered = self._client.get_journal(serial - 1, 1)
        if len(answered) != 1 or answered[0].serial != serial:
            raise Unavailable(f"{self.name} does not give its entry {serial}")
        found = answered[0]
        return _description(found.kind, found.created, found.author), found.digest


def remote_journal(url: str) -> Journal:
    """The journal of a server."""
    return _RemoteJournal(url)


@contextmanager
def _errors_as_unavailable() -> Iterator[None]:
    try:
        yield
    except cdb.CdbError as error:
        raise Unavailable(error.message) from error
