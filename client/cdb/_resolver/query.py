"""Describe a query as data: operation, arguments, as_of, cache key; and the minimum serial it needs."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from typing import Any

# Operations that return one calibration with its content.
_CONTENT_OPERATIONS = (
    "get_calibration_for_run",
    "get_calibration_for_date",
    "get_current_calibration",
    "get_calibration_for_id",
)

_GROUP_ARGUMENTS = ("device_name", "calibration_type", "id")


@dataclass(frozen=True)
class Query:
    """A call of the read service. `as_of` is an instant in the contract's format, `now`, or None."""

    operation: str
    arguments: tuple[tuple[str, str | int], ...]
    as_of: str | None = None

    @classmethod
    def of(cls, operation: str, as_of: str | None = None, **arguments: str | int | None) -> Query:
        """Make a query; leaves out arguments that are None, and puts names into the case that the database stores."""
        given = {name: value for name, value in arguments.items() if value is not None}
        for name, stored in (("device_name", str.upper), ("calibration_type", str.lower)):
            value = given.get(name)
            # The server refuses others. Changing their case could turn an invalid name into a valid one.
            if isinstance(value, str) and value.isascii():
                given[name] = stored(value)
        return cls(operation, tuple(given.items()), as_of)

    @property
    def wire_arguments(self) -> dict[str, Any]:
        """The arguments of the call, with as_of."""
        return dict(self.arguments) | ({} if self.as_of is None else {"as_of": self.as_of})

    @property
    def returns_content(self) -> bool:
        """True where the operation returns one calibration with its content."""
        return self.operation in _CONTENT_OPERATIONS

    def with_as_of(self, as_of: str | None) -> Query:
        """Copy the query with another as_of."""
        return Query(self.operation, self.arguments, as_of)

    def bulk_query(self) -> Query | None:
        """Return the query about all devices and types whose answer contains the answer to this one, if any.

        "For every run r: for_run(d, c, r) == for_date(d, c, start of r)"; and a calibration applies to a run, or at a
        date, exactly when the list for all devices has it.
        """
        asked = dict(self.arguments)
        if self.operation == "get_calibration_for_run":
            return Query("get_calibrations_for_run", (("run_number", asked["run_number"]),), self.as_of)
        if self.operation == "get_calibration_for_date":
            return Query("get_ids", (("start_time", asked["date"]),), self.as_of)
        return None

    def group_key(self) -> str:
        """Return a file name for the device and type, or the id, that the query is about."""
        return _sha256_hex(json.dumps([value for name, value in self.arguments if name in _GROUP_ARGUMENTS]))

    def cache_key(self) -> str:
        """Return a file name for the query."""
        return _sha256_hex(self.canonical_json())

    def canonical_json(self) -> str:
        """Return the query as JSON; equal queries have equal texts."""
        return json.dumps({self.operation: self.wire_arguments}, sort_keys=True, ensure_ascii=False)

    def __str__(self) -> str:
        """Return the query as a call in Python."""
        return f"{self.operation}({', '.join(f'{name}={value!r}' for name, value in self.wire_arguments.items())})"


def _sha256_hex(text: str) -> str:
    # A lone surrogate cannot be encoded otherwise; the server will refuse it.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class MinimumSerial:
    """A serial that many threads raise. Safe to copy by a fork at any moment."""

    def __init__(self, serial: int) -> None:
        self._by_thread = {0: serial}

    @property
    def serial(self) -> int:
        """The greatest serial so far."""
        return max(self._by_thread.copy().values())

    def raise_to(self, serial: int) -> None:
        """Raise it to a serial, unless it is greater."""
        # Each thread writes only its own entry: this needs no lock, which a fork could leave locked.
        me = threading.get_ident()
        self._by_thread[me] = max(serial, self._by_thread.get(me, 0))
