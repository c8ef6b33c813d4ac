"""Encodes answers as SOAP envelopes, by functions compiled from the types that the operations declare for spyne.

spyne takes 200 to 500 µs to write a calibration, many times what finding it takes. A test compares both, byte for byte.
"""

import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pybase64
from spyne import Boolean, ByteArray, ComplexModel, DateTime, Integer, Unicode

from cdb_server.database import statements
from cdb_server.instants import format_instant
from cdb_server.soap.types import NAMESPACE

_ENVELOPE_START = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    '<soap11env:Envelope xmlns:soap11env="http://schemas.xmlsoap.org/soap/envelope/" '
    f'xmlns:tns="{NAMESPACE}"><soap11env:Body>'
)

_ENVELOPE_END = "</soap11env:Body></soap11env:Envelope>"

_SPECIAL = re.compile("[&<>\r]")

# Rows that are written before it is checked whether the work is cancelled.
ROWS_PER_CHECK = 1_000

# The bytes of an answer before its payload, the payload, and the bytes after it.
AnswerParts = tuple[bytes, bytes, bytes]


class AnswerEncoder:
    """Encodes the answers of one operation; `message` is what spyne declares of them."""

    def __init__(self, operation: str, message: type[ComplexModel]) -> None:
        [(tag, declared)] = message._type_info.items()
        self._empty = f"{_ENVELOPE_START}<tns:{operation}Response/>{_ENVELOPE_END}".encode()
        self._start = f"{_ENVELOPE_START}<tns:{operation}Response>"
        self._end = f"</tns:{tag}></tns:{operation}Response>{_ENVELOPE_END}"
        self._close = f"</tns:{tag}>"
        self._is_list = declared.Attributes.max_occurs > 1
        self._write = RecordEncoder(tag, declared) if issubclass(declared, ComplexModel) else None

    def encode(self, found: Any) -> AnswerParts:
        """The envelope around what an operation returned: a record, a list of records, or the bytes of a payload."""
        if self._write is None:
            return _with_payload(f"{self._start}<tns:data>", found, self._end)
        if not self._is_list:
            record = self._start + self._write(found)
            if (data := getattr(found, "data", None)) is None:
                return f"{record}{self._end}".encode(), b"", b""
            return _with_payload(f"{record}<tns:data>", data, f"</tns:data>{self._end}")
        if not found:
            return self._empty, b"", b""
        portions = []
        for start in range(0, len(found), ROWS_PER_CHECK):
            statements.check_cancelled()
            portions.append(
                self._close.join(map(self._write.function(found[0]), found[start : start + ROWS_PER_CHECK]))
            )
        return f"{self._start}{self._close.join(portions)}{self._end}".encode(), b"", b""


def _with_payload(before: str, data: bytes, after: str) -> AnswerParts:
    if not data:
        return f"{before}{after}".encode(), b"", b""
    return before.encode(), pybase64.b64encode(data), after.encode()


class RecordEncoder:
    """Writes records of one declared type, each as an element of one name, without its end and without its payload."""

    def __init__(self, tag: str, declared: type[ComplexModel]) -> None:
        self._tag = tag
        self._declared = declared
        self._functions: dict[type, Callable[[Any], str]] = {}

    def __call__(self, record: Any) -> str:
        return self.function(record)(record)

    def function(self, record: Any) -> Callable[[Any], str]:
        """The function for records of this one's class, compiled when the class is first seen."""
        function = self._functions.get(type(record))
        if function is None:
            function = self._functions[type(record)] = self._compile(type(record))
        return function

    def _compile(self, record: type) -> Callable[[Any], str]:
        hints = get_type_hints(record)
        members = [
            (name, declared)
            for name, declared in self._declared._type_info.items()
            if not issubclass(declared, ByteArray)
        ]
        if issubclass(record, tuple):
            # Taking a tuple apart is quicker than asking for each member, and a list has 100,000 of them.
            fields = f"{', '.join(record._fields)} = record"  # type: ignore[attr-defined]  # a NamedTuple's
        else:
            fields = "; ".join(f"{name} = record.{name}" for name, _ in members)
        pieces = "".join(
            _member(name, declared, is_text=hints[name] in (str, str | None)) for name, declared in members
        )
        source = f'def write(record):\n    {fields}\n    return f"<tns:{self._tag}>{pieces}"'
        namespace: dict[str, Any] = {"escaped": _escaped, "boolean": _boolean, "instant": format_instant}
        exec(source, namespace)  # noqa: S102  # made of the declared names alone
        function: Callable[[Any], str] = namespace["write"]
        return function


def _member(name: str, declared: Any, *, is_text: bool) -> str:
    """The part of an f-string that writes one member of a record; with `is_text` its instants are texts already."""

    def element(value: str) -> str:
        return f"<tns:{name}>{{{_value(declared, value, is_text=is_text)}}}</tns:{name}>"

    if declared.Attributes.max_occurs > 1:
        each = element("each")
        return f"{{''.join([f'{each}' for each in {name}])}}"
    if declared.Attributes.min_occurs == 0:
        return f"{{'' if {name} is None else f'{element(name)}'}}"
    return element(name)


def _value(declared: Any, value: str, *, is_text: bool) -> str:
    """The expression that writes a value of a simple type."""
    if issubclass(declared, Boolean):
        return f"boolean({value})"
    if issubclass(declared, DateTime):
        return value if is_text else f"instant({value})"
    if issubclass(declared, Integer):
        return value
    if issubclass(declared, Unicode):
        # What a pattern or a list of values admits needs no escape.
        is_safe = declared.Attributes.pattern is not None or declared.Attributes.values
        return value if is_safe else f"escaped({value})"
    raise TypeError(f"no encoder for {declared}")


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _escaped(text: str) -> str:
    """Text as it stands in XML; a bare carriage return would be read as a line feed."""
    if not _SPECIAL.search(text):
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
