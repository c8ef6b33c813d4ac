"""SOAP 1.1 as spyne speaks it, made exact: strict values in, typed fault details out."""

from typing import Any

import pybase64
from lxml import etree
from lxml.builder import E
from spyne import ByteArray, DateTime, Integer64
from spyne.protocol.soap import Soap11

from cdb_server import instants
from cdb_server.errors import CdbError, InvalidArgument
from cdb_server.soap import values
from cdb_server.soap.faults import fault_of
from cdb_server.soap.types import TypedFault


class Protocol(Soap11):
    """spyne's Soap11 behind the gate: it receives an operation's element, not bytes."""

    def __init__(self) -> None:
        super().__init__(parse_xsi_type=False)
        self.deserialization_handlers[DateTime] = self._instant_from_element
        self.deserialization_handlers[ByteArray] = self._data_from_element
        self.deserialization_handlers[Integer64] = self._number_from_element
        self._to_unicode_handlers[DateTime] = lambda cls, value: instants.spell(value)

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
            return values.instant(etree.QName(element).localname, element.text or "")
        except InvalidArgument as error:
            raise fault_of(error) from None

    def _number_from_element(self, ctx: Any, cls: Any, element: Any) -> int:
        return values.whole_number(etree.QName(element).localname, element.text or "")

    def _data_from_element(self, ctx: Any, cls: Any, element: Any) -> bytes:
        try:
            text = (element.text or "").encode("utf-8")
            return values.data(etree.QName(element).localname, text, ctx.udc.max_payload)
        except CdbError as error:
            raise fault_of(error) from None
