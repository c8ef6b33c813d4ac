"""An independent, strict reading of a request: by expat and plain Python, where the service uses libxml2 and a schema.

It says what a request is: a call with its values, or the reason why it is none. It knows the contract's types, but not
the database: whether a calibration exists, or a period makes sense, is another question.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.parsers import expat

from tests.fuzz import schema
from tests.fuzz.schema import NAMESPACE, Argument, Type

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
XSD = "http://www.w3.org/2001/XMLSchema"
SPACE = " \t\r\n"
DEEPEST = 200
INVALID_TOKEN = expat.errors.codes[expat.errors.XML_ERROR_INVALID_TOKEN]


@dataclass(frozen=True)
class Call:
    """A request in order: an operation and the values of its arguments, in the types that they are meant in."""

    operation: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A request that is not: `code` of the fault to come, the arguments that may be named, and why."""

    code: str
    why: str
    arguments: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Doubt:
    """A request of which two good parsers say different things: what the service says of it is as good as another."""

    why: str


class _Malformed(Exception):
    pass


class _Doubtful(Exception):
    pass


# Namespaces that surely are URIs, or empty. libxml2 refuses a namespace that is none, expat does not.
_URI = re.compile(
    "|".join(map(re.escape, (SOAP, SOAP_12, XSI, XSD, NAMESPACE, "http://www.w3.org/2001/XInclude")))
    + "|urn:[a-z]+|[a-z]*"
)
ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii")


@dataclass
class _Element:
    namespace: str
    local: str
    attributes: dict[tuple[str, str], str]
    prefixes: dict[str, str]
    children: "list[_Element]" = field(default_factory=list)
    text: str = ""
    cdata: bool = False


def read(body: bytes, action: str | None, side: str) -> Call | Refusal | Doubt:
    """What a request to a side asks for."""
    try:
        if "\0" in body.decode("utf-8"):
            raise _Malformed("NUL")
        root = _parse(body)
        if (root.namespace, root.local) == (SOAP_12, "Envelope"):
            return Refusal("VersionMismatch", "SOAP 1.2")
        return _call(root, action, side)
    except _Doubtful as doubt:
        return Doubt(str(doubt))
    except (_Malformed, UnicodeDecodeError) as error:
        return Refusal("Client.MalformedRequest", str(error))


def _parse(body: bytes) -> _Element:
    parser = expat.ParserCreate("utf-8", "\n")
    top = _Element("", "", {}, {})
    stack = [top]
    prefixes: list[tuple[str, str]] = []

    def refuse(*_: object) -> None:
        raise _Malformed("a document type or an instruction")

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > DEEPEST:
            raise _Malformed("too deep")
        scope = {**stack[-1].prefixes, **dict(prefixes)} if prefixes else stack[-1].prefixes
        prefixes.clear()
        element = _Element(*_named(name), {_named(key): value for key, value in attributes.items()}, scope)
        stack[-1].children.append(element)
        stack.append(element)

    def declare(prefix: str | None, uri: str | None) -> None:
        if not _URI.fullmatch(uri or ""):
            raise _Doubtful("a namespace that is no URI")
        prefixes.append((prefix or "", uri or ""))

    def declaration(version: str, encoding: str | None, _standalone: int) -> None:
        if version != "1.0":
            raise _Doubtful(f"XML {version}")
        _require(encoding is None or encoding.lower() in ENCODINGS, "another encoding")

    def characters(text: str) -> None:
        stack[-1].text += text

    def cdata() -> None:
        stack[-1].cdata = True

    parser.buffer_text = True
    parser.StartCdataSectionHandler = cdata
    parser.StartDoctypeDeclHandler = refuse
    parser.ProcessingInstructionHandler = refuse
    parser.XmlDeclHandler = declaration
    parser.StartNamespaceDeclHandler = declare
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        here = body[parser.ErrorByteIndex :].decode("utf-8", "ignore")[:1]
        # A character beyond ASCII that XML can hold: only its place can be wrong, and editions differ about names.
        if error.code == INVALID_TOKEN and here > "\x7f" and here not in ("\ufffe", "\uffff"):
            raise _Doubtful("a name by the fifth edition of XML") from error
        raise _Malformed(str(error)) from error
    return top.children[0]


def _named(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition("\n")
    return namespace, local


def _require(condition: object, why: str) -> None:
    if not condition:
        raise _Malformed(why)


def _call(root: _Element, action: str | None, side: str) -> Call | Refusal:
    _require((root.namespace, root.local) == (SOAP, "Envelope"), "not an Envelope")
    parts = [(part.namespace, part.local) for part in root.children]
    _require(parts in ([(SOAP, "Body")], [(SOAP, "Header"), (SOAP, "Body")]), "not a Header and a Body")
    for block in root.children[0].children if len(parts) == 2 else ():
        mandatory = block.attributes.get((SOAP, "mustUnderstand")) in ("1", "true")
        actor = block.attributes.get((SOAP, "actor"), "")
        if mandatory and actor in ("", "http://schemas.xmlsoap.org/soap/actor/next"):
            return Refusal("MustUnderstand", block.local)
    _require(len(root.children[-1].children) == 1, "not one operation")
    [operation] = root.children[-1].children
    known = schema.contract(side).operations
    _require(operation.namespace == NAMESPACE and operation.local in known, "no operation")
    named = (action or "").strip().strip('"')
    _require(named in ("", f"{NAMESPACE}#{operation.local}"), "another action")
    return _arguments(operation, known[operation.local])


def _arguments(operation: _Element, known: tuple[Argument, ...]) -> Call | Refusal:
    # White space stands between arguments, and in place of them: clients write it where there are none.
    _require(not operation.text.strip(SPACE), "words between arguments")
    if operation.cdata and not known:
        raise _Doubtful("an empty CDATA section for nothing")
    _require((XSI, "type") not in operation.attributes, "a type for the operation")
    _check_attributes(operation, None)
    names = [argument.name for argument in known]
    given = [child.local for child in operation.children if child.namespace == NAMESPACE]
    _require(len(given) == len(operation.children), "another namespace")
    _require(set(given) <= set(names), "an unknown argument")
    _require([name for name in names if name in given] == given, "arguments twice or out of order")
    _require(all(argument.name in given for argument in known if argument.required), "a missing argument")
    values, wrong = {}, set()
    types = {argument.name: argument.type for argument in known}
    for child in operation.children:
        _require(not child.children, "an element in an argument")
        _check_attributes(child, types[child.local])
        try:
            values[child.local] = _value(child.text, types[child.local])
        except (ValueError, OverflowError):
            wrong.add(child.local)
    if wrong:
        return Refusal("Client.InvalidArgument", f"values of {', '.join(sorted(wrong))}", frozenset(wrong))
    return Call(operation.local, values)


def _check_attributes(element: _Element, type_: Type | None) -> None:
    """Nothing but what XML Schema itself gives every element a right to."""
    for (namespace, local), value in element.attributes.items():
        _require(
            namespace == XSI and local in ("type", "schemaLocation", "noNamespaceSchemaLocation"), f"attribute {local}"
        )
        if local == "type" and type_ is not None:
            prefix, _, name = value.strip(SPACE).rpartition(":")
            expected = (NAMESPACE, type_.name) if type_.name else (XSD, type_.base)
            _require((element.prefixes.get(prefix, ""), name) == expected, "another type")


def _value(text: str, type_: Type) -> Any:
    """The value of a text. Raises ValueError when it is none of the type."""
    if type_.base == "long":
        number = text.strip(SPACE)
        if not (digits := re.fullmatch(r"([+-]?)0*([0-9]{1,19})", number)):
            raise ValueError(number)
        value = int(digits[1] + digits[2])
        if not type_.min_inclusive <= value <= type_.max_inclusive:
            raise ValueError(number)
        return value
    if type_.base == "dateTime":
        return _instant(text.strip(SPACE), type_)
    if type_.base == "base64Binary":
        return _bytes(text)
    if type_.pattern is not None and not re.fullmatch(type_.pattern, text):
        raise ValueError(text)
    if len(text) < type_.min_length or (type_.max_length is not None and len(text) > type_.max_length):
        raise ValueError(text)
    if type_.values and text not in type_.values:
        raise ValueError(text)
    return text


def _instant(text: str, type_: Type) -> datetime:
    if type_.pattern is None or not re.fullmatch(type_.pattern, text):
        raise ValueError(text)
    day, _, time = text.partition("T")
    clock, offset = time[:8], ""
    fraction = time[8:]
    if at := re.search(r"[Z+-]", fraction):
        fraction, offset = fraction[: at.start()], fraction[at.start() :]
    microsecond = int(fraction[1:7].ljust(6, "0")) if fraction else 0
    moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S").replace(
        microsecond=microsecond, tzinfo=timezone.utc
    )
    if offset not in ("", "Z"):
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if minutes > 59 or hours * 60 + minutes > 14 * 60:
            raise ValueError(text)
        moment -= timedelta(hours=hours, minutes=minutes) * (1 if offset[0] == "+" else -1)
    return moment


def _bytes(text: str) -> bytes:
    joined = re.sub(f"[{SPACE}]", "", text)
    if not re.fullmatch(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", joined):
        raise ValueError("not base64")
    try:
        data = binascii.a2b_base64(joined)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if base64.b64encode(data).decode("ascii") != joined:
        raise ValueError("bits left over")
    return data
