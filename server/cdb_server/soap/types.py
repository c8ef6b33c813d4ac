"""Declares the contract's types and faults for spyne, and turns domain errors into faults."""

import logging
from typing import Any

from spyne import Boolean, ByteArray, ComplexModel, DateTime, Double, Fault, Integer64, Unicode
from spyne.model.primitive import AnyUri

from cdb_server import arguments, errors, instants

NAMESPACE = "urn:mice:cdb:2"


def _named_type(base: Any, name: str, **limits: Any) -> Any:
    """A required value of a named simple type."""
    named = base.customize(type_name=name, min_occurs=1, nillable=False, **limits)
    named.__namespace__ = NAMESPACE
    return named


def _required(base: Any) -> Any:
    return base.customize(min_occurs=1, nillable=False)


def optional(base: Any) -> Any:
    """A value that may be absent, and that is absent rather than nil."""
    return base.customize(min_occurs=0, nillable=False)


def many(base: Any) -> Any:
    """A list: the element repeated, without a wrapper, perhaps not at all."""
    return base.customize(min_occurs=0, max_occurs="unbounded", nillable=False)


DeviceName = _named_type(Unicode, "device_name", pattern=arguments.DEVICE_NAME_PATTERN)

CalibrationType = _named_type(Unicode, "calibration_type", pattern=arguments.CALIBRATION_TYPE_PATTERN)

Id = _named_type(Integer64, "id", ge=1)

Serial = _named_type(Integer64, "serial", ge=0)

RunNumber = _named_type(Integer64, "run_number", ge=1)

Instant = _named_type(DateTime, "instant", pattern=instants.INSTANT_PATTERN)

Sha256 = _named_type(Unicode, "sha256", pattern=arguments.SHA256_PATTERN)

Comment = _named_type(Unicode, "comment", max_len=arguments.MAX_TEXT_CHARACTERS)

Reason = _named_type(Unicode, "reason", min_len=1, max_len=arguments.MAX_TEXT_CHARACTERS)

Role = _named_type(Unicode, "role", values=["master", "mirror"])

Kind = _named_type(Unicode, "kind", values=["calibration", "withdrawal", "run"])

EntryLimit = _named_type(Integer64, "entry_limit", ge=1)

Text = _required(Unicode)

Long = _required(Integer64)

Flag = _required(Boolean)

Number = _required(Double)

Uri = _required(AnyUri)

Data = _required(ByteArray)


class _Record(ComplexModel):
    __namespace__ = NAMESPACE

    class Attributes(ComplexModel.Attributes):
        min_occurs = 1
        nillable = False


class CalibrationRecord(_Record):
    __type_name__ = "calibration_record"
    _type_info = [
        ("id", Id),
        ("device_name", DeviceName),
        ("calibration_type", CalibrationType),
        ("valid_from", Instant),
        ("valid_until", optional(Instant)),
        ("created", Instant),
        ("author", Text),
        ("comment", optional(Comment)),
        ("withdrawn", Flag),
        ("withdrawn_at", optional(Instant)),
        ("withdrawn_reason", optional(Reason)),
        ("size", Long),
        ("sha256", Sha256),
        ("data", optional(Data)),
    ]


class Device(_Record):
    __type_name__ = "device"
    _type_info = [
        ("device_name", DeviceName),
        ("calibration_type", CalibrationType.customize(max_occurs="unbounded")),
    ]


class Run(_Record):
    __type_name__ = "run"
    _type_info = [
        ("run_number", RunNumber),
        ("start_time", Instant),
        ("stop_time", optional(Instant)),
        ("created", Instant),
        ("author", Text),
    ]


class Status(_Record):
    __type_name__ = "status"
    _type_info = [
        ("status", Text),
        ("role", Role),
        ("serial", Serial),
        ("digest", Sha256),
        ("complete_until", Instant),
        ("version", Text),
        ("master", optional(Uri)),
        ("lag_entries", optional(Long)),
        ("lag_seconds", optional(Number)),
        ("restored", optional(Instant)),
    ]


class JournalEntry(_Record):
    __type_name__ = "journal_entry"
    _type_info = [
        ("serial", Serial),
        ("kind", Kind),
        ("created", Instant),
        ("author", Text),
        ("digest", Sha256),
        ("device_name", optional(DeviceName)),
        ("calibration_type", optional(CalibrationType)),
        ("valid_from", optional(Instant)),
        ("comment", optional(Comment)),
        ("size", optional(Long)),
        ("sha256", optional(Sha256)),
        ("calibration_id", optional(Id)),
        ("reason", optional(Reason)),
        ("run_number", optional(RunNumber)),
        ("start_time", optional(Instant)),
        ("stop_time", optional(Instant)),
    ]


class RunRange(_Record):
    __type_name__ = "run_range"
    _type_info = [("first_run", RunNumber), ("last_run", RunNumber)]


class Preview(_Record):
    __type_name__ = "preview"
    _type_info = [
        ("stored_id", optional(Id)),
        ("device_is_new", Flag),
        ("calibration_type_is_new", Flag),
        ("lies_in_future", Flag),
        ("lies_before_first_run", Flag),
        ("valid_until", optional(Instant)),
        ("run_count", Long),
        ("run_range", many(RunRange)),
        ("takes_over_from", optional(CalibrationRecord)),
    ]


class TypedFault(Fault):
    """A fault whose members stand in the detail, in an element of the fault's name."""

    __namespace__ = NAMESPACE


class CalibrationNotFound(TypedFault):
    __type_name__ = "CalibrationNotFound"
    _type_info = [
        ("message", Text),
        ("device_name", optional(Text)),
        ("calibration_type", optional(Text)),
        ("run_number", optional(Long)),
        ("date", optional(Instant)),
        ("id", optional(Long)),
        ("as_of", optional(Instant)),
    ]


class RunNotFound(TypedFault):
    __type_name__ = "RunNotFound"
    _type_info = [("message", Text), ("run_number", Long), ("as_of", optional(Instant))]


class PayloadNotFound(TypedFault):
    __type_name__ = "PayloadNotFound"
    _type_info = [("message", Text), ("sha256", Text)]


class InvalidArgument(TypedFault):
    __type_name__ = "InvalidArgument"
    _type_info = [("message", Text), ("argument", Text)]


class Integrity(TypedFault):
    __type_name__ = "Integrity"
    _type_info = [("message", Text), ("sha256", Text)]


class TooLarge(TypedFault):
    __type_name__ = "TooLarge"
    _type_info = [("message", Text), ("limit", Long)]


class AsOfNotReached(TypedFault):
    __type_name__ = "AsOfNotReached"
    _type_info = [("message", Text), ("as_of", Instant), ("complete_until", Instant)]


class MalformedRequest(TypedFault):
    __type_name__ = "MalformedRequest"
    _type_info = [("message", Text)]


class Unavailable(TypedFault):
    __type_name__ = "Unavailable"
    _type_info = [("message", Text)]


log = logging.getLogger(__name__)

FAULT_TYPES: dict[type[errors.CdbError], type[TypedFault]] = {
    errors.CalibrationNotFound: CalibrationNotFound,
    errors.RunNotFound: RunNotFound,
    errors.PayloadNotFound: PayloadNotFound,
    errors.InvalidArgument: InvalidArgument,
    errors.Integrity: Integrity,
    errors.DamagedPayload: Integrity,
    errors.TooLarge: TooLarge,
    errors.AsOfNotReached: AsOfNotReached,
    errors.MalformedRequest: MalformedRequest,
    errors.Unavailable: Unavailable,
}

# All that a fault may be named, but for those that spyne might have of its own.
FAULT_NAMES = (
    *dict.fromkeys(fault.__type_name__ for fault in FAULT_TYPES.values()),
    "VersionMismatch",
    "MustUnderstand",
)

# What a fault is counted as that only a mistake in this program makes, as HTTP's own answers are.
UNEXPECTED = "500"


class EnvelopeError(Exception):
    """A refusal that SOAP 1.1 itself defines: `code` is VersionMismatch or MustUnderstand."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def fault_name(fault: Fault) -> str:
    """A fault's name, without the side that it is on."""
    return str(fault.faultcode).rpartition(".")[2]


def metrics_outcome(fault: Fault) -> str:
    """What a fault is counted as: its name, or UNEXPECTED."""
    return UNEXPECTED if getattr(fault, "unexpected", False) else fault_name(fault)


def to_fault(error: Exception) -> Any:
    """The fault for any exception. One that is none of ours goes to the log, and out as Unavailable (rule 14)."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, EnvelopeError):
        return Fault(faultcode=error.code, faultstring=str(error))
    unexpected = not isinstance(error, errors.CdbError)
    if not isinstance(error, errors.CdbError):
        log.error("a request failed for a reason within the server", exc_info=error)
        error = errors.Unavailable("the server failed at this request: try again later, and tell its operator")
    if isinstance(error, errors.DamagedPayload):
        log.error("damaged payload: %s", error.message)
    fault_class = FAULT_TYPES[type(error)]
    fault = fault_class(faultcode=f"{error.side}.{fault_class.__type_name__}", faultstring=error.message)
    fault.message = error.message
    fault.unexpected = unexpected
    for name, value in error.details.items():
        setattr(fault, name, value)
    return fault
