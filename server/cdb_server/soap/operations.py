"""Declares each operation: arguments, answer, faults, the method it calls, and how long its answer may be cached."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from spyne import ServiceBase, rpc

from cdb_server import arguments, instants
from cdb_server.model import Entry, JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Credentials
from cdb_server.repository.writer import Upload, Writer
from cdb_server.soap import types
from cdb_server.soap.encoder import (
    _ENVELOPE_END,
    _ENVELOPE_START,
    _calibration,
    _calibration_start,
    _Content,
    _device,
    _entry,
    _list_of,
    _Parts,
    _payload,
    _run,
    _single_calibration,
    _single_run,
)
from cdb_server.soap.wsdl import Wsdl

COMMON_FAULTS = (types.MalformedRequest, types.InvalidArgument, types.Unavailable)

AsOf = types.optional(types.Instant)

KeyArguments = (types.DeviceName, types.CalibrationType)

UploadArguments = (
    *KeyArguments,
    types.Instant,
    types.Data,
    types.optional(types.Sha256),
    types.optional(types.Comment),
)


def _operation(*arguments: Any, answer: Any, name: str, faults: tuple[Any, ...]) -> Any:
    return rpc(*arguments, _returns=answer, _out_variable_name=name, _throws=[*faults, *COMMON_FAULTS])


class Calibration(ServiceBase):
    """`ctx.udc` is the Call of the request."""

    @_operation(
        *KeyArguments,
        types.RunNumber,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.RunNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_calibration_for_run(ctx: Any, device_name: Any, calibration_type: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_run(device_name, calibration_type, run_number, as_of, ctx.udc.held_hashes)

    @_operation(
        *KeyArguments,
        types.Instant,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_calibration_for_date(ctx: Any, device_name: Any, calibration_type: Any, date: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_date(device_name, calibration_type, date, as_of, ctx.udc.held_hashes)

    @_operation(
        *KeyArguments,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_current_calibration(ctx: Any, device_name: Any, calibration_type: Any, as_of: Any) -> Any:
        return ctx.udc.reader.current_calibration(device_name, calibration_type, as_of, ctx.udc.held_hashes)

    @_operation(
        types.Id,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_calibration_for_id(ctx: Any, id: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_id(id, as_of, ctx.udc.held_hashes)

    @_operation(
        types.Instant,
        types.optional(types.Instant),
        AsOf,
        answer=types.many(types.CalibrationRecord),
        name="calibration",
        faults=(types.TooLarge, types.AsOfNotReached),
    )
    def get_ids(ctx: Any, start_time: Any, stop_time: Any, as_of: Any) -> Any:
        return ctx.udc.reader.ids(start_time, stop_time, as_of)

    @_operation(
        types.RunNumber,
        AsOf,
        answer=types.many(types.CalibrationRecord),
        name="calibration",
        faults=(types.RunNotFound, types.TooLarge, types.AsOfNotReached),
    )
    def get_calibrations_for_run(ctx: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibrations_for_run(run_number, as_of)

    @_operation(
        *KeyArguments,
        AsOf,
        answer=types.many(types.CalibrationRecord),
        name="calibration",
        faults=(types.TooLarge, types.AsOfNotReached),
    )
    def get_history(ctx: Any, device_name: Any, calibration_type: Any, as_of: Any) -> Any:
        return ctx.udc.reader.history(device_name, calibration_type, as_of)

    @_operation(AsOf, answer=types.many(types.Device), name="device", faults=(types.TooLarge, types.AsOfNotReached))
    def list_devices(ctx: Any, as_of: Any) -> Any:
        return ctx.udc.reader.devices(as_of)

    @_operation(types.RunNumber, AsOf, answer=types.Run, name="run", faults=(types.RunNotFound, types.AsOfNotReached))
    def get_run(ctx: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.run(run_number, as_of)

    @_operation(
        types.Instant,
        types.optional(types.Instant),
        AsOf,
        answer=types.many(types.Run),
        name="run",
        faults=(types.TooLarge, types.AsOfNotReached),
    )
    def get_runs(ctx: Any, start_time: Any, stop_time: Any, as_of: Any) -> Any:
        return ctx.udc.reader.runs(start_time, stop_time, as_of)

    @_operation(
        types.Serial, types.EntryLimit, answer=types.many(types.JournalEntry), name="entry", faults=(types.TooLarge,)
    )
    def get_journal(ctx: Any, after_serial: Any, limit: Any) -> Any:
        return [_journal_entry(entry, digest) for entry, digest in ctx.udc.reader.journal(after_serial, limit)]

    @_operation(types.Sha256, answer=types.Data, name="data", faults=(types.PayloadNotFound, types.Integrity))
    def get_payload(ctx: Any, sha256: Any) -> Any:
        return ctx.udc.reader.payload(sha256)

    @_operation(answer=types.Status, name="status", faults=())
    def get_status(ctx: Any) -> Any:
        return ctx.udc.reader.status()


class CalibrationSuperMouse(ServiceBase):
    """As Calibration; the Call has a writer and an author."""

    @_operation(
        *UploadArguments, answer=types.CalibrationRecord, name="calibration", faults=(types.Integrity, types.TooLarge)
    )
    def add_calibration(
        ctx: Any,
        device_name: Any,
        calibration_type: Any,
        valid_from: Any,
        data: Any,
        sha256: Any,
        comment: Any,
    ) -> Any:
        upload = Upload.validated(
            device_name, calibration_type, valid_from, data, sha256, comment, max_payload=ctx.udc.max_payload
        )
        return ctx.udc.writer.add_calibration(upload, ctx.udc.author)

    @_operation(*UploadArguments, answer=types.Preview, name="preview", faults=(types.Integrity, types.TooLarge))
    def preview_calibration(
        ctx: Any,
        device_name: Any,
        calibration_type: Any,
        valid_from: Any,
        data: Any,
        sha256: Any,
        comment: Any,
    ) -> Any:
        upload = Upload.validated(
            device_name, calibration_type, valid_from, data, sha256, comment, max_payload=ctx.udc.max_payload
        )
        return ctx.udc.writer.preview_calibration(upload)

    @_operation(
        types.Id, types.Reason, answer=types.CalibrationRecord, name="calibration", faults=(types.CalibrationNotFound,)
    )
    def withdraw_calibration(ctx: Any, id: Any, reason: Any) -> Any:
        return ctx.udc.writer.withdraw_calibration(id, reason, ctx.udc.author)

    @_operation(types.RunNumber, types.Instant, types.optional(types.Instant), answer=types.Run, name="run", faults=())
    def add_run(ctx: Any, run_number: Any, start_time: Any, stop_time: Any) -> Any:
        return ctx.udc.writer.add_run(run_number, start_time, stop_time, ctx.udc.author)


def _journal_entry(entry: Entry, digest: str) -> Any:
    """An entry as the contract has it: the fields of all kinds in one, those of the others absent."""
    content = {field.name: getattr(entry.content, field.name) for field in fields(entry.content)}
    return types.JournalEntry(
        serial=entry.serial,
        kind=entry.content.kind,
        created=entry.created,
        author=entry.author,
        digest=digest,
        **content,
    )


@dataclass(frozen=True, slots=True)
class Cacheability:
    """How long an answer stays right: for ever, or until the journal grows.

    With `since` and `until` only at instants from the one and before the other, where they are given.
    """

    forever: bool
    not_before: datetime | None = None
    expires: datetime | None = None


VALID_FOREVER = Cacheability(forever=True)

VALID_UNTIL_WRITE = Cacheability(forever=False)


class ReadingOperations:
    """The reading service's operations, by name, on one reader; get_status is left to spyne."""

    def __init__(self, reader: Reader, contract: Wsdl) -> None:
        self._reader = reader.formatted()
        self._arguments = {
            name: [(argument.name, ARGUMENT_PARSERS[argument.type]) for argument in arguments]
            for name, arguments in contract.operations.items()
            if name in _OPERATIONS
        }

    def answer(self, name: str, given: dict[str, str], held: frozenset[str]) -> tuple[_Parts, Cacheability] | None:
        """The answer to what the gate let through, and how long it lasts; None where it is left to spyne.

        `given` are the arguments of the operation `name`, as they are spelled. Raises CdbError, as the Reader does.
        """
        if name not in _OPERATIONS:
            return None
        asked, written = _OPERATIONS[name]
        arguments = [read(known, given[known]) if known in given else None for known, read in self._arguments[name]]
        if written is _single_calibration:
            arguments.append(held)
        found = asked(self._reader, *arguments)
        content, data, end = written(found)
        if not content:
            return (f"{_ENVELOPE_START}<tns:{name}Response/>{_ENVELOPE_END}".encode(), b"", b""), _cacheability(
                name, given, found
            )
        begin, end = f"{_ENVELOPE_START}<tns:{name}Response>{content}", f"{end}</tns:{name}Response>{_ENVELOPE_END}"
        if not data:
            return (f"{begin}{end}".encode(), b"", b""), _cacheability(name, given, found)
        return (begin.encode(), data, end.encode()), _cacheability(name, given, found)


class UploadOperation:
    """The writing service's operation of this name alone, on one writer: its payload is too much for spyne."""

    name = "add_calibration"

    def __init__(self, writer: Writer, max_payload: int) -> None:
        self._writer = writer
        self._max_payload = max_payload

    def data(self, base64: bytes) -> bytes:
        """The payload that an upload brings. Raises InvalidArgument and TooLarge."""
        return arguments.decode_payload("data", base64, self._max_payload)

    def answer(
        self, given: dict[str, str], data: bytes, author: str, shown: Credentials | None
    ) -> tuple[_Parts, JournalPosition | None]:
        """The answer to an upload, whose payload is apart; and what the journal is with it.

        Raises CdbError and NotAdmitted, as Upload.checked and the Writer do.
        """
        upload = Upload.validated(
            given["device_name"],
            given["calibration_type"],
            arguments.parse_instant("valid_from", given["valid_from"]),
            data,
            given.get("sha256"),
            given.get("comment"),
            max_payload=self._max_payload,
        )
        stored = self._writer.for_credentials(shown).add_calibration(upload, author)
        begin, end = f"{_ENVELOPE_START}<tns:add_calibrationResponse>", f"</tns:add_calibrationResponse>{_ENVELOPE_END}"
        text = f"{begin}{_calibration(stored)}</tns:calibration>{end}"
        return (text.encode(), b"", b""), self._writer.last_position()


def _cacheability(name: str, given: dict[str, str], found: Any) -> Cacheability:
    # Rule 7: "An answer once given to a question with as_of never changes." What cannot be answered yet, such as a run
    # that is registered later, is no answer. A payload never changes either.
    if "as_of" in given or name == "get_payload":
        return VALID_FOREVER
    if name == "get_current_calibration":
        until = None if found.valid_until is None else instants.parse(found.valid_until)
        return Cacheability(False, instants.parse(found.valid_from), until)
    return VALID_UNTIL_WRITE


# How the contract's types of arguments are read.
ARGUMENT_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "instant": arguments.parse_instant,
    **dict.fromkeys(("device_name", "calibration_type", "sha256"), arguments.parse_text),
    **dict.fromkeys(("id", "run_number", "serial", "entry_limit"), arguments.parse_whole_number),
}

# Whose answers may be long, and take long: they grow with what is stored.
LIST_OPERATIONS = frozenset(("get_ids", "get_history", "get_runs", "get_journal"))

# What each operation asks, and how the answer is written.
_OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[[Any], _Content]]] = {
    "get_calibration_for_run": (Reader.calibration_for_run, _single_calibration),
    "get_calibration_for_date": (Reader.calibration_for_date, _single_calibration),
    "get_current_calibration": (Reader.current_calibration, _single_calibration),
    "get_calibration_for_id": (Reader.calibration_for_id, _single_calibration),
    "get_ids": (Reader.ids, _list_of(_calibration_start, "</tns:calibration>")),
    "get_calibrations_for_run": (Reader.calibrations_for_run, _list_of(_calibration_start, "</tns:calibration>")),
    "get_history": (Reader.history, _list_of(_calibration_start, "</tns:calibration>")),
    "list_devices": (Reader.devices, _list_of(_device)),
    "get_run": (Reader.run, _single_run),
    "get_runs": (Reader.runs, _list_of(_run)),
    "get_journal": (Reader.formatted_journal, _list_of(_entry)),
    "get_payload": (Reader.payload, _payload),
}
