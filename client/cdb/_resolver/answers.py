"""Convert answers between zeep objects, records and JSON, and check that they match the query."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from cdb._exceptions import CdbError, ForeignAnswer, Integrity, InvalidArgument, ServerUnreachable
from cdb._instants import format_instant, instant
from cdb._resolver.query import Query
from cdb.records import CalibrationRecord, Device, JournalEntry, Preview, Run, RunRange, Status

Record = TypeVar("Record", CalibrationRecord, Device, JournalEntry, Preview, Run, RunRange, Status)
# A record, or a list of records, of the kind that the operation returns.
Answer = Any

# The fields of each kind, and whether they may be None.
_FIELDS: dict[Any, list[tuple[str, bool]]] = {
    kind: [(field.name, "None" in str(field.type)) for field in fields(kind)] for kind in Record.__constraints__
}

# The arguments that an answer or a fault repeats, if it has them.
_ECHOED_ARGUMENTS = {"device_name", "calibration_type", "run_number", "id", "date", "as_of"}

# The kind of record that an operation returns; others return calibrations.
_KINDS: dict[str, Any] = {"get_run": Run, "get_runs": Run, "list_devices": Device}
_LISTS = {"get_ids", "get_calibrations_for_run", "get_history", "list_devices", "get_runs"}

# The fields of faults that are not text.
_INSTANT_FIELDS = {"date", "as_of", "complete_until"}
_INTEGER_FIELDS = {"run_number", "id", "limit"}


def parse_answer(query: Query, answered: Any) -> Answer:
    """Convert the answer that zeep read. Raises ServerUnreachable when it does not belong to this query."""
    answer = _convert(query, answered or [] if query.operation in _LISTS else answered, to_record)
    for record in answer if query.operation == "get_history" else ():
        check_matches(query, record)
    return answer


def _convert(query: Query, answered: Any, convert: Callable[[Any, Any], Any]) -> Answer:
    kind = _KINDS.get(query.operation, CalibrationRecord)
    if query.operation in _LISTS:
        return [convert(kind, found) for found in answered]
    answer = convert(kind, answered)
    check_matches(query, answer)
    return answer


def parse_content(query: Query, answered: Any, known_digests: Sequence[str]) -> tuple[CalibrationRecord, bytes | None]:
    """Convert a calibration with its bytes, or None where the server left them out because the digest is known.

    Raises Integrity for other bytes, ServerUnreachable for another answer.
    """
    record: CalibrationRecord = parse_answer(query, answered)
    if answered.data is None and record.sha256 in known_digests:
        return record, None
    data = answered.data or b""
    # "The sha256 travels with every calibration and is checked […] by the client. On mismatch: an error, never the
    # data."
    if len(data) != record.size or hashlib.sha256(data).hexdigest() != record.sha256:
        raise Integrity(
            f"calibration {record.id} arrived damaged: {len(data)} bytes received, {record.size} of sha256 "
            f"{record.sha256} expected; ask again, or ask another server",
            sha256=record.sha256,
        )
    return record, data


def parse_payload(answered: Any, sha256: str) -> bytes:
    """Verify the bytes of a payload. Raises Integrity for other bytes."""
    data: bytes = answered or b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Integrity(
            f"the payload {sha256} arrived damaged, in {len(data)} bytes: ask again, or ask another server",
            sha256=sha256,
        )
    return data


def to_record(kind: type[Record], answered: Any) -> Record:
    """Convert an object of zeep to a record. Raises ServerUnreachable when it is not of this kind."""
    values: dict[str, Any] = {}
    try:
        for name, is_optional in _FIELDS[kind]:
            value = getattr(answered, name)
            if value is None and not is_optional:
                raise AttributeError(name)
            values[name] = _checked_value(name, value)
    except (AttributeError, InvalidArgument, ValueError):
        raise ForeignAnswer("the answer is not one of a calibration database") from None
    return kind(**values)


def to_json(answer: Answer) -> Any:
    """Convert an answer to JSON: instants in the contract's format, without fields that are None."""
    return [to_json(record) for record in answer] if isinstance(answer, list) else fields_to_json(answer)


def from_json(query: Query, said: Any) -> Answer:
    """Convert JSON to the answer to a query. Raises ValueError when it is none."""
    if query.operation in _LISTS and not isinstance(said, list):
        raise ValueError("not a list")
    try:
        return _convert(query, said, _record_from_json)
    except ServerUnreachable as error:
        raise ValueError(error.message) from None


def fields_to_json(source: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Convert the named attributes, else all fields of a record: instants to text. Leaves out None."""
    names = [field.name for field in fields(source)] if names is None else names
    said = {name: getattr(source, name) for name in names}
    return {
        name: format_instant(value) if isinstance(value, datetime) else value
        for name, value in said.items()
        if value is not None
    }


def error_fields(kind: type[CdbError], said: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the fields that an error of this kind has, and no others, from text. Raises ValueError."""
    values = {name: said.get(name) for name in kind.__annotations__}
    for name, value in values.items():
        if value is not None and name in _INSTANT_FIELDS:
            values[name] = instant(name, str(value))
        elif isinstance(value, str) and name in _INTEGER_FIELDS:
            values[name] = int(value)
    return values


def _record_from_json(kind: Any, said: Any) -> Any:
    if not isinstance(said, dict):
        raise ValueError("not an object")
    kinds = {"int": int, "str": str, "bool": bool, "datetime": str, "tuple[str, ...]": list}
    values: dict[str, Any] = {}
    for field in fields(kind):
        type_name, _, optional = str(field.type).partition(" | ")
        value = said.get(field.name)
        if (value is not None or not optional) and type(value) is not kinds[type_name]:
            raise ValueError(f"{field.name} is {value!r}")
        values[field.name] = value
        if value is not None and type_name == "datetime":
            values[field.name] = instant(field.name, str(value))
        elif isinstance(value, list):
            values[field.name] = tuple(value)
    return kind(**values)


def _checked_value(name: str, value: Any) -> Any:
    """Convert the value of a field. Raises InvalidArgument and ValueError for one that the contract does not admit."""
    if isinstance(value, datetime):
        # In UTC it may lie outside the years 1 to 9999: then it is refused.
        return instant(name, value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is no xs:long")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is not finite")
    if name == "run_range":
        return tuple(to_record(RunRange, found) for found in value)
    if name == "takes_over_from" and value is not None:
        return to_record(CalibrationRecord, value)
    return tuple(value) if isinstance(value, list) else value


def check_matches(query: Query, answer: Any) -> None:
    """Raise ServerUnreachable for the answer to another query, which a wrong cache or connection could return."""
    if told := mismatch(dict(query.arguments), answer):
        raise ForeignAnswer(told)


def mismatch(asked: Mapping[str, Any], answered: object) -> str | None:
    """Describe the argument that an answer or a fault repeats with another value; None where there is none."""
    for argument in asked.keys() & _ECHOED_ARGUMENTS:
        field = getattr(answered, argument, None)
        told = format_instant(field) if isinstance(field, datetime) else field
        if told is not None and str(asked[argument]).casefold() != str(told).casefold():
            return f"asked for {argument} {asked[argument]}, the server answered with {told}"
    return None
