"""Accepts uploads, withdrawals and runs on a master: validates each, and appends one journal entry (rules 8 to 13)."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, exists, select

from cdb_server import arguments, instants, journal, model
from cdb_server.arguments import check_payload_size
from cdb_server.database.statements import AnyConnection, CompiledStatement
from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound, Integrity, InvalidArgument, Unavailable
from cdb_server.instants import MICROSECOND
from cdb_server.model import (
    CalibrationRecord,
    Clock,
    Entry,
    JournalPosition,
    NewCalibration,
    Preview,
    Run,
    RunTimes,
    Withdrawal,
    WithdrawalPreview,
)
from cdb_server.repository import lookups
from cdb_server.repository.explanations import find_equal, preview, preview_withdrawal
from cdb_server.repository.group_commit import GroupCommit, Result
from cdb_server.repository.lookups import CLOCK_BEHIND_TEXT, LastEntry, last_entry
from cdb_server.repository.tokens import Credentials
from cdb_server.schema import calibration, payload, run, withdrawal
from cdb_server.schema import journal as journal_table
from cdb_server.settings import LOCK_WAIT_SECONDS

_HAS_PAYLOAD = CompiledStatement(select(exists().where(payload.c.sha256 == bindparam("sha256"))))

_IS_CALIBRATION = CompiledStatement(select(exists().where(calibration.c.id == bindparam("id"))))

_IS_WITHDRAWN = CompiledStatement(select(exists().where(withdrawal.c.calibration_id == bindparam("id"))))

_ADD_PAYLOAD = CompiledStatement(payload.insert())

_ADD_ENTRY = CompiledStatement(journal_table.insert())

# How the content of each kind of entry is added, under the names of its fields, and the column of its serial.
_ROWS: dict[type[NewCalibration | Withdrawal | RunTimes], tuple[CompiledStatement, str]] = {
    NewCalibration: (CompiledStatement(calibration.insert()), calibration.c.id.name),
    Withdrawal: (CompiledStatement(withdrawal.insert()), withdrawal.c.serial.name),
    RunTimes: (CompiledStatement(run.insert()), run.c.serial.name),
}


def has_payload(connection: AnyConnection, sha256: str) -> bool:
    """Whether a payload is there already: it then has these bytes."""
    return bool(_HAS_PAYLOAD.value(connection, sha256=sha256))


def append_entry(connection: AnyConnection, entry: Entry, digest: str, data: bytes | None) -> None:
    """Add an entry, whose serial follows the last one's, and its payload where that is new.

    Raises InvalidArgument, having added nothing, for an entry that no master may accept. The caller holds the write
    lock, and knows that the digest is right and that `data` has the entry's sha256.
    """
    content = entry.content
    arguments.check_entry(entry)
    if isinstance(content, Withdrawal):
        _check_withdrawal(connection, content.calibration_id)
    if isinstance(content, NewCalibration) and not has_payload(connection, content.sha256):
        _ADD_PAYLOAD.execute(connection, sha256=content.sha256, data=data)
    _ADD_ENTRY.execute(
        connection,
        serial=entry.serial,
        kind=content.kind,
        created=entry.created,
        author=entry.author,
        digest=digest,
    )
    statement, serial = _ROWS[type(content)]
    values = {field.name: getattr(content, field.name) for field in fields(content)}
    statement.execute(connection, **{serial: entry.serial, **values})


def _check_withdrawal(connection: AnyConnection, id: int) -> None:
    """Rule 8: only a calibration can be withdrawn, and only once."""
    if not _IS_CALIBRATION.value(connection, id=id):
        raise InvalidArgument("calibration_id", f"there is no calibration {id} to withdraw")
    if _IS_WITHDRAWN.value(connection, id=id):
        raise InvalidArgument("calibration_id", f"calibration {id} is withdrawn already")


# The longest that a write may take from its `created` to its commit; the commit itself waits at most `database.BUSY`
# for readers. Both together stay below model.COMPLETE_AFTER, on which rule 7 rests.
MAX_WRITE_DURATION = timedelta(seconds=4)


@dataclass(frozen=True, slots=True)
class Upload:
    """A calibration to be stored: what the journal keeps of it, and its bytes."""

    content: NewCalibration
    data: bytes

    @classmethod
    def validated(
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
        check_payload_size(len(data), max_payload)
        if not data and sha256 is None:
            # "Empty data is accepted only with its sha256": so that a client that forgets the argument stores nothing.
            raise InvalidArgument(
                "data", f"the payload is empty: if that is meant, send its sha256 with it, {model.sha256_of(b'')}"
            )
        actual = model.sha256_of(data)
        if sha256 is not None and arguments.normalised_sha256(sha256) != actual:
            raise Integrity(
                sha256,
                f"the payload received has {len(data)} bytes and the sha256 {actual}, not {sha256}: nothing was "
                "stored; send it again, and in base64 if that is left to you",
            )
        return cls(
            NewCalibration(
                arguments.normalised_device_name(device_name),
                arguments.normalised_calibration_type(calibration_type),
                valid_from,
                arguments.checked_comment(comment),
                len(data),
                actual,
            ),
            data,
        )


class Writer:
    """Accepts calibrations, withdrawals and runs. `author` is the user whose token was shown.

    Every method raises Unavailable when the database cannot be written, having written nothing or, when the database
    failed in the act of committing, all: to repeat a write is safe (rule 9).
    """

    def __init__(self, database: Database, *, clock: Clock = instants.now) -> None:
        self._database = database
        self._clock = clock
        self._group_commit = GroupCommit(self._transaction, LOCK_WAIT_SECONDS)
        self._last_position: JournalPosition | None = None
        self._credentials: Credentials | None = None

    def for_credentials(self, shown: Credentials | None) -> "Writer":
        """The same, for a request that shows these: every method raises InvalidToken unless they are valid in its own
        transaction. None where the request was judged otherwise."""
        writer = copy.copy(self)
        writer._credentials = shown
        return writer

    def add_calibration(self, upload: Upload, author: str) -> CalibrationRecord:
        """Store a calibration, or find it stored (rule 9); as it stands afterwards, without data."""
        content = upload.content

        def add(appending: _WriteTransaction) -> CalibrationRecord:
            id = find_equal(appending.connection, content)
            if id is None:
                id = appending.append_entry(author, content, upload.data)
            return appending.record(id)

        return self._commit(add, content.size)

    def last_position(self) -> JournalPosition | None:
        """What the journal was when this last wrote, or found something written; None before."""
        return self._last_position

    def preview_calibration(self, upload: Upload) -> Preview:
        """What add_calibration would change now. Writes nothing."""
        with self._database.read() as connection:
            self._verify_token(connection)
            return preview(connection, upload.content, self._clock())

    def preview_withdrawal(self, id: int) -> WithdrawalPreview:
        """What withdraw_calibration would change now. Writes nothing. Raises CalibrationNotFound, InvalidArgument."""
        with self._database.read() as connection:
            self._verify_token(connection)
            return preview_withdrawal(connection, _existing_calibration(connection, id))

    def withdraw_calibration(self, id: int, reason: str, author: str) -> CalibrationRecord:
        """Rule 8: withdraw a calibration, or find it withdrawn. Raises CalibrationNotFound and InvalidArgument."""
        content = Withdrawal(arguments.check_number("id", id), arguments.checked_reason(reason))

        def withdraw(appending: _WriteTransaction) -> CalibrationRecord:
            if not _existing_calibration(appending.connection, id).withdrawn:
                appending.append_entry(author, content)
            return appending.record(id)

        return self._commit(withdraw, 0)

    def add_run(self, run_number: int, start_time: datetime, stop_time: datetime | None, author: str) -> Run:
        """Register a run's times, replace them, or find them registered (rules 5 and 9). Raises InvalidArgument."""
        arguments.check_period(start_time, stop_time)
        content = RunTimes(arguments.check_number("run_number", run_number), start_time, stop_time)

        def add(appending: _WriteTransaction) -> Run:
            registered = lookups.run_by_number(appending.connection, run_number)
            if registered is None or (registered.start_time, registered.stop_time) != (start_time, stop_time):
                appending.append_entry(author, content)
                registered = lookups.run_by_number(appending.connection, run_number)
            if registered is None:
                raise LookupError(run_number)
            return registered

        return self._commit(add, 0)

    def _verify_token(self, connection: Connection) -> None:
        if self._credentials is not None:
            self._credentials.check(connection)

    def _commit(self, work: Callable[["_WriteTransaction"], Result], size: int) -> Result:
        def admitted(appending: _WriteTransaction) -> Result:
            self._verify_token(appending.connection)
            return work(appending)

        return self._group_commit.commit(admitted, size)

    @contextmanager
    def _transaction(self) -> Iterator["_WriteTransaction"]:
        with self._database.write() as connection:
            appending = _WriteTransaction(connection, self._clock)
            yield appending
            last = appending.last
            appending.check_duration()
        self._last_position = JournalPosition(last.serial, last.digest, None)


def _existing_calibration(connection: Connection, id: int) -> CalibrationRecord:
    found = lookups.calibration_by_id(connection, arguments.check_number("id", id))
    if found is None:
        raise CalibrationNotFound("get_ids and get_history tell which ids there are", id=id)
    return found


class _WriteTransaction:
    """A writing transaction that may add entries to the journal."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self.last = last_entry(connection)
        self._began: datetime | None = None

    def append_entry(
        self, author: str, content: NewCalibration | Withdrawal | RunTimes, data: bytes | None = None
    ) -> int:
        """Add an entry, and answer its serial. The caller holds the write lock.

        Raises Unavailable, having written nothing, while the clock stands too far behind.
        """
        now = created = self._clock()
        last = self.last
        if last.is_ahead_of(now):
            raise Unavailable(CLOCK_BEHIND_TEXT)
        if last.created is not None:
            created = max(now, last.created + MICROSECOND)
        entry = Entry(last.serial + 1, created, author, content)
        digest = journal.digest(last.digest, entry)
        append_entry(self.connection, entry, digest, data)
        self.last = LastEntry(entry.serial, digest, created)
        self._began = self._began or now
        return entry.serial

    def record(self, id: int) -> CalibrationRecord:
        found = lookups.calibration_by_id(self.connection, id)
        if found is None:
            raise LookupError(id)
        return found

    def check_duration(self) -> None:
        if self._began is not None and self._clock() - self._began > MAX_WRITE_DURATION:
            raise Unavailable("the write took too long and was given up: try again later")
