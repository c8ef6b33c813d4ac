"""From what zeep read to the dataclasses of `records`, checked on the way."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any, TypeVar

from cdb._exceptions import Integrity, ServerUnreachable
from cdb.records import CalibrationRecord, CalibrationText, JournalEntry, Preview, Run, RunRange, Status

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


def content_of(answer: Any, asked: dict[str, Any]) -> CalibrationText:
    """A calibration with its bytes. Raises Integrity for other bytes, ServerUnreachable for another answer."""
    record = record_of(CalibrationRecord, answer)
    check_is_of(record, asked)
    data = answer.data or b""
    # "The sha256 travels with every calibration and is checked […] by the client. On mismatch: an error, never
    # the data."
    if len(data) != record.size or hashlib.sha256(data).hexdigest() != record.sha256:
        raise Integrity(
            f"calibration {record.id} arrived damaged: {len(data)} bytes received, {record.size} of sha256 "
            f"{record.sha256} expected; ask again, or ask another server",
            sha256=record.sha256,
        )
    return CalibrationText(record, data)


def payload_of(answer: Any, sha256: str) -> bytes:
    """The bytes of a payload. Raises Integrity for other bytes."""
    data: bytes = answer or b""
    if hashlib.sha256(data).hexdigest() != sha256.lower():
        raise Integrity(
            f"the payload {sha256} arrived damaged, in {len(data)} bytes: ask again, or ask another server",
            sha256=sha256,
        )
    return data
