"""One service at one address: the bytes of a request in, the bytes of its answer out. Blocks: for worker threads."""

import logging
from dataclasses import dataclass
from typing import Any

from lxml import etree
from spyne import Application, MethodContext
from spyne.server import ServerBase

from cdb_server.repository import Reader, Writer
from cdb_server.soap.contract import Contract
from cdb_server.soap.direct import Direct, Lasting
from cdb_server.soap.faults import fault_of
from cdb_server.soap.gate import operation_of
from cdb_server.soap.protocol import Protocol
from cdb_server.soap.services import Calibration, CalibrationSuperMouse
from cdb_server.soap.types import NAMESPACE

# spyne logs refused requests whole, and expected faults with their tracebacks. What matters is logged by `fault_of`.
logging.getLogger("spyne").setLevel(logging.CRITICAL + 1)


@dataclass(slots=True)
class Call:
    """What an operation works with: where to read and write, who asks, and the sha256s of payloads that they have."""

    reader: Reader | None
    writer: Writer | None
    max_payload: int
    author: str
    held: frozenset[str]
    operation: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of an answer in three parts: before its payload, the payload, after it; the others empty without one.

    A fault goes out as HTTP 500. `lasting` is None where the answer may be another at once.
    """

    fault: bool
    parts: tuple[bytes, bytes, bytes]
    lasting: Lasting | None = None


class _Application(Application):
    def call_wrapper(self, ctx: Any) -> Any:
        try:
            return super().call_wrapper(ctx)
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
        writer: Writer | None = None,
        max_payload: int = 0,
    ) -> None:
        self.contract = contract
        self._reader = reader
        self._direct = Direct(reader, contract) if reader else None
        self._at_once = Direct(glancing, contract) if glancing else None
        self._writer = writer
        self._max_payload = max_payload
        self._server = ServerBase(_Application([service], NAMESPACE, in_protocol=Protocol(), out_protocol=Protocol()))

    def answer(self, body: bytes, soap_action: str, author: str = "", held: frozenset[str] = frozenset()) -> Answer:
        """Answer a request. `soap_action` is that header's value, `author` the user whose token was shown.

        A payload of which the sha256 is among `held` is left out. Raises nothing: what goes wrong is a fault.
        """
        call = Call(self._reader, self._writer, self._max_payload, author, held)
        initial = MethodContext(self._server, MethodContext.SERVER)
        initial.udc = call
        try:
            call.operation = self._operation(body, soap_action)
            if self._direct and (found := self._direct.answer(call.operation, held)):
                return Answer(False, *found)
            [context] = self._server.generate_contexts(initial)
            self._server.get_in_object(context)
            if context.in_error is None:
                self._server.get_out_object(context)
            return self._written(context)
        except Exception as error:
            return self.fault(error)

    def answer_at_once(self, body: bytes, soap_action: str, held: frozenset[str]) -> Answer | None:
        """As `answer`, but never waits; None for what cannot be answered so, or goes wrong: for `answer` to say."""
        if self._at_once is None:
            return None
        try:
            found = self._at_once.answer(self._operation(body, soap_action), held)
        except Exception:
            # Whatever it is, `answer` makes a fault of it, and tells the log where that is due.
            return None
        return None if found is None else Answer(False, *found)

    def fault(self, error: Exception) -> Answer:
        """The answer that says an error."""
        context = MethodContext(self._server, MethodContext.SERVER)
        context.out_error = fault_of(error)
        return self._written(context)

    def _operation(self, body: bytes, soap_action: str) -> etree._Element:
        return operation_of(body, soap_action.strip().strip('"'), self.contract)

    def _written(self, context: Any) -> Answer:
        self._server.get_out_string(context)
        return Answer(context.out_error is not None, (b"".join(context.out_string), b"", b""))


def reading_endpoint(reader: Reader, glancing: Reader | None) -> Endpoint:
    """The service `Calibration`; `glancing` is a Reader that never waits, where there is one."""
    return Endpoint(Contract("calibration.wsdl"), Calibration, reader=reader, glancing=glancing)


def writing_endpoint(writer: Writer, max_payload: int) -> Endpoint:
    """The service `CalibrationSuperMouse`."""
    contract = Contract("calibration_supermouse.wsdl")
    return Endpoint(contract, CalibrationSuperMouse, writer=writer, max_payload=max_payload)
