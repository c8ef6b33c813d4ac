"""Accept code written for the legacy CDB client: its argument orders, addresses, method and class names.

Reconstruction code and upload scripts that were written for it run with this client instead; docs/migration.md says
what differs.
"""

from __future__ import annotations

import functools
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from cdb._exceptions import CdbPermanentError, InvalidArgument
from cdb.records import Status

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

# How the addresses of its services end.
_SERVICE = re.compile(r"/cdb/((?:calibration|cabling)(?:SuperMouse)?)/?(?:\?wsdl)?/?$", re.IGNORECASE)

# The classes of its version 1.1.9 for data that this database does not hold; each has a SuperMouse class, too. Code
# imports them together with those for calibrations.
MISSING_CLASSES = (
    "AlarmHandler",
    "BatchIteration",
    "Beamline",
    "CoolingChannel",
    "DataQuality",
    "Geometry",
    "MCSerialNumber",
    "PIDCtrl",
    "StateMachine",
    "Target",
)


class LegacyMethods(ABC):
    """The methods by which the earlier client's objects describe their server and themselves."""

    @abstractmethod
    def get_status(self) -> Status:
        """Get the server's status; as text, `OK`."""

    @abstractmethod
    def get_server_host_name(self) -> str:
        """Return the host of the first server."""

    def get_name(self) -> str:
        """Return the host of the first server, too."""
        return self.get_server_host_name()

    def get_server_info(self) -> str:
        """Return the server's version, its role, and the number of its journal's entries."""
        status = self.get_status()
        return f"mice-cdb {status.version}, {status.role}, {status.serial} entries"

    def get_version(self) -> str:
        """Return the version of this client."""
        from importlib.metadata import version

        return version("mice-cdb")

    def __str__(self) -> str:
        """List the methods with their arguments."""
        kind = type(self)
        methods = sorted(name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_"))
        return "\n\t".join([kind.__name__, *(f"{name}({_arguments(getattr(kind, name))})" for name in methods)])


def missing_class(name: str) -> type:
    """Make a class of the earlier client that raises when it is used, and tells where its data is."""

    def refuse(self: object, *_: object, **__: object) -> None:
        raise CdbPermanentError(
            f"cdb.{name} is not in this client, which has calibrations and cabling alone: what it asks for stayed at "
            "the experiment's earlier CDB; ask that server, with the earlier client in an environment of its own"
        )

    return type(name, (), {"__init__": refuse, "__doc__": "A class of the earlier CDB's client; to make one raises."})


def accept_legacy_order(when: str) -> Callable[[Callable[Given, Answer]], Callable[Given, Answer]]:
    """Let a method that takes (device, type, run or time) also take the earlier client's (device, run or time, type).

    `when` names the argument of the run or the time. The type may also be given by its name.
    """

    def taking(method: Callable[Given, Answer]) -> Callable[Given, Answer]:
        @functools.wraps(method)
        def take(*args: Any, **named: Any) -> Any:
            if len(args) == 3 and "calibration_type" in named and when not in named:
                args = (*args[:2], named.pop("calibration_type"), args[2])
            elif len(args) >= 4:
                args = (*args[:2], *_reordered(args[2], args[3], when), *args[4:])
            return method(*args, **named)

        return take

    return taking


def _reordered(calibration_type: Any, given: Any, when: str) -> tuple[Any, Any]:
    """Put a calibration type and a run or a time in this order, whichever order they are given in.

    Rule 2: "Type: the same, beginning with a letter." A time or a run never does, so that it is sure which is which.
    Given the other way round, a run may be digits in text, as it could be there. Raises InvalidArgument where both may
    be types.
    """
    if not _may_be_type(given):
        return calibration_type, given
    if _may_be_type(calibration_type):
        what = "a run's number" if when == "run_number" else "a time, like '2016-03-01 08:00:00'"
        raise InvalidArgument(
            f"{when}: neither {calibration_type!r} nor {given!r} is {what}; one of them must be", argument=when
        )
    is_digits = isinstance(calibration_type, str) and calibration_type.isascii() and calibration_type.isdecimal()
    return given, int(calibration_type) if is_digits else calibration_type


def split_address(url: str) -> tuple[str, str | None]:
    """Split an address of the earlier CDB's, such as `…/cdb/calibration?wsdl`, into base URL and service.

    The service of a base URL is None. Raises InvalidArgument for an address that is neither.
    """
    named = _SERVICE.search(url)
    base = url[: named.start()] if named else url
    if not base or "?" in base:
        shown = "a URL with an @" if "@" in url else repr(url)
        raise InvalidArgument(
            f"{shown} is no address of a server: give its base URL, like http://localhost:8080, or the earlier one of "
            "its WSDL, like http://localhost:8080/cdb/calibration?wsdl",
            argument="url",
        )
    return base, named[1] if named else None


def _may_be_type(value: Any) -> bool:
    return isinstance(value, str) and value[:1].isalpha() and ":" not in value


def _arguments(method: Any) -> str:
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self"
    ]
    return ", ".join(map(str, parameters))
