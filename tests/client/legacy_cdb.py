"""A server in the manner of the earlier CDB: a Java service, its schema apart, its arguments without names.

Its WSDL names an address at which nothing listens, as those of servers behind a proxy do.
"""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

from lxml import etree

NAMESPACE = "http://cdb.mice.rl.ac.uk/"
ELSEWHERE = "http://127.0.0.1:9"

Answered = str | Callable[[], str]


@dataclass
class Kept:
    """A calibration: what is listed of it, and its bytes; or what is answered in their place."""

    device: str
    type: str
    valid_from: str
    created: str
    data: bytes = b""
    answered: Answered | None = None


@dataclass
class LegacyCdb:
    """What a server keeps, by id, and which payloads it was asked for."""

    calibrations: dict[int, Kept] = field(default_factory=dict)
    cabling: dict[int, Kept] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    # What is answered to an operation, whatever is asked.
    told: dict[str, str] = field(default_factory=dict)
    # The beginnings of periods for which nothing is listed.
    unlisted: set[str] = field(default_factory=set)
    url: str = ""

    def answer(self, service: str, operation: str, arguments: list[str]) -> str:
        """The text that an operation returns."""
        if operation in self.told:
            return self.told[operation]
        kept = self.calibrations if service == "Calibration" else self.cabling
        if operation == f"get{service}Ids":
            # Nothing takes over from anything here: what began before the end is listed, and what has no beginning.
            start, stop = arguments
            if start in self.unlisted:
                return "<error>no data</error>"
            lines = [_line(id, of) for id, of in kept.items() if of.valid_from <= stop or of.valid_from == "null"]
            return f"<?xml version='1.0'?><ids>{''.join(lines)}</ids>"
        self.asked.append(arguments[0])
        found = kept[int(arguments[0])]
        if found.answered is not None:
            return found.answered if isinstance(found.answered, str) else found.answered()
        # As Java's encoders do, in lines.
        return base64.encodebytes(found.data).decode()


def error(text: str) -> str:
    """An error in the place of a payload."""
    return base64.b64encode(f"<error>{text}</error>".encode()).decode()


@contextmanager
def serving(earlier: LegacyCdb, *, cabling: bool = True) -> Iterator[LegacyCdb]:
    """Serve it until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            match = re.fullmatch(r"/old/cdb/(calibration|cabling)\?(wsdl|xsd=1)", self.path)
            if match is None or (match[1] == "cabling" and not cabling):
                self._reply(404, "<html>not found</html>", "text/html")
            elif match[2] == "wsdl":
                self._reply(200, _wsdl(match[1]))
            else:
                self._reply(200, _schema(match[1].capitalize()))

        def do_POST(self) -> None:
            envelope = etree.fromstring(self.rfile.read(int(self.headers["Content-Length"])))
            call = envelope[-1][0]
            operation, arguments = etree.QName(call).localname, [argument.text or "" for argument in call]
            service = self.path.removeprefix("/old/cdb/").capitalize()
            self._reply(200, _envelope(operation, earlier.answer(service, operation, arguments)))

        def _reply(self, status: int, text: str, kind: str = "text/xml;charset=utf-8") -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        earlier.url = f"http://127.0.0.1:{server.server_port}/old"
        yield earlier
        server.shutdown()


def _line(id: int, of: Kept) -> str:
    kind = "" if of.type == "cabling" else f' type="{of.type}"'
    return f'<id name="{id}" validFrom="{of.valid_from}" created="{of.created}" device="{of.device}"{kind}/>'


def _operations(service: str) -> dict[str, list[str]]:
    return {f"get{service}Ids": ["string", "string"], f"getDetector{service}ForId": ["long"]}


def _schema(service: str) -> str:
    types = ""
    for name, arguments in _operations(service).items():
        given = "".join(
            f'<xs:element name="arg{place}" type="xs:{kind}" minOccurs="0"/>' for place, kind in enumerate(arguments)
        )
        types += f"""
<xs:element name="{name}" type="tns:{name}"/>
<xs:complexType name="{name}"><xs:sequence>{given}</xs:sequence></xs:complexType>
<xs:element name="{name}Response" type="tns:{name}Response"/>
<xs:complexType name="{name}Response"><xs:sequence>
  <xs:element name="return" type="xs:string" minOccurs="0"/>
</xs:sequence></xs:complexType>"""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<xs:schema xmlns:tns="{NAMESPACE}" xmlns:xs="http://www.w3.org/2001/XMLSchema" version="1.0"
  targetNamespace="{NAMESPACE}">{types}</xs:schema>"""


def _wsdl(path: str) -> str:
    service = path.capitalize()
    names = list(_operations(service))
    messages = "".join(
        f'<message name="{name}{end}"><part name="parameters" element="tns:{name}{end}"/></message>'
        for name in names
        for end in ("", "Response")
    )
    calls = "".join(
        f'<operation name="{name}"><input message="tns:{name}"/><output message="tns:{name}Response"/></operation>'
        for name in names
    )
    bound = "".join(
        f'<operation name="{name}"><soap:operation soapAction=""/><input><soap:body use="literal"/></input>'
        '<output><soap:body use="literal"/></output></operation>'
        for name in names
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:tns="{NAMESPACE}" name="{service}Service"
  xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" targetNamespace="{NAMESPACE}">
<types><xsd:schema xmlns:xsd="http://www.w3.org/2001/XMLSchema">
  <xsd:import namespace="{NAMESPACE}" schemaLocation="{ELSEWHERE}/old/cdb/{path}?xsd=1"/>
</xsd:schema></types>
{messages}
<portType name="{service}">{calls}</portType>
<binding name="{service}PortBinding" type="tns:{service}">
  <soap:binding transport="http://schemas.xmlsoap.org/soap/http" style="document"/>{bound}
</binding>
<service name="{service}Service"><port name="{service}Port" binding="tns:{service}PortBinding">
  <soap:address location="{ELSEWHERE}/old/cdb/{path}"/>
</port></service>
</definitions>"""


def _envelope(operation: str, text: str) -> str:
    return (
        '<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body>'
        f'<ns2:{operation}Response xmlns:ns2="{NAMESPACE}"><return>{escape(text)}</return></ns2:{operation}Response>'
        "</S:Body></S:Envelope>"
    )
