"""Define the client's errors: permanent or temporary, with one class per fault of the contract."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TypeVar

Error = TypeVar("Error", bound="CdbError")


class CdbError(Exception):
    """The base of all errors of this package. `message` says what was asked, what is wrong and what to do next.

    The fields of the service's fault are attributes under the contract's names. `exception` is what it was raised for.
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
        """The earlier CDB's name of `message`."""
        return self.message

    def get_exception(self) -> BaseException | None:
        """The exception that this one was raised for, None where there is none; as the earlier CDB called it."""
        return self.__cause__

    def retold(self: Error, message: str) -> Error:
        """The same error in other words."""
        return type(self)(message, **self._fields)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), self.message, **self._fields), ()


class CdbPermanentError(CdbError):
    """Asking the same again will not help."""


class CdbTemporaryError(CdbError):
    """Asking the same again may help, later or at another server. To repeat a write is safe."""


class CalibrationNotFound(CdbPermanentError, LookupError):
    """No calibration applies, or none has this id. What was not asked is None."""

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
    """Bytes are not those that `sha256` names: what was sent, what the server keeps, or what was received."""

    sha256: str


class TooLarge(CdbPermanentError):
    """The payload or the list is larger than `limit` (bytes, or rows); None where the server did not say."""

    limit: int | None = None


class MalformedRequest(CdbPermanentError):
    """The server did not understand this client: they are of different versions, or something interferes."""


class NotAuthorised(CdbPermanentError):
    """The server takes no writes from this user, or from this machine's network."""


class AsOfNotReached(CdbTemporaryError):
    """`as_of` lies after `complete_until`, the instant up to which the server knows everything."""

    as_of: datetime
    complete_until: datetime


class Unavailable(CdbTemporaryError):
    """The server cannot answer now."""


class ServerUnreachable(CdbTemporaryError):
    """No server answered in time, or what answered is not a calibration database."""


class ForeignAnswer(ServerUnreachable):
    """What answered does not speak as a calibration database does. Callers know it as ServerUnreachable."""


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
