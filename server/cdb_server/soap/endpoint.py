"""Answers one SOAP request: parse, call the operation, encode the result or fault; spyne's application for the rest."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pybase64
from lxml import etree
from lxml.builder import E
from spyne import Application, ByteArray, DateTime, Fault, Integer64, MethodContext
from spyne.protocol.soap import Soap11
from spyne.server import ServerBase

from cdb_server import arguments, instants
from cdb_server.errors import CdbError, InvalidArgument, InvalidToken, LargePayload, LongList
from cdb_server.model import JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Credentials
from cdb_server.repository.writer import Writer
from cdb_server.soap.operations import (
    Cacheability,
    Calibration,
    CalibrationSuperMouse,
    OperationContext,
    fast_operations,
)
from cdb_server.soap.request_parser import extract_payload, parse_operation, validate_arguments
from cdb_server.soap.types import NAMESPACE, TypedFault, metrics_outcome, to_fault
from cdb_server.soap.wsdl import Argument, Wsdl

# The name of an operation, and its arguments as text.
ParsedRequest = tuple[str, dict[str, str | bytes]]


class Templates(Protocol):
    """Finds the operation and arguments of a request whose template was validated before (`request_templates.py`)."""

    def match(self, body: bytes, soap_action: str) -> ParsedRequest | None: ...

    def learn(
        self, body: bytes, soap_action: str, operation: etree._Element, arguments: Sequence[Argument]
    ) -> None: ...


class SpyneProtocol(Soap11):
    """spyne's Soap11 behind the gate: it receives an operation's element, not bytes."""

    def __init__(self) -> None:
        super().__init__(parse_xsi_type=False)
        self.deserialization_handlers[DateTime] = self._instant_from_element
        self.deserialization_handlers[ByteArray] = self._data_from_element
        self.deserialization_handlers[Integer64] = self._number_from_element
        self._to_unicode_handlers[DateTime] = lambda cls, value: (
            value if isinstance(value, str) else instants.format_instant(value)
        )

    def create_in_document(self, ctx: Any, charset: str | None = None) -> None:
        ctx.in_document = ctx.udc.operation

    def decompose_incoming_envelope(self, ctx: Any, message: Any = Soap11.REQUEST) -> None:
        ctx.in_header_doc = None
        ctx.in_body_doc = ctx.in_document
        ctx.method_request_string = ctx.in_body_doc.tag

    def fault_to_parent(self, ctx: Any, cls: Any, inst: Any, parent: Any, ns: str, *args: Any, **kwargs: Any) -> None:
        # spyne writes a fault's members beside faultcode and faultstring, where no client looks for them.
        fault = etree.SubElement(parent, f"{{{self.ns_soap_env}}}Fault")
        fault.append(E.faultcode(f"{self.soap_env}:{inst.faultcode}"))
        fault.append(E.faultstring(inst.faultstring))
        if isinstance(inst, TypedFault):
            detail = etree.SubElement(fault, "detail")
            self.complex_to_parent(ctx, cls, inst, detail, cls.__namespace__, cls.get_type_name())

    def byte_array_to_parent(
        self, ctx: Any, cls: Any, inst: bytes, parent: Any, ns: str, name: str = "retval", **_: Any
    ) -> None:
        etree.SubElement(parent, f"{{{ns}}}{name}").text = pybase64.b64encode_as_string(inst)

    def _instant_from_element(self, ctx: Any, cls: Any, element: Any) -> Any:
        try:
            return arguments.parse_instant(etree.QName(element).localname, element.text or "")
        except InvalidArgument as error:
            raise to_fault(error) from None

    def _number_from_element(self, ctx: Any, cls: Any, element: Any) -> int:
        return arguments.parse_whole_number(etree.QName(element).localname, element.text or "")

    def _data_from_element(self, ctx: Any, cls: Any, element: Any) -> bytes:
        try:
            text = (element.text or "").encode("utf-8")
            return arguments.decode_payload(etree.QName(element).localname, text, ctx.udc.max_payload)
        except CdbError as error:
            raise to_fault(error) from None


# spyne logs refused requests whole, and expected faults with their tracebacks. What matters is logged by `fault_of`.
logging.getLogger("spyne").setLevel(logging.CRITICAL + 1)

_READING, _WRITING = "calibration.wsdl", "calibration_supermouse.wsdl"


@dataclass(frozen=True, slots=True)
class SoapResult:
    """The bytes of an answer in three parts: before its payload, the payload, after it; the others empty without one.

    `fault` is the outcome counted for a fault, which is sent as HTTP 500; else empty. `cacheability` is None where the
    answer may be another at once. `operation` is empty where none was found in the request. `position` is the
    journal's after a write, where it is known.
    """

    fault: str
    parts: tuple[bytes, bytes, bytes]
    cacheability: Cacheability | None = None
    operation: str = ""
    position: JournalPosition | None = None


class _Application(Application):
    def call_wrapper(self, ctx: Any) -> Any:
        try:
            return super().call_wrapper(ctx)
        except InvalidToken as error:
            ctx.udc.invalid_token = error
            raise Fault() from error
        except Exception as error:
            # spyne would put the words of whatever was raised into a fault.
            raise to_fault(error) from error


class Endpoint:
    """A service behind its contract."""

    def __init__(
        self,
        wsdl: Wsdl,
        service: Any,
        *,
        reader: Reader | None = None,
        nonblocking: Reader | None = None,
        size_limited: Reader | None = None,
        writer: Writer | None = None,
        max_payload: int = 0,
        templates: Templates | None = None,
    ) -> None:
        self.wsdl = wsdl
        self._fast_operations = fast_operations(service)
        self._reader = reader.formatted() if reader else None
        self._nonblocking_reader = nonblocking.formatted() if nonblocking else None
        self._size_limited_reader = size_limited.formatted() if size_limited else None
        # Of requests that are answered at once, by one thread.
        self._templates = templates
        self._writer = writer
        self._max_payload = max_payload
        self._server = ServerBase(
            _Application([service], NAMESPACE, in_protocol=SpyneProtocol(), out_protocol=SpyneProtocol())
        )

    def answer(
        self,
        body: bytes,
        soap_action: str,
        author: str = "",
        held_hashes: frozenset[str] = frozenset(),
        *,
        size_limited: bool = False,
        credentials: Credentials | None = None,
    ) -> SoapResult:
        """Answer a request. `soap_action` is that header's value, `author` the user who asks.

        A payload is left out whose sha256 is among `held_hashes`. Errors are answered as faults, but for three that are
        raised: InvalidToken where `credentials` are not valid, or no longer; where the answer is to be `size_limited`,
        LargePayload where a large payload would have to be read, and LongList where a list may be long.
        """
        name = ""
        try:
            operation, given = self._parse_upload(body, soap_action) or (self._operation(body, soap_action), None)
            name = _local_name(operation)
            if given is None:
                given = self._arguments(operation)
            fast = self._fast_operations.get(name)
            if size_limited and fast is not None and fast.may_be_long:
                raise LongList
            context = OperationContext(
                self._size_limited_reader if size_limited else self._reader,
                self._writer and self._writer.for_credentials(credentials),
                self._max_payload,
                author,
                held_hashes,
                operation,
            )
            if fast is not None:
                parts, cacheability = fast.answer(context, given)
                position = self._writer.last_position() if self._writer else None
                return SoapResult("", parts, cacheability, name, position)
            del given
            return self._answer_by_spyne(context, name)
        except (LargePayload, LongList, InvalidToken):
            raise
        except Exception as error:
            return self.fault(error, name)

    def answer_nonblocking(
        self, body: bytes, soap_action: str, held_hashes: frozenset[str], *, lists: bool = True
    ) -> SoapResult | None:
        """As `answer`, but never waits; None for what cannot be answered so, or goes wrong: for `answer` to say.

        Without `lists` none is tried: whether a list is short shows only after some milliseconds.
        """
        if self._nonblocking_reader is None:
            return None
        try:
            name, given = (self._templates and self._templates.match(body, soap_action)) or self._parse_and_learn(
                body, soap_action
            )
            fast = self._fast_operations.get(name)
            if fast is None or (fast.may_be_long and not lists):
                return None
            context = OperationContext(self._nonblocking_reader, None, self._max_payload, "", held_hashes)
            return SoapResult("", *fast.answer(context, given), name)
        except Exception:
            # Whatever it is, `answer` makes a fault of it, and tells the log where that is due.
            return None

    def _answer_by_spyne(self, context: OperationContext, name: str) -> SoapResult:
        initial = MethodContext(self._server, MethodContext.SERVER)
        initial.udc = context
        [call] = self._server.generate_contexts(initial)
        self._server.get_in_object(call)
        if call.in_error is None:
            self._server.get_out_object(call)
        if context.invalid_token is not None:
            raise context.invalid_token
        return self._to_result(call, name)

    def _arguments(self, operation: etree._Element) -> dict[str, str | bytes]:
        validate_arguments(operation, self.wsdl)
        return _arguments_of(operation)

    def _parse_upload(self, body: bytes, soap_action: str) -> tuple[etree._Element, dict[str, str | bytes]] | None:
        """An upload whose payload can be extracted before the rest is parsed.

        None for everything else, and for an upload that is not accepted so: it may be written in a way that only the
        parser understands, or is to be refused in words about the whole of it.
        """
        extracted = extract_payload(body) if self._writer else None
        if extracted is None:
            return None
        try:
            operation = self._operation(extracted.request, soap_action)
            given = self._arguments(operation)
            fast = self._fast_operations.get(_local_name(operation))
            payload = fast and fast.payload_argument
            if not payload or given[payload] != extracted.placeholder:
                return None
            given[payload] = arguments.decode_payload(payload, extracted.base64, self._max_payload)
        except CdbError:
            return None
        return operation, given

    def _parse_and_learn(self, body: bytes, soap_action: str) -> ParsedRequest:
        operation = self._operation(body, soap_action)
        given = self._arguments(operation)
        name = _local_name(operation)
        if self._templates:
            self._templates.learn(body, soap_action, operation, self.wsdl.operations[name])
        return name, given

    def fault(self, error: Exception, operation: str = "") -> SoapResult:
        """The answer that says an error, to a request for an operation, if that is known."""
        context = MethodContext(self._server, MethodContext.SERVER)
        context.out_error = to_fault(error)
        return self._to_result(context, operation)

    def _operation(self, body: bytes, soap_action: str) -> etree._Element:
        return parse_operation(body, soap_action.strip().strip('"'), self.wsdl)

    def _to_result(self, context: Any, operation: str) -> SoapResult:
        self._server.get_out_string(context)
        fault = "" if context.out_error is None else metrics_outcome(context.out_error)
        return SoapResult(fault, (b"".join(context.out_string), b"", b""), operation=operation)


def _local_name(operation: etree._Element) -> str:
    return str(operation.tag).rpartition("}")[2]


def _arguments_of(operation: etree._Element) -> dict[str, str | bytes]:
    return {_local_name(child): child.text or "" for child in operation}


def operations() -> list[str]:
    """All operations of both services, by name."""
    return [*Wsdl(_READING).operations, *Wsdl(_WRITING).operations]


def reading_endpoint(
    reader: Reader, nonblocking: Reader | None, size_limited: Reader, templates: Templates | None = None
) -> Endpoint:
    """The service `Calibration`.

    `nonblocking` is a Reader that never waits, where there is one; `size_limited` one that gives no large payloads.
    """
    return Endpoint(
        Wsdl(_READING),
        Calibration,
        reader=reader,
        nonblocking=nonblocking,
        size_limited=size_limited,
        templates=templates,
    )


def writing_endpoint(writer: Writer, max_payload: int) -> Endpoint:
    """The service `CalibrationSuperMouse`."""
    contract = Wsdl(_WRITING)
    return Endpoint(contract, CalibrationSuperMouse, writer=writer, max_payload=max_payload)
