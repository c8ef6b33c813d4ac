"""From a domain error to the fault that says it on the wire: the one place where that happens."""

import logging
from typing import Any

from spyne import Fault

from cdb_server import errors
from cdb_server.soap import types

log = logging.getLogger(__name__)

FAULTS: dict[type[errors.CdbError], type[types.TypedFault]] = {
    errors.CalibrationNotFound: types.CalibrationNotFound,
    errors.RunNotFound: types.RunNotFound,
    errors.PayloadNotFound: types.PayloadNotFound,
    errors.InvalidArgument: types.InvalidArgument,
    errors.Integrity: types.Integrity,
    errors.DamagedPayload: types.Integrity,
    errors.TooLarge: types.TooLarge,
    errors.AsOfNotReached: types.AsOfNotReached,
    errors.MalformedRequest: types.MalformedRequest,
    errors.Unavailable: types.Unavailable,
}

# All that a fault may be named, but for those that spyne might have of its own.
FAULT_NAMES = (*dict.fromkeys(fault.__type_name__ for fault in FAULTS.values()), "VersionMismatch", "MustUnderstand")


# What a fault is counted as that only a mistake in this program makes, as HTTP's own answers are.
UNEXPECTED = "500"


class EnvelopeRefused(Exception):
    """A refusal that SOAP 1.1 itself defines: `code` is VersionMismatch or MustUnderstand."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def name_of(fault: Fault) -> str:
    """A fault's name, without the side that it is on."""
    return str(fault.faultcode).rpartition(".")[2]


def outcome_of(fault: Fault) -> str:
    """What a fault is counted as: its name, or UNEXPECTED."""
    return UNEXPECTED if getattr(fault, "unexpected", False) else name_of(fault)


def fault_of(error: Exception) -> Any:
    """The fault for any exception. One that is none of ours goes to the log, and out as Unavailable (rule 14)."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, EnvelopeRefused):
        return Fault(faultcode=error.code, faultstring=str(error))
    unexpected = not isinstance(error, errors.CdbError)
    if not isinstance(error, errors.CdbError):
        log.error("a request failed for a reason within the server", exc_info=error)
        error = errors.Unavailable("the server failed at this request: try again later, and tell its operator")
    if isinstance(error, errors.DamagedPayload):
        log.error("damaged payload: %s", error.message)
    fault_class = FAULTS[type(error)]
    fault = fault_class(faultcode=f"{error.side}.{fault_class.__type_name__}", faultstring=error.message)
    fault.message = error.message
    fault.unexpected = unexpected
    for name, value in error.asked.items():
        setattr(fault, name, value)
    return fault
