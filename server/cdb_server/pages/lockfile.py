"""A lock file of the client, as docs/jobs.md describes it: a question and its answer, as JSON, on each line.

A job that runs with it gets these answers, and needs no server but for the bytes.
"""

import dataclasses
import json
from datetime import datetime
from typing import Any

from cdb_server import instants
from cdb_server.model import Applied, CalibrationRecord, Run


def text(applied: Applied, as_of: datetime | None) -> str:
    """The lock file of all that applies: to the run that was asked about, if one was, else at the instant."""
    pinned = {} if as_of is None else {"as_of": instants.spell(as_of)}
    calibrations = [each.calibration for each in applied.applying]
    by_id = [_object(each) for each in sorted(calibrations, key=lambda each: each.id)]
    if applied.run is None:
        when: dict[str, Any] = {"date": instants.spell(applied.instant)}
        of_one = "get_calibration_for_date"
        lines = [_line("get_ids", {"start_time": when["date"]} | pinned, by_id)]
    else:
        when = {"run_number": applied.run.run_number}
        of_one = "get_calibration_for_run"
        lines = [
            _line("get_run", when | pinned, _object(applied.run)),
            _line("get_calibrations_for_run", when | pinned, by_id),
        ]
    for each in calibrations:
        key = {"device_name": each.device_name, "calibration_type": each.calibration_type}
        lines.append(_line(of_one, key | when | pinned, _object(each)))
    return "".join(lines)


def _line(operation: str, asked: dict[str, Any], answer: Any) -> str:
    return json.dumps({"question": {operation: asked}, "answer": answer}, ensure_ascii=False) + "\n"


def _object(record: CalibrationRecord | Run) -> dict[str, Any]:
    """The contract's fields that are not absent, instants as their text."""
    fields = ((field.name, getattr(record, field.name)) for field in dataclasses.fields(record))
    return {
        name: instants.spell(value) if isinstance(value, datetime) else value
        for name, value in fields
        if value is not None
    }
