"""Encodes answers as SOAP envelopes: records, lists, runs, journal entries, payloads in base64.

spyne takes 200 to 500 µs for a look-up, many times what the look-up takes. What is not answered here, faults among it,
spyne answers; a test compares both ways, byte for byte.
"""

import re
from collections.abc import Callable
from typing import Any

import pybase64

from cdb_server.database import statements
from cdb_server.instants import format_instant
from cdb_server.model import (
    CalibrationRecord,
    Device,
    FormattedCalibration,
    FormattedEntry,
    NewCalibration,
    Run,
    RunTimes,
    Withdrawal,
)
from cdb_server.soap.types import NAMESPACE

_ENVELOPE_START = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    '<soap11env:Envelope xmlns:soap11env="http://schemas.xmlsoap.org/soap/envelope/" '
    f'xmlns:tns="{NAMESPACE}"><soap11env:Body>'
)

_ENVELOPE_END = "</soap11env:Body></soap11env:Envelope>"

_SPECIAL = re.compile("[&<>\r]")

# Of an answer: before its payload, the payload, after it.
_Parts = tuple[bytes, bytes, bytes]

# Rows that are written between two looks whether anybody still waits for them.
ROWS_PER_CHECK = 1_000

# What an answer holds: text, then base64, then text.
_Content = tuple[str, bytes, str]


def _single_calibration(found: FormattedCalibration) -> _Content:
    if found.data is None:
        return _calibration_start(found), b"", "</tns:calibration>"
    return f"{_calibration_start(found)}<tns:data>", pybase64.b64encode(found.data), "</tns:data></tns:calibration>"


def _payload(found: bytes) -> _Content:
    return "<tns:data>", pybase64.b64encode(found), "</tns:data>"


def _single_run(found: Run) -> _Content:
    return _run(found), b"", ""


def _list_of(written: Callable[[Any], str], end: str = "") -> Callable[[list[Any]], _Content]:
    def content(found: list[Any]) -> _Content:
        portions = []
        for start in range(0, len(found), ROWS_PER_CHECK):
            statements.check_cancelled()
            portions.append(end.join(map(written, found[start : start + ROWS_PER_CHECK])))
        return (end.join(portions) + end if found else "", b"", "")

    return content


def _calibration(of: CalibrationRecord) -> str:
    return _calibration_start(
        FormattedCalibration(
            of.id,
            of.device_name,
            of.calibration_type,
            format_instant(of.valid_from),
            None if of.valid_until is None else format_instant(of.valid_until),
            format_instant(of.created),
            of.author,
            of.comment,
            of.withdrawn,
            None if of.withdrawn_at is None else format_instant(of.withdrawn_at),
            of.withdrawn_reason,
            of.size,
            of.sha256,
        )
    )


def _calibration_start(of: FormattedCalibration) -> str:
    """A calibration without its end, before which its data may stand."""
    # All at once: a list has many, and takes as long as this.
    id, device, kind, since, until, created, author, comment, withdrawn, withdrawn_at, reason, size, sha256, _ = of
    return (
        f"<tns:calibration><tns:id>{id}</tns:id><tns:device_name>{device}</tns:device_name>"
        f"<tns:calibration_type>{kind}</tns:calibration_type><tns:valid_from>{since}</tns:valid_from>"
        f"{'' if until is None else f'<tns:valid_until>{until}</tns:valid_until>'}<tns:created>{created}</tns:created>"
        f"<tns:author>{_escaped(author)}</tns:author>{'' if comment is None else _optional('comment', comment)}"
        f"{_withdrawn(withdrawn_at, reason) if withdrawn else '<tns:withdrawn>false</tns:withdrawn>'}"
        f"<tns:size>{size}</tns:size><tns:sha256>{sha256}</tns:sha256>"
    )


def _withdrawn(at: str | None, reason: str | None) -> str:
    return f"<tns:withdrawn>true</tns:withdrawn>{_optional('withdrawn_at', at)}{_optional('withdrawn_reason', reason)}"


def _device(of: Device) -> str:
    types = "".join(f"<tns:calibration_type>{known}</tns:calibration_type>" for known in of.calibration_type)
    return f"<tns:device><tns:device_name>{of.device_name}</tns:device_name>{types}</tns:device>"


def _run(of: Run) -> str:
    return (
        f"<tns:run><tns:run_number>{of.run_number}</tns:run_number>{_times(of)}"
        f"<tns:created>{format_instant(of.created)}</tns:created><tns:author>{_escaped(of.author)}</tns:author></tns:run>"
    )


def _entry(of: FormattedEntry) -> str:
    content = ""
    if of.kind == NewCalibration.kind:
        content = (
            f"<tns:device_name>{of.device_name}</tns:device_name>"
            f"<tns:calibration_type>{of.calibration_type}</tns:calibration_type>"
            f"<tns:valid_from>{of.valid_from}</tns:valid_from>{_optional('comment', of.comment)}"
            f"<tns:size>{of.size}</tns:size><tns:sha256>{of.sha256}</tns:sha256>"
        )
    elif of.kind == Withdrawal.kind:
        content = f"<tns:calibration_id>{of.calibration_id}</tns:calibration_id>{_optional('reason', of.reason)}"
    elif of.kind == RunTimes.kind:
        stop = "" if of.stop_time is None else f"<tns:stop_time>{of.stop_time}</tns:stop_time>"
        content = (
            f"<tns:run_number>{of.run_number}</tns:run_number><tns:start_time>{of.start_time}</tns:start_time>{stop}"
        )
    return (
        f"<tns:entry><tns:serial>{of.serial}</tns:serial><tns:kind>{of.kind}</tns:kind>"
        f"<tns:created>{of.created}</tns:created><tns:author>{_escaped(of.author)}</tns:author>"
        f"<tns:digest>{of.digest}</tns:digest>{content}</tns:entry>"
    )


def _times(of: Run) -> str:
    stop = "" if of.stop_time is None else f"<tns:stop_time>{format_instant(of.stop_time)}</tns:stop_time>"
    return f"<tns:start_time>{format_instant(of.start_time)}</tns:start_time>{stop}"


def _optional(tag: str, text: str | None) -> str:
    return "" if text is None else f"<tns:{tag}>{_escaped(text)}</tns:{tag}>"


def _escaped(text: str) -> str:
    """Text as it stands in XML; a bare carriage return would be read as a line feed."""
    if not _SPECIAL.search(text):
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
