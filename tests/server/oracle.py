"""The rules in plain Python: what Reader and Writer must answer, worked out from the whole journal at each question.

Nothing here is clever, so that it can be checked against the rules by reading. Answers and errors are those of the
server; of an error, its class and what was asked count, not the hint.
"""

import copy
from datetime import datetime, timedelta
from typing import Any

from cdb_server.errors import AsOfNotReached, CalibrationNotFound, RunNotFound, Unavailable
from cdb_server.model import (
    CalibrationRecord,
    Device,
    Entry,
    NewCalibration,
    Preview,
    Run,
    RunRange,
    RunTimes,
    Withdrawal,
    sha256_of,
)

MICROSECOND = timedelta(microseconds=1)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Oracle:
    """A calibration database as one list of entries."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._journal: list[Entry] = []
        self._payloads: dict[str, bytes] = {}

    # Writing: what Writer does.

    def add_calibration(
        self,
        device_name: str,
        calibration_type: str,
        valid_from: datetime,
        data: bytes,
        comment: str | None,
        author: str,
    ) -> CalibrationRecord:
        # Rule 9: "Uploading bytes equal to those of any calibration, not withdrawn, of exactly (device, type,
        # valid_from) returns that one and writes nothing, even where another has since taken over".
        device_name, calibration_type, sha256 = device_name.upper(), calibration_type.lower(), sha256_of(data)
        for entry in self._standing(self._journal, device_name, calibration_type):
            if (_content(entry).valid_from, _content(entry).sha256) == (valid_from, sha256):
                return self._record(entry, self._journal)
        self._payloads[sha256] = data
        content = NewCalibration(device_name, calibration_type, valid_from, comment, len(data), sha256)
        return self._record(self._append(content, author), self._journal)

    def preview_calibration(
        self, device_name: str, calibration_type: str, valid_from: datetime, data: bytes
    ) -> Preview:
        # What really changes: it is stored in a copy, and the answers for all runs are compared.
        after = copy.deepcopy(self)
        stored = after.add_calibration(device_name, calibration_type, valid_from, data, None, "")
        numbers = {entry.content.run_number for entry in self._journal if isinstance(entry.content, RunTimes)}
        key = stored.device_name, stored.calibration_type
        changed = {number for number in numbers if self._id_for_run(key, number) != after._id_for_run(key, number)}
        firsts = [number for number in sorted(changed) if number - 1 not in changed]
        lasts = [number for number in sorted(changed) if number + 1 not in changed]
        before = self._in_force(key, valid_from, self._journal)
        return Preview(
            stored_id=stored.id if stored.id <= len(self._journal) else None,
            device_is_new=key[0] not in {device.device_name for device in self.devices()},
            calibration_type_is_new=not self.history(*key),
            lies_in_future=valid_from > self._clock(),
            lies_before_first_run=bool(numbers) and all(valid_from < self.run(n).start_time for n in numbers),
            valid_until=stored.valid_until,
            run_count=len(changed),
            run_range=tuple(map(RunRange, firsts, lasts)),
            takes_over_from=self._record(before, self._journal) if before else None,
        )

    def withdraw_calibration(self, id: int, reason: str, author: str) -> CalibrationRecord:
        # Rule 9: "withdrawing what is withdrawn, writes nothing".
        entry = self._calibration(id, self._journal, None)
        if self._withdrawal(entry, self._journal) is None:
            self._append(Withdrawal(id, reason), author)
        return self._record(entry, self._journal)

    def add_run(self, run_number: int, start_time: datetime, stop_time: datetime | None, author: str) -> Run:
        # Rule 9: "Registering a run as it already stands […] writes nothing."
        content = RunTimes(run_number, start_time, stop_time)
        entries = self._run_entries(run_number, self._journal)
        if not entries or entries[-1].content != content:
            self._append(content, author)
        return self.run(run_number)

    def _append(self, content: NewCalibration | Withdrawal | RunTimes, author: str) -> Entry:
        # Rule 10: "created is set by the master […] and strictly increases with [the serial]. While the last one lies
        # more than 60 s ahead of the clock, writes are refused as unavailable."
        created = self._clock()
        if self._journal:
            last = self._journal[-1].created
            if last > created + timedelta(seconds=60):
                raise Unavailable("the clock stands behind")
            created = max(created, last + MICROSECOND)
        # "serial: position in the journal: 1, 2, 3 … without gaps".
        entry = Entry(len(self._journal) + 1, created, author, content)
        self._journal.append(entry)
        return entry

    # Reading: what Reader does.

    def calibration_for_date(
        self, device_name: str, calibration_type: str, date: datetime, as_of: datetime | None = None
    ) -> CalibrationRecord:
        return self._applying(device_name, calibration_type, date, as_of, date=date)

    def current_calibration(
        self, device_name: str, calibration_type: str, as_of: datetime | None = None
    ) -> CalibrationRecord:
        # Rule 4: "Current is the resolution at the server's present instant." Rule 7: "with as_of [it] is the
        # resolution at as_of."
        return self._applying(device_name, calibration_type, as_of or self._clock(), as_of)

    def calibration_for_run(
        self, device_name: str, calibration_type: str, run_number: int, as_of: datetime | None = None
    ) -> CalibrationRecord:
        # Rule 5: "For every run r: for_run(d, c, r) == for_date(d, c, start of r)."
        start = self.run(run_number, as_of).start_time
        return self._applying(device_name, calibration_type, start, as_of, run_number=run_number)

    def calibration_for_id(self, id: int, as_of: datetime | None = None) -> CalibrationRecord:
        journal = self._as_of(as_of)
        return self._record(self._calibration(id, journal, as_of), journal, with_data=True)

    def ids(
        self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None
    ) -> list[CalibrationRecord]:
        # Rule 6: "exactly the ids that rule 3 gives for at least one instant t with start <= t <= stop. Without stop:
        # at start only." What rule 3 gives changes at the instants valid_from alone.
        journal = self._as_of(as_of)
        stop_time = stop_time or start_time
        instants = {start_time}
        for entry in self._calibrations(journal):
            if start_time <= _content(entry).valid_from <= stop_time:
                instants.add(_content(entry).valid_from)
        return self._in_force_everywhere(instants, journal)

    def calibrations_for_run(self, run_number: int, as_of: datetime | None = None) -> list[CalibrationRecord]:
        return self._in_force_everywhere({self.run(run_number, as_of).start_time}, self._as_of(as_of))

    def history(
        self, device_name: str, calibration_type: str, as_of: datetime | None = None
    ) -> list[CalibrationRecord]:
        key = device_name.upper(), calibration_type.lower()
        journal = self._as_of(as_of)
        return [self._record(entry, journal) for entry in self._calibrations(journal) if _key(entry) == key]

    def devices(self, as_of: datetime | None = None) -> list[Device]:
        # Rule 2: "A device comes into being with its first calibration." Nothing ends it.
        keys = {_key(entry) for entry in self._calibrations(self._as_of(as_of))}
        return [
            Device(name, tuple(sorted(type for device, type in keys if device == name)))
            for name in sorted({device for device, type in keys})
        ]

    def run(self, run_number: int, as_of: datetime | None = None) -> Run:
        # Rule 5: "A run registered again (a corrected time) replaces the earlier entry." Rule 7: "corrections of runs
        # created later do not exist […] (a run first registered later does […])".
        known, ever = self._run_entries(run_number, self._as_of(as_of)), self._run_entries(run_number, self._journal)
        if known:
            return _run(known[-1])
        if ever:
            return _run(ever[0])
        raise RunNotFound(run_number, as_of)

    def runs(self, start_time: datetime, stop_time: datetime | None = None, as_of: datetime | None = None) -> list[Run]:
        # "the runs that start in the period"; one first registered after as_of would be an answer that changed.
        journal = self._as_of(as_of)
        numbers = {entry.content.run_number for entry in journal if isinstance(entry.content, RunTimes)}
        standing = [_run(self._run_entries(number, journal)[-1]) for number in sorted(numbers)]
        return [run for run in standing if start_time <= run.start_time <= (stop_time or start_time)]

    def instants(self) -> set[datetime]:
        """Every instant at which something begins: the entries' `created`, valid_from and start times."""
        found = {entry.created for entry in self._journal}
        found |= {_content(entry).valid_from for entry in self._calibrations(self._journal)}
        return found | {entry.content.start_time for entry in self._journal if isinstance(entry.content, RunTimes)}

    def created(self) -> list[datetime]:
        """When the entries were accepted."""
        return [entry.created for entry in self._journal]

    # The rules themselves. `journal` is the database as it stood at the as_of of the question.

    def _as_of(self, as_of: datetime | None) -> list[Entry]:
        # Rule 7: "calibrations, withdrawals and corrections of runs created later do not exist for it". "A later as_of
        # [than complete_until] is refused as not reached".
        if as_of is None:
            return self._journal
        complete_until = self._clock() - timedelta(seconds=10)
        if as_of > complete_until:
            raise AsOfNotReached(as_of, complete_until)
        return [entry for entry in self._journal if entry.created <= as_of]

    def _in_force(self, key: tuple[str, str], instant: datetime, journal: list[Entry]) -> Entry | None:
        # Rule 3: "For (device, type, instant t): of the calibrations not withdrawn with valid_from <= t, the one with
        # the greatest valid_from; of equals, the greatest id."
        candidates = [entry for entry in self._standing(journal, *key) if _content(entry).valid_from <= instant]
        return max(candidates, key=lambda entry: (_content(entry).valid_from, entry.serial), default=None)

    def _id_for_run(self, key: tuple[str, str], run_number: int) -> int | None:
        applying = self._in_force(key, self.run(run_number).start_time, self._journal)
        return applying.serial if applying else None

    def _valid_until(self, entry: Entry, journal: list[Entry]) -> datetime | None:
        # "valid_until of a calibration never in force (superseded at once, withdrawn) equals its valid_from; of an
        # open-ended one it is absent." Else it is the first instant at which rule 3 gives another.
        first = _content(entry).valid_from
        others = {_content(other).valid_from for other in self._standing(journal, *_key(entry))}
        for instant in sorted({first} | {other for other in others if other > first}):
            if self._in_force(_key(entry), instant, journal) != entry:
                return instant
        return None

    def _withdrawal(self, entry: Entry, journal: list[Entry]) -> tuple[datetime, str] | None:
        for other in journal:
            if isinstance(other.content, Withdrawal) and other.content.calibration_id == entry.serial:
                return other.created, other.content.reason
        return None

    def _in_force_everywhere(self, instants: set[datetime], journal: list[Entry]) -> list[CalibrationRecord]:
        keys = {_key(entry) for entry in self._calibrations(journal)}
        winners = [self._in_force(key, instant, journal) for key in keys for instant in instants]
        serials = sorted({winner.serial for winner in winners if winner is not None})
        return [self._record(self._journal[serial - 1], journal) for serial in serials]

    def _applying(
        self, device_name: str, calibration_type: str, instant: datetime, as_of: datetime | None, **asked: Any
    ) -> CalibrationRecord:
        key = device_name.upper(), calibration_type.lower()
        journal = self._as_of(as_of)
        winner = self._in_force(key, instant, journal)
        if winner is None:
            raise CalibrationNotFound("", device_name=key[0], calibration_type=key[1], as_of=as_of, **asked)
        return self._record(winner, journal, with_data=True)

    def _calibrations(self, journal: list[Entry]) -> list[Entry]:
        return [entry for entry in journal if isinstance(entry.content, NewCalibration)]

    def _standing(self, journal: list[Entry], device_name: str, calibration_type: str) -> list[Entry]:
        return [
            entry
            for entry in self._calibrations(journal)
            if _key(entry) == (device_name, calibration_type) and self._withdrawal(entry, journal) is None
        ]

    def _calibration(self, id: int, journal: list[Entry], as_of: datetime | None) -> Entry:
        # "A calibration's id is its serial".
        for entry in self._calibrations(journal):
            if entry.serial == id:
                return entry
        raise CalibrationNotFound("", id=id, as_of=as_of)

    def _run_entries(self, run_number: int, journal: list[Entry]) -> list[Entry]:
        return [
            entry for entry in journal if isinstance(entry.content, RunTimes) and entry.content.run_number == run_number
        ]

    def _record(self, entry: Entry, journal: list[Entry], with_data: bool = False) -> CalibrationRecord:
        content = _content(entry)
        withdrawn_at, withdrawn_reason = self._withdrawal(entry, journal) or (None, None)
        return CalibrationRecord(
            id=entry.serial,
            device_name=content.device_name,
            calibration_type=content.calibration_type,
            valid_from=content.valid_from,
            valid_until=self._valid_until(entry, journal),
            created=entry.created,
            author=entry.author,
            comment=content.comment,
            withdrawn=withdrawn_at is not None,
            withdrawn_at=withdrawn_at,
            withdrawn_reason=withdrawn_reason,
            size=content.size,
            sha256=content.sha256,
            data=self._payloads[content.sha256] if with_data else None,
        )


def _content(entry: Entry) -> NewCalibration:
    """Of an entry that is a calibration."""
    assert isinstance(entry.content, NewCalibration)
    return entry.content


def _key(entry: Entry) -> tuple[str, str]:
    content = _content(entry)
    return content.device_name, content.calibration_type


def _run(entry: Entry) -> Run:
    content = entry.content
    assert isinstance(content, RunTimes)
    return Run(content.run_number, content.start_time, content.stop_time, entry.created, entry.author)
