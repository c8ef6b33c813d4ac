"""Describe a query as data: operation, arguments, as_of, cache key; and the minimum serial it needs."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from typing import Any

# Those whose answer is one calibration with its content.
_CONTENT_OPERATIONS = (
    "get_calibration_for_run",
    "get_calibration_for_date",
    "get_current_calibration",
    "get_calibration_for_id",
)

_GROUP_ARGUMENTS = ("device_name", "calibration_type", "id")


@dataclass(frozen=True)
class Query:
    """What is asked of the read service. `as_of` is the contract's text of an instant, `now`, or None."""

    operation: str
    arguments: tuple[tuple[str, str | int], ...]
    as_of: str | None = None

    @classmethod
    def of(cls, operation: str, as_of: str | None = None, **arguments: str | int | None) -> Query:
        """A question; arguments that are None are not given. Names are spelled as the database stores them."""
        given = {name: value for name, value in arguments.items() if value is not None}
        for name, stored in (("device_name", str.upper), ("calibration_type", str.lower)):
            value = given.get(name)
            # Others are for the server to refuse: in Unicode, names that are none become names by a change of case.
            if isinstance(value, str) and value.isascii():
                given[name] = stored(value)
        return cls(operation, tuple(given.items()), as_of)

    @property
    def wire_arguments(self) -> dict[str, Any]:
        """The arguments of the call."""
        return dict(self.arguments) | ({} if self.as_of is None else {"as_of": self.as_of})

    @property
    def returns_content(self) -> bool:
        """Whether the answer is one calibration with its content."""
        return self.operation in _CONTENT_OPERATIONS

    def with_as_of(self, as_of: str | None) -> Query:
        """The same question with another as_of."""
        return Query(self.operation, self.arguments, as_of)

    def bulk_query(self) -> Query | None:
        """The question about all devices and types of which the answer to this one is a part, if there is one.

        "For every run r: for_run(d, c, r) == for_date(d, c, start of r)"; and a calibration applies to a run, or at a
        date, just when it is in the list of those that do.
        """
        asked = dict(self.arguments)
        if self.operation == "get_calibration_for_run":
            return Query("get_calibrations_for_run", (("run_number", asked["run_number"]),), self.as_of)
        if self.operation == "get_calibration_for_date":
            return Query("get_ids", (("start_time", asked["date"]),), self.as_of)
        return None

    def group_key(self) -> str:
        """The name among files of what is asked about, whenever it applies: a device and type, or an id."""
        return _sha256_hex(json.dumps([value for name, value in self.arguments if name in _GROUP_ARGUMENTS]))

    def cache_key(self) -> str:
        """The question's name among files."""
        return _sha256_hex(self.canonical_json())

    def canonical_json(self) -> str:
        """The question as JSON, the same for the same question."""
        return json.dumps({self.operation: self.wire_arguments}, sort_keys=True, ensure_ascii=False)

    def __str__(self) -> str:
        """The question as a call in Python."""
        return f"{self.operation}({', '.join(f'{name}={value!r}' for name, value in self.wire_arguments.items())})"


def _sha256_hex(text: str) -> str:
    # Half a character can be asked for; the server will refuse it.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class MinimumSerial:
    """A serial that many threads raise, and that a child process may have from a fork at any moment."""

    def __init__(self, serial: int) -> None:
        self._by_thread = {0: serial}

    @property
    def serial(self) -> int:
        """The greatest so far."""
        return max(self._by_thread.copy().values())

    def raise_to(self, serial: int) -> None:
        """Raise it, unless it is as great."""
        # Each thread writes its own place alone: nothing is lost, and there is no lock that a fork could leave held.
        me = threading.get_ident()
        self._by_thread[me] = max(serial, self._by_thread.get(me, 0))
