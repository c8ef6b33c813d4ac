"""Define what callers get: frozen dataclasses with the contract's field names, and the content as `str`.

Instants are aware datetimes in UTC, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """All that is known of a calibration but its content.

    It applies from `valid_from` until `valid_until`, that instant excluded; None means that nothing takes over yet, and
    equal to `valid_from` that it is never in force, being withdrawn or superseded at once.
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


class CalibrationText(str):
    """The content of a calibration as text, with its record's fields as attributes and its exact bytes as `data`.

    The text is the bytes read as UTF-8; bytes that are not UTF-8 stand in it as surrogate escapes, so that
    `text.encode("utf-8", "surrogateescape") == text.data` always.
    """

    data: bytes
    record: CalibrationRecord
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

    def __new__(cls, record: CalibrationRecord, data: bytes) -> CalibrationText:
        text = super().__new__(cls, data.decode("utf-8", "surrogateescape"))
        text.data = data
        text.record = record
        for field in fields(record):
            setattr(text, field.name, getattr(record, field.name))
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.record, self.data)


@dataclass(frozen=True, slots=True)
class Device(str):
    """A device and the calibration types stored for it, in alphabetical order.

    As a `str` it is its name: `"TOF1" in list_devices()`, as with the earlier CDB, which listed names.
    """

    device_name: str
    calibration_type: tuple[str, ...]

    def __new__(cls, device_name: str, *_: object, **__: object) -> Device:
        return str.__new__(cls, device_name)

    # What equals a str has its hash; and str brings an inequality that knows only texts.
    __hash__ = str.__hash__
    __ne__ = object.__ne__


@dataclass(frozen=True, slots=True)
class Run:
    """A run's times; `stop_time` is None when it was not recorded."""

    run_number: int
    start_time: datetime
    stop_time: datetime | None
    created: datetime
    author: str


@dataclass(frozen=True, slots=True)
class Status(str):
    """What a server says of itself; `master` and the lags are None on a master.

    As a `str` it is its `status`: `get_status() == "OK"`, as with the earlier CDB, which said no more.
    `complete_until` is the latest as_of that it can answer; `serial` and `digest` name the journal that it holds.
    `restored` is when its database was last restored from a backup, None if it never was: what was accepted between
    the backup and then may be missing.
    """

    status: str
    role: str
    serial: int
    digest: str
    complete_until: datetime
    version: str
    master: str | None
    lag_entries: int | None
    lag_seconds: float | None
    restored: datetime | None

    def __new__(cls, status: str, *_: object, **__: object) -> Status:
        return str.__new__(cls, status)

    # As of a Device.
    __hash__ = str.__hash__
    __ne__ = object.__ne__


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What the master accepted as its `serial`-th, who wrote it and when; the fields of other kinds than its are None.

    `kind` is `calibration` (device_name to sha256; its id is the serial), `withdrawal` (calibration_id and reason) or
    `run` (run_number to stop_time).
    """

    serial: int
    kind: str
    created: datetime
    author: str
    digest: str
    device_name: str | None
    calibration_type: str | None
    valid_from: datetime | None
    comment: str | None
    size: int | None
    sha256: str | None
    calibration_id: int | None
    reason: str | None
    run_number: int | None
    start_time: datetime | None
    stop_time: datetime | None


@dataclass(frozen=True, slots=True)
class RunRange:
    """Registered runs without a gap in their numbers, both ends included."""

    first_run: int
    last_run: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What storing a calibration would change.

    `stored_id` is the calibration that already holds these bytes under this device, type and valid_from: then nothing
    changes. It would apply until `valid_until` (None: nothing takes over), take over from `takes_over_from` (None: none
    is in force at valid_from), and be the answer for `run_count` registered runs that get another one now: those of
    `run_range`, of which the first 1000 are given.
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
