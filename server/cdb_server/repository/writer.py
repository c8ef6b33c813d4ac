"""What a master accepts: every write one journal entry, whole or not at all (rules 8 to 13)."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from cdb_server import instants, journal, model
from cdb_server.errors import CalibrationNotFound, Integrity, InvalidArgument, TooLarge, Unavailable
from cdb_server.instants import MICROSECOND
from cdb_server.model import (
    CalibrationRecord,
    Clock,
    Entry,
    Knowledge,
    NewCalibration,
    Preview,
    Run,
    RunTimes,
    Withdrawal,
    WithdrawalPreview,
)
from cdb_server.repository import records
from cdb_server.repository.append import CLOCK_BEHIND, Head, append, head
from cdb_server.repository.connections import BUSY
from cdb_server.repository.database import Database
from cdb_server.repository.preview import equal_to, preview, preview_withdrawal
from cdb_server.repository.together import Result, Together
from cdb_server.repository.tokens import Credentials

# The longest that a write may take from its `created` to its commit; the commit itself waits at most `database.BUSY`
# for readers. Both together stay below model.COMPLETE_AFTER, on which rule 7 rests.
LONGEST_WRITE = timedelta(seconds=4)


@dataclass(frozen=True, slots=True)
class Upload:
    """A calibration to be stored: what the journal keeps of it, and its bytes."""

    content: NewCalibration
    data: bytes

    @classmethod
    def checked(
        cls,
        device_name: str,
        calibration_type: str,
        valid_from: datetime,
        data: bytes,
        sha256: str | None,
        comment: str | None,
        *,
        max_payload: int,
    ) -> "Upload":
        """An upload that rules 2 and 13 admit, of at most `max_payload` bytes; `valid_from` is an aware datetime.

        Raises InvalidArgument, TooLarge, and Integrity when `sha256` is given and is not that of `data`.
        """
        check_size(len(data), max_payload)
        if not data and sha256 is None:
            # "Empty data is accepted only with its sha256": so that a client that forgets the argument stores nothing.
            raise InvalidArgument(
                "data", f"the payload is empty: if that is meant, send its sha256 with it, {model.sha256_of(b'')}"
            )
        actual = model.sha256_of(data)
        if sha256 is not None and model.sha256(sha256) != actual:
            raise Integrity(
                sha256,
                f"the payload received has {len(data)} bytes and the sha256 {actual}, not {sha256}: nothing was "
                "stored; send it again, and in base64 if that is left to you",
            )
        return cls(
            NewCalibration(
                model.device_name(device_name),
                model.calibration_type(calibration_type),
                valid_from,
                model.comment(comment),
                len(data),
                actual,
            ),
            data,
        )


def check_size(size: int, max_payload: int) -> None:
    """Refuse a payload of more bytes than are taken. Raises TooLarge."""
    if size > max_payload:
        raise TooLarge(max_payload, f"the payload has {size} bytes; this server takes at most {max_payload}")


class Writer:
    """Accepts calibrations, withdrawals and runs. `author` is the user whose token was shown.

    Every method raises Unavailable when the database cannot be written, having written nothing or, when the database
    failed in the act of committing, all: to repeat a write is safe (rule 9).
    """

    def __init__(self, database: Database, *, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock
        self._together = Together(self._appending, BUSY)
        self._known: Knowledge | None = None
        self._shown: Credentials | None = None

    def asked_with(self, shown: Credentials | None) -> "Writer":
        """The same, for a request that shows these: every method raises NotAdmitted unless they are valid in its own
        transaction. None where the request was judged otherwise."""
        writer = copy.copy(self)
        writer._shown = shown
        return writer

    def add_calibration(self, upload: Upload, author: str) -> CalibrationRecord:
        """Store a calibration, or find it stored (rule 9); as it stands afterwards, without data."""
        content = upload.content

        def add(appending: _Appending) -> CalibrationRecord:
            id = equal_to(appending.connection, content)
            if id is None:
                id = appending.entry(author, content, upload.data)
            return appending.record(id)

        return self._do(add, content.size)

    def knowledge(self) -> Knowledge | None:
        """What the journal was when this last wrote, or found something written; None before."""
        return self._known

    def preview_calibration(self, upload: Upload) -> Preview:
        """What add_calibration would change now. Writes nothing."""
        with self._database.read() as connection:
            self._admit(connection)
            return preview(connection, upload.content, self._clock())

    def preview_withdrawal(self, id: int) -> WithdrawalPreview:
        """What withdraw_calibration would change now. Writes nothing. Raises CalibrationNotFound, InvalidArgument."""
        with self._database.read() as connection:
            self._admit(connection)
            return preview_withdrawal(connection, _found(connection, id))

    def withdraw_calibration(self, id: int, reason: str, author: str) -> CalibrationRecord:
        """Rule 8: withdraw a calibration, or find it withdrawn. Raises CalibrationNotFound and InvalidArgument."""
        content = Withdrawal(model.number("id", id), model.reason(reason))

        def withdraw(appending: _Appending) -> CalibrationRecord:
            if not _found(appending.connection, id).withdrawn:
                appending.entry(author, content)
            return appending.record(id)

        return self._do(withdraw, 0)

    def add_run(self, run_number: int, start_time: datetime, stop_time: datetime | None, author: str) -> Run:
        """Register a run's times, replace them, or find them registered (rules 5 and 9). Raises InvalidArgument."""
        model.period(start_time, stop_time)
        content = RunTimes(model.number("run_number", run_number), start_time, stop_time)

        def add(appending: _Appending) -> Run:
            registered = records.run(appending.connection, run_number)
            if registered is None or (registered.start_time, registered.stop_time) != (start_time, stop_time):
                appending.entry(author, content)
                registered = records.run(appending.connection, run_number)
            if registered is None:
                raise LookupError(run_number)
            return registered

        return self._do(add, 0)

    def _admit(self, connection: Connection) -> None:
        if self._shown is not None:
            self._shown.check(connection)

    def _do(self, work: Callable[["_Appending"], Result], size: int) -> Result:
        def admitted(appending: _Appending) -> Result:
            self._admit(appending.connection)
            return work(appending)

        return self._together.do(admitted, size)

    @contextmanager
    def _appending(self) -> Iterator["_Appending"]:
        with self._database.write() as connection:
            appending = _Appending(connection, self._clock)
            yield appending
            last = appending.last
            appending.check_duration()
        self._known = Knowledge(last.serial, last.digest, None)


def _found(connection: Connection, id: int) -> CalibrationRecord:
    found = records.record(connection, model.number("id", id))
    if found is None:
        raise CalibrationNotFound("get_ids and get_history tell which ids there are", id=id)
    return found


class _Appending:
    """A writing transaction that may add entries to the journal."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self.last = head(connection)
        self._began: datetime | None = None

    def entry(self, author: str, content: NewCalibration | Withdrawal | RunTimes, data: bytes | None = None) -> int:
        """Add an entry, and answer its serial. The caller holds the write lock.

        Raises Unavailable, having written nothing, while the clock stands too far behind.
        """
        now = created = self._clock()
        last = self.last
        if last.is_ahead(now):
            raise Unavailable(CLOCK_BEHIND)
        if last.created is not None:
            created = max(now, last.created + MICROSECOND)
        entry = Entry(last.serial + 1, created, author, content)
        digest = journal.digest(last.digest, entry)
        append(self.connection, entry, digest, data)
        self.last = Head(entry.serial, digest, created)
        self._began = self._began or now
        return entry.serial

    def record(self, id: int) -> CalibrationRecord:
        found = records.record(self.connection, id)
        if found is None:
            raise LookupError(id)
        return found

    def check_duration(self) -> None:
        if self._began is not None and self._clock() - self._began > LONGEST_WRITE:
            raise Unavailable("the write took too long and was given up: try again later")
