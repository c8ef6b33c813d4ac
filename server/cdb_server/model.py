"""What crosses the server's inner borders: frozen dataclasses, and the names that rule 2 admits."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal, NamedTuple

from cdb_server import instants
from cdb_server.errors import InvalidArgument

Clock = Callable[[], datetime]
Role = Literal["master", "mirror"]

# Rule 2: "Device: [A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}, no space at the end. Type: the same, beginning with a letter."
DEVICE_NAME_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9 _.+\-]{0,62}[A-Za-z0-9_.+\-])?"
CALIBRATION_TYPE_PATTERN = r"[A-Za-z]([A-Za-z0-9 _.+\-]{0,62}[A-Za-z0-9_.+\-])?"
SHA256_PATTERN = r"[0-9A-Fa-f]{64}"
_DEVICE_NAME, _CALIBRATION_TYPE, _SHA256 = map(
    re.compile, (DEVICE_NAME_PATTERN, CALIBRATION_TYPE_PATTERN, SHA256_PATTERN)
)
TEXT_LIMIT = 4096
GREATEST_NUMBER = 2**63 - 1

# Rule 7: complete_until lies "some seconds before now, longer than any write may take between its created and its
# commit". Writer gives a write up well before that.
COMPLETE_AFTER = timedelta(seconds=10)

# Rule 10: "While the last one lies more than 60 s ahead of the clock, writes are refused as unavailable."
GREATEST_LEAD = timedelta(seconds=60)

# Characters that XML 1.0 cannot carry: text holding one could be stored and never be read back.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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


class CalibrationLine(NamedTuple):
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


class JournalLine(NamedTuple):
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
class Extent:
    """A stretch of time that is looked at, both ends included."""

    start: datetime
    stop: datetime


@dataclass(frozen=True, slots=True)
class Applying:
    """A calibration that applies at an instant, and why it and no other: rule 3 in facts.

    `took_over_from` was in force just before it. `passed_over` would apply, were they not withdrawn, or superseded by
    this one under the same valid_from; the latest first, and not all of them where there are `more`.
    """

    calibration: CalibrationRecord
    took_over_from: CalibrationRecord | None
    passed_over: tuple[CalibrationRecord, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """All that applies at an instant, by device and type; `run` where it is asked for the start of one.

    For the devices and types of `nothing` none does.
    """

    instant: datetime
    run: Run | None
    applying: tuple[Applying, ...]
    nothing: tuple[tuple[str, str], ...]


class Beginning(NamedTuple):
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
    in_force: tuple[Beginning, ...]
    withdrawn: tuple[Beginning, ...]
    superseded: tuple[Beginning, ...]
    whole: bool


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
class Knowledge:
    """How far a server knows the journal: its last entry's serial and digest; and when a copy heard of its master."""

    serial: int
    digest: str
    heard: datetime | None


@dataclass(frozen=True, slots=True)
class Followed:
    """What a mirror knows of its master: what it said when it was last heard, and why it is followed no longer."""

    master: str
    heard: datetime | None
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
class Place:
    """Where a calibration stands in the timeline of its device and type, without data.

    By rule 3 it takes over from `before`, and `after` from it; for one that is withdrawn they are those between which
    it would stand. Neither is withdrawn.
    """

    calibration: CalibrationRecord
    before: CalibrationRecord | None
    after: CalibrationRecord | None


@dataclass(frozen=True, slots=True)
class WithdrawalPreview:
    """What withdrawing a calibration would change: for `run_count` runs, those of `run_range`, that which stood before
    it would apply, or none."""

    place: Place
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


def check_entry(entry: Entry) -> None:
    """Raise InvalidArgument for an entry that no master may accept.

    Every entry passes here before it enters a journal: those that a master accepts, and those that a mirror repeats.
    The repository checks what depends on other entries, such as that a withdrawn calibration exists.
    """
    number("serial", entry.serial)
    if not entry.author:
        raise InvalidArgument("author", "the author is missing")
    _text("author", entry.author)
    match entry.content:
        case NewCalibration() as content:
            _check_kept("device_name", content.device_name, device_name(content.device_name))
            _check_kept("calibration_type", content.calibration_type, calibration_type(content.calibration_type))
            _check_kept("comment", content.comment, comment(content.comment))
            _check_kept("sha256", content.sha256, sha256(content.sha256))
            if not 0 <= content.size <= GREATEST_NUMBER:
                raise InvalidArgument("size", f"size is {content.size}: it must be a number of bytes")
        case Withdrawal() as content:
            number("calibration_id", content.calibration_id)
            reason(content.reason)
        case RunTimes() as content:
            number("run_number", content.run_number)
            period(content.start_time, content.stop_time)


def device_name(text: str) -> str:
    """A device's name as stored: upper case. Raises InvalidArgument for a name that rule 2 does not admit."""
    if not _DEVICE_NAME.fullmatch(text):
        raise InvalidArgument(
            "device_name",
            f"{text[:80]!r} cannot name a device: use 1 to 64 letters, digits, spaces and _ . + -, "
            "beginning with a letter or digit and not ending with a space",
        )
    return text.upper()


def calibration_type(text: str) -> str:
    """A calibration type as stored: lower case. Raises InvalidArgument for one that rule 2 does not admit."""
    if not _CALIBRATION_TYPE.fullmatch(text):
        raise InvalidArgument(
            "calibration_type",
            f"{text[:80]!r} cannot name a calibration type: use 1 to 64 letters, digits, spaces and _ . + -, "
            "beginning with a letter and not ending with a space",
        )
    return text.lower()


def number(argument: str, value: int) -> int:
    """A run number or id: from 1, in 63 bits. Raises InvalidArgument."""
    if not 1 <= value <= GREATEST_NUMBER:
        raise InvalidArgument(argument, f"{argument} must be a whole number from 1 to {GREATEST_NUMBER}")
    return value


def period(start_time: datetime, stop_time: datetime | None) -> tuple[datetime, datetime]:
    """The first and last instant of a period; without stop_time, start_time alone. Raises InvalidArgument (rule 6)."""
    if stop_time is None:
        return start_time, start_time
    if stop_time < start_time:
        raise InvalidArgument(
            "stop_time",
            f"stop_time {instants.spell(stop_time)} lies before start_time {instants.spell(start_time)}: "
            "exchange them, or leave stop_time out",
        )
    return start_time, stop_time


def comment(text: str | None) -> str | None:
    """A comment as stored: None when empty. Raises InvalidArgument when too long or not fit for XML."""
    return _text("comment", text) if text else None


def reason(text: str) -> str:
    """The reason of a withdrawal. Raises InvalidArgument when blank, too long or not fit for XML."""
    if not text.strip():
        raise InvalidArgument("reason", "the reason is blank: say why the calibration is withdrawn")
    return _text("reason", text)


def sha256(text: str) -> str:
    """A sha256 in lower case. Raises InvalidArgument when it is not 64 hexadecimal digits."""
    if not _SHA256.fullmatch(text):
        raise InvalidArgument("sha256", f"{text[:80]!r} is not a SHA-256 of 64 hexadecimal digits")
    return text.lower()


def sha256_of(data: bytes) -> str:
    """The name of a payload: its SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _check_kept(argument: str, text: str | None, kept: str | None) -> None:
    if text != kept:
        raise InvalidArgument(argument, f"{argument} is {str(text)[:80]!r}, and is kept as {str(kept)[:80]!r}")


def _text(argument: str, text: str) -> str:
    if len(text) > TEXT_LIMIT:
        raise InvalidArgument(argument, f"the {argument} has {len(text)} characters; at most {TEXT_LIMIT} are kept")
    if _NOT_XML.search(text):
        raise InvalidArgument(argument, f"the {argument} holds a control character that XML cannot carry")
    return text
