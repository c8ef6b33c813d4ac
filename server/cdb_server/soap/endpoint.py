"""One service at one address: the bytes of a request in, the bytes of its answer out. Blocks: for worker threads."""

import logging
from dataclasses import dataclass
from typing import Any

from lxml import etree
from spyne import Application, Fault, MethodContext
from spyne.server import ServerBase

from cdb_server.errors import CdbError, LargePayload, LongList, NotAdmitted
from cdb_server.model import Knowledge
from cdb_server.repository import Credentials, Reader, Writer
from cdb_server.soap.aside import put_aside
from cdb_server.soap.contract import Contract
from cdb_server.soap.direct import LISTS, Direct, DirectUploads, Lasting
from cdb_server.soap.faults import fault_of, outcome_of
from cdb_server.soap.gate import check_arguments, operation_of
from cdb_server.soap.protocol import Protocol
from cdb_server.soap.services import Calibration, CalibrationSuperMouse
from cdb_server.soap.templates import Request, RequestTemplates
from cdb_server.soap.types import NAMESPACE

# spyne logs refused requests whole, and expected faults with their tracebacks. What matters is logged by `fault_of`.
logging.getLogger("spyne").setLevel(logging.CRITICAL + 1)

_READING, _WRITING = "calibration.wsdl", "calibration_supermouse.wsdl"


@dataclass(slots=True)
class Call:
    """What an operation works with: where to read and write, who asks, and the sha256s of payloads that they have."""

    reader: Reader | None
    writer: Writer | None
    max_payload: int
    author: str
    held: frozenset[str]
    operation: etree._Element
    # Raised by an operation, and not one of the contract's faults.
    not_admitted: NotAdmitted | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of an answer in three parts: before its payload, the payload, after it; the others empty without one.

    `fault` is what it is counted as if it is a fault, which goes out as HTTP 500; else empty. `lasting` is None where
    the answer may be another at once. `operation` is empty where none was found in the request. `known` is what the
    journal was after a write, where it is at hand.
    """

    fault: str
    parts: tuple[bytes, bytes, bytes]
    lasting: Lasting | None = None
    operation: str = ""
    known: Knowledge | None = None


class _Application(Application):
    def call_wrapper(self, ctx: Any) -> Any:
        try:
            return super().call_wrapper(ctx)
        except NotAdmitted as error:
            ctx.udc.not_admitted = error
            raise Fault() from error
        except Exception as error:
            # spyne would put the words of whatever was raised into a fault.
            raise fault_of(error) from error


class Endpoint:
    """A service behind its contract."""

    def __init__(
        self,
        contract: Contract,
        service: Any,
        *,
        reader: Reader | None = None,
        glancing: Reader | None = None,
        sparing: Reader | None = None,
        writer: Writer | None = None,
        max_payload: int = 0,
    ) -> None:
        self.contract = contract
        self._reader = reader
        self._direct = Direct(reader, contract) if reader else None
        self._at_once = Direct(glancing, contract) if glancing else None
        # Of requests that are answered at once, by one thread.
        self._templates = RequestTemplates()
        self._uploads = DirectUploads(writer, max_payload) if writer else None
        self._sparing = Direct(sparing, contract) if sparing else None
        self._writer = writer
        self._max_payload = max_payload
        self._server = ServerBase(_Application([service], NAMESPACE, in_protocol=Protocol(), out_protocol=Protocol()))

    def answer(
        self,
        body: bytes,
        soap_action: str,
        author: str = "",
        held: frozenset[str] = frozenset(),
        *,
        sparing: bool = False,
        shown: Credentials | None = None,
    ) -> Answer:
        """Answer a request. `soap_action` is that header's value, `author` the user who asks.

        A payload of which the sha256 is among `held` is left out. What goes wrong is a fault; but LargePayload is
        raised where a large one would have to be read, and LongList where a list may be long, and the caller is
        `sparing` with memory and time; and NotAdmitted where what was `shown` is not valid, or no longer.
        """
        name = ""
        try:
            if self._uploads and (upload := self._upload(self._uploads, body, soap_action)):
                name = self._uploads.name
                stored, known = self._uploads.answer(*upload, author, shown)
                return Answer("", stored, operation=name, known=known)
            operation = self._operation(body, soap_action)
            name = _name(operation)
            check_arguments(operation, self.contract)
            given = _given(operation)
            if sparing and name in LISTS:
                raise LongList
            direct = self._sparing if sparing else self._direct
            if direct and (found := direct.answer(name, given, held)):
                return Answer("", *found, name)
            if self._uploads and name == self._uploads.name:
                data = self._uploads.data(given.pop("data").encode("utf-8"))
                stored, known = self._uploads.answer(given, data, author, shown)
                return Answer("", stored, operation=name, known=known)
            del given
            initial = MethodContext(self._server, MethodContext.SERVER)
            writer = self._writer and self._writer.asked_with(shown)
            initial.udc = call = Call(self._reader, writer, self._max_payload, author, held, operation)
            [context] = self._server.generate_contexts(initial)
            self._server.get_in_object(context)
            if context.in_error is None:
                self._server.get_out_object(context)
            if call.not_admitted is not None:
                raise call.not_admitted
            return self._written(context, name)
        except (LargePayload, LongList, NotAdmitted):
            raise
        except Exception as error:
            return self.fault(error, name)

    def answer_at_once(
        self, body: bytes, soap_action: str, held: frozenset[str], *, lists: bool = True
    ) -> Answer | None:
        """As `answer`, but never waits; None for what cannot be answered so, or goes wrong: for `answer` to say.

        Without `lists` none is tried: whether a list is short shows only after some milliseconds.
        """
        if self._at_once is None:
            return None
        try:
            name, given = self._templates.read(body, soap_action) or self._judged(body, soap_action)
            if not lists and name in LISTS:
                return None
            found = self._at_once.answer(name, given, held)
        except Exception:
            # Whatever it is, `answer` makes a fault of it, and tells the log where that is due.
            return None
        return None if found is None else Answer("", *found, name)

    def _upload(self, uploads: DirectUploads, body: bytes, soap_action: str) -> tuple[dict[str, str], bytes] | None:
        """The arguments of an upload whose payload can be put aside, and the payload.

        None to all else, and to what is not taken so: it may be written in a way that only the parser understands, or
        is to be refused in words about the whole of it.
        """
        aside = put_aside(body)
        if aside is None:
            return None
        try:
            operation = self._operation(aside.request, soap_action)
            check_arguments(operation, self.contract)
            given = _given(operation)
            if _name(operation) != uploads.name or given.pop("data") != aside.mark:
                return None
            return given, uploads.data(aside.base64)
        except CdbError:
            return None

    def _judged(self, body: bytes, soap_action: str) -> Request:
        operation = self._operation(body, soap_action)
        check_arguments(operation, self.contract)
        name = _name(operation)
        self._templates.learn(body, soap_action, operation, self.contract.operations[name])
        return name, _given(operation)

    def fault(self, error: Exception, operation: str = "") -> Answer:
        """The answer that says an error, to a request for an operation, if that is known."""
        context = MethodContext(self._server, MethodContext.SERVER)
        context.out_error = fault_of(error)
        return self._written(context, operation)

    def _operation(self, body: bytes, soap_action: str) -> etree._Element:
        return operation_of(body, soap_action.strip().strip('"'), self.contract)

    def _written(self, context: Any, operation: str) -> Answer:
        self._server.get_out_string(context)
        fault = "" if context.out_error is None else outcome_of(context.out_error)
        return Answer(fault, (b"".join(context.out_string), b"", b""), operation=operation)


def _name(operation: etree._Element) -> str:
    return str(operation.tag).rpartition("}")[2]


def _given(operation: etree._Element) -> dict[str, str]:
    return {_name(child): child.text or "" for child in operation}


def operations() -> list[str]:
    """All operations of both services, by name."""
    return [*Contract(_READING).operations, *Contract(_WRITING).operations]


def reading_endpoint(reader: Reader, glancing: Reader | None, sparing: Reader) -> Endpoint:
    """The service `Calibration`.

    `glancing` is a Reader that never waits, where there is one; `sparing` one that gives no large payloads.
    """
    return Endpoint(Contract(_READING), Calibration, reader=reader, glancing=glancing, sparing=sparing)


def writing_endpoint(writer: Writer, max_payload: int) -> Endpoint:
    """The service `CalibrationSuperMouse`."""
    contract = Contract(_WRITING)
    return Endpoint(contract, CalibrationSuperMouse, writer=writer, max_payload=max_payload)
