"""The operations of both services: wire to repository and back, and nothing else."""

from dataclasses import fields
from typing import Any

from spyne import ServiceBase, rpc

from cdb_server.model import Entry
from cdb_server.repository import Upload
from cdb_server.soap import types as t

COMMON = (t.MalformedRequest, t.InvalidArgument, t.Unavailable)
AsOf = t.optional(t.Instant)
Key = (t.DeviceName, t.CalibrationType)
Calibrated = (*Key, t.Instant, t.Data, t.optional(t.Sha256), t.optional(t.Comment))


def _operation(*arguments: Any, answer: Any, name: str, faults: tuple[Any, ...]) -> Any:
    return rpc(*arguments, _returns=answer, _out_variable_name=name, _throws=[*faults, *COMMON])


class Calibration(ServiceBase):
    """`ctx.udc` is the Call of the request."""

    @_operation(
        *Key,
        t.RunNumber,
        AsOf,
        answer=t.CalibrationRecord,
        name="calibration",
        faults=(t.CalibrationNotFound, t.RunNotFound, t.Integrity, t.AsOfNotReached),
    )
    def get_calibration_for_run(ctx: Any, device_name: Any, calibration_type: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_run(device_name, calibration_type, run_number, as_of, ctx.udc.held)

    @_operation(
        *Key,
        t.Instant,
        AsOf,
        answer=t.CalibrationRecord,
        name="calibration",
        faults=(t.CalibrationNotFound, t.Integrity, t.AsOfNotReached),
    )
    def get_calibration_for_date(ctx: Any, device_name: Any, calibration_type: Any, date: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_date(device_name, calibration_type, date, as_of, ctx.udc.held)

    @_operation(
        *Key,
        AsOf,
        answer=t.CalibrationRecord,
        name="calibration",
        faults=(t.CalibrationNotFound, t.Integrity, t.AsOfNotReached),
    )
    def get_current_calibration(ctx: Any, device_name: Any, calibration_type: Any, as_of: Any) -> Any:
        return ctx.udc.reader.current_calibration(device_name, calibration_type, as_of, ctx.udc.held)

    @_operation(
        t.Id,
        AsOf,
        answer=t.CalibrationRecord,
        name="calibration",
        faults=(t.CalibrationNotFound, t.Integrity, t.AsOfNotReached),
    )
    def get_calibration_for_id(ctx: Any, id: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_id(id, as_of, ctx.udc.held)

    @_operation(
        t.Instant,
        t.optional(t.Instant),
        AsOf,
        answer=t.many(t.CalibrationRecord),
        name="calibration",
        faults=(t.TooLarge, t.AsOfNotReached),
    )
    def get_ids(ctx: Any, start_time: Any, stop_time: Any, as_of: Any) -> Any:
        return ctx.udc.reader.ids(start_time, stop_time, as_of)

    @_operation(
        t.RunNumber,
        AsOf,
        answer=t.many(t.CalibrationRecord),
        name="calibration",
        faults=(t.RunNotFound, t.TooLarge, t.AsOfNotReached),
    )
    def get_calibrations_for_run(ctx: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibrations_for_run(run_number, as_of)

    @_operation(
        *Key, AsOf, answer=t.many(t.CalibrationRecord), name="calibration", faults=(t.TooLarge, t.AsOfNotReached)
    )
    def get_history(ctx: Any, device_name: Any, calibration_type: Any, as_of: Any) -> Any:
        return ctx.udc.reader.history(device_name, calibration_type, as_of)

    @_operation(AsOf, answer=t.many(t.Device), name="device", faults=(t.TooLarge, t.AsOfNotReached))
    def list_devices(ctx: Any, as_of: Any) -> Any:
        return ctx.udc.reader.devices(as_of)

    @_operation(t.RunNumber, AsOf, answer=t.Run, name="run", faults=(t.RunNotFound, t.AsOfNotReached))
    def get_run(ctx: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.run(run_number, as_of)

    @_operation(
        t.Instant,
        t.optional(t.Instant),
        AsOf,
        answer=t.many(t.Run),
        name="run",
        faults=(t.TooLarge, t.AsOfNotReached),
    )
    def get_runs(ctx: Any, start_time: Any, stop_time: Any, as_of: Any) -> Any:
        return ctx.udc.reader.runs(start_time, stop_time, as_of)

    @_operation(t.Serial, t.EntryLimit, answer=t.many(t.JournalEntry), name="entry", faults=(t.TooLarge,))
    def get_journal(ctx: Any, after_serial: Any, limit: Any) -> Any:
        return [_journal_entry(entry, digest) for entry, digest in ctx.udc.reader.journal(after_serial, limit)]

    @_operation(t.Sha256, answer=t.Data, name="data", faults=(t.PayloadNotFound, t.Integrity))
    def get_payload(ctx: Any, sha256: Any) -> Any:
        return ctx.udc.reader.payload(sha256)

    @_operation(answer=t.Status, name="status", faults=())
    def get_status(ctx: Any) -> Any:
        return ctx.udc.reader.status()


class CalibrationSuperMouse(ServiceBase):
    """As Calibration; the Call has a writer and an author."""

    @_operation(*Calibrated, answer=t.CalibrationRecord, name="calibration", faults=(t.Integrity, t.TooLarge))
    def add_calibration(
        ctx: Any,
        device_name: Any,
        calibration_type: Any,
        valid_from: Any,
        data: Any,
        sha256: Any,
        comment: Any,
    ) -> Any:
        upload = Upload.checked(
            device_name, calibration_type, valid_from, data, sha256, comment, max_payload=ctx.udc.max_payload
        )
        return ctx.udc.writer.add_calibration(upload, ctx.udc.author)

    @_operation(*Calibrated, answer=t.Preview, name="preview", faults=(t.Integrity, t.TooLarge))
    def preview_calibration(
        ctx: Any,
        device_name: Any,
        calibration_type: Any,
        valid_from: Any,
        data: Any,
        sha256: Any,
        comment: Any,
    ) -> Any:
        upload = Upload.checked(
            device_name, calibration_type, valid_from, data, sha256, comment, max_payload=ctx.udc.max_payload
        )
        return ctx.udc.writer.preview_calibration(upload)

    @_operation(t.Id, t.Reason, answer=t.CalibrationRecord, name="calibration", faults=(t.CalibrationNotFound,))
    def withdraw_calibration(ctx: Any, id: Any, reason: Any) -> Any:
        return ctx.udc.writer.withdraw_calibration(id, reason, ctx.udc.author)

    @_operation(t.RunNumber, t.Instant, t.optional(t.Instant), answer=t.Run, name="run", faults=())
    def add_run(ctx: Any, run_number: Any, start_time: Any, stop_time: Any) -> Any:
        return ctx.udc.writer.add_run(run_number, start_time, stop_time, ctx.udc.author)


def _journal_entry(entry: Entry, digest: str) -> Any:
    """An entry as the contract has it: the fields of all kinds in one, those of the others absent."""
    content = {field.name: getattr(entry.content, field.name) for field in fields(entry.content)}
    return t.JournalEntry(
        serial=entry.serial,
        kind=entry.content.kind,
        created=entry.created,
        author=entry.author,
        digest=digest,
        **content,
    )
