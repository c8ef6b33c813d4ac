"""The contract: the WSDL files against the code that serves them, against WS-I's rules, and as they are published.

Both sides are brought to one normal form: the file by reading it, the code by reading what spyne makes of the services.
What the normal form leaves out is documentation, comments, white space, and the names of messages and prefixes.
"""

import http.client
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import requests
from lxml import etree

from cdb_server import errors
from cdb_server.http.routes.reading import READING_PATH
from cdb_server.http.routes.soap import WRITING_PATH
from cdb_server.soap import types
from cdb_server.soap.endpoint import Endpoint
from cdb_server.soap.legacy_operations import LEGACY_SERVICES
from cdb_server.soap.operations import Calibration, CalibrationSuperMouse
from cdb_server.soap.request_parser import _EXPECTED_FORMS
from cdb_server.soap.types import FAULT_TYPES, to_fault
from cdb_server.soap.wsdl import Wsdl
from tests.servers import Master

READING = "calibration.wsdl"
WRITING = "calibration_supermouse.wsdl"
SERVICES = {READING: Calibration, WRITING: CalibrationSuperMouse}
PATHS = {READING: READING_PATH, WRITING: WRITING_PATH}

NAMESPACE = "urn:mice:cdb:2"
WSDL = "{http://schemas.xmlsoap.org/wsdl/}"
SOAP = "{http://schemas.xmlsoap.org/wsdl/soap/}"
XS = "{http://www.w3.org/2001/XMLSchema}"
TRANSPORT = "http://schemas.xmlsoap.org/soap/http"

# Every element that the files may hold, with the attributes that it may have: all of them are compared or checked.
KNOWN = {
    f"{WSDL}definitions": {"name", "targetNamespace"},
    f"{WSDL}documentation": set(),
    f"{WSDL}types": set(),
    f"{WSDL}message": {"name"},
    f"{WSDL}part": {"name", "element"},
    f"{WSDL}portType": {"name"},
    f"{WSDL}operation": {"name"},
    f"{WSDL}input": {"message"},
    f"{WSDL}output": {"message"},
    f"{WSDL}fault": {"name", "message"},
    f"{WSDL}binding": {"name", "type"},
    f"{WSDL}service": {"name"},
    f"{WSDL}port": {"name", "binding"},
    f"{SOAP}binding": {"style", "transport"},
    f"{SOAP}operation": {"soapAction", "style"},
    f"{SOAP}body": {"use"},
    f"{SOAP}fault": {"name", "use"},
    f"{SOAP}address": {"location"},
    f"{XS}schema": {"targetNamespace", "elementFormDefault"},
    f"{XS}annotation": set(),
    f"{XS}documentation": set(),
    f"{XS}simpleType": {"name"},
    f"{XS}restriction": {"base"},
    f"{XS}pattern": {"value"},
    f"{XS}enumeration": {"value"},
    f"{XS}minInclusive": {"value"},
    f"{XS}maxInclusive": {"value"},
    f"{XS}minLength": {"value"},
    f"{XS}maxLength": {"value"},
    f"{XS}complexType": {"name"},
    f"{XS}sequence": set(),
    f"{XS}element": {"name", "type", "minOccurs", "maxOccurs", "nillable"},
}


def text_of(file: str) -> str:
    """A contract as it lies in the package."""
    return files("cdb.wsdl").joinpath(file).read_text("utf-8")


def parsed(text: str) -> etree._Element:
    return etree.fromstring(text.encode("utf-8"), etree.XMLParser(remove_comments=True))


def form_of_file(text: str) -> dict[str, str]:
    """The normal form of a WSDL file. Raises ValueError for anything in it that no comparison would see."""
    definitions = parsed(text)
    for element in definitions.iter():
        if element.tag not in KNOWN or not set(element.attrib) <= KNOWN[element.tag]:
            raise ValueError(f"nothing compares {etree.tostring(element)[:200]!r}")
    return flat(normal_form(definitions))


def form_of_code(file: str) -> dict[str, str]:
    """The normal form of what the code serves under the contract of that file."""
    from spyne.interface.wsdl import Wsdl11  # not before cdb_server.soap has made it possible

    contract = Wsdl(file)
    application = Endpoint(contract, SERVICES[file])._server.app
    application.transport = TRANSPORT
    document = Wsdl11(application.interface)
    document.build_interface_document("http://localhost:8080")
    form = normal_form(etree.fromstring(document.get_interface_document()), _declared_names(application))
    # spyne has one type for every element and one element for every type: what no message uses is not served.
    used = set(form["messages"])
    wrappers = {f"{name}{suffix}" for name in form["operations"] for suffix in ("", "Response")}
    form["elements"] = {name: members for name, members in form["elements"].items() if name in used}
    form["complex"] = {name: members for name, members in form["complex"].items() if name not in wrappers}
    for name, operation in form["binding"].items():
        operation["action"] = contract.soap_action_of(name)
    return flat(form)


def flat(form: Any, path: str = "") -> dict[str, str]:
    """The same in lines, so that a difference is seen at once."""
    if not isinstance(form, (dict, list)):
        return {path: str(form)}
    entries = form.items() if isinstance(form, dict) else enumerate(form)
    lines = {f"{path} holds": f"{len(form)}"}
    for key, value in entries:
        lines |= flat(value, f"{path}/{key}")
    return lines


def _declared_names(application: Any) -> dict[str, str]:
    """spyne names the type of an optional member anew: from its names to the declared ones."""
    declared = {}
    for record in application.interface.classes.values():
        for member, type_ in getattr(record, "_type_info", {}).items():
            made = f"{record.get_type_name()}_{member}Type"
            while type_.get_type_name() == made:
                type_ = type_.__extends__
            declared[made] = type_.get_type_name()
    return declared


def first(element: etree._Element, path: str) -> etree._Element:
    """The first element at a path, which must be there."""
    found = element.find(path)
    assert found is not None, path
    return found


def normal_form(definitions: etree._Element, renamed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All that a WSDL document says to a program, as dictionaries. `renamed` maps names of simple types."""
    renamed = renamed or {}
    schema = first(definitions, f"{WSDL}types/{XS}schema")
    port_type = first(definitions, f"{WSDL}portType")
    binding = first(definitions, f"{WSDL}binding")
    simple = {simple.attrib["name"]: _facets(simple) for simple in schema.findall(f"{XS}simpleType")}

    def members(complex_type: etree._Element | None) -> list[dict[str, Any]]:
        sequence = complex_type.find(f"{XS}sequence") if complex_type is not None else None
        return (
            [member(element) for element in sequence if element.tag != f"{XS}annotation"]
            if sequence is not None
            else []
        )

    def member(element: etree._Element) -> dict[str, Any]:
        name = _qualified(element, element.attrib["type"])
        local = name.removeprefix(f"{{{NAMESPACE}}}")
        return {
            "kind": etree.QName(element).localname,
            "name": element.get("name"),
            "type": renamed.get(local, local),
            "facets": simple.get(local),
            "minOccurs": element.get("minOccurs", "1"),
            "maxOccurs": element.get("maxOccurs", "1"),
            "nillable": element.get("nillable", "false"),
        }

    complex_types = {record.attrib["name"]: members(record) for record in schema.findall(f"{XS}complexType")}

    def content(element: etree._Element) -> Any:
        if "type" not in element.attrib:
            return members(element.find(f"{XS}complexType"))
        return complex_types[_qualified(element, element.attrib["type"]).removeprefix(f"{{{NAMESPACE}}}")]

    messages = {
        message.attrib["name"]: _qualified(part, part.attrib["element"]).removeprefix(f"{{{NAMESPACE}}}")
        for message in definitions.findall(f"{WSDL}message")
        for part in message.findall(f"{WSDL}part")
    }

    def carried(element: etree._Element | None) -> str | None:
        return None if element is None else messages[element.attrib["message"].partition(":")[2]]

    return {
        "namespaces": (definitions.get("targetNamespace"), schema.get("targetNamespace")),
        "qualified": schema.get("elementFormDefault"),
        "simple": {name: facets for name, facets in simple.items() if name not in renamed},
        "complex": complex_types,
        "elements": {
            element.attrib["name"]: {"members": content(element), "nillable": element.get("nillable", "false")}
            for element in schema.findall(f"{XS}element")
        },
        "messages": sorted(messages.values()),
        "operations": {
            operation.attrib["name"]: {
                "input": carried(operation.find(f"{WSDL}input")),
                "output": carried(operation.find(f"{WSDL}output")),
                "faults": [(fault.get("name"), carried(fault)) for fault in operation.findall(f"{WSDL}fault")],
            }
            for operation in port_type.findall(f"{WSDL}operation")
        },
        "style": [dict(sorted(how.attrib.items())) for how in binding.findall(f"{SOAP}binding")],
        "binding": {
            operation.attrib["name"]: {
                "action": first(operation, f"{SOAP}operation").get("soapAction"),
                "style": first(operation, f"{SOAP}operation").get("style"),
                "input": [body.get("use") for body in operation.findall(f"{WSDL}input/{SOAP}body")],
                "output": [body.get("use") for body in operation.findall(f"{WSDL}output/{SOAP}body")],
                "faults": [
                    (fault.get("name"), [(how.get("name"), how.get("use")) for how in fault.findall(f"{SOAP}fault")])
                    for fault in operation.findall(f"{WSDL}fault")
                ],
            }
            for operation in binding.findall(f"{WSDL}operation")
        },
    }


def _facets(simple: etree._Element) -> tuple[str, list[tuple[str, str]]]:
    restriction = first(simple, f"{XS}restriction")
    facets = [(str(facet.tag), facet.attrib["value"]) for facet in restriction if facet.tag != f"{XS}annotation"]
    return _qualified(restriction, restriction.attrib["base"]), sorted(facets)


def _qualified(element: etree._Element, name: str) -> str:
    prefix, _, local = name.rpartition(":")
    return f"{{{element.nsmap[prefix or None]}}}{local}"


@pytest.mark.parametrize("file", SERVICES)
def test_the_code_serves_what_the_contract_says(file: str) -> None:
    """Operations, actions, arguments, answers, faults, types and all their limits are alike in file and code."""
    assert form_of_file(text_of(file)) == form_of_code(file)


CHANGES = {
    "an optional argument becomes required": (
        'name="stop_time" type="tns:instant" minOccurs="0"',
        'name="stop_time" type="tns:instant"',
    ),
    "a required argument becomes optional": (
        'name="date" type="tns:instant">',
        'name="date" type="tns:instant" minOccurs="0">',
    ),
    "a list becomes one": (
        'type="tns:calibration_record" minOccurs="0" maxOccurs="unbounded"',
        'type="tns:calibration_record" minOccurs="0"',
    ),
    "a list gets a limit": ('maxOccurs="unbounded"', 'maxOccurs="1000"'),
    "an argument may be nil": ('name="date" type="tns:instant">', 'name="date" type="tns:instant" nillable="true">'),
    "an argument has another type": ('name="id" type="tns:id">', 'name="id" type="tns:run_number">'),
    "an optional argument has another type": (
        'name="as_of" type="tns:instant" minOccurs="0"',
        'name="as_of" type="xs:dateTime" minOccurs="0"',
    ),
    "an argument has another name": (
        '<xs:element name="date" type="tns:instant">',
        '<xs:element name="day" type="tns:instant">',
    ),
    "two arguments change places": (
        r'(<xs:element name="device_name".*?</xs:element>\s*)(<xs:element name="calibration_type".*?</xs:element>\s*)',
        r"\2\1",
    ),
    "an argument is added": (
        r'(<xs:element name="get_status">\s*<xs:complexType>\s*)<xs:sequence/>',
        r'\1<xs:sequence><xs:element name="more" type="xs:string"/></xs:sequence>',
    ),
    "an argument is dropped": (r'<xs:element name="as_of".*?</xs:element>', ""),
    "a choice instead of a sequence": (
        r'(<xs:complexType name="run">.*?<xs:)sequence(>.*?</xs:)sequence>',
        r"\1choice\2choice>",
    ),
    "an attribute is declared": (
        r"(<xs:complexType name=\"run\">.*?</xs:sequence>)",
        r'\1<xs:attribute name="unit" type="xs:string"/>',
    ),
    "content may be mixed": ('<xs:complexType name="run">', '<xs:complexType name="run" mixed="true">'),
    "an argument has a default": ('name="date" type="tns:instant">', 'name="date" type="tns:instant" default="now">'),
    "a pattern is wider": ("{0,62}", "{0,63}"),
    "a number begins elsewhere": ('<xs:minInclusive value="1"/>', '<xs:minInclusive value="0"/>'),
    "a text may be longer": ('<xs:maxLength value="4096"/>', '<xs:maxLength value="4097"/>'),
    "a text may be empty": ('<xs:minLength value="1"/>', ""),
    "a value is dropped": ('<xs:enumeration value="mirror"/>', ""),
    "a facet is added": ('<xs:minInclusive value="0"/>', '<xs:minInclusive value="0"/><xs:maxInclusive value="9"/>'),
    "a type has another base": ('<xs:restriction base="xs:long">', '<xs:restriction base="xs:int">'),
    "a type is dropped": (r'<xs:simpleType name="comment">.*?</xs:simpleType>', ""),
    "a type is added": (
        "<xs:complexType name=",
        '<xs:simpleType name="more"><xs:restriction base="xs:string"/></xs:simpleType><xs:complexType name=',
    ),
    "an element is added": ("<xs:complexType name=", '<xs:element name="more" type="xs:string"/><xs:complexType name='),
    "an answer has another element": (
        '<xs:element name="run" type="tns:run">',
        '<xs:element name="a_run" type="tns:run">',
    ),
    "an answer has another type": ('name="run" type="tns:run"', 'name="run" type="tns:device"'),
    "a fault's detail loses a member": (r'<xs:element name="argument".*?</xs:element>', ""),
    "a fault is not declared": ('<wsdl:fault name="RunNotFound" message="tns:RunNotFoundFault"/>', ""),
    "a fault is not bound": (
        '<wsdl:fault name="RunNotFound"><soap:fault name="RunNotFound" use="literal"/></wsdl:fault>',
        "",
    ),
    "a fault carries another element": ('element="tns:TooLarge"', 'element="tns:Unavailable"'),
    "an action is another": ("urn:mice:cdb:2#get_ids", "urn:mice:cdb:2#get_idz"),
    "an operation is not offered": (r'<wsdl:operation name="get_run">\s*<wsdl:doc.*?</wsdl:operation>', ""),
    "an operation is not bound": (r'<wsdl:operation name="get_run">\s*<soap.*?</wsdl:operation>', ""),
    "an operation has another name": ('<wsdl:operation name="get_run">', '<wsdl:operation name="show_run">'),
    "an operation has another request": ('<wsdl:input message="tns:get_run"/>', '<wsdl:input message="tns:get_runs"/>'),
    "an operation has another answer": (
        '<wsdl:output message="tns:get_runResponse"/>',
        '<wsdl:output message="tns:get_runsResponse"/>',
    ),
    "an operation does not answer": ('<wsdl:output message="tns:get_runResponse"/>', ""),
    "another style": ('style="document"', 'style="rpc"'),
    "another use": ('use="literal"', 'use="encoded"'),
    "another transport": (TRANSPORT, "http://schemas.xmlsoap.org/soap/smtp"),
    "elements without namespace": ('elementFormDefault="qualified"', ""),
    "another namespace of types": (
        '<xs:schema targetNamespace="urn:mice:cdb:2"',
        '<xs:schema targetNamespace="urn:mice:cdb:3"',
    ),
    "another namespace": (
        'name="Calibration"\n    targetNamespace="urn:mice:cdb:2"',
        'name="Calibration"\n    targetNamespace="urn:mice:cdb:3"',
    ),
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=CHANGES)
def test_any_change_of_the_contract_is_noticed(old: str, new: str) -> None:
    """The comparison fails for a file in which the first such place is changed."""
    pattern = old if re.search(r"\.\*\?|\\s", old) else re.escape(old)
    changed, count = re.subn(pattern, new, text_of(READING), count=1, flags=re.DOTALL)
    assert count == 1
    try:
        form = form_of_file(changed)
    except (ValueError, KeyError):
        return
    assert form != form_of_code(READING)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("The calibration type.", "Its type."),
        ("</wsdl:types>", "</wsdl:types><!-- a comment -->"),
        ('message="tns:get_idsResponse"/>', 'message = "tns:get_idsResponse"\n />'),
        ("TooLargeFault", "TooLargeError"),
    ],
    ids=["documentation", "comments", "white space", "names of messages"],
)
def test_words_may_change(old: str, new: str) -> None:
    """Documentation, comments, white space and names of messages are not compared."""
    text = text_of(READING)
    assert old in text
    assert form_of_file(text.replace(old, new)) == form_of_code(READING)


def _definitions_by_name(file: str) -> dict[tuple[str, str], str]:
    schema = re.search(r"<xs:schema .*</xs:schema>", text_of(file), re.DOTALL)
    assert schema is not None
    top = re.compile(r'^      <xs:(\w+) name="([^"]+)"(?:[^>]*/>|.*?^      </xs:\1>)', re.DOTALL | re.MULTILINE)
    return {(match[1], match[2]): match[0] for match in top.finditer(schema[0])}


def test_what_both_files_define_is_the_same_to_the_letter() -> None:
    """A type or a fault that stands in both files stands there in the same words."""
    reading, writing = _definitions_by_name(READING), _definitions_by_name(WRITING)
    for file, definitions in ((READING, reading), (WRITING, writing)):
        schema = first(parsed(text_of(file)), f"{WSDL}types/{XS}schema")
        assert [(etree.QName(child).localname, child.get("name")) for child in schema] == list(definitions)
    shared = reading.keys() & writing.keys()
    assert {("simpleType", "instant"), ("complexType", "calibration_record"), ("complexType", "Integrity")} <= shared
    assert {key: reading[key] for key in shared} == {key: writing[key] for key in shared}


@pytest.mark.parametrize("file", SERVICES)
def test_the_schema_compiles(file: str) -> None:
    """The types are a valid XML Schema, by themselves."""
    schema = first(parsed(text_of(file)), f"{WSDL}types/{XS}schema")
    etree.XMLSchema(etree.fromstring(etree.tostring(schema)))


@pytest.mark.parametrize("file", SERVICES)
def test_the_document_keeps_to_the_basic_profile(file: str) -> None:
    """WS-I Basic Profile 1.1: document/literal, one part by element, unique requests, no SOAP 1.2, no encoding."""
    text, definitions = text_of(file), parsed(text_of(file))
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>')
    for foreign in ("soap12", "soap/encoding", "wsdl:import", "xs:import", "xs:include", "arrayType", "wsdl:required"):
        assert foreign not in text
    assert definitions.get("targetNamespace") == NAMESPACE

    [binding] = definitions.findall(f"{WSDL}binding")
    [port_type] = definitions.findall(f"{WSDL}portType")
    [how] = binding.findall(f"{SOAP}binding")
    assert dict(how.attrib) == {"style": "document", "transport": TRANSPORT}
    messages = {message.get("name"): message for message in definitions.findall(f"{WSDL}message")}
    elements = {element.get("name") for element in definitions.findall(f"{WSDL}types/{XS}schema/{XS}element")}

    offered = {operation.get("name"): operation for operation in port_type.findall(f"{WSDL}operation")}
    bound = {operation.get("name"): operation for operation in binding.findall(f"{WSDL}operation")}
    assert list(offered) == list(bound)
    carried: dict[str | None, set[tuple[object, str | None]]] = {}
    for name, operation in offered.items():
        parts = [child.tag for child in operation]
        faults = len(operation.findall(f"{WSDL}fault"))
        assert parts == [f"{WSDL}documentation", f"{WSDL}input", f"{WSDL}output", *[f"{WSDL}fault"] * faults]
        for reference in operation.findall("*[@message]"):
            [part] = messages[reference.attrib["message"].removeprefix("tns:")].findall(f"{WSDL}part")
            fault = reference.tag == f"{WSDL}fault"
            assert part.get("name") == ("detail" if fault else "parameters")
            assert set(part.attrib) == {"name", "element"}
            element = part.attrib["element"].removeprefix("tns:")
            assert element in elements
            carried.setdefault(element, set()).add((reference.tag, None if fault else name))
            if fault:
                assert element == reference.get("name")
        assert carried[name] == {(f"{WSDL}input", name)}, (
            "each request has an element of its own, named as the operation"
        )
        assert carried[f"{name}Response"] == {(f"{WSDL}output", name)}

        [action] = bound[name].findall(f"{SOAP}operation")
        assert dict(action.attrib) == {"soapAction": f"{NAMESPACE}#{name}", "style": "document"}
        for body in (*bound[name].findall(f"{WSDL}input/*"), *bound[name].findall(f"{WSDL}output/*")):
            assert (body.tag, dict(body.attrib)) == (f"{SOAP}body", {"use": "literal"})
        bound_faults = [
            (fault.get("name"), [(how.tag, dict(how.attrib)) for how in fault])
            for fault in bound[name].findall(f"{WSDL}fault")
        ]
        assert bound_faults == [
            (fault.get("name"), [(f"{SOAP}fault", {"name": fault.get("name"), "use": "literal"})])
            for fault in operation.findall(f"{WSDL}fault")
        ]
    assert carried.keys() == elements, "no element without a message"
    assert len(messages) == len(elements), "no message without an operation"


@pytest.mark.parametrize("file", SERVICES)
def test_names_and_address_are_those_of_the_service(file: str) -> None:
    """Port type, port and service are named apart, one of each, and the address is that of the route."""
    definitions = parsed(text_of(file))
    name = SERVICES[file].__name__
    [service] = definitions.findall(f"{WSDL}service")
    [port] = service.findall(f"{WSDL}port")
    [address] = port
    names = [
        definitions.get("name"),
        first(definitions, f"{WSDL}portType").get("name"),
        service.get("name"),
        port.get("name"),
    ]
    assert names == [name, name, f"{name}Service", f"{name}Port"]
    assert port.get("binding") == f"tns:{first(definitions, f'{WSDL}binding').get('name')}"
    assert first(definitions, f"{WSDL}binding").get("type") == f"tns:{name}"
    assert dict(address.attrib) == {"location": f"http://localhost:8080{PATHS[file]}"}


def _documented(element: etree._Element) -> bool:
    said = element.find(f"{WSDL}documentation"), element.find(f"{XS}annotation/{XS}documentation")
    return any(text is not None and (text.text or "").strip() for text in said)


def _undocumented(file: str) -> Iterator[str]:
    definitions = parsed(text_of(file))
    documented = {element: _documented(element) for element in definitions.iter()}
    types_ = {
        f"tns:{type_.get('name')}": documented[type_]
        for type_ in definitions.iter(f"{XS}simpleType", f"{XS}complexType")
        if "name" in type_.attrib
    }
    messages = {f"tns:{message.get('name')}": documented[message] for message in definitions.iter(f"{WSDL}message")}
    carried = {
        part.get("element"): documented[message]
        for message in definitions.iter(f"{WSDL}message")
        for part in message.iter(f"{WSDL}part")
    }
    for element in definitions.iter():
        tag, name = element.tag, element.get("name")
        parent = element.getparent()
        within = None if parent is None else parent.tag
        in_schema = within == f"{XS}schema"
        if tag in (f"{WSDL}definitions", f"{WSDL}message", f"{XS}simpleType") or (
            tag == f"{WSDL}operation" and within == f"{WSDL}portType"
        ):
            told = documented[element]
        elif tag == f"{WSDL}fault" and "message" in element.attrib:
            told = messages[element.attrib["message"]]
        elif tag == f"{XS}complexType" and name:
            told = documented[element]
        elif tag == f"{XS}element" and in_schema:
            told = documented[element] or (carried[f"tns:{name}"] and types_.get(element.get("type", ""), True))
        elif tag == f"{XS}element":
            told = documented[element]
        else:
            continue
        if not told:
            yield f"{etree.QName(element).localname} {name}, line {element.sourceline}"


@pytest.mark.parametrize("file", SERVICES)
def test_everything_is_documented(file: str) -> None:
    """Every operation, message, element, type and fault says what it is: itself, or by the message that carries it."""
    assert list(_undocumented(file)) == []


@pytest.mark.parametrize("file", SERVICES)
@pytest.mark.parametrize("query", ["wsdl", "WSDL", "Wsdl", "wSdL", "wsdl="])
@pytest.mark.parametrize("host", ["localhost", "evil.example", "evil.example:81", ""])
def test_the_contract_is_published_to_the_byte(file: str, query: str, host: str, shared_master: Master) -> None:
    """`?wsdl` in any case gives the file, with the configured address whatever Host the request names, to anybody."""
    status, content_type, served = _asked(shared_master, f"{PATHS[file]}?{query}", host)
    assert (status, content_type) == (200, "text/xml; charset=utf-8")
    assert served == text_of(file).replace("http://localhost:8080", shared_master.url).encode("utf-8")


@pytest.mark.parametrize("host", ["[::1", "a b", "évil", '"><x y="', None])
def test_what_is_no_host_is_not_answered(host: str | None, shared_master: Master) -> None:
    """RFC 9112, section 3.2: 400 to a request without Host, or with one that is none."""
    status, _, served = _asked(shared_master, f"{PATHS[READING]}?wsdl", host)
    assert status == 400
    assert b"evil" not in served


def _asked(master: Master, target: str, host: str | None) -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection(urlsplit(master.url).netloc, timeout=10)
    connection.putrequest("GET", target, skip_host=True)
    if host is not None:
        connection.putheader("Host", host.encode("latin-1"))
    connection.putheader("X-Forwarded-Host", "evil.example")
    connection.endheaders()
    answer = connection.getresponse()
    served = answer.read()
    connection.close()
    return answer.status, answer.getheader("Content-Type"), served


AS_TEXT = {f"{XS}{name}" for name in ("dateTime", "anyURI", "base64Binary")}


def plainly(member: dict[str, Any]) -> dict[str, Any]:
    """A member with its built-in type in place of its own, and text in place of times, addresses and bytes."""
    base = member["facets"][0] if member["facets"] else member["type"]
    return {**member, "facets": None, "type": f"{XS}string" if base in AS_TEXT else base}


@pytest.mark.parametrize("file", [*SERVICES, *LEGACY_SERVICES.values()])
@pytest.mark.parametrize("query", ["wsdl=plain", "WSDL=Plain"])
def test_a_plain_description_says_the_same_in_built_in_types(file: str, query: str, shared_master: Master) -> None:
    """`?wsdl=plain` has the same operations, messages, members and address, but no documentation, no simple types."""
    path = PATHS.get(file) or next(path for path, of in LEGACY_SERVICES.items() if of == file)
    answer = requests.get(f"{shared_master.url}{path}?{query}", timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/xml; charset=utf-8")
    served, kept_file = (parsed(text.replace("urn:mice:cdb:1", NAMESPACE)) for text in (answer.text, text_of(file)))
    assert not list(served.iter(f"{WSDL}documentation", f"{XS}annotation", f"{XS}simpleType"))
    assert first(served, f"{WSDL}service/{WSDL}port/{SOAP}address").get("location") == f"{shared_master.url}{path}"
    found, kept = normal_form(served), normal_form(kept_file)
    kept["simple"] = {}
    kept["complex"] = {name: list(map(plainly, members)) for name, members in kept["complex"].items()}
    for element in kept["elements"].values():
        element["members"] = list(map(plainly, element["members"]))
    assert flat(found) == flat(kept)
    built_in = {member["type"] for members in found["complex"].values() for member in members} - set(found["complex"])
    assert built_in <= {f"{XS}{name}" for name in ("string", "long", "boolean", "double")}
    etree.XMLSchema(etree.fromstring(etree.tostring(first(served, f"{WSDL}types/{XS}schema"))))


Base = TypeVar("Base")


def _subclasses(of: type[Base]) -> set[type[Base]]:
    return {below for direct in of.__subclasses__() for below in {direct, *_subclasses(direct)}}


def test_every_error_is_a_fault_of_the_contract() -> None:
    """Errors, the faults they become, spyne's types and the files' elements are the same set, under the same names."""
    ours = {error for error in _subclasses(errors.CdbError) if error.__module__ == errors.__name__}
    assert set(FAULT_TYPES) == ours
    fault_types = _subclasses(types.TypedFault)
    assert set(FAULT_TYPES.values()) == fault_types
    # A damaged copy is told as Integrity, from the server's side.
    assert {error.__name__: fault.__type_name__ for error, fault in FAULT_TYPES.items()} == {
        error.__name__: "Integrity" if error is errors.DamagedPayload else error.__name__ for error in ours
    }
    declared = {
        element.get("name")
        for file in SERVICES
        for element in parsed(text_of(file)).findall(f"{WSDL}types/{XS}schema/{XS}element")
        if "type" in element.attrib
    }
    assert {fault.__type_name__ for fault in fault_types} == declared


def test_every_fault_is_declared_by_an_operation() -> None:
    """No fault type is without an operation that may answer it, and every operation declares the three common ones."""
    declared: set[str] = set()
    for file in SERVICES:
        for operation in normal_form(parsed(text_of(file)))["operations"].values():
            names = {name for name, _ in operation["faults"]}
            assert {"MalformedRequest", "InvalidArgument", "Unavailable"} <= names
            declared |= names
    assert declared == {fault.__type_name__ for fault in FAULT_TYPES.values()}


ERRORS = sorted(FAULT_TYPES, key=lambda error: error.__name__)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_a_fault_has_a_code_of_its_errors_side_and_name(error: type[errors.CdbError]) -> None:
    """The code is Client.X or Server.X by the error's side, and the fault carries the error's message."""
    raised = error.__new__(error)
    errors.CdbError.__init__(raised, "what is wrong, and what to do next")
    fault = to_fault(raised)
    assert type(fault) is FAULT_TYPES[error]
    assert fault.faultcode == f"{error.side}.{FAULT_TYPES[error].__type_name__}"
    assert (fault.faultstring, fault.message) == (raised.message, raised.message)


def test_only_unavailable_and_a_damaged_payload_are_the_servers_fault() -> None:
    """All other errors ask the caller for something else."""
    assert {error for error in FAULT_TYPES if error.side == "Server"} == {errors.Unavailable, errors.DamagedPayload}


def test_every_type_of_an_argument_has_words_for_a_wrong_value() -> None:
    """What is refused as a value is told what the value must be."""
    types_ = {argument.type for file in SERVICES for known in Wsdl(file).operations.values() for argument in known}
    assert types_ <= set(_EXPECTED_FORMS)


FIRST_REQUESTS = """
import os, threading
from cdb_server.soap.wsdl import Wsdl

def first_requests():
    contract = Wsdl("calibration.wsdl")
    barrier, compiled = threading.Barrier(4), []
    def judge():
        barrier.wait()
        compiled.append(contract.validator())
    threads = [threading.Thread(target=judge) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    os._exit(len(compiled) != 4)

broken = 0
for _ in range(50):
    # Nothing of libxml2's schemas was used here: each child is as a worker that has just started.
    child = os.fork()
    if not child:
        first_requests()
    broken += os.waitpid(child, 0)[1] != 0
print(broken)
"""


def test_the_first_requests_of_a_worker_may_come_at_once() -> None:
    """libxml2 sets its types up at the first schema: threads that did so at once broke a worker for good."""
    done = subprocess.run([sys.executable, "-c", FIRST_REQUESTS], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")
