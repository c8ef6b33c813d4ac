"""One service at one address: the bytes of a request in, the bytes of its answer out. Blocks: for worker threads."""

import logging
from dataclasses import dataclass
from typing import Any

from spyne import Application, MethodContext
from spyne.server import ServerBase

from cdb_server.repository import Reader, Writer
from cdb_server.soap.contract import Contract
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
    """The bytes of an answer; a fault goes out as HTTP 500."""

    fault: bool
    body: bytes


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
        writer: Writer | None = None,
        max_payload: int = 0,
    ) -> None:
        self.contract = contract
        self._reader = reader
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
            call.operation = operation_of(body, soap_action.strip().strip('"'), self.contract)
            [context] = self._server.generate_contexts(initial)
            self._server.get_in_object(context)
            if context.in_error is None:
                self._server.get_out_object(context)
            return self._written(context)
        except Exception as error:
            return self.fault(error)

    def fault(self, error: Exception) -> Answer:
        """The answer that says an error."""
        context = MethodContext(self._server, MethodContext.SERVER)
        context.out_error = fault_of(error)
        return self._written(context)

    def _written(self, context: Any) -> Answer:
        self._server.get_out_string(context)
        return Answer(context.out_error is not None, b"".join(context.out_string))


def reading_endpoint(reader: Reader) -> Endpoint:
    """The service `Calibration`."""
    return Endpoint(Contract("calibration.wsdl"), Calibration, reader=reader)


def writing_endpoint(writer: Writer, max_payload: int) -> Endpoint:
    """The service `CalibrationSuperMouse`."""
    contract = Contract("calibration_supermouse.wsdl")
    return Endpoint(contract, CalibrationSuperMouse, writer=writer, max_payload=max_payload)
