"""Define what callers get: frozen dataclasses with the contract's field names, and the content as `str`.

Instants are aware datetimes in UTC, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """A calibration without its content.

    It is in force from `valid_from` until `valid_until`, that instant excluded; None means until it is replaced. Where
    both are equal it is never in force: it is withdrawn, or a later one has the same `valid_from`.
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

    The text is the bytes decoded as UTF-8. Bytes that are not UTF-8 become surrogate escapes, so that
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

    As a `str` it is its name: `"TOF1" in list_devices()`. The earlier CDB listed names.
    """

    device_name: str
    calibration_type: tuple[str, ...]

    def __new__(cls, device_name: str, *_: object, **__: object) -> Device:
        return str.__new__(cls, device_name)

    # Equal objects need equal hashes; and str has an inequality of its own, which ignores the fields.
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
    """The status of a server; `master` and the lags are None on a master.

    As a `str` it is its `status`: `get_status() == "OK"`. The earlier CDB returned that text.
    `complete_until` is the latest as_of that it can answer; `serial` and `digest` are those of its last journal entry.
    `restored` is when its database was last restored from a backup, or None: what was accepted between the backup and
    that time may be missing.
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

    # As for Device.
    __hash__ = str.__hash__
    __ne__ = object.__ne__


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """Entry number `serial` of the journal, its author and time. Fields that its kind does not have are None.

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
    """Registered runs with consecutive numbers, both ends included."""

    first_run: int
    last_run: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The changes that storing a calibration would make.

    `stored_id` is the calibration that already has these bytes, device, type and valid_from: then nothing changes. It
    would apply until `valid_until` (None: until it is replaced), and replace `takes_over_from` (None: none is in force
    at valid_from). It would be the new answer for `run_count` registered runs; `run_range` has the first 1000 ranges.
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
