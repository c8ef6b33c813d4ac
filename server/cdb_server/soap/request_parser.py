"""Parses a SOAP request and validates it against the WSDL's schema; extracts large payloads first.

Everything malformed is turned away here: MalformedRequest for the structure, InvalidArgument for a value,
EnvelopeError for what SOAP itself has a fault for. What passes is one well-formed SOAP 1.1 envelope with one
operation of the contract, its arguments once each, in order, of their types.

A mark that nobody can guess takes its place. Where that turns up as the text of an argument, the payload was that text;
where it does not, or anything else is not plain, nothing is put aside.
"""

import re
import secrets
import threading
from itertools import pairwise
from typing import NamedTuple

from lxml import etree

from cdb_server.arguments import BASE64_FORM
from cdb_server.errors import CdbError, InvalidArgument, MalformedRequest
from cdb_server.soap.types import NAMESPACE, EnvelopeError
from cdb_server.soap.wsdl import Argument, Wsdl

SOAP_NAMESPACE = "{http://schemas.xmlsoap.org/soap/envelope/}"

SOAP_12_NAMESPACE = "{http://www.w3.org/2003/05/soap-envelope}"

XSI_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"

NEXT_ACTOR = "http://schemas.xmlsoap.org/soap/actor/next"

# Signs that open a tag or set an attribute. A request has some thirty; a comment of 4,096 characters may be all such.
MAX_MARKUP_SIGNS = 10_000

# Prefixes declared; each is copied with every element that is judged.
MAX_NAMESPACES = 1_000

UTF8_MARK = b"\xef\xbb\xbf"

# libxml2 refuses texts above 10 MB, and nesting deeper than 256, unless told that the tree may be huge.
MIN_HUGE_TREE_BYTES = 9_000_000

# The validation errors that are about a value; all others are about structure.
_VALUE_ERRORS = re.compile(
    r"SCHEMAV_CVC_(DATATYPE|PATTERN|ENUMERATION|LENGTH|MINLENGTH|MAXLENGTH|MININCLUSIVE|MAXINCLUSIVE)_VALID"
)

# XML's white space.
_SPACES = " \t\r\n"

_ATTRIBUTE = re.compile("Element '[^']*', attribute '")

_EXPECTED_FORMS = {
    "device_name": "1 to 64 letters, digits, spaces and _ . + -, first a letter or digit, last not a space",
    "calibration_type": "1 to 64 letters, digits, spaces and _ . + -, first a letter, last not a space",
    "id": "a whole number from 1 to 9223372036854775807",
    "run_number": "a whole number from 1 to 9223372036854775807",
    "entry_limit": "a whole number from 1 to 9223372036854775807",
    "serial": "a whole number from 0 to 9223372036854775807",
    "instant": "an instant that exists, like 2016-03-01T08:00:00.000000Z: T between date and time, six digits of a "
    "second at most, then nothing (UTC), Z or an offset like +01:00",
    "sha256": "64 hexadecimal digits",
    "comment": "at most 4096 characters",
    "reason": "1 to 4096 characters",
    "base64Binary": BASE64_FORM,
}


class _Parsers(threading.local):
    """Made once a thread: to make one takes longer than to read a request."""

    def __init__(self) -> None:
        self.usual, self.huge = _parser(huge=False), _parser(huge=True)


def _parser(*, huge: bool) -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        remove_comments=True,
        huge_tree=huge,
        encoding="utf-8",
    )


_thread_parsers = _Parsers()


def parse_operation(body: bytes, soap_action: str, contract: Wsdl) -> etree._Element:
    """The element of the operation that a request asks for.

    `soap_action` is the header's value without its quotes; empty, it asks for nothing in particular. Its arguments are
    for `validate_arguments` to judge. Raises MalformedRequest and EnvelopeError.
    """
    operation = parse_envelope(body)
    name = _qualified_name(operation)
    if name not in contract.operations:
        if name.removeprefix("{}") in contract.operations:
            problem = f'{name.removeprefix("{}")} stands in no namespace: write it with xmlns="{NAMESPACE}"'
        else:
            known = ", ".join(contract.operations)
            problem = f"{_quoted_name(operation)} is no operation of this service, which has, in {NAMESPACE}, {known}"
        raise MalformedRequest(problem)
    if soap_action and soap_action != contract.soap_action_of(name):
        wanted = contract.soap_action_of(name)
        raise MalformedRequest(f"SOAPAction is {soap_action[:80]!r}; for {name} it is {wanted!r}, empty or absent")
    return operation


def parse_envelope(body: bytes) -> etree._Element:
    """The one element in the Body of a SOAP 1.1 request. Raises MalformedRequest and EnvelopeError."""
    envelope = _parse(body)
    if envelope.tag == f"{SOAP_12_NAMESPACE}Envelope":
        raise EnvelopeError("VersionMismatch", "this is SOAP 1.2; this service speaks SOAP 1.1")
    if envelope.tag != f"{SOAP_NAMESPACE}Envelope":
        raise MalformedRequest(f"the document is {_quoted_name(envelope)}, not a SOAP 1.1 Envelope")
    parts = [part.tag for part in envelope]
    if parts not in ([f"{SOAP_NAMESPACE}Body"], [f"{SOAP_NAMESPACE}Header", f"{SOAP_NAMESPACE}Body"]):
        raise MalformedRequest("the Envelope must hold one Body, after at most one Header, and nothing else")
    for header in envelope[0] if len(envelope) == 2 else ():
        if header.get(f"{SOAP_NAMESPACE}mustUnderstand") in ("1", "true") and header.get(
            f"{SOAP_NAMESPACE}actor", ""
        ) in ("", NEXT_ACTOR):
            raise EnvelopeError("MustUnderstand", f"the header {_quoted_name(header)} is not understood here")
    operations = list(envelope[-1])
    if len(operations) != 1:
        raise MalformedRequest(f"the Body must hold one operation; it holds {len(operations)} elements")
    return operations[0]


def _parse(body: bytes) -> etree._Element:
    _check_prolog(body)
    # Base64 has none of the three but an = or two at its end, so that no payload is taken for markup.
    if (
        body.count(b"<") > MAX_MARKUP_SIGNS
        or body.count(b"=") > MAX_MARKUP_SIGNS
        or body.count(b"xmlns:") > MAX_NAMESPACES
    ):
        raise MalformedRequest("the request has more elements or attributes than any that this service takes")
    parser = _thread_parsers.huge if len(body) > MIN_HUGE_TREE_BYTES else _thread_parsers.usual
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        said = "it nests too deeply or holds too long a text" if "XML_PARSE" in error.msg else error.msg[:200]
        raise MalformedRequest(f"the body is not well-formed XML: {said}") from None
    if root.getnext() is not None or (b"<?" in body[1:] and next(root.iter(etree.PI), None) is not None):
        raise _instruction_error()
    return root


def _check_prolog(body: bytes) -> None:
    """A document type can stand only before the first element: it is refused unread, with all that it could declare."""
    position = len(UTF8_MARK) if body.startswith(UTF8_MARK) else 0
    if body.startswith((b"<?xml ", b"<?xml\t", b"<?xml\r", b"<?xml\n"), position):
        position = body.find(b"?>", position)
    while (position := body.find(b"<", position)) >= 0:
        if body.startswith(b"<!--", position):
            position = body.find(b"-->", position + len(b"<!--"))
            if position < 0:
                return
        elif body.startswith(b"<?", position):
            raise _instruction_error()
        elif body.startswith(b"<!", position):
            raise MalformedRequest("a document type declaration (DOCTYPE) has no place in a SOAP message")
        else:
            return


def _instruction_error() -> MalformedRequest:
    return MalformedRequest("a processing instruction has no place in a SOAP message")


def validate_arguments(operation: etree._Element, contract: Wsdl) -> None:
    """Judge an operation's arguments by the schema. Raises MalformedRequest and InvalidArgument."""
    name = _qualified_name(operation)
    for element in (operation, *operation):
        if XSI_NIL in element.attrib:
            raise MalformedRequest(f"{_quoted_name(element)} carries xsi:nil: leave an optional argument out instead")
    if not len(operation) and operation.text is not None and not operation.text.strip(_SPACES):
        # Allowed between elements, but to the schema not where there can be none: some clients send it all the same.
        operation.text = None
    validator = contract.validator()
    data = operation.find(f"{{{NAMESPACE}}}data")
    # libxml2 takes longer for a payload than all the rest of an upload; whether it is base64, who decodes it finds out.
    payload = data.text if data is not None and not len(data) else None
    if data is not None and payload:
        data.text = ""
    valid = validator.validate(operation)
    if data is not None and payload:
        data.text = payload
    if valid:
        return
    log = validator.error_log
    # A wrong value of an attribute is no argument's.
    structural = [entry for entry in log if not _VALUE_ERRORS.match(entry.type_name) or _ATTRIBUTE.match(entry.message)]
    if structural:
        raise _structure_error(operation, name, contract, structural[0].message)
    raise _value_error(operation, name, contract, log)


def _structure_error(operation: etree._Element, name: str, contract: Wsdl, said: str) -> CdbError:
    arguments = contract.operations[name]
    known = [argument.name for argument in arguments]
    given = [_qualified_name(child) for child in operation]
    order = [known.index(child) for child in given if child in known]
    takes = f"{name} takes {_signature(arguments)}"
    if unknown := [child for child in given if child not in known]:
        unqualified = unknown[0].startswith("{}")
        wrong = f"is not in the namespace {NAMESPACE}" if unqualified else "is no argument"
        problem = f"{unknown[0][:100].removeprefix('{}')!r} {wrong}: {takes}"
    elif repeated := [child for child in known if given.count(child) > 1]:
        problem = f"the argument {repeated[0]} stands more than once: {takes}"
    elif order != sorted(order):
        misplaced = next(known[b] for a, b in pairwise(order) if b < a)
        problem = f"the argument {misplaced} is out of order: {takes}, in this order"
    elif missing := [argument.name for argument in arguments if argument.required and argument.name not in given]:
        problem = f"the argument {missing[0]} is missing: {takes}"
    else:
        problem = f"{said.replace(f'{{{NAMESPACE}}}', '')[:200]} {takes}"
    return MalformedRequest(problem)


def _value_error(operation: etree._Element, name: str, contract: Wsdl, log: etree._ListErrorLog) -> CdbError:
    wrong = next(
        argument
        for argument in contract.operations[name]
        if any(entry.message.startswith(f"Element '{{{NAMESPACE}}}{argument.name}'") for entry in log)
    )
    given = operation.findtext(f"{{{NAMESPACE}}}{wrong.name}") or ""
    problem = f"{wrong.name} {given[:80]!r} is not accepted: it must be {_EXPECTED_FORMS[wrong.type]}"
    return InvalidArgument(wrong.name, problem)


def _signature(arguments: tuple[Argument, ...]) -> str:
    return ", ".join(argument.name if argument.required else f"{argument.name}?" for argument in arguments) or "nothing"


def _qualified_name(element: etree._Element) -> str:
    """The local name of an element of the contract's namespace; of any other, its tag with the namespace in braces."""
    tag = str(element.tag)
    prefix = f"{{{NAMESPACE}}}"
    return tag.removeprefix(prefix) if tag.startswith(prefix) else "{}" * (not tag.startswith("{")) + tag


def _quoted_name(element: etree._Element) -> str:
    return repr(_qualified_name(element).removeprefix("{}")[:100])


# The end of the tag before a payload, and the bytes from which on putting it aside pays.
PAYLOAD_TAG_END = b"data>"

MIN_EXTRACTED_BYTES = 4 * 2**10


class ExtractedPayload(NamedTuple):
    """A request with a mark in place of its payload, and the base64 that stood there."""

    request: bytes
    placeholder: str
    base64: bytes


def extract_payload(body: bytes) -> ExtractedPayload | None:
    """The request without what may be its payload; None where it has none that is large.

    What is put aside has no markup but may be other than base64: for whoever decodes it to see.
    """
    start = body.find(PAYLOAD_TAG_END) + len(PAYLOAD_TAG_END)
    end = body.find(b"<", start)
    if start < len(PAYLOAD_TAG_END) or end - start < MIN_EXTRACTED_BYTES:
        return None
    mark = secrets.token_hex(16)
    return ExtractedPayload(b"%s%s%s" % (body[:start], mark.encode("ascii"), body[end:]), mark, body[start:end])
