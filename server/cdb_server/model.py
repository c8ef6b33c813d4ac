"""Defines the records that modules exchange: calibrations, runs, journal entries, previews, status; as dataclasses."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal, NamedTuple

Clock = Callable[[], datetime]

Role = Literal["master", "mirror"]

# Rule 7: complete_until lies "some seconds before now, longer than any write may take between its created and its
# commit". Writer gives a write up well before that.
COMPLETENESS_DELAY = timedelta(seconds=10)

# Rule 10: "While the last one lies more than 60 s ahead of the clock, writes are refused as unavailable."
MAX_CLOCK_LEAD = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """A calibration as it stands, or stood at the as_of of the question. Instants are UTC, `size` is in bytes.

    `valid_until` is derived by rule 3: absent while nothing takes over, equal to `valid_from` when never in force.
    `data` is absent in lists and in answers to writes.
    """

    id: int
    device_name: str
    calibration_type: str
    valid_from: datetime
    valid_until: datetime | None
    created: datetime
    author: str
    comment: str | None
    withdrawn: bool
    withdrawn_at: datetime | None
    withdrawn_reason: str | None
    size: int
    sha256: str
    data: bytes | None = None


class FormattedCalibration(NamedTuple):
    """A calibration for who only writes it: as CalibrationRecord, instants as their text."""

    id: int
    device_name: str
    calibration_type: str
    valid_from: str
    valid_until: str | None
    created: str
    author: str
    comment: str | None
    withdrawn: bool
    withdrawn_at: str | None
    withdrawn_reason: str | None
    size: int
    sha256: str
    data: bytes | None = None


class FormattedEntry(NamedTuple):
    """An entry of the journal, for who only writes it: the fields of all kinds, instants as their text."""

    serial: int
    kind: str
    created: str
    author: str
    digest: str
    device_name: str | None
    calibration_type: str | None
    valid_from: str | None
    comment: str | None
    size: int | None
    sha256: str | None
    calibration_id: int | None
    reason: str | None
    run_number: int | None
    start_time: str | None
    stop_time: str | None


@dataclass(frozen=True, slots=True)
class Device:
    """A device and the calibration types stored for it, in alphabetical order."""

    device_name: str
    calibration_type: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A run's times, as the master accepted them at `created`."""

    run_number: int
    start_time: datetime
    stop_time: datetime | None
    created: datetime
    author: str


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A stretch of time that is looked at, both ends included."""

    start: datetime
    stop: datetime


@dataclass(frozen=True, slots=True)
class Resolution:
    """A calibration that applies at an instant, and why it and no other: rule 3 in facts.

    `took_over_from` was in force just before it. `passed_over` would apply, were they not withdrawn, or superseded by
    this one under the same valid_from; the latest first, and not all of them where there are `more`.
    """

    calibration: CalibrationRecord
    predecessor: CalibrationRecord | None
    skipped: tuple[CalibrationRecord, ...]
    more_skipped: bool


@dataclass(frozen=True, slots=True)
class ResolutionSet:
    """All that applies at an instant, by device and type; `run` where it is asked for the start of one.

    For the devices and types of `nothing` none does.
    """

    instant: datetime
    run: Run | None
    resolutions: tuple[Resolution, ...]
    unresolved: tuple[tuple[str, str], ...]


class TimelinePoint(NamedTuple):
    """A calibration in a drawing: which, and from when on it is valid."""

    id: int
    valid_from: datetime


class RunStart(NamedTuple):
    """A run in a drawing."""

    run_number: int
    start_time: datetime


@dataclass(frozen=True, slots=True)
class Lane:
    """What was in force for one device and type, to be drawn: each until the next one begins.

    The first may begin before the period. Not `whole`, there are more than these, and of the `withdrawn` and
    `superseded` nothing is told.
    """

    device_name: str
    calibration_type: str
    in_force: tuple[TimelinePoint, ...]
    withdrawn: tuple[TimelinePoint, ...]
    superseded: tuple[TimelinePoint, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What a server says of itself; `master` and the lags on a mirror only.

    `restored` is when the database was last restored from a backup: None for most.
    """

    status: str
    role: Role
    serial: int
    digest: str
    complete_until: datetime
    version: str
    master: str | None = None
    lag_entries: int | None = None
    lag_seconds: float | None = None
    restored: datetime | None = None


@dataclass(frozen=True, slots=True)
class JournalPosition:
    """How far a server knows the journal: its last entry's serial and digest; and when a copy heard of its master."""

    serial: int
    digest: str
    last_contact: datetime | None


@dataclass(frozen=True, slots=True)
class FollowedMaster:
    """What a mirror knows of its master: what it said when it was last heard, and why it is followed no longer."""

    master: str
    last_contact: datetime | None
    known_serial: int
    complete_until: datetime | None
    stopped: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class RunRange:
    """Registered runs without a gap in their numbers, both ends included."""

    first_run: int
    last_run: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What storing a calibration would change, as things stand.

    `stored_id` is the calibration that rule 9 would answer with: then nothing changes. `run_count` runs, those of
    `run_range`, would get another calibration than now; `takes_over_from` is in force at the valid_from now.
    """

    stored_id: int | None
    device_is_new: bool
    calibration_type_is_new: bool
    lies_in_future: bool
    lies_before_first_run: bool
    valid_until: datetime | None
    run_count: int
    run_range: tuple[RunRange, ...]
    takes_over_from: CalibrationRecord | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Where a calibration stands in the timeline of its device and type, without data.

    By rule 3 it takes over from `before`, and `after` from it; for one that is withdrawn they are those between which
    it would stand. Neither is withdrawn.
    """

    calibration: CalibrationRecord
    predecessor: CalibrationRecord | None
    successor: CalibrationRecord | None


@dataclass(frozen=True, slots=True)
class WithdrawalPreview:
    """What withdrawing a calibration would change: for `run_count` runs, those of `run_range`, that which stood before
    it would apply, or none."""

    neighbours: Neighbours
    run_count: int
    run_range: tuple[RunRange, ...]


@dataclass(frozen=True, slots=True)
class NewCalibration:
    """What the journal keeps of a calibration, in the order of the canonical form; the payload enters as its sha256."""

    kind: ClassVar = "calibration"
    device_name: str
    calibration_type: str
    valid_from: datetime
    comment: str | None
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What the journal keeps of a withdrawal, in the order of the canonical form."""

    kind: ClassVar = "withdrawal"
    calibration_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunTimes:
    """What the journal keeps of a registered run, in the order of the canonical form."""

    kind: ClassVar = "run"
    run_number: int
    start_time: datetime
    stop_time: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal entry: `serial` and `created` strictly increase together (rules 8 and 10)."""

    serial: int
    created: datetime
    author: str
    content: NewCalibration | Withdrawal | RunTimes


def sha256_of(data: bytes) -> str:
    """The name of a payload: its SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# Called now and then with how many entries are done, and of how many.
Progress = Callable[[int, int], None]

# What a database is to the process that serves it: a copy is a mirror's, which repeats its master's entries, or a hot
# standby's, to which PostgreSQL itself replicates.
DatabaseKind = Literal["master", "mirror", "standby"]
