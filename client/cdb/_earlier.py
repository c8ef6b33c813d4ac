"""What callers of the earlier CDB's Python client rely on: its orders of arguments, its addresses, what it told.

Reconstruction code and upload scripts that were written for it run with this client instead; docs/migration.md says
what differs.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from typing import Any

from cdb._exceptions import InvalidArgument
from cdb.records import Status

# The end of its services' addresses.
_SERVICE = re.compile(r"/cdb/((?:calibration|cabling)(?:SuperMouse)?)/?(?:\?wsdl)?/?$", re.IGNORECASE)


class Earlier(ABC):
    """What the earlier client's objects told of their server and of themselves."""

    @abstractmethod
    def get_status(self) -> Status:
        """What the server says of itself; as text, `OK`."""

    @abstractmethod
    def get_server_host_name(self) -> str:
        """The host of the first server that is named."""

    @abstractmethod
    def set_url(self, url: str) -> None:
        """Ask another server from now on."""

    def get_name(self) -> str:
        """The name of the server: its host's."""
        return self.get_server_host_name()

    def get_server_info(self) -> str:
        """The server's version, what it is, and how many entries its journal has."""
        status = self.get_status()
        return f"mice-cdb {status.version}, {status.role}, {status.serial} entries"

    def get_version(self) -> str:
        """The version of this client."""
        from importlib.metadata import version

        return version("mice-cdb")

    def __str__(self) -> str:
        """The methods with their arguments."""
        kind = type(self)
        methods = sorted(name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_"))
        return "\n\t".join([kind.__name__, *(f"{name}({_arguments(getattr(kind, name))})" for name in methods)])


def in_our_order(calibration_type: Any, when: Any) -> tuple[Any, Any]:
    """A calibration type and a run or a time, given so or, as to the earlier client, the other way round.

    Rule 2: "Type: the same, beginning with a letter." A time or a run never does, so that it is sure which is which.
    Given the other way round, a run may be digits in text, as it could be there.
    """
    if not _may_be_type(when) or _may_be_type(calibration_type):
        return calibration_type, when
    is_digits = isinstance(calibration_type, str) and calibration_type.isascii() and calibration_type.isdecimal()
    return when, int(calibration_type) if is_digits else calibration_type


def base_of(url: str) -> str:
    """The base URL of the server that an address of the earlier CDB's names, such as `…/cdb/calibration?wsdl`.

    A base URL is one already. Raises InvalidArgument for what is neither.
    """
    return base_and_service(url)[0]


def base_and_service(url: str) -> tuple[str, str | None]:
    """The base URL, and which service an address of the earlier CDB's names, if any, such as `calibration`."""
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
    return isinstance(value, str) and value[:1].isalpha()


def _arguments(method: Any) -> str:
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self"
    ]
    return ", ".join(map(str, parameters))
