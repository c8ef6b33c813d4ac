"""Defines the errors callers see: the fault each becomes on the wire, and the HTTP status of each.

The text of an error is for the person who asked: what was asked, what is wrong, what to do next (rule 14). Nothing of
the server's inside belongs in it; that goes to the log.
"""

from datetime import datetime
from typing import Any, Literal

from cdb_server import instants


class CdbError(Exception):
    """The base of all errors that callers are told about.

    `side` says whose the cause is: the Client's, who must ask otherwise, or the Server's. `asked` holds the fields of
    the fault's detail beside its message, under the contract's names and in its order.
    """

    side: Literal["Client", "Server"] = "Client"

    def __init__(self, message: str, **asked: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = asked


class CalibrationNotFound(CdbError, LookupError):
    """No calibration applies, or none has this id. `hint` says what there is instead."""

    def __init__(
        self,
        hint: str,
        *,
        device_name: str | None = None,
        calibration_type: str | None = None,
        run_number: int | None = None,
        date: datetime | None = None,
        id: int | None = None,
        as_of: datetime | None = None,
    ) -> None:
        if id is not None:
            what = f"there is no calibration with id {id}"
        else:
            when = " now" if as_of is None else ""
            if date is not None:
                start = "" if run_number is None else f"the start of run {run_number}, "
                when = f" at {start}{instants.format_instant(date)}"
            what = f"no calibration of {device_name} {calibration_type} applies{when}"
        super().__init__(
            f"{what}{_as_of(as_of)}: {hint}",
            device_name=device_name,
            calibration_type=calibration_type,
            run_number=run_number,
            date=date if run_number is None else None,
            id=id,
            as_of=as_of,
        )


class RunNotFound(CdbError, LookupError):
    """Rule 5: "An unknown run is an error that says so and names the way by date"."""

    def __init__(self, run_number: int, as_of: datetime | None = None) -> None:
        super().__init__(
            f"run {run_number} is not registered: ask by date, with the time at which it started, or register it",
            run_number=run_number,
            as_of=as_of,
        )


class InvalidArgument(CdbError, ValueError):
    """The value of an argument cannot be accepted."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(problem, argument=argument)
        self.argument = argument


class Integrity(CdbError):
    """Bytes sent do not have the sha256 sent with them; nothing was stored."""

    def __init__(self, sha256: str, message: str) -> None:
        super().__init__(message, sha256=sha256)


class DamagedPayload(Integrity):
    """Integrity lost at the server: its copy of a payload is missing or is not what was stored (rule 13)."""

    side = "Server"

    def __init__(self, sha256: str) -> None:
        super().__init__(
            sha256,
            f"this server's copy of the payload {sha256} is damaged: ask another server, and tell its operator",
        )


class TooLarge(CdbError):
    """More bytes than are taken, or more rows than are given."""

    def __init__(self, limit: int, message: str) -> None:
        super().__init__(message, limit=limit)


class AsOfNotReached(CdbError):
    """Rule 7: "A later as_of is refused as not reached (temporary)"."""

    def __init__(self, as_of: datetime, complete_until: datetime) -> None:
        super().__init__(
            f"as_of {instants.format_instant(as_of)} is not reached: this server's journal is complete until "
            f"{instants.format_instant(complete_until)}; ask again later, or with an as_of not after that",
            as_of=as_of,
            complete_until=complete_until,
        )


class MalformedRequest(CdbError):
    """The request is not what the WSDL describes."""


class Unavailable(CdbError):
    """The server cannot answer now; asking again may help. A write may be repeated safely (rule 9)."""

    side = "Server"


class PayloadNotFound(CdbError, LookupError):
    """No calibration has a payload of this sha256."""

    def __init__(self, sha256: str) -> None:
        super().__init__(
            f"there is no payload with the sha256 {sha256}: get_history tells which there are", sha256=sha256
        )


class LargePayload(Exception):
    """A payload of `size` bytes is wanted where none so large is given: of a calibration that was `found`, or alone."""

    def __init__(self, size: int, sha256: str, found: Any = None) -> None:
        super().__init__(f"the payload has {size} bytes")
        self.size = size
        self.sha256 = sha256
        self.calibration = found


class LongList(Exception):
    """A list that may be long is wanted where none is made."""


class InvalidToken(Exception):
    """User and token do not belong together, or no longer: who asks may not write."""


class Diverged(Exception):
    """A mirror and its master have different histories, or what came was changed on its way. For the operator."""


class DatabaseUnusable(Exception):
    """The database that was named cannot be used: missing, foreign, newer or already there. For the operator."""


class DatabaseExists(DatabaseUnusable):
    """There is a database already where one was to be made."""


class TlsUnusable(Exception):
    """A certificate or key that was named cannot be used. For the operator."""


def _as_of(as_of: datetime | None) -> str:
    return "" if as_of is None else f" as of {instants.format_instant(as_of)}"


def too_many_writes() -> Unavailable:
    """What who waited too long is told."""
    return Unavailable("too many writes are waiting: try again later")


# After how many seconds whoever was told Unavailable may ask again, in Retry-After.
RETRY_AFTER_SECONDS = "10"

STATUS_OF_ERROR: dict[type[CdbError], int] = {
    CalibrationNotFound: 404,
    RunNotFound: 404,
    PayloadNotFound: 404,
    InvalidArgument: 400,
    Integrity: 400,
    TooLarge: 413,
    MalformedRequest: 400,
    AsOfNotReached: 503,
    Unavailable: 503,
    DamagedPayload: 500,
}
