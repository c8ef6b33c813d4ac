"""Define the client's errors: permanent or temporary, with one class per fault of the contract."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TypeVar

Error = TypeVar("Error", bound="CdbError")


class CdbError(Exception):
    """Base of all errors of this package. `message` tells what was asked, what is wrong and what to do next.

    The fields of the service's fault are attributes with the contract's names. `exception` becomes its cause.
    """

    def __init__(self, message: str, exception: BaseException | None = None, /, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        if exception is not None:
            self.__cause__ = exception
        self._fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def get_message(self) -> str:
        """Return `message`, under the earlier CDB's name."""
        return self.message

    def get_exception(self) -> BaseException | None:
        """Return the exception that caused this one, or None, under the earlier CDB's name."""
        return self.__cause__

    def retold(self: Error, message: str) -> Error:
        """Copy the error with another message."""
        return type(self)(message, **self._fields)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), self.message, **self._fields), ()


class CdbPermanentError(CdbError):
    """Repeating the call will not help."""


class CdbTemporaryError(CdbError):
    """Repeating the call may help, later or at another server. Repeating a write is safe."""


class CalibrationNotFound(CdbPermanentError, LookupError):
    """No calibration applies, or none has this id. Fields that were not asked for are None."""

    device_name: str | None = None
    calibration_type: str | None = None
    run_number: int | None = None
    date: datetime | None = None
    id: int | None = None
    as_of: datetime | None = None


class RunNotFound(CdbPermanentError, LookupError):
    """The run is not registered: ask by date."""

    run_number: int
    as_of: datetime | None = None


class PayloadNotFound(CdbPermanentError, LookupError):
    """No payload has this SHA-256."""

    sha256: str


class InvalidArgument(CdbPermanentError, ValueError):
    """The value of an argument cannot be accepted; `argument` is its name."""

    argument: str


class Integrity(CdbPermanentError):
    """The bytes sent, stored or received do not have this `sha256`."""

    sha256: str


class TooLarge(CdbPermanentError):
    """The payload or the list is larger than `limit` (bytes, or rows); None where the server did not say."""

    limit: int | None = None


class MalformedRequest(CdbPermanentError):
    """The server did not understand the request: versions differ, or something between altered it."""


class NotAuthorised(CdbPermanentError):
    """The server accepts no writes from this user, or from this machine's network."""


class AsOfNotReached(CdbTemporaryError):
    """`as_of` lies after `complete_until`, the instant up to which the server knows everything."""

    as_of: datetime
    complete_until: datetime


class Unavailable(CdbTemporaryError):
    """The server cannot answer now."""


class ServerUnreachable(CdbTemporaryError):
    """No server answered in time, or the one that answered is not a calibration database."""


class ForeignAnswer(ServerUnreachable):
    """The response is not one of a calibration database. Callers catch it as ServerUnreachable."""


FAULTS: dict[str, type[CdbError]] = {
    fault.__name__: fault
    for fault in (
        CalibrationNotFound,
        RunNotFound,
        PayloadNotFound,
        InvalidArgument,
        Integrity,
        TooLarge,
        MalformedRequest,
        AsOfNotReached,
        Unavailable,
    )
}
