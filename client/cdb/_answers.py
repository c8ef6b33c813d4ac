"""From what zeep read to the dataclasses of `records`, checked on the way."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timezone
from typing import Any, TypeVar

from cdb._exceptions import ServerUnreachable
from cdb.records import CalibrationRecord, JournalEntry, Preview, Run, RunRange, Status

Record = TypeVar("Record", CalibrationRecord, JournalEntry, Preview, Run, RunRange, Status)


def record_of(kind: type[Record], answer: Any) -> Record:
    """A dataclass of an answer. Raises ServerUnreachable when the answer is not of its kind."""
    values: dict[str, Any] = {}
    try:
        for field in fields(kind):
            value = getattr(answer, field.name)
            if value is None and "None" not in str(field.type):
                raise AttributeError(field.name)
            values[field.name] = _value(field.name, value)
    except AttributeError:
        raise ServerUnreachable("the answer is not one of a calibration database") from None
    return kind(**values)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc)
    if name == "run_range":
        return tuple(record_of(RunRange, found) for found in value)
    if name == "takes_over_from" and value is not None:
        return record_of(CalibrationRecord, value)
    return value


def check_is_of(record: CalibrationRecord, asked: dict[str, Any]) -> None:
    """Raise ServerUnreachable for the answer to another question, as a confused cache or connection could give it."""
    right = {
        "device_name": record.device_name,
        "calibration_type": record.calibration_type,
        "id": record.id,
    }
    for argument, answered in right.items():
        if str(asked.get(argument, answered)).casefold() != str(answered).casefold():
            raise ServerUnreachable(f"asked for {argument} {asked[argument]}, the server answered with {answered}")
