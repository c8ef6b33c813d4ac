"""Declares each operation: arguments, answer, faults, the method it calls, and how long its answer may be cached.

spyne serves the operations as they are declared. Those declared as fast are also compiled, from the same declarations,
into a `FastOperation`: it calls the same function and writes the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from lxml import etree
from spyne import ByteArray, DateTime, Integer, ServiceBase, rpc

from cdb_server import arguments, instants
from cdb_server.errors import InvalidToken
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.soap import types
from cdb_server.soap.encoder import AnswerEncoder, AnswerParts


@dataclass(slots=True)
class OperationContext:
    """What an operation works with, as `ctx.udc`: where to read and write, who asks, and which payloads they have.

    `reader` gives instants as text, as answers have them. `held_hashes` are the sha256s of those payloads.
    """

    reader: Reader[Any] | None
    writer: Writer | None
    max_payload: int
    author: str
    held_hashes: frozenset[str]
    operation: etree._Element | None = None
    # Raised by an operation, and not one of the contract's faults.
    invalid_token: InvalidToken | None = None


@dataclass(frozen=True, slots=True)
class Cacheability:
    """How long an answer stays right: for ever, or until the journal grows.

    With `not_before` and `expires` only at instants from the one and before the other, where they are given.
    """

    forever: bool
    not_before: datetime | None = None
    expires: datetime | None = None


VALID_FOREVER = Cacheability(forever=True)

VALID_UNTIL_WRITE = Cacheability(forever=False)


def _while_in_force(found: Any) -> Cacheability:
    """What is current becomes another without a write, when the next calibration begins to apply."""
    expires = None if found.valid_until is None else instants.parse(found.valid_until)
    return Cacheability(False, instants.parse(found.valid_from), expires)


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


def _operation(
    *arguments: Any,
    answer: Any,
    name: str,
    faults: tuple[Any, ...],
    fast: bool = False,
    may_be_long: bool = False,
    cacheable: Callable[[Any], Cacheability] | None = None,
) -> Any:
    """Declare an operation, whose answer holds `answer` as the element `name`.

    `fast` ones are compiled. A list that `may_be_long` grows with what is stored, and takes long. `cacheable` says how
    long an answer to a question without as_of may be cached.
    """
    declared = {"fast": fast, "may_be_long": may_be_long, "cacheable": cacheable}
    throws = [*faults, *COMMON_FAULTS]
    return rpc(*arguments, _returns=answer, _out_variable_name=name, _throws=throws, _udd=declared)


def _reading(
    *arguments: Any,
    may_be_long: bool = False,
    cacheable: Callable[[Any], Cacheability] = lambda found: VALID_UNTIL_WRITE,
    **declared: Any,
) -> Any:
    """Declare an operation that only reads, and is asked often."""
    return _operation(*arguments, fast=True, may_be_long=may_be_long, cacheable=cacheable, **declared)


class Calibration(ServiceBase):
    """`ctx.udc` is the OperationContext of the request."""

    @_reading(
        *KeyArguments,
        types.RunNumber,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.RunNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_calibration_for_run(ctx: Any, device_name: Any, calibration_type: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_run(device_name, calibration_type, run_number, as_of, ctx.udc.held_hashes)

    @_reading(
        *KeyArguments,
        types.Instant,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_calibration_for_date(ctx: Any, device_name: Any, calibration_type: Any, date: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_date(device_name, calibration_type, date, as_of, ctx.udc.held_hashes)

    @_reading(
        *KeyArguments,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.Integrity, types.AsOfNotReached),
        cacheable=_while_in_force,
    )
    def get_current_calibration(ctx: Any, device_name: Any, calibration_type: Any, as_of: Any) -> Any:
        return ctx.udc.reader.current_calibration(device_name, calibration_type, as_of, ctx.udc.held_hashes)

    @_reading(
        types.Id,
        AsOf,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.CalibrationNotFound, types.Integrity, types.AsOfNotReached),
    )
    def get_calibration_for_id(ctx: Any, id: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibration_for_id(id, as_of, ctx.udc.held_hashes)

    @_reading(
        types.Instant,
        types.optional(types.Instant),
        AsOf,
        answer=types.many(types.CalibrationRecord),
        name="calibration",
        faults=(types.TooLarge, types.AsOfNotReached),
        may_be_long=True,
    )
    def get_ids(ctx: Any, start_time: Any, stop_time: Any, as_of: Any) -> Any:
        return ctx.udc.reader.ids(start_time, stop_time, as_of)

    @_reading(
        types.RunNumber,
        AsOf,
        answer=types.many(types.CalibrationRecord),
        name="calibration",
        faults=(types.RunNotFound, types.TooLarge, types.AsOfNotReached),
    )
    def get_calibrations_for_run(ctx: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.calibrations_for_run(run_number, as_of)

    @_reading(
        *KeyArguments,
        AsOf,
        answer=types.many(types.CalibrationRecord),
        name="calibration",
        faults=(types.TooLarge, types.AsOfNotReached),
        may_be_long=True,
    )
    def get_history(ctx: Any, device_name: Any, calibration_type: Any, as_of: Any) -> Any:
        return ctx.udc.reader.history(device_name, calibration_type, as_of)

    @_reading(AsOf, answer=types.many(types.Device), name="device", faults=(types.TooLarge, types.AsOfNotReached))
    def list_devices(ctx: Any, as_of: Any) -> Any:
        return ctx.udc.reader.devices(as_of)

    @_reading(types.RunNumber, AsOf, answer=types.Run, name="run", faults=(types.RunNotFound, types.AsOfNotReached))
    def get_run(ctx: Any, run_number: Any, as_of: Any) -> Any:
        return ctx.udc.reader.run(run_number, as_of)

    @_reading(
        types.Instant,
        types.optional(types.Instant),
        AsOf,
        answer=types.many(types.Run),
        name="run",
        faults=(types.TooLarge, types.AsOfNotReached),
        may_be_long=True,
    )
    def get_runs(ctx: Any, start_time: Any, stop_time: Any, as_of: Any) -> Any:
        return ctx.udc.reader.runs(start_time, stop_time, as_of)

    @_reading(
        types.Serial,
        types.EntryLimit,
        answer=types.many(types.JournalEntry),
        name="entry",
        faults=(types.TooLarge,),
        may_be_long=True,
    )
    def get_journal(ctx: Any, after_serial: Any, limit: Any) -> Any:
        return ctx.udc.reader.formatted_journal(after_serial, limit)

    @_reading(
        types.Sha256,
        answer=types.Data,
        name="data",
        faults=(types.PayloadNotFound, types.Integrity),
        cacheable=lambda found: VALID_FOREVER,
    )
    def get_payload(ctx: Any, sha256: Any) -> Any:
        return ctx.udc.reader.payload(sha256)

    @_operation(answer=types.Status, name="status", faults=())
    def get_status(ctx: Any) -> Any:
        return ctx.udc.reader.status()


class CalibrationSuperMouse(ServiceBase):
    """As Calibration; the context has a writer and an author."""

    @_operation(
        *UploadArguments,
        answer=types.CalibrationRecord,
        name="calibration",
        faults=(types.Integrity, types.TooLarge),
        fast=True,
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


class FastOperation:
    """One operation, compiled from its declaration: reads the arguments, calls the function, encodes the answer."""

    def __init__(self, descriptor: Any) -> None:
        self.name: str = descriptor.name
        self.may_be_long: bool = descriptor.udd.may_be_long
        self._parsers = [(name, _parser(declared)) for name, declared in descriptor.in_message._type_info.items()]
        self.payload_argument = next((name for name, parse in self._parsers if parse is _PARSERS[ByteArray]), None)
        self._function: Callable[..., Any] = descriptor.function
        self._cacheable: Callable[[Any], Cacheability] | None = descriptor.udd.cacheable
        self._encoder = AnswerEncoder(self.name, descriptor.out_message)

    def parse(self, given: dict[str, str | bytes], max_payload: int) -> list[Any]:
        """The values of arguments that are valid by the schema, in the order of the contract, None for an absent one.

        They are given as text, but for a payload that is decoded already. Raises InvalidArgument and TooLarge.
        """
        # Taken out: while a large payload is decoded, its text would be there once more.
        return [parse(name, given.pop(name), max_payload) if name in given else None for name, parse in self._parsers]

    def answer(
        self, context: OperationContext, given: dict[str, str | bytes]
    ) -> tuple[AnswerParts, Cacheability | None]:
        """The encoded answer to arguments, which are consumed, and how long it may be cached: not at all after a write.

        Raises CdbError, as the function does.
        """
        # Rule 7: "An answer once given to a question with as_of never changes." What cannot be answered yet, such as a
        # run that is registered later, is no answer.
        is_pinned = "as_of" in given
        found = self._function(SimpleNamespace(udc=context), *self.parse(given, context.max_payload))
        return self._encoder.encode(found), VALID_FOREVER if is_pinned else self._cacheable and self._cacheable(found)


def fast_operations(service: type[ServiceBase]) -> dict[str, FastOperation]:
    """The operations of a service that are declared as fast, by name."""
    return {name: FastOperation(found) for name, found in service.public_methods.items() if found.udd.fast}


def _payload(name: str, text: str | bytes, max_payload: int) -> bytes:
    return text if isinstance(text, bytes) else arguments.decode_payload(name, text.encode("utf-8"), max_payload)


# How a text of each of spyne's types becomes a value.
_PARSERS: dict[Any, Callable[[str, Any, int], Any]] = {
    DateTime: lambda name, text, _: arguments.parse_instant(name, text),
    Integer: lambda name, text, _: arguments.parse_whole_number(name, text),
    ByteArray: _payload,
}


def _parser(declared: Any) -> Callable[[str, Any, int], Any]:
    found = (parse for base, parse in _PARSERS.items() if issubclass(declared, base))
    return next(found, lambda name, text, _: text)
