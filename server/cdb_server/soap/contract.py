"""The contract: a WSDL file kept by hand, as it is published and as it judges requests."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from lxml import etree

from cdb_server.soap.types import NAMESPACE

XS = "{http://www.w3.org/2001/XMLSchema}"
WSDL = "{http://schemas.xmlsoap.org/wsdl/}"

# The base address that stands in the files, and gives way to the one that is configured.
_WRITTEN_ADDRESS = b'location="http://localhost:8080/'


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of an operation; `type` is the local name of its type."""

    name: str
    type: str
    required: bool


class Contract:
    """One WSDL file."""

    def __init__(self, file_name: str) -> None:
        self._document = files("cdb.wsdl").joinpath(file_name).read_bytes()
        definitions = etree.fromstring(self._document)
        schema = definitions.find(f"{WSDL}types/{XS}schema")
        if schema is None:
            raise ValueError(f"{file_name} holds no schema")
        self._schema = etree.tostring(schema)
        self._of_thread = threading.local()
        self.operations: dict[str, tuple[Argument, ...]] = {
            name: tuple(_arguments(schema, name))
            for name in (
                operation.get("name", "") for operation in definitions.findall(f"{WSDL}portType/{WSDL}operation")
            )
        }
        # libxml2 fills its table of built-in types at the first schema of a process; two threads that did it at once
        # would leave it broken, and every request refused, until the process ends.
        self.validator()

    def published(self, public_url: str) -> bytes:
        """The file, byte for byte apart from the base of its address, which becomes the configured one."""
        return self._document.replace(_WRITTEN_ADDRESS, b'location="%s/' % public_url.rstrip("/").encode("ascii"))

    def action(self, operation: str) -> str:
        """The soapAction of an operation."""
        return f"{NAMESPACE}#{operation}"

    def validator(self) -> etree.XMLSchema:
        """The schema, compiled once a thread: what it says of a document can be another thread's when shared."""
        try:
            validator: etree.XMLSchema = self._of_thread.validator
        except AttributeError:
            validator = self._of_thread.validator = etree.XMLSchema(etree.fromstring(self._schema))
        return validator


def _arguments(schema: etree._Element, operation: str) -> Iterator[Argument]:
    path = f"{XS}element[@name='{operation}']/{XS}complexType/{XS}sequence/{XS}element"
    for argument in schema.findall(path):
        type_name = argument.get("type", "").partition(":")[2]
        yield Argument(argument.get("name", ""), type_name, argument.get("minOccurs") != "0")
