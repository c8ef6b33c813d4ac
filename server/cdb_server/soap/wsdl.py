"""Loads a WSDL file: publishes it, lists its operations and arguments, compiles its schema."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from lxml import etree

from cdb_server.soap.types import NAMESPACE

XS_NAMESPACE = "{http://www.w3.org/2001/XMLSchema}"

WSDL_NAMESPACE = "{http://schemas.xmlsoap.org/wsdl/}"

# Built-in types that a plain description has as text.
_TYPES_AS_TEXT = ("dateTime", "anyURI", "base64Binary")

# The base address that stands in the files, and gives way to the one that is configured.
_ADDRESS_IN_FILE = b'location="http://localhost:8080/'


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of an operation; `type` is the local name of its type."""

    name: str
    type: str
    required: bool


class Wsdl:
    """One WSDL file."""

    def __init__(self, file_name: str) -> None:
        self._document = files("cdb.wsdl").joinpath(file_name).read_bytes()
        definitions = etree.fromstring(self._document)
        schema = definitions.find(f"{WSDL_NAMESPACE}types/{XS_NAMESPACE}schema")
        if schema is None:
            raise ValueError(f"{file_name} holds no schema")
        self._schema = etree.tostring(schema)
        self._thread_local = threading.local()
        self.operations: dict[str, tuple[Argument, ...]] = {
            name: tuple(_arguments(schema, name))
            for name in (
                operation.get("name", "")
                for operation in definitions.findall(f"{WSDL_NAMESPACE}portType/{WSDL_NAMESPACE}operation")
            )
        }
        # libxml2 fills its table of built-in types at the first schema of a process; two threads that did it at once
        # would leave it broken, and every request refused, until the process ends.
        self.validator()

    def published_document(self, public_url: str) -> bytes:
        """The file, byte for byte apart from the base of its address, which becomes the configured one."""
        return _at(public_url, self._document)

    def simplified_document(self, public_url: str) -> bytes:
        """The same messages for programs that know little of XML Schema: built-in types alone, no documentation.

        Times and base64 are text, as many programs lose microseconds, or send bytes and times in a way of their own.
        """
        parser = etree.XMLParser(remove_comments=True, remove_blank_text=True)
        return _at(public_url, _simplified(etree.fromstring(self._document, parser)))

    def soap_action_of(self, operation: str) -> str:
        """The soapAction of an operation."""
        return f"{NAMESPACE}#{operation}"

    def validator(self) -> etree.XMLSchema:
        """The schema, compiled once a thread: what it says of a document can be another thread's when shared."""
        try:
            validator: etree.XMLSchema = self._thread_local.validator
        except AttributeError:
            validator = self._thread_local.validator = etree.XMLSchema(etree.fromstring(self._schema))
        return validator


def _at(public_url: str, document: bytes) -> bytes:
    return document.replace(_ADDRESS_IN_FILE, b'location="%s/' % public_url.rstrip("/").encode("ascii"))


def _simplified(definitions: etree._Element) -> bytes:
    simple = {str(found.get("name")): found for found in definitions.iter(f"{XS_NAMESPACE}simpleType")}
    for element in list(
        definitions.iter(f"{WSDL_NAMESPACE}documentation", f"{XS_NAMESPACE}annotation", f"{XS_NAMESPACE}simpleType")
    ):
        parent = element.getparent()
        if parent is not None:
            parent.remove(element)
    for element in definitions.iter(f"{XS_NAMESPACE}element"):
        prefix, _, name = element.get("type", "").partition(":")
        while prefix == "tns" and name in simple:
            base = simple[name].find(f"{XS_NAMESPACE}restriction")
            prefix, _, name = ("" if base is None else base.get("base", "")).partition(":")
        if prefix:
            element.set("type", "xs:string" if name in _TYPES_AS_TEXT else f"{prefix}:{name}")
    etree.indent(definitions)
    return etree.tostring(definitions, xml_declaration=True, encoding="UTF-8") + b"\n"


def _arguments(schema: etree._Element, operation: str) -> Iterator[Argument]:
    steps = f"element[@name='{operation}']", "complexType", "sequence", "element"
    path = "/".join(XS_NAMESPACE + step for step in steps)
    for argument in schema.findall(path):
        type_name = argument.get("type", "").partition(":")[2]
        yield Argument(argument.get("name", ""), type_name, argument.get("minOccurs") != "0")
