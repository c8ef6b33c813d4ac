"""Reading, answered without spyne: arguments out of the gate's element, records into the bytes that spyne would write.

spyne takes 200 to 500 µs for a look-up, many times what the look-up takes. What is not answered here, faults among it,
spyne answers; a test compares both ways, byte for byte.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pybase64

from cdb_server import instants
from cdb_server.instants import spell
from cdb_server.model import (
    CalibrationLine,
    CalibrationRecord,
    Device,
    JournalLine,
    Knowledge,
    NewCalibration,
    Run,
    RunTimes,
    Withdrawal,
)
from cdb_server.repository import Credentials, Reader, Upload, Writer, cancellation
from cdb_server.soap import values
from cdb_server.soap.contract import Contract
from cdb_server.soap.types import NAMESPACE

_BEGIN = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    '<soap11env:Envelope xmlns:soap11env="http://schemas.xmlsoap.org/soap/envelope/" '
    f'xmlns:tns="{NAMESPACE}"><soap11env:Body>'
)
_END = "</soap11env:Body></soap11env:Envelope>"
_SPECIAL = re.compile("[&<>\r]")


@dataclass(frozen=True, slots=True)
class Lasting:
    """How long an answer stays right: for ever, or until the journal grows.

    With `since` and `until` only at instants from the one and before the other, where they are given.
    """

    for_ever: bool
    since: datetime | None = None
    until: datetime | None = None


# Of an answer: before its payload, the payload, after it.
_Parts = tuple[bytes, bytes, bytes]

# Rows that are written between two looks whether anybody still waits for them.
ROWS_AT_ONCE = 1_000

FOR_EVER = Lasting(for_ever=True)
UNTIL_WRITTEN = Lasting(for_ever=False)


class Direct:
    """The reading service's operations, by name, on one reader; get_status is left to spyne."""

    def __init__(self, reader: Reader, contract: Contract) -> None:
        self._reader = reader.lines()
        self._arguments = {
            name: [(argument.name, _READ[argument.type]) for argument in arguments]
            for name, arguments in contract.operations.items()
            if name in _OPERATIONS
        }

    def answer(self, name: str, given: dict[str, str], held: frozenset[str]) -> tuple[_Parts, Lasting] | None:
        """The answer to what the gate let through, and how long it lasts; None where it is left to spyne.

        `given` are the arguments of the operation `name`, as they are spelled. Raises CdbError, as the Reader does.
        """
        if name not in _OPERATIONS:
            return None
        asked, written = _OPERATIONS[name]
        arguments = [read(known, given[known]) if known in given else None for known, read in self._arguments[name]]
        if written is _with_data:
            arguments.append(held)
        found = asked(self._reader, *arguments)
        content, data, end = written(found)
        if not content:
            return (f"{_BEGIN}<tns:{name}Response/>{_END}".encode(), b"", b""), _lasting(name, given, found)
        begin, end = f"{_BEGIN}<tns:{name}Response>{content}", f"{end}</tns:{name}Response>{_END}"
        if not data:
            return (f"{begin}{end}".encode(), b"", b""), _lasting(name, given, found)
        return (begin.encode(), data, end.encode()), _lasting(name, given, found)


class DirectUploads:
    """The writing service's operation of this name alone, on one writer: its payload is too much for spyne."""

    name = "add_calibration"

    def __init__(self, writer: Writer, max_payload: int) -> None:
        self._writer = writer
        self._max_payload = max_payload

    def data(self, base64: bytes) -> bytes:
        """The payload that an upload brings. Raises InvalidArgument and TooLarge."""
        return values.data("data", base64, self._max_payload)

    def answer(
        self, given: dict[str, str], data: bytes, author: str, shown: Credentials | None
    ) -> tuple[_Parts, Knowledge | None]:
        """The answer to an upload, whose payload is apart; and what the journal is with it.

        Raises CdbError and NotAdmitted, as Upload.checked and the Writer do.
        """
        upload = Upload.checked(
            given["device_name"],
            given["calibration_type"],
            values.instant("valid_from", given["valid_from"]),
            data,
            given.get("sha256"),
            given.get("comment"),
            max_payload=self._max_payload,
        )
        stored = self._writer.asked_with(shown).add_calibration(upload, author)
        begin, end = f"{_BEGIN}<tns:add_calibrationResponse>", f"</tns:add_calibrationResponse>{_END}"
        text = f"{begin}{_calibration(stored)}</tns:calibration>{end}"
        return (text.encode(), b"", b""), self._writer.knowledge()


def _lasting(name: str, given: dict[str, str], found: Any) -> Lasting:
    # Rule 7: "An answer once given to a question with as_of never changes." What cannot be answered yet, such as a run
    # that is registered later, is no answer. A payload never changes either.
    if "as_of" in given or name == "get_payload":
        return FOR_EVER
    if name == "get_current_calibration":
        until = None if found.valid_until is None else instants.parse(found.valid_until)
        return Lasting(False, instants.parse(found.valid_from), until)
    return UNTIL_WRITTEN


# What an answer holds: text, then base64, then text.
_Content = tuple[str, bytes, str]


def _with_data(found: CalibrationLine) -> _Content:
    if found.data is None:
        return _line(found), b"", "</tns:calibration>"
    return f"{_line(found)}<tns:data>", pybase64.b64encode(found.data), "</tns:data></tns:calibration>"


def _payload(found: bytes) -> _Content:
    return "<tns:data>", pybase64.b64encode(found), "</tns:data>"


def _one_run(found: Run) -> _Content:
    return _run(found), b"", ""


def _all(written: Callable[[Any], str], end: str = "") -> Callable[[list[Any]], _Content]:
    def content(found: list[Any]) -> _Content:
        portions = []
        for start in range(0, len(found), ROWS_AT_ONCE):
            cancellation.check()
            portions.append(end.join(map(written, found[start : start + ROWS_AT_ONCE])))
        return (end.join(portions) + end if found else "", b"", "")

    return content


def _calibration(of: CalibrationRecord) -> str:
    return _line(
        CalibrationLine(
            of.id,
            of.device_name,
            of.calibration_type,
            spell(of.valid_from),
            None if of.valid_until is None else spell(of.valid_until),
            spell(of.created),
            of.author,
            of.comment,
            of.withdrawn,
            None if of.withdrawn_at is None else spell(of.withdrawn_at),
            of.withdrawn_reason,
            of.size,
            of.sha256,
        )
    )


def _line(of: CalibrationLine) -> str:
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
        f"<tns:created>{spell(of.created)}</tns:created><tns:author>{_escaped(of.author)}</tns:author></tns:run>"
    )


def _entry(of: JournalLine) -> str:
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
    stop = "" if of.stop_time is None else f"<tns:stop_time>{spell(of.stop_time)}</tns:stop_time>"
    return f"<tns:start_time>{spell(of.start_time)}</tns:start_time>{stop}"


def _optional(tag: str, text: str | None) -> str:
    return "" if text is None else f"<tns:{tag}>{_escaped(text)}</tns:{tag}>"


def _escaped(text: str) -> str:
    """Text as it stands in XML; a bare carriage return would be read as a line feed."""
    if not _SPECIAL.search(text):
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


# How the contract's types of arguments are read.
_READ: dict[str, Callable[[str, str], Any]] = {
    "instant": values.instant,
    **dict.fromkeys(("device_name", "calibration_type", "sha256"), values.words),
    **dict.fromkeys(("id", "run_number", "serial", "entry_limit"), values.whole_number),
}

# Whose answers may be long, and take long: they grow with what is stored.
LISTS = frozenset(("get_ids", "get_history", "get_runs", "get_journal"))

# What each operation asks, and how the answer is written.
_OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[[Any], _Content]]] = {
    "get_calibration_for_run": (Reader.calibration_for_run, _with_data),
    "get_calibration_for_date": (Reader.calibration_for_date, _with_data),
    "get_current_calibration": (Reader.current_calibration, _with_data),
    "get_calibration_for_id": (Reader.calibration_for_id, _with_data),
    "get_ids": (Reader.ids, _all(_line, "</tns:calibration>")),
    "get_calibrations_for_run": (Reader.calibrations_for_run, _all(_line, "</tns:calibration>")),
    "get_history": (Reader.history, _all(_line, "</tns:calibration>")),
    "list_devices": (Reader.devices, _all(_device)),
    "get_run": (Reader.run, _one_run),
    "get_runs": (Reader.runs, _all(_run)),
    "get_journal": (Reader.journal_lines, _all(_entry)),
    "get_payload": (Reader.payload, _payload),
}
