"""Whatever a network can send: each row of the list of bad input, and more of its kind, against a running master.

A row stands above its tests. For every input alike, `refused` checks the outcome to the letter, and that nothing else
happened: no answer that tells of the server's inside, nothing stored, no time lost, no log filled, no harm to the next.
"""

import http.client
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from lxml import etree

from cdb_server.soap.wsdl import Wsdl
from tests import servers
from tests.fuzz import wire
from tests.servers import Master

NAMESPACE = "urn:mice:cdb:2"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MEGABYTE = 2**20

DECLARED = (
    f'xmlns:s="{SOAP}" xmlns:t="{NAMESPACE}" xmlns:xsi="{XSI}" xmlns:xs="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xi="http://www.w3.org/2001/XInclude"'
)

# What must never be seen from outside (rule 14).
INSIDE = (
    b"Traceback",
    b'File "',
    b"site-packages",
    b".py",
    b"cdb_server",
    b"spyne",
    b"lxml",
    b"sqlite",
    sys.prefix.encode(),
)

CONTRACTS = {
    wire.READING: Wsdl("calibration.wsdl"),
    wire.WRITING: Wsdl("calibration_supermouse.wsdl"),
}


# What is sent.


@dataclass(frozen=True)
class Side:
    """An endpoint, with a question to it that is in order: an operation and its arguments."""

    name: str
    path: str
    operation: str
    arguments: dict[str, str] = field(hash=False)

    def __str__(self) -> str:
        return self.name

    def call(self, operation: str | None = None, **changes: str | None) -> str:
        """The operation's element, with some arguments' text changed or, by None, left out."""
        arguments = (self.arguments if operation is None else good_arguments(self, operation)) | changes
        order = [argument.name for argument in CONTRACTS[self.path].operations[operation or self.operation]]
        return element(
            operation or self.operation,
            "".join(element(name, text) for name in order if (text := arguments.get(name)) is not None),
        )

    def request(self, body: bytes, master: Master, **how: Any) -> bytes:
        """The bytes of a request to this endpoint, with credentials where they are needed."""
        credentials = (master.user, master.token) if self.path == wire.WRITING else None
        return wire.request(self.path, body, **{"credentials": credentials, **how})


READ = Side(
    "reading",
    wire.READING,
    "get_calibration_for_date",
    {"device_name": "NEVER", "calibration_type": "t0", "date": "2016-03-01T08:00:00Z"},
)
WRITE = Side(
    "writing",
    wire.WRITING,
    "add_calibration",
    {"device_name": "REFUSED", "calibration_type": "t0", "valid_from": "2016-03-01T08:00:00Z", "data": "YWJj"},
)
SIDES = (READ, WRITE)

GOOD = {
    "device_name": "NEVER",
    "calibration_type": "t0",
    "run_number": "999999999",
    "id": "999999999",
    "instant": "2016-03-01T08:00:00Z",
    "reason": "none",
    "comment": "none",
    "serial": "0",
    "sha256": "0" * 64,
    "base64Binary": "YWJj",
}


def good_arguments(side: Side, operation: str) -> dict[str, str]:
    """Fitting values for the required arguments of an operation."""
    arguments = CONTRACTS[side.path].operations[operation]
    # Writes have names of their own: what one stores by a fault does not change what is unknown to a question.
    good = GOOD if side is READ else GOOD | {"device_name": "REFUSED", "run_number": "999999998"}
    return {argument.name: good.get(argument.type, "1") for argument in arguments if argument.required}


def element(name: str, content: str = "", attributes: str = "") -> str:
    return f"<t:{name}{attributes and ' ' + attributes}>{content}</t:{name}>"


def envelope(content: str, header: str = "", *, attributes: str = "", body_attributes: str = "") -> bytes:
    """A SOAP 1.1 envelope around anything."""
    text = (
        f"<s:Envelope {DECLARED} {attributes}>"
        f"{header and f'<s:Header>{header}</s:Header>'}<s:Body {body_attributes}>{content}</s:Body></s:Envelope>"
    )
    return text.encode("utf-8")


# What comes back.

Outcome = Callable[[wire.Reply], None]


def _fault(reply: wire.Reply) -> etree._Element:
    assert (reply.status, reply.headers["content-type"]) == (500, "text/xml; charset=utf-8"), reply
    document = etree.fromstring(reply.body)
    [found] = document.findall(f"{{{SOAP}}}Body/*")
    assert found.tag == f"{{{SOAP}}}Fault", reply
    assert [child.tag for child in found][:2] == ["faultcode", "faultstring"]
    return found


def _code(fault: etree._Element) -> str:
    prefix, _, code = fault.findtext("faultcode", "").partition(":")
    assert fault.nsmap[prefix] == SOAP
    return code


def fault(name: str, *, mentions: str = "", **asked: str) -> Outcome:
    """The outcome C.x: fault code Client.x, and a detail x as the contract has it, with such fields."""

    def check(reply: wire.Reply) -> None:
        found = _fault(reply)
        assert _code(found) == f"Client.{name}", reply.body
        [detail] = found.findall("detail/*")
        assert detail.tag == f"{{{NAMESPACE}}}{name}"
        CONTRACTS[wire.READING].validator().assertValid(detail)
        message = detail.findtext(f"{{{NAMESPACE}}}message", "")
        assert message == found.findtext("faultstring")
        assert len(message) > 10
        assert mentions in message
        assert {child: detail.findtext(f"{{{NAMESPACE}}}{child}") for child in asked} == asked

    return check


def soap_fault(code: str) -> Outcome:
    """A fault that SOAP 1.1 itself defines, which has no detail."""

    def check(reply: wire.Reply) -> None:
        found = _fault(reply)
        assert _code(found) == code, reply.body
        assert found.find("detail") is None

    return check


def plain(*statuses: int) -> Outcome:
    """HTTP's own answer: one line of text."""

    def check(reply: wire.Reply) -> None:
        assert reply.status in statuses, reply
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.body.strip()
        assert reply.body.strip().count(b"\n") == 0

    return check


def one_of(*outcomes: Outcome) -> Outcome:
    """Any of some outcomes."""

    def check(reply: wire.Reply) -> None:
        for outcome in outcomes[:-1]:
            try:
                return outcome(reply)
            except AssertionError:
                pass
        return outcomes[-1](reply)

    return check


MALFORMED = fault("MalformedRequest")


def refused(
    master: Master, request: bytes, outcome: Outcome, *, within: float = 0.5, head: bool = False, closed: bool = False
) -> None:
    """Send a request and check all that holds for bad input. A slow answer may be noise: the best of three counts."""
    serial, _ = _serial(master)
    fastest = float("inf")
    for _ in range(3):
        logged = master.log.stat().st_size
        with wire.Peer(master.url) as peer:
            reply = peer.ask(request, head=head)
            outcome(reply)
            for inside in (*INSIDE, str(master.log.parent).encode(), str(Path.cwd()).encode()):
                assert inside not in reply.body
            if closed:
                assert peer.ended()
            # Where the connection stays open, the next request comes to the same worker.
            after, seconds = _serial(master, None if closed or reply.closes else peer)
        assert after == serial, "something was stored"
        assert master.log.stat().st_size - logged <= 1000
        fastest = min(fastest, max(reply.seconds, seconds))
        if fastest <= within or fastest > 5:
            break
    assert fastest <= within


def _serial(master: Master, peer: wire.Peer | None = None) -> tuple[str, float]:
    """The good request: ask for the status, and answer the serial in it and how long that took."""
    if peer is None:
        with wire.Peer(master.url) as new:
            return _serial(master, new)
    reply = peer.ask(wire.request(wire.READING, envelope(element("get_status"))))
    assert reply.status == 200, reply
    found = re.search(rb"serial>(\d+)</", reply.body)
    assert found is not None
    return found[1].decode("ascii"), reply.seconds


def inputs(*cases: tuple[str, object] | Mapping[str, object], sides: tuple[Side, ...] = SIDES) -> pytest.MarkDecorator:
    """Parametrize a test by `side` and `case`: every case at every endpoint."""
    every = [case for group in cases for case in (group.items() if isinstance(group, Mapping) else [group])]
    return pytest.mark.parametrize(
        ("side", "case"), [pytest.param(side, case, id=f"{side}-{name}") for side in sides for name, case in every]
    )


def arguments(*types: str, required: bool | None = None) -> pytest.MarkDecorator:
    """Parametrize a test by `side`, `operation` and `argument`: all that the contract has, or all of some types."""
    return pytest.mark.parametrize(
        ("side", "operation", "argument"),
        [
            pytest.param(side, operation, argument.name, id=f"{operation}-{argument.name}")
            for side in SIDES
            for operation, known in CONTRACTS[side.path].operations.items()
            for argument in known
            if (not types or argument.type in types) and required in (None, argument.required)
        ],
    )


def every_operation(at_least: int = 0) -> pytest.MarkDecorator:
    """Parametrize a test by `side` and `operation`: all that have so many required arguments."""
    return pytest.mark.parametrize(
        ("side", "operation"),
        [
            pytest.param(side, operation, id=operation)
            for side in SIDES
            for operation, known in CONTRACTS[side.path].operations.items()
            if sum(argument.required for argument in known) >= at_least
        ],
    )


@pytest.fixture(scope="module")
def small_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master that takes payloads of 1,000 bytes."""
    folder = tmp_path_factory.mktemp("small")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--max-payload", "1000") as running:
        yield running


@pytest.fixture(scope="module")
def far_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master to which nobody here may write."""
    folder = tmp_path_factory.mktemp("far")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--write-networks", "192.0.2.0/24") as running:
        yield running


# "empty body; body that is not XML; JSON sent as text/xml": C.MalformedRequest

NOT_XML = {
    "nothing": b"",
    "a space": b" ",
    "a line": b"\r\n",
    "words": b"give me the calibration of TOF1",
    "JSON": b'{"get_status": {}}',
    "a bracket": b"<",
    "half a tag": b"<s:Envelope",
    "no end": envelope(READ.call())[:-1],
    "no beginning": envelope(READ.call())[1:],
    "cut in the middle": envelope(READ.call())[:300],
    "twice": envelope(READ.call()) * 2,
    "words after it": envelope(READ.call()) + b"words",
    "words before it": b"words" + envelope(READ.call()),
    "NUL": b"\x00",
    "NUL after it": envelope(READ.call()) + b"\x00",
    "a comment alone": b"<!-- a comment -->",
    "a comment without end": b"<!-- a comment",
    "a declaration alone": b'<?xml version="1.0" encoding="utf-8"?>',
    "a declaration after a space": b' <?xml version="1.0"?>' + envelope(READ.call()),
    "XML 2.0": b'<?xml version="2.0"?>' + envelope(READ.call()),
    "an ampersand": envelope("&"),
    "an unknown entity": envelope("&nbsp;"),
    "an unbound prefix": envelope("<u:get_status/>"),
    "an attribute twice": envelope(element("get_status", "", 'a="1" a="2"')),
    "a bracket in an attribute": envelope(element("get_status", "", 'a="<"')),
    "tags crossed": envelope("<t:get_status><t:x></t:get_status></t:x>"),
    "HTML": b"<html><body>hello</body></html>",
    "a form": b"operation=get_status&x=1",
    "spaces only, a million": b" " * 1_000_000,
    "brackets only, a million": b"<" * 1_000_000,
    "a name without end": b"<" + b"a" * 1_000_000,
    "an attribute without end": b'<a b="' + b"a" * 1_000_000,
    "comments, a hundred thousand": b"<!---->" * 100_000,
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a gzip": b"\x1f\x8b\x08\x00" + b"\x00" * 50,
}


@inputs(NOT_XML)
def test_what_is_no_xml_is_malformed(side: Side, case: bytes, shared_master: Master) -> None:
    """A body that is no well-formed XML document is turned away as malformed."""
    refused(shared_master, side.request(case, shared_master), MALFORMED)


@pytest.mark.parametrize("side", SIDES, ids=str)
def test_no_body_at_all_is_malformed(side: Side, shared_master: Master) -> None:
    """A POST that announces no body has an empty one."""
    refused(shared_master, side.request(b"", shared_master, headers=[("Content-Length", None)]), MALFORMED)


def test_the_parsers_own_words_stay_inside(shared_master: Master) -> None:
    """What is wrong with the XML is told without the parser's options, and places of its own."""
    with wire.Peer(shared_master.url) as peer:
        told = b"".join(peer.ask(READ.request(body, shared_master)).body for body in NOT_XML.values())
        told += peer.ask(READ.request(envelope("<a>" * 300), shared_master)).body
    assert [word for word in (b"&lt;string&gt;", b"XML_PARSE", b"xmlCtxt", b"libxml") if word in told] == []


# "Envelope without Body; empty Body; Body holding a Fault; two Body elements; two operations in one Body":
# C.MalformedRequest

SOAP_FAULT = "<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault>"
NOT_SOAP = {
    "another document": lambda good: f'<Envelope xmlns="urn:other"><Body>{good}</Body></Envelope>',
    "no namespace": lambda good: f"<Envelope {DECLARED}><Body>{good}</Body></Envelope>",
    "the operation alone": lambda good: good.replace(">", f" {DECLARED}>", 1),
    "no Body": lambda good: f"<s:Envelope {DECLARED}/>",
    "a Header alone": lambda good: f"<s:Envelope {DECLARED}><s:Header/></s:Envelope>",
    "empty Body": lambda good: f"<s:Envelope {DECLARED}><s:Body/></s:Envelope>",
    "Body of text": lambda good: f"<s:Envelope {DECLARED}><s:Body>hello</s:Body></s:Envelope>",
    "Body of a comment": lambda good: f"<s:Envelope {DECLARED}><s:Body><!-- {good} --></s:Body></s:Envelope>",
    "Body of CDATA": lambda good: f"<s:Envelope {DECLARED}><s:Body><![CDATA[{good}]]></s:Body></s:Envelope>",
    "a Fault": lambda good: envelope(SOAP_FAULT).decode(),
    "a Fault after the operation": lambda good: envelope(good + SOAP_FAULT).decode(),
    "two Bodies": lambda good: f"<s:Envelope {DECLARED}><s:Body>{good}</s:Body><s:Body>{good}</s:Body></s:Envelope>",
    "an empty Body first": lambda good: f"<s:Envelope {DECLARED}><s:Body/><s:Body>{good}</s:Body></s:Envelope>",
    "an empty Body last": lambda good: f"<s:Envelope {DECLARED}><s:Body>{good}</s:Body><s:Body/></s:Envelope>",
    "two Headers": lambda good: f"<s:Envelope {DECLARED}><s:Header/><s:Header/><s:Body>{good}</s:Body></s:Envelope>",
    "Header last": lambda good: f"<s:Envelope {DECLARED}><s:Body>{good}</s:Body><s:Header/></s:Envelope>",
    "the operation in the Header": lambda good: (
        f"<s:Envelope {DECLARED}><s:Header>{good}</s:Header><s:Body/></s:Envelope>"
    ),
    "the operation beside the Body": lambda good: f"<s:Envelope {DECLARED}><s:Body/>{good}</s:Envelope>",
    "more after the Body": lambda good: f"<s:Envelope {DECLARED}><s:Body>{good}</s:Body><t:more/></s:Envelope>",
    "two operations": lambda good: envelope(good + good).decode(),
    "another operation after it": lambda good: envelope(good + "<t:get_status/>").decode(),
    "Body in Body": lambda good: envelope(f"<s:Body>{good}</s:Body>").decode(),
    "Envelope in Body": lambda good: envelope(f"<s:Envelope><s:Body>{good}</s:Body></s:Envelope>").decode(),
    "envelope in lower case": lambda good: envelope(good).decode().replace("s:Envelope", "s:envelope"),
    "body in lower case": lambda good: envelope(good).decode().replace("s:Body", "s:body"),
    "Body of another namespace": lambda good: envelope(good).decode().replace("s:Body", "t:Body"),
}


@inputs(NOT_SOAP)
def test_what_is_no_envelope_with_one_operation_is_malformed(
    side: Side, case: Callable[[str], str], shared_master: Master
) -> None:
    """One Envelope, one Body in it, one operation in that: everything else is malformed."""
    refused(shared_master, side.request(case(side.call()).encode(), shared_master), MALFORMED)


# "SOAP 1.2 envelope": VersionMismatch

VERSIONS = {
    "1.2": lambda good: envelope(good).decode().replace(SOAP, SOAP_12),
    "1.2, with a Header": lambda good: envelope(good, "<t:x/>").decode().replace(SOAP, SOAP_12),
    "1.2, empty": lambda good: f'<Envelope xmlns="{SOAP_12}"/>',
}


@inputs(VERSIONS)
def test_soap_1_2_is_another_version(side: Side, case: Callable[[str], str], shared_master: Master) -> None:
    """An Envelope of SOAP 1.2 is told that this is SOAP 1.1."""
    refused(shared_master, side.request(case(side.call()).encode(), shared_master), soap_fault("VersionMismatch"))


# 'header with mustUnderstand="1" that nobody knows': MustUnderstand

NEXT = "http://schemas.xmlsoap.org/soap/actor/next"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
MANDATORY = {
    "1": '<t:x s:mustUnderstand="1"/>',
    "true": '<t:x s:mustUnderstand="true"/>',
    "no namespace": '<x s:mustUnderstand="1"/>',
    "to the next": f'<t:x s:mustUnderstand="1" s:actor="{NEXT}"/>',
    "to nobody named": '<t:x s:mustUnderstand="1" s:actor=""/>',
    "after an optional one": '<t:y/><t:x s:mustUnderstand="1"/>',
    "security": f'<w:Security xmlns:w="{WSSE}" s:mustUnderstand="1"><w:UsernameToken/></w:Security>',
    "an operation's name": '<t:get_status s:mustUnderstand="1"/>',
    "another prefix": f'<t:x xmlns:q="{SOAP}" q:mustUnderstand="1"/>',
}


@inputs(MANDATORY)
def test_a_header_that_must_be_understood_is_not(side: Side, case: str, shared_master: Master) -> None:
    """A header that must be understood stops the request."""
    body = envelope(side.call(), case)
    refused(shared_master, side.request(body, shared_master), soap_fault("MustUnderstand"))


@pytest.mark.parametrize(
    "header",
    [
        "<t:x/>",
        '<t:x s:mustUnderstand="0"/>',
        '<t:x mustUnderstand="1"/>',
        '<t:x s:mustUnderstand="1" s:actor="urn:another"/>',
        '<w:Security xmlns:w="urn:w"/>',
    ],
)
def test_a_header_for_others_is_passed_over(header: str, shared_master: Master) -> None:
    """A header that nobody here must understand changes nothing."""
    with wire.Peer(shared_master.url) as peer:
        assert peer.ask(wire.request(wire.READING, envelope("<t:get_status/>", header))).status == 200


# "SOAPAction that names another operation than the Body": C.MalformedRequest

OTHER_ACTIONS = {
    "another operation": f'"{NAMESPACE}#get_run"',
    "another operation, unquoted": f"{NAMESPACE}#get_run",
    "of the other service": f'"{NAMESPACE}#withdraw_calibration"',
    "the name alone": '"get_calibration_for_date"',
    "the namespace alone": f'"{NAMESPACE}"',
    "another namespace": '"urn:mice:cdb:1#get_calibration_for_date"',
    "longer by a letter": f'"{NAMESPACE}#get_calibration_for_dates"',
    "in capitals": f'"{NAMESPACE}#GET_CALIBRATION_FOR_DATE"',
    "words": "hello",
    "30,000 letters": '"' + "a" * 30_000 + '"',
    "bytes": b"\xff\xfe\x80",
    "a path": '"../../etc/passwd"',
    "a script": '"<script>alert(1)</script>&amp;"',
}


@inputs(OTHER_ACTIONS)
def test_an_action_that_is_not_the_bodys_is_malformed(side: Side, case: str | bytes, shared_master: Master) -> None:
    """SOAPAction and Body must name the same operation."""
    request = side.request(envelope(side.call()), shared_master, headers=[("SOAPAction", case)])
    refused(shared_master, request, MALFORMED)


@pytest.mark.parametrize("action", [None, "", '""', f'"{NAMESPACE}#get_status"', f"{NAMESPACE}#get_status"])
def test_an_action_may_be_absent_or_empty(action: str | None, shared_master: Master) -> None:
    """Without an action, or with the right one, the Body decides."""
    with wire.Peer(shared_master.url) as peer:
        request = wire.request(wire.READING, envelope("<t:get_status/>"), headers=[("SOAPAction", action)])
        assert peer.ask(request).status == 200


# "DOCTYPE of any sort: unused entities, external DTD, parameter entity, file:// and http:// entities":
# C.MalformedRequest, no file or network touched


@dataclass
class Trap:
    """A file and an address that must not be touched: a FIFO, whose reader would be seen, and a listening socket."""

    fifo: Path
    listening: socket.socket

    @property
    def urls(self) -> dict[str, str]:
        host, port = self.listening.getsockname()
        return {"FILE": f"file://{self.fifo}", "PATH": str(self.fifo), "HTTP": f"http://{host}:{port}/x.dtd"}

    def set_in(self, text: str) -> str:
        """A text with the trap's addresses in place of the names of their kinds."""
        for kind, url in self.urls.items():
            text = text.replace(kind, url)
        return text

    def assert_untouched(self) -> None:
        with pytest.raises(BlockingIOError):
            self.listening.accept()
        # To open a FIFO for writing without waiting fails while nobody has it open for reading.
        with pytest.raises(OSError, match="No such device or address"):
            os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A trap, set."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield Trap(fifo, listening)


DOCTYPES = {
    "a name": "<!DOCTYPE Envelope>",
    "empty": "<!DOCTYPE Envelope []>",
    "an unused entity": '<!DOCTYPE x [<!ENTITY a "b">]>',
    "an external DTD by file": '<!DOCTYPE x SYSTEM "FILE">',
    "an external DTD by path": '<!DOCTYPE x SYSTEM "PATH">',
    "an external DTD by http": '<!DOCTYPE x SYSTEM "HTTP">',
    "a public DTD": '<!DOCTYPE x PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "HTTP">',
    "a parameter entity by file": '<!DOCTYPE x [<!ENTITY % p SYSTEM "FILE"> %p;]>',
    "a parameter entity by http": '<!DOCTYPE x [<!ENTITY % p SYSTEM "HTTP"> %p;]>',
    "a parameter entity within": "<!DOCTYPE x [<!ENTITY % p \"<!ENTITY a 'b'>\"> %p;]>",
    "an entity by file": '<!DOCTYPE x [<!ENTITY a SYSTEM "FILE">]>',
    "an entity by http": '<!DOCTYPE x [<!ENTITY a SYSTEM "HTTP">]>',
    "an entity of the machine": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
    "attributes with defaults": '<!DOCTYPE x [<!ATTLIST s:Envelope a CDATA "b">]>',
    "a notation": '<!DOCTYPE x [<!NOTATION n SYSTEM "HTTP"><!ENTITY a SYSTEM "FILE" NDATA n>]>',
    "without end": "<!DOCTYPE x [",
    "in lower case": "<!doctype x>",
    "after a declaration": '<?xml version="1.0"?><!DOCTYPE x>',
    "after a comment": "<!-- a comment --><!DOCTYPE x>",
    "after a comment with a tag": "<!-- <a> --><!DOCTYPE x>",
    "after a comment with an end in its beginning": "<!--> <a --><!DOCTYPE x>",
    "after a comment with nearly an end in its beginning": "<!---> <a --><!DOCTYPE x>",
    "after an instruction": "<?a b?><!DOCTYPE x>",
    "after an instruction with a tag": "<?a <b ?><!DOCTYPE x>",
    "after spaces": '<?xml version="1.0"?>' + "\n" * 100_000 + "<!DOCTYPE x>",
    "after a long comment": f"<!--{' ' * 100_000}--><!DOCTYPE x>",
    "after a byte order mark": "\ufeff<!DOCTYPE x>",
    "with an entity, after a comment with an end in its beginning": '<!--> <a --><!DOCTYPE x [<!ENTITY a "b">]>',
    "with a file, after a comment with an end in its beginning": '<!--> <a --><!DOCTYPE x [<!ENTITY a SYSTEM "FILE">]>',
    "with http, after an instruction with a tag": '<?a <b ?><!DOCTYPE x [<!ENTITY % p SYSTEM "HTTP"> %p;]>',
}


# Where an entity of the name a is used.
USES: dict[str, Callable[[Side], bytes]] = {
    "unused": lambda side: envelope(side.call()),
    "in a value": lambda side: envelope(side.call(device_name="N&a;")),
    "in an attribute": lambda side: envelope(side.call(), body_attributes='x="&a;"'),
    "in the Body": lambda side: envelope(side.call() + "&a;"),
    "among the arguments": lambda side: envelope(side.call().replace("><", ">&a;<", 1)),
}
DOCUMENTS = {
    f"{name}, {use}": (doctype, put)
    for name, doctype in DOCTYPES.items()
    for use, put in USES.items()
    if use == "unused" or "ENTITY a" in doctype
}


@inputs(DOCUMENTS)
def test_a_document_type_is_malformed(
    side: Side, case: tuple[str, Callable[[Side], bytes]], trap: Trap, shared_master: Master
) -> None:
    """A DOCTYPE is refused, used or not, and makes the server touch neither file nor network."""
    doctype, put = case
    refused(shared_master, side.request(trap.set_in(doctype).encode() + put(side), shared_master), MALFORMED)
    trap.assert_untouched()


# "billion laughs and quadratic blow-up, in text and in attributes": C.MalformedRequest, within 50 ms

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOMBS = {
    "billion laughs": f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}<!ENTITY a "&l9;">]>',
    "a thousand laughs": f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}<!ENTITY a "&l2;">]>',
    "quadratic": f'<!DOCTYPE x [<!ENTITY b "{"b" * 50_000}"><!ENTITY a "{"&b;" * 10_000}">]>',
    "itself": '<!DOCTYPE x [<!ENTITY a "&a;">]>',
    "each other": '<!DOCTYPE x [<!ENTITY a "&b;"><!ENTITY b "&a;">]>',
    "by parameter entities": '<!DOCTYPE x [<!ENTITY % b "bbbbbbbbbb"><!ENTITY a "%b;%b;%b;">]>',
    "by a default": f'<!DOCTYPE x [<!ENTITY a "b">{LAUGHS.replace("&l0;", "b")}<!ATTLIST s:Body b CDATA "&l9;">]>',
}
# How a bomb might pass whoever looks for it at the beginning only.
DISGUISES = {
    "plain": ("", 0),
    "after a comment with an end in its beginning": ("<!--> <a -->", 0),
    "after an instruction with a tag": ("<?a <b ?>", 0),
    "in 10 MB, after a comment with an end in its beginning": ("<!--> <a -->", 10 * MEGABYTE),
}


@inputs(BOMBS, sides=(READ,))
@pytest.mark.parametrize("use", [use for use in USES if use != "unused"])
def test_a_bomb_is_malformed_at_once(side: Side, case: str, use: str, shared_master: Master) -> None:
    """Entities that grow without end are refused before they grow."""
    refused(shared_master, side.request(case.encode() + USES[use](side), shared_master), MALFORMED, within=0.05)


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
@pytest.mark.parametrize("use", ["in a value", "in an attribute"])
def test_a_bomb_in_disguise_is_malformed(use: str, disguise: tuple[str, int], shared_master: Master) -> None:
    """What stands before a bomb, and how long the body is, does not help it."""
    before, length = disguise
    laughs = f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}<!ENTITY a "&l6;">]>'
    body = f"{before}{laughs}".encode() + USES[use](WRITE).ljust(length)
    refused(shared_master, WRITE.request(body, shared_master), MALFORMED, within=0.5 if length else 0.05)


# "depth 300 to 200,000; 100,000 attributes; 1,000,000 elements": C.MalformedRequest

DEPTHS = (300, 2_000, 20_000, 200_000)


@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("end", ["closed", "open"])
@pytest.mark.parametrize("where", ["Header", "Body", "operation", "argument", "document"])
def test_depth_is_malformed(side: Side, depth: int, where: str, end: str, shared_master: Master) -> None:
    """Elements in elements, wherever they stand and whether they end."""
    tower = "<t:a>" * depth + ("</t:a>" * depth if end == "closed" else "")
    body = {
        "Header": lambda: envelope(side.call(), tower),
        "Body": lambda: envelope(tower),
        "operation": lambda: envelope(element(side.operation, tower)),
        "argument": lambda: envelope(side.call(device_name=tower)),
        "document": tower.replace("t:a", "a").encode,
    }[where]()
    refused(shared_master, side.request(body, shared_master), MALFORMED)


def _tagged(tag: str, attributes: str, side: Side) -> bytes:
    tag = f"t:{side.operation}" if tag == "operation" else tag
    before, start, after = envelope(side.call(), "<t:head/>").decode().partition(f"<{tag}")
    return f"{before}{start} {attributes}{after}".encode()


ATTRIBUTES = {
    "attributes": "".join(f' a{n}="x"' for n in range(100_000)),
    "attributes of a namespace": "".join(f' t:a{n}="x"' for n in range(100_000)),
    "a million attributes": "".join(f' a{n}="x"' for n in range(1_000_000)),
    "the same attribute": ' a="x"' * 100_000,
    # Where namespaces are copied from element to element, their number counts twice.
    "namespaces": "".join(f' xmlns:a{n}="urn:{n}"' for n in range(30_000)),
}


@inputs(ATTRIBUTES)
@pytest.mark.parametrize("tag", ["s:Envelope", "s:Header", "t:head", "s:Body", "operation", "t:device_name"])
def test_attributes_without_number_are_malformed(side: Side, case: str, tag: str, shared_master: Master) -> None:
    """Attributes by the hundred thousand, wherever they stand."""
    refused(shared_master, side.request(_tagged(tag, case, side), shared_master), MALFORMED)


ELEMENTS: dict[str, Callable[[Side], bytes]] = {
    "in the Header": lambda side: envelope(side.call(), "<t:a/>" * 1_000_000),
    "in the Body": lambda side: envelope("<t:a/>" * 1_000_000),
    "operations": lambda side: envelope(side.call() * 20_000),
    "arguments": lambda side: envelope(element(side.operation, "<t:a/>" * 1_000_000)),
    "the same argument": lambda side: envelope(element(side.operation, element("device_name", "A") * 50_000)),
    "in an argument": lambda side: envelope(side.call(device_name="<t:a/>" * 1_000_000)),
    "a thousand": lambda side: envelope(element(side.operation, "<t:a/>" * 1_000)),
}


@inputs(ELEMENTS)
def test_elements_without_number_are_malformed(
    side: Side, case: Callable[[Side], bytes], shared_master: Master
) -> None:
    """Elements by the million, wherever they stand."""
    refused(shared_master, side.request(case(side), shared_master), MALFORMED)


# "processing instruction (xml-stylesheet); XInclude; xsi:type naming another type": C.MalformedRequest

INSTRUCTIONS: dict[str, Callable[[Side], bytes]] = {
    "before": lambda side: b'<?xml-stylesheet type="text/xsl" href="HTTP"?>' + envelope(side.call()),
    "after": lambda side: envelope(side.call()) + b"<?a b?>",
    "in the Envelope": lambda side: envelope(side.call()).replace(b"<s:Body", b"<?a b?><s:Body"),
    "in the Header": lambda side: envelope(side.call(), "<?a b?>"),
    "in the Body": lambda side: envelope("<?a b?>" + side.call()),
    "among the arguments": lambda side: envelope(side.call().replace("><", "><?a b?><", 1)),
    "in a value": lambda side: envelope(side.call(device_name="NEV<?a b?>ER")),
    "PHP": lambda side: envelope(side.call(device_name="<?php system('id') ?>")),
    "far behind": lambda side: envelope(side.call()) + b" " * 200_000 + b"<?a b?>",
    "XInclude for the operation": lambda side: envelope('<xi:include href="FILE"/>'),
    "XInclude as text": lambda side: envelope(side.call(device_name='<xi:include href="FILE" parse="text"/>')),
    "XInclude by http": lambda side: envelope(side.call(device_name='<xi:include href="HTTP"/>')),
    "XInclude with fallback": lambda side: envelope(
        side.call(device_name='<xi:include href="HTTP"><xi:fallback>A</xi:fallback></xi:include>')
    ),
    "XInclude for the Body": lambda side: envelope(side.call()).replace(
        b"<s:Body", b'<xi:include href="FILE"/><s:Body'
    ),
}


@inputs(INSTRUCTIONS)
def test_instructions_to_the_parser_are_malformed(
    side: Side, case: Callable[[Side], bytes], trap: Trap, shared_master: Master
) -> None:
    """Processing instructions and XInclude are refused, and followed nowhere."""
    body = trap.set_in(case(side).decode()).encode()
    refused(shared_master, side.request(body, shared_master), MALFORMED)
    trap.assert_untouched()


OTHER_TYPES = (
    "xs:int",
    "xs:string",
    "xs:anyType",
    "t:run",
    "t:calibration_record",
    "t:nothing",
    "u:x",
    "",
    ":::",
    "a b",
)


@pytest.mark.parametrize("type_", OTHER_TYPES)
@inputs(("the operation", None), ("an argument", "device_name"))
def test_another_type_is_malformed(side: Side, case: str | None, type_: str, shared_master: Master) -> None:
    """An xsi:type that names another type than the contract's."""
    call = re.sub(rf"(<t:{case or side.operation})>", rf'\1 xsi:type="{type_}">', side.call(), count=1)
    assert "xsi:type" in call
    refused(shared_master, side.request(envelope(call), shared_master), MALFORMED)


@pytest.mark.parametrize("attribute", ["schemaLocation", "noNamespaceSchemaLocation"])
@pytest.mark.parametrize("kind", ["FILE", "PATH", "HTTP"])
@inputs(("the operation", None), ("an argument", "device_name"))
def test_the_place_of_a_schema_is_not_visited(
    side: Side, case: str | None, attribute: str, kind: str, trap: Trap, shared_master: Master
) -> None:
    """A schema that the request names is not fetched, whatever the answer."""
    value = f"{NAMESPACE} {kind}" if attribute == "schemaLocation" else kind
    call = side.call(date="never", data="!")
    call = re.sub(rf"(<t:{case or side.operation})>", rf'\1 xsi:{attribute}="{value}">', call, count=1)
    with wire.Peer(shared_master.url) as peer:
        peer.ask(side.request(trap.set_in(envelope(call).decode()).encode(), shared_master))
    trap.assert_untouched()


# "href/id references, cyclic or into the Header": C.MalformedRequest

REFERENCES: dict[str, Callable[[Side], bytes]] = {
    "into the Header": lambda side: envelope(
        side.call().replace(f"<t:device_name>{side.arguments['device_name']}<", '<t:device_name href="#x"><'),
        '<t:x id="x">TOF1</t:x>',
    ),
    "with a value": lambda side: envelope(side.call().replace("<t:device_name>", '<t:device_name href="#x">')),
    "to itself": lambda side: envelope(side.call().replace("<t:device_name>", '<t:device_name id="x" href="#x">')),
    "to the operation": lambda side: envelope(
        side.call()
        .replace(f"<t:{side.operation}>", f'<t:{side.operation} id="x">')
        .replace("<t:device_name>", '<t:device_name href="#x">')
    ),
    "from the operation": lambda side: envelope(
        f'<t:{side.operation} href="#x"/>', side.call().replace(f"<t:{side.operation}>", f'<t:{side.operation} id="x">')
    ),
    "in a ring": lambda side: envelope(
        side.call()
        .replace("<t:device_name>", '<t:device_name id="x" href="#y">')
        .replace("<t:calibration_type>", '<t:calibration_type id="y" href="#x">')
    ),
    "outward": lambda side: envelope(side.call().replace("<t:device_name>", '<t:device_name href="HTTP">')),
    "beside the operation": lambda side: envelope(
        side.call().replace(f"<t:device_name>{side.arguments['device_name']}<", '<t:device_name href="#x"><')
        + '<t:x id="x">TOF1</t:x>'
    ),
}


@inputs(REFERENCES)
def test_references_are_malformed(side: Side, case: Callable[[Side], bytes], trap: Trap, shared_master: Master) -> None:
    """Values by reference, as in SOAP's encoding, are refused."""
    body = trap.set_in(case(side).decode()).encode()
    refused(shared_master, side.request(body, shared_master), MALFORMED)
    trap.assert_untouched()


# "unknown operation; argument missing, extra, twice, out of order": C.MalformedRequest, the text names the element

UNKNOWN = {
    "no such name": ("<t:get_everything/>", "get_everything"),
    "in capitals": ("<t:GET_STATUS/>", "GET_STATUS"),
    "an answer": ("<t:get_statusResponse/>", "get_statusResponse"),
    "a fault": ("<t:InvalidArgument/>", "InvalidArgument"),
    "no namespace": ("<get_status/>", "get_status"),
    "another namespace": ('<get_status xmlns="urn:mice:cdb:1"/>', "get_status"),
    "the namespace in capitals": ('<get_status xmlns="URN:MICE:CDB:2"/>', "get_status"),
    "an argument's name": ("<t:device_name/>", "device_name"),
    "a type's name": ("<t:calibration_record/>", "calibration_record"),
    "10,000 letters": (f"<t:{'a' * 10_000}/>", "aaaa"),
    "Greek": ("<t:κατάσταση/>", "κατάσταση"),
    "a method of Python": ("<t:__init__/>", "__init__"),
}


@inputs(UNKNOWN)
def test_an_unknown_operation_is_malformed(side: Side, case: tuple[str, str], shared_master: Master) -> None:
    """What is no operation of this service is named in the text."""
    operation, name = case
    outcome = fault("MalformedRequest", mentions=name)
    refused(shared_master, side.request(envelope(operation), shared_master), outcome)


@pytest.mark.parametrize(("side", "other"), [(READ, WRITE), (WRITE, READ)], ids=str)
def test_an_operation_of_the_other_service_is_unknown(side: Side, other: Side, shared_master: Master) -> None:
    """Reading is not done where one writes, nor writing where one reads."""
    outcome = fault("MalformedRequest", mentions=other.operation)
    refused(shared_master, side.request(envelope(other.call()), shared_master), outcome)


@arguments(required=True)
def test_a_missing_argument_is_malformed(side: Side, operation: str, argument: str, shared_master: Master) -> None:
    """A required argument that is left out is named."""
    body = envelope(side.call(operation, **{argument: None}))
    refused(shared_master, side.request(body, shared_master), fault("MalformedRequest", mentions=argument))


@arguments()
def test_an_argument_twice_is_malformed(side: Side, operation: str, argument: str, shared_master: Master) -> None:
    """An argument that stands twice is named, whether required or not, and whatever its values."""
    [known] = [known for known in CONTRACTS[side.path].operations[operation] if known.name == argument]
    value = GOOD.get(known.type, "1")
    call = side.call(operation, **{argument: value})
    twice = call.replace(element(argument, value), element(argument, value) * 2)
    assert twice != call
    refused(shared_master, side.request(envelope(twice), shared_master), fault("MalformedRequest", mentions=argument))


@every_operation(at_least=2)
def test_arguments_out_of_order_are_malformed(side: Side, operation: str, shared_master: Master) -> None:
    """Arguments in another order are refused, and one of them is named."""
    names = list(good_arguments(side, operation))
    values = good_arguments(side, operation)
    call = element(operation, "".join(element(name, values[name]) for name in reversed(names)))

    def names_one(reply: wire.Reply) -> None:
        MALFORMED(reply)
        assert any(f"argument {name} is out of order" in reply.body.decode() for name in names)

    refused(shared_master, side.request(envelope(call), shared_master), names_one)


EXTRA = {
    "of this namespace": ("<t:more>1</t:more>", "more"),
    "of no namespace": ("<more>1</more>", "more"),
    "of another namespace": ('<device_name xmlns="urn:other">A</device_name>', "device_name"),
    "of no namespace, with an argument's name": ("<run_number>1</run_number>", "run_number"),
    "an argument of another operation": ("<t:after_what>1</t:after_what>", "after_what"),
    "in capitals": ("<t:DEVICE_NAME>A</t:DEVICE_NAME>", "DEVICE_NAME"),
}


@every_operation()
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize(("extra", "name"), EXTRA.values(), ids=EXTRA)
def test_an_extra_argument_is_malformed(
    side: Side, operation: str, place: str, extra: str, name: str, shared_master: Master
) -> None:
    """An element that is no argument of the operation is named, wherever it stands."""
    call = side.call(operation)
    start, end = f"<t:{operation}>", f"</t:{operation}>"
    call = call.replace(start, start + extra) if place == "first" else call.replace(end, extra + end)
    refused(shared_master, side.request(envelope(call), shared_master), fault("MalformedRequest", mentions=name))


@arguments()
def test_an_element_in_an_argument_is_malformed(
    side: Side, operation: str, argument: str, shared_master: Master
) -> None:
    """An argument holds text alone."""
    call = side.call(operation, **{argument: "<t:more>1</t:more>"})
    refused(shared_master, side.request(envelope(call), shared_master), fault("MalformedRequest", mentions=argument))


@arguments()
@pytest.mark.parametrize(
    "attribute", ['unit="s"', 't:unit="s"', 'xml:lang="en"', 'id="x"', f's:encodingStyle="{SOAP}"']
)
def test_an_attribute_of_an_argument_is_malformed(
    side: Side, operation: str, argument: str, attribute: str, shared_master: Master
) -> None:
    """An argument has no attributes."""
    [known] = [known for known in CONTRACTS[side.path].operations[operation] if known.name == argument]
    call = side.call(operation, **{argument: GOOD.get(known.type, "1")})
    call = call.replace(f"<t:{argument}>", f"<t:{argument} {attribute}>")
    refused(shared_master, side.request(envelope(call), shared_master), fault("MalformedRequest", mentions=argument))


@every_operation(at_least=1)
def test_words_between_arguments_are_malformed(side: Side, operation: str, shared_master: Master) -> None:
    """Between arguments stands nothing but white space."""
    call = side.call(operation).replace("><", ">words<", 1)
    refused(shared_master, side.request(envelope(call), shared_master), MALFORMED)


# "argument of the wrong type (`abc` for a number, a date that is none)": C.InvalidArgument, names it

NUMBERS = ("id", "run_number", "serial", "entry_limit", "int", "long")
WRONG = {
    **dict.fromkeys(
        NUMBERS, ("abc", "", " ", "1.5", "1e3", "0x10", "1 2", "1,000", "NaN", "9223372036854775808", "--1")
    ),
    "instant": ("abc", "", "2016", "2016-03-01", "08:00:00Z", "01.03.2016", "1456819200", "now", "2016-03-01 08:00:00"),
    "device_name": ("", " ", "Ω"),
    "calibration_type": ("", " ", "0t"),
    "sha256": ("", "abc", "g" * 64),
    "reason": ("", "a" * 4097),
    "comment": ("a" * 4097, "é" * 4097),
    "base64Binary": ("a", "*"),
}


@pytest.mark.parametrize(
    ("side", "operation", "argument", "value"),
    [
        pytest.param(side, operation, known.name, value, id=f"{operation}-{known.name}-{value[:20]}-{len(value)}")
        for side in SIDES
        for operation, arguments_ in CONTRACTS[side.path].operations.items()
        for known in arguments_
        for value in WRONG[known.type]
    ],
)
def test_a_value_of_another_type_is_invalid(
    side: Side, operation: str, argument: str, value: str, shared_master: Master
) -> None:
    """A value that is not of the argument's type is refused under the argument's name, in detail and text."""
    outcome = fault("InvalidArgument", mentions=argument, argument=argument)
    body = envelope(side.call(operation, **{argument: value}))
    refused(shared_master, side.request(body, shared_master), outcome)


@inputs(("reading", None), sides=(READ,))
def test_of_two_wrong_values_one_is_named(side: Side, case: None, shared_master: Master) -> None:
    """Several wrong values are told one at a time, in the contract's order."""
    body = envelope(side.call(device_name="", date="never"))
    refused(shared_master, side.request(body, shared_master), fault("InvalidArgument", argument="device_name"))


# "xsi:nil on a required argument, whatever its value": C.MalformedRequest


@arguments(required=True)
@pytest.mark.parametrize("nil", ["true", "1", "false", "0", "", "abc"])
@pytest.mark.parametrize("content", ["with a value", "empty"])
def test_nil_is_malformed(
    side: Side, operation: str, argument: str, nil: str, content: str, shared_master: Master
) -> None:
    """xsi:nil has no place here: it would drop a value, or stand for none."""
    call = side.call(operation) if content == "with a value" else side.call(operation, **{argument: ""})
    call = call.replace(f"<t:{argument}>", f'<t:{argument} xsi:nil="{nil}">')
    refused(shared_master, side.request(envelope(call), shared_master), fault("MalformedRequest", mentions=argument))


@every_operation()
@pytest.mark.parametrize("nil", ["true", "false", "abc"])
def test_a_nil_operation_is_malformed(side: Side, operation: str, nil: str, shared_master: Master) -> None:
    """Nor has xsi:nil a place on the operation itself."""
    call = side.call(operation).replace(f"<t:{operation}>", f'<t:{operation} xsi:nil="{nil}">')
    refused(shared_master, side.request(envelope(call), shared_master), MALFORMED)


# "base64 `!!!!`, `YW*Jj`, `-_-_`, three characters, stray padding": C.InvalidArgument (data)

NOT_BASE64 = {
    "exclamations": "!!!!",
    "a star": "YW*Jj",
    "for URLs": "-_-_",
    "one character": "Y",
    "two characters": "YW",
    "three characters": "YWJ",
    "five characters": "YWJjY",
    "padding before": "=YWJj",
    "padding within": "YW=Jj",
    "padding alone": "====",
    "padding after": "YWJj=",
    "padding after four": "YWJj====",
    "three of padding": "Y===",
    "padding too short": "YQ=",
    "padding, then more": "YQ==YQ==",
    "bits left over": "YR==",
    "two bits left over": "YWJ=".replace("J", "L"),
    "a hyphen within": "YWJj-YWJj",
    "hexadecimal": "61:62:63",
    "a data URL": "data:;base64,YWJj",
    "quoted-printable": "=61=62=63",
    "full-width letters": "ＹＷＪｊ",
    "a letter with an accent": "YWJé",
    "a no-break space": "YW\u00a0Jj",
    "a line separator": "YW\u2028Jj",
    "a zero-width space": "YWJj\u200b",
    "a wrong end after a megabyte": "YWJj" * (MEGABYTE // 4) + "!",
    "a wrong beginning of a megabyte": "!" + "YWJj" * (MEGABYTE // 4),
}


# What is refused as an upload is refused as the preview of one.
each_upload = pytest.mark.parametrize("operation", ["add_calibration", "preview_calibration"])


@each_upload
@pytest.mark.parametrize("data", NOT_BASE64.values(), ids=NOT_BASE64)
def test_what_is_no_base64_is_invalid(operation: str, data: str, shared_master: Master) -> None:
    """Data that is not base64 to the letter is refused, never decoded to something else."""
    body = envelope(WRITE.call(operation, data=data))
    refused(shared_master, WRITE.request(body, shared_master), fault("InvalidArgument", argument="data"))


# "sha256 that does not match; sha256 of the wrong length; empty data without sha256":
# C.Integrity, C.InvalidArgument, C.InvalidArgument

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@each_upload
@pytest.mark.parametrize(
    "sha256", ["0" * 64, EMPTY_SHA256, SHA256_OF_ABC[:-1] + "e", SHA256_OF_ABC[::-1], SHA256_OF_ABC.upper()[::-1]]
)
def test_another_sha256_breaks_integrity(operation: str, sha256: str, shared_master: Master) -> None:
    """Bytes that do not have the SHA-256 sent with them are not stored; it is repeated in the detail."""
    body = envelope(WRITE.call(operation, sha256=sha256))
    refused(shared_master, WRITE.request(body, shared_master), fault("Integrity", sha256=sha256))


@each_upload
def test_empty_data_with_another_sha256_breaks_integrity(operation: str, shared_master: Master) -> None:
    """Empty data is checked as any other."""
    body = envelope(WRITE.call(operation, data="", sha256=SHA256_OF_ABC))
    refused(shared_master, WRITE.request(body, shared_master), fault("Integrity", sha256=SHA256_OF_ABC))


@each_upload
@pytest.mark.parametrize(
    "sha256",
    [SHA256_OF_ABC[:-1], SHA256_OF_ABC + "0", f" {SHA256_OF_ABC}", f"{SHA256_OF_ABC}\n", SHA256_OF_ABC[:-1] + "g", "",
     f"sha256:{SHA256_OF_ABC}", SHA256_OF_ABC[:-1] + "٣", "0" * 100_000],
    ids=["63", "65", "space", "line", "g", "empty", "prefix", "Arabic", "100,000"],
)  # fmt: skip
def test_a_sha256_of_another_shape_is_invalid(operation: str, sha256: str, shared_master: Master) -> None:
    """A SHA-256 has 64 hexadecimal digits, and nothing around them."""
    body = envelope(WRITE.call(operation, sha256=sha256))
    refused(shared_master, WRITE.request(body, shared_master), fault("InvalidArgument", argument="sha256"))


@each_upload
@pytest.mark.parametrize("data", ["", " ", "\n\t ", "<![CDATA[]]>", "<!-- YWJj -->"])
def test_empty_data_without_sha256_is_invalid(operation: str, data: str, shared_master: Master) -> None:
    """Nothing is stored by a slip: empty data needs its SHA-256."""
    body = envelope(WRITE.call(operation, data=data))
    outcome = fault("InvalidArgument", argument="data", mentions=EMPTY_SHA256)
    refused(shared_master, WRITE.request(body, shared_master), outcome)


# "time `24:00:00`, second 60, February 30, year 0, nine digits of fraction, an offset that leaves the years 1 to 9999":
# C.InvalidArgument

NO_TIMES = [
    "2016-03-01T24:00:00Z",
    "2016-03-01T24:00:00",
    "2016-03-01T25:00:00Z",
    "2016-03-01T08:60:00Z",
    "2016-03-01T08:00:60Z",
    "2016-12-31T23:59:60Z",
    "2016-02-30T08:00:00Z",
    "2015-02-29T08:00:00Z",
    "1900-02-29T08:00:00Z",
    "2016-04-31T08:00:00Z",
    "2016-00-01T08:00:00Z",
    "2016-13-01T08:00:00Z",
    "2016-03-00T08:00:00Z",
    "2016-03-32T08:00:00Z",
    "0000-01-01T00:00:00Z",
    "-2016-03-01T08:00:00Z",
    "+2016-03-01T08:00:00Z",
    "12016-03-01T08:00:00Z",
    "016-03-01T08:00:00Z",
    "2016-03-01T08:00:00.123456789Z",
    "2016-03-01T08:00:00.0000001Z",
    "2016-03-01T08:00:00.1234560001Z",
    "2016-03-01T08:00:00." + "0" * 5000 + "1Z",
    "2016-03-01T08:00:00.Z",
    "2016-03-01T08:00:00,5Z",
    "2016-03-01T08:00Z",
    "2016-03-01T8:00:00Z",
    "2016-3-1T08:00:00Z",
    "20160301T080000Z",
    "2016-W09-2T08:00:00Z",
    "2016-061T08:00:00Z",
    "2016-03-01t08:00:00z",
    "2016-03-01 08:00:00Z",
    "2016-03-01T08:00:00 Z",
    "2016-03-01T08:00:00ZZ",
    "2016-03-01T08:00:00+0100",
    "2016-03-01T08:00:00+01",
    "2016-03-01T08:00:00+14:01",
    "2016-03-01T08:00:00-15:00",
    "2016-03-01T08:00:00+01:60",
    "2016-03-01T08:00:00+24:00",
    "2016-03-01T08:00:00 Europe/London",
    "2016-03-01T08:00:00[UTC]",
    "0001-01-01T00:00:00+00:01",
    "0001-01-01T13:59:59+14:00",
    "9999-12-31T23:59:59-00:01",
    "9999-12-31T23:59:59.999999-14:00",
    "٢٠١٦-03-01T08:00:00Z",
    "２０１６-03-01T08:00:00Z",
    "2016‐03‐01T08:00:00Z",
    "2016−03−01T08:00:00Z",
    "2016-03-01T08:00:00\u200b",
    "\u00a02016-03-01T08:00:00Z",
    "P1D",
    "INF",
    "$(date)",
]


@arguments("instant")
def test_what_is_no_time_is_invalid(side: Side, operation: str, argument: str, shared_master: Master) -> None:
    """Every time that does not exist, or that is not written as the contract says, is refused and named."""
    for time in NO_TIMES:
        body = envelope(side.call(operation, **{argument: time}))
        refused(shared_master, side.request(body, shared_master), fault("InvalidArgument", argument=argument))


# "stop before start": C.InvalidArgument


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        ("2016-03-01T08:00:00.000001Z", "2016-03-01T08:00:00Z"),
        ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
        ("2016-03-01T08:00:00Z", "2016-03-01T08:30:00+01:00"),
        ("2016-03-01T08:00:00-01:00", "2016-03-01T08:59:59"),
    ],
)
@pytest.mark.parametrize(
    ("side", "operation"),
    [
        pytest.param(side, operation, id=operation)
        for side in SIDES
        for operation, known in CONTRACTS[side.path].operations.items()
        if "stop_time" in [argument.name for argument in known]
    ],
)
def test_stop_before_start_is_invalid(side: Side, operation: str, start: str, stop: str, shared_master: Master) -> None:
    """A period that ends before it begins, by a microsecond or by ages, is refused."""
    body = envelope(side.call(operation, start_time=start, stop_time=stop))
    refused(shared_master, side.request(body, shared_master), fault("InvalidArgument", argument="stop_time"))


# "run number 0, -1, `1_0`, Arabic-Indic digits, 400 digits": C.InvalidArgument

NO_NUMBERS = {
    "zero": "0",
    "minus zero": "-0",
    "minus one": "-1",
    "underscore": "1_0",
    "Arabic-Indic": "١٢٣",
    "full-width": "１２",
    "superscript": "²",
    "Roman": "Ⅻ",
    "400 digits": "9" * 400,
    "5,000 digits": "9" * 5000,
    "a million digits": "9" * MEGABYTE,
    "2**63": str(2**63),
    "2**64 + 1": str(2**64 + 1),
    "-2**63": str(-(2**63)),
    "decimal": "1.0",
    "exponent": "1e0",
    "hexadecimal": "0x1",
    "octal": "0o1",
    "comma": "1,0",
    "apostrophe": "1'0",
    "space within": "1 0",
    "no-break space": "\u00a01",
    "two signs": "+-1",
    "a sign alone": "+",
    "infinite": "INF",
    "not a number": "NaN",
    "true": "true",
    "SQL": "1 OR 1=1",
    "a minus that is none": "−1",
}


@arguments("run_number", "id", "entry_limit")
@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_invalid(
    side: Side, operation: str, argument: str, value: str, shared_master: Master
) -> None:
    """Run numbers, ids and limits are whole, positive, of ASCII digits, and below 2**63."""
    body = envelope(side.call(operation, **{argument: value}))
    refused(shared_master, side.request(body, shared_master), fault("InvalidArgument", argument=argument))


@pytest.mark.parametrize("after_serial", [value for value in NO_NUMBERS.values() if value not in ("0", "-0")])
def test_what_is_no_serial_is_invalid(after_serial: str, shared_master: Master) -> None:
    """A serial is whole and may be 0, which stands before the first entry; it is not negative."""
    body = envelope(READ.call("get_journal", after_serial=after_serial))
    refused(shared_master, READ.request(body, shared_master), fault("InvalidArgument", argument="after_serial"))


@pytest.mark.parametrize("limit", ["1001", str(2**63 - 1)])
def test_more_entries_than_are_given_at_once_are_too_large(limit: str, shared_master: Master) -> None:
    """The fault says the greatest limit there is."""
    body = envelope(READ.call("get_journal", limit=limit))
    refused(shared_master, READ.request(body, shared_master), fault("TooLarge", limit="1000"))


@arguments("run_number", "id")
@pytest.mark.parametrize("zeros", [400, 2_000, 10_000, MEGABYTE])
def test_zeros_before_a_number_do_no_harm(
    side: Side, operation: str, argument: str, zeros: int, shared_master: Master
) -> None:
    """XML Schema lets a number begin with zeros: it is that number, or it is refused by name."""
    body = envelope(side.call(operation, **{argument: "0" * zeros + "999999999", "start_time": None}))
    if operation == "add_run":
        # Without start_time, so that nothing is stored.
        outcome = one_of(MALFORMED, fault("InvalidArgument", argument=argument))
    elif argument == "id":
        outcome = one_of(fault("CalibrationNotFound", id="999999999"), fault("InvalidArgument", argument=argument))
    else:
        outcome = one_of(fault("RunNotFound", run_number="999999999"), fault("InvalidArgument", argument=argument))
    refused(shared_master, side.request(body, shared_master), outcome)


# "device name empty, 65 characters, trailing space, `../../etc/passwd`, SQL, CR/LF, right-to-left override, decomposed
# accents": C.InvalidArgument

NO_NAMES = {
    "empty": "",
    "65 characters": "A" * 65,
    "66 characters": "A" * 66,
    "a million characters": "A" * MEGABYTE,
    "trailing space": "TOF1 ",
    "leading space": " TOF1",
    "a space": " ",
    "a path": "../../etc/passwd",
    "a path from the root": "/etc/passwd",
    "a path of Windows": "C:\\cdb",
    "dots": "..",
    "SQL": "TOF1'; DROP TABLE calibration; --",
    "SQL in quotes": '" OR ""="',
    "a pattern of SQL": "%",
    "a shell's command": "$(id)",
    "a backquote": "`id`",
    "a template": "{{7*7}}",
    "a format": "{0.__class__}",
    "a percent format": "%s%n",
    "an address": "http://169.254.169.254/",
    "markup": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "an ampersand": "A&amp;B",
    "a quote": "A'",
    "CR and LF": "TOF1&#13;&#10;X-Header: 1",
    "LF": "TOF1&#10;",
    "LF alone": "&#10;TOF1",
    "tab": "TOF\t1",
    "right-to-left override": "TOF\u202e1",
    "left-to-right mark": "TOF1\u200e",
    "zero-width joiner": "TOF\u200d1",
    "byte order mark": "\ufeffTOF1",
    "soft hyphen": "TOF\u00ad1",
    "decomposed accents": "Cafe\u0301",
    "composed accents": "Café",
    "Cyrillic": "ТОF1",
    "full-width": "ＴＯＦ１",
    "a long s": "ſ",
    "a Kelvin sign": "\u212aL",
    "a dotless i": "ıD",
    "a sharp s": "ß",
    "no-break space": "CKOV\u00a0A",
    "ideographic space": "CKOV\u3000A",
    "DEL": "TOF1\x7f",
    "C1 control": "TOF\x851",
    "private use": "\ue000",
    "no character": "\ufdd0",
    "beyond the first plane": "😀",
    "beyond all planes in use": "\U0010fffd",
    "64 combining marks": "A" + "\u0301" * 63,
    "None": "-None",
    "an underscore first": "_A",
    "words of a validator": "x', attribute 'y",
    "more words of a validator": f"Element '{{{NAMESPACE}}}date'",
}


@arguments("device_name", "calibration_type")
@pytest.mark.parametrize("name", NO_NAMES.values(), ids=NO_NAMES)
def test_what_is_no_name_is_invalid(
    side: Side, operation: str, argument: str, name: str, shared_master: Master
) -> None:
    """Rule 2: "Anything else is refused"."""
    body = envelope(side.call(operation, **{argument: name}))
    refused(shared_master, side.request(body, shared_master), fault("InvalidArgument", argument=argument))


@pytest.mark.parametrize("reason", [" ", "\t\n", "\u00a0", "\u3000", " " * 4096, "a" * 4097, "é" * 5000])
def test_a_reason_that_says_nothing_or_too_much_is_invalid(reason: str, shared_master: Master) -> None:
    """A reason is not blank, and has 4,096 characters at most."""
    body = envelope(WRITE.call("withdraw_calibration", reason=reason))
    refused(shared_master, WRITE.request(body, shared_master), fault("InvalidArgument", argument="reason"))


# "NUL and other control characters, lone surrogates, bytes that are not UTF-8": C.MalformedRequest

NO_CHARACTERS = {
    **{f"U+{code:04X}": bytes([code]) for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x0E, 0x1B, 0x1F)},
    **{f"reference to U+{code:04X}": b"&#%d;" % code for code in (0, 1, 8, 0xB, 0xC, 0xE, 0x1F, 0xFFFE, 0xFFFF)},
    "U+FFFE": b"\xef\xbf\xbe",
    "U+FFFF": b"\xef\xbf\xbf",
    "reference to a high surrogate": b"&#xD800;",
    "reference to a low surrogate": b"&#xDFFF;",
    "references to a pair of surrogates": b"&#xD83D;&#xDE00;",
    "reference beyond Unicode": b"&#x110000;",
    "reference far beyond Unicode": b"&#99999999999999999999;",
    "reference to minus one": b"&#-1;",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "a long overlong slash": b"\xe0\x80\xaf",
    "Latin-1": "Café".encode("latin-1"),
    "Windows-1252": "“TOF1”".encode("cp1252"),
    "a lone continuation": b"\x80",
    "a beginning alone": b"\xe2\x82",
    "0xff": b"\xff",
    "0xfe": b"\xfe",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "UTF-16 within": "TOF1".encode("utf-16"),
    "Shift JIS": "検出器".encode("shift_jis"),
}
MARK = "MARK"
PLACES: dict[str, Callable[[Side], bytes]] = {
    "in an argument": lambda side: envelope(side.call(device_name=f"A{MARK}")),
    "in a comment": lambda side: envelope(f"<!-- {MARK} -->" + side.call()),
    "in CDATA": lambda side: envelope(side.call(device_name=f"<![CDATA[{MARK}]]>")),
    "in an attribute": lambda side: envelope(side.call(), body_attributes=f'x="{MARK}"'),
    "in the Header": lambda side: envelope(side.call(), f"<t:x>{MARK}</t:x>"),
    "between elements": lambda side: envelope(side.call() + MARK),
}


@inputs({name: place for name, place in PLACES.items() if name != "in a comment" and name != "in CDATA"})
@pytest.mark.parametrize("characters", NO_CHARACTERS.values(), ids=NO_CHARACTERS)
def test_what_is_no_character_is_malformed(
    side: Side, case: Callable[[Side], bytes], characters: bytes, shared_master: Master
) -> None:
    """Characters that XML cannot hold, and bytes that are no UTF-8, are malformed wherever they stand."""
    body = case(side).replace(MARK.encode(), characters)
    refused(shared_master, side.request(body, shared_master), MALFORMED)


@inputs({name: place for name, place in PLACES.items() if name in ("in a comment", "in CDATA")})
@pytest.mark.parametrize(
    "characters",
    [raw for raw in NO_CHARACTERS.values() if not raw.startswith(b"&")],
    ids=[name for name, raw in NO_CHARACTERS.items() if not raw.startswith(b"&")],
)
def test_what_is_no_character_is_malformed_where_references_are_none(
    side: Side, case: Callable[[Side], bytes], characters: bytes, shared_master: Master
) -> None:
    """In comments and CDATA too, where a reference would be plain text."""
    body = case(side).replace(MARK.encode(), characters)
    refused(shared_master, side.request(body, shared_master), MALFORMED)


@pytest.mark.parametrize("characters", NO_CHARACTERS.values(), ids=NO_CHARACTERS)
@pytest.mark.parametrize(
    ("operation", "argument"), [("add_calibration", "comment"), ("withdraw_calibration", "reason")]
)
def test_free_text_holds_characters_only(
    operation: str, argument: str, characters: bytes, shared_master: Master
) -> None:
    """A comment or a reason that XML cannot hold could be stored and never be read back."""
    body = envelope(WRITE.call(operation, **{argument: f"a{MARK}b"})).replace(MARK.encode(), characters)
    refused(shared_master, WRITE.request(body, shared_master), MALFORMED)


# "any charset but none, utf-8, us-ascii: UTF-16, UTF-7, `charset=nope`, `charset=hex`; a byte order mark or XML
# declaration that says otherwise": HTTP 415

CHARSETS = {
    "UTF-16": "text/xml; charset=utf-16",
    "UTF-16LE": "text/xml; charset=UTF-16LE",
    "UTF-32": "text/xml; charset=utf-32",
    "UTF-7": "text/xml; charset=utf-7",
    "Latin-1": "text/xml; charset=iso-8859-1",
    "Windows": 'text/xml; charset="windows-1252"',
    "EBCDIC": "text/xml; charset=cp037",
    "nope": "text/xml; charset=nope",
    "hex": "text/xml; charset=hex",
    "zlib": "text/xml; charset=zlib",
    "rot13": "text/xml; charset=rot13",
    "punycode": "text/xml; charset=punycode",
    "idna": "text/xml; charset=idna",
    "unicode_escape": "text/xml; charset=unicode_escape",
    "undefined": "text/xml; charset=undefined",
    "mbcs": "text/xml; charset=mbcs",
    "empty": "text/xml; charset=",
    "empty quotes": 'text/xml; charset=""',
    "two in one": "text/xml; charset=utf-8,utf-16",
    "two, the wrong one last": "text/xml; charset=utf-8; charset=utf-16",
    "two, the wrong one first": "text/xml; charset=utf-16; charset=utf-8",
    "in parts": "text/xml; charset*0=utf-; charset*1=16",
    "encoded": "text/xml; charset*=utf-8''utf-16",
    "in capitals": "TEXT/XML; CHARSET=UTF-16",
    "a path": "text/xml; charset=../../etc/passwd",
    "letters with accents": "text/xml; charset=ütf-8",
    "quotes without end": 'text/xml; charset="utf-16',
    "NUL in words": 'text/xml; charset="utf-8\\0"',
    "30,000 letters": "text/xml; charset=" + "a" * 30_000,
    "60,000 semicolons in quotes": 'text/xml; charset="' + ";" * 60_000,
    "20,000 quoted quotes": 'text/xml; charset="' + '\\";' * 20_000,
}


@inputs(CHARSETS)
def test_another_charset_is_unsupported(side: Side, case: str, shared_master: Master) -> None:
    """What the Content-Type says of the charset must be UTF-8 or US-ASCII, and soon told."""
    request = side.request(envelope(side.call()), shared_master, headers=[("Content-Type", case)])
    refused(shared_master, request, plain(415))


def _declaring(encoding: str, side: Side) -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>' + envelope(side.call()).decode()


ENCODINGS: dict[str, Callable[[Side], bytes]] = {
    "UTF-16 with its mark": lambda side: envelope(side.call()).decode().encode("utf-16"),
    "UTF-16LE": lambda side: envelope(side.call()).decode().encode("utf-16-le"),
    "UTF-16BE": lambda side: envelope(side.call()).decode().encode("utf-16-be"),
    "UTF-16, declared": lambda side: _declaring("utf-16", side).encode("utf-16"),
    "UTF-32 with its mark": lambda side: envelope(side.call()).decode().encode("utf-32"),
    "UTF-32BE": lambda side: envelope(side.call()).decode().encode("utf-32-be"),
    "UTF-32LE": lambda side: envelope(side.call()).decode().encode("utf-32-le"),
    "UTF-7 with its mark": lambda side: b"+/v8-" + envelope(side.call()),
    "EBCDIC": lambda side: _declaring("cp037", side).encode("cp037"),
    "a mark of UTF-16 before UTF-8": lambda side: b"\xff\xfe" + envelope(side.call()),
    "declared UTF-16": lambda side: _declaring("UTF-16", side).encode(),
    "declared UTF-7": lambda side: _declaring("UTF-7", side).encode(),
    "declared Latin-1": lambda side: _declaring("ISO-8859-1", side).encode(),
    "declared EBCDIC": lambda side: _declaring("ebcdic-cp-us", side).encode(),
    "declared nope": lambda side: _declaring("nope", side).encode(),
    "declared hex": lambda side: _declaring("hex", side).encode(),
    "declared nothing": lambda side: _declaring("", side).encode(),
    "declared in single quotes": lambda side: _declaring("UTF-16", side).replace('"', "'", 4).encode(),
    "declared Latin-1 after the mark of UTF-8": lambda side: b"\xef\xbb\xbf" + _declaring("latin-1", side).encode(),
    "declared far away": lambda side: _declaring("UTF-16", side).replace(" enc", " " * 300 + "enc").encode(),
    "declared over lines": lambda side: _declaring("UTF-16", side).replace(" encoding=", "\n\tencoding\n=\n").encode(),
    "declared after standalone": lambda side: (
        _declaring("UTF-16", side).replace(" enc", ' standalone="no" enc').encode()
    ),
}


@inputs(ENCODINGS)
def test_another_encoding_is_unsupported(side: Side, case: Callable[[Side], bytes], shared_master: Master) -> None:
    """A byte order mark or an XML declaration that says something else than UTF-8."""
    refused(shared_master, side.request(case(side), shared_master), plain(415))


@pytest.mark.parametrize(
    "content_type",
    ["text/xml", "text/xml; charset=utf-8", 'text/xml;charset="UTF-8"', "text/xml; charset=us-ascii", "TEXT/XML ; a=b"],
)
@pytest.mark.parametrize(
    "declaration", [b"", b"\xef\xbb\xbf", b'<?xml version="1.0"?>', b"<?xml version='1.0' encoding='UTF-8'?>\n"]
)
def test_utf_8_may_be_said_or_not(content_type: str, declaration: bytes, shared_master: Master) -> None:
    """UTF-8, named or not, in header, mark or declaration, is what is taken."""
    body = declaration + envelope("<t:get_status/>")
    with wire.Peer(shared_master.url) as peer:
        reply = peer.ask(wire.request(wire.READING, body, headers=[("Content-Type", content_type)]))
    assert reply.status == 200


# "Content-Type text/plain, application/json, multipart, none; Content-Encoding gzip": HTTP 415

MEDIA = {
    "text/plain": [("Content-Type", "text/plain")],
    "application/json": [("Content-Type", "application/json")],
    "multipart": [("Content-Type", 'multipart/related; type="text/xml"; boundary="x"')],
    "form": [("Content-Type", "application/x-www-form-urlencoded")],
    "none": [("Content-Type", None)],
    "empty": [("Content-Type", "")],
    "SOAP 1.2": [("Content-Type", "application/soap+xml; charset=utf-8")],
    "application/xml": [("Content-Type", "application/xml")],
    "longer": [("Content-Type", "text/xmlx")],
    "shorter": [("Content-Type", "text/xm")],
    "any": [("Content-Type", "*/*")],
    "as a parameter": [("Content-Type", "text/plain; text/xml")],
    "a list": [("Content-Type", "text/xml, text/plain")],
    "a list, the other way round": [("Content-Type", "text/plain, text/xml")],
    "twice": [("Content-Type", "text/xml"), ("Content-Type", "text/plain")],
    "twice, the other way round": [("Content-Type", "text/plain"), ("Content-Type", "text/xml")],
    "bytes": [("Content-Type", b"\xff\xfe\x80")],
    "a semicolon first": [("Content-Type", ";text/xml")],
    "in quotes": [("Content-Type", '"text/xml"')],
    "30,000 letters": [("Content-Type", "a" * 30_000)],
    "30,000 semicolons": [("Content-Type", "text/plain" + ";" * 30_000)],
    "gzip": [("Content-Encoding", "gzip")],
    "deflate": [("Content-Encoding", "deflate")],
    "br": [("Content-Encoding", "br")],
    "gzip twice": [("Content-Encoding", "gzip, gzip")],
    "identity, then gzip": [("Content-Encoding", "identity, gzip")],
    "identity and gzip": [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
    "an unknown coding": [("Content-Encoding", "nope")],
    "bytes for a coding": [("Content-Encoding", b"\xff")],
}


@inputs(MEDIA)
def test_another_medium_is_unsupported(
    side: Side, case: list[tuple[str, str | bytes | None]], shared_master: Master
) -> None:
    """What does not come as text/xml, and uncompressed, is not looked at."""
    refused(shared_master, side.request(envelope(side.call()), shared_master, headers=case), plain(415))


def test_a_refused_medium_does_not_keep_the_connection_waiting(shared_master: Master) -> None:
    """Once a refused body is whole, the connection serves the next request, or ends, at once."""
    request = wire.request(wire.READING, _declaring("UTF-16", READ).encode())
    with wire.Peer(shared_master.url, patience=1) as peer:
        reply = peer.ask(request)
        assert reply.status == 415
        assert peer.ended() if reply.closes else peer.ask(request).status == 415


# "PUT, DELETE, TRACE; GET without ?wsdl": HTTP 405


@pytest.mark.parametrize("path", [wire.READING, wire.WRITING])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "PATCH", "OPTIONS", "GET", "HEAD", "PROPFIND", "SEARCH"])
@pytest.mark.parametrize("body", [b"", envelope(READ.call()), b"x" * MEGABYTE], ids=["empty", "a question", "1 MB"])
def test_another_method_is_not_allowed(method: str, path: str, body: bytes, shared_master: Master) -> None:
    """POST is for operations, GET for ?wsdl, and nothing for anything else."""

    def not_allowed(reply: wire.Reply) -> None:
        assert (reply.status, "POST" in reply.headers["allow"]) == (405, True)

    head = method == "HEAD"
    refused(shared_master, wire.request(path, body, method=method), not_allowed if head else plain(405), head=head)


@pytest.mark.parametrize(
    "query", ["", "wsdl2", "xsd", "wsd", "wsdl=1&x=2", "%ff", "&wsdl&", "singlewsdl", "a" * 30_000]
)
@pytest.mark.parametrize("path", [wire.READING, wire.WRITING])
def test_a_get_for_anything_but_the_contract_is_not_allowed(path: str, query: str, shared_master: Master) -> None:
    """GET gives the WSDL and nothing else."""
    refused(shared_master, wire.request(f"{path}?{query}", method="GET"), plain(405))


@pytest.mark.parametrize(
    "path",
    [
        "/cdb/v2",
        "/cdb/v2/",
        "/cdb/v2/calibration/",
        "/cdb/v2/calibrationSuperMouse/",
        "/cdb/v2/Calibration",
        "/cdb/v2//calibration",
        "/cdb/v1/calibration",
        "/cdb/v2/calibration/x",
        "/cdb/v2/calibration;x",
        "/cdb/v2/calibration%00",
        "/cdb/v2/calibration%ff",
        "/cdb/v2/../../etc/passwd",
        "/cdb/v2/%2e%2e/%2e%2e/etc/passwd",
        "/.git/config",
        "//evil.example/cdb/v2/calibration",
        "/" + "a" * 30_000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_nothing_at_other_addresses(path: str, method: str, shared_master: Master) -> None:
    """Every other address is unknown: none leads elsewhere, least of all to the Host that the request names."""
    request = wire.request(path, b"", method=method, headers=[("Host", "evil.example")])
    refused(shared_master, request, plain(404))


# "Content-Length `abc` or -1; Content-Length together with Transfer-Encoding; broken chunk sizes; 1 MB header":
# HTTP 400 or 431, connection closed

LENGTH = str(len(envelope(READ.call())))
FRAMES = {
    "length abc": [("Content-Length", "abc")],
    "length -1": [("Content-Length", "-1")],
    "length +1": [("Content-Length", "+1")],
    "length empty": [("Content-Length", "")],
    "length 0x10": [("Content-Length", "0x10")],
    "length 1e3": [("Content-Length", "1e3")],
    "length 1_0": [("Content-Length", "1_0")],
    "length 1.0": [("Content-Length", "1.0")],
    "length with a space": [("Content-Length", "1 0")],
    "length in superscript": [("Content-Length", b"\xb2")],
    "length of 30 digits": [("Content-Length", "9" * 30)],
    "length of 2**64": [("Content-Length", str(2**64))],
    "two lengths": [("Content-Length", LENGTH), ("Content-Length", "5")],
    "the same length twice": [("Content-Length", LENGTH), ("Content-Length", LENGTH)],
    "a list of lengths": [("Content-Length", f"{LENGTH}, {LENGTH}")],
    "length and chunked": [("Content-Length", LENGTH), ("Transfer-Encoding", "chunked")],
    "chunked and length": [("Transfer-Encoding", "chunked"), ("Content-Length", LENGTH)],
    "length and Chunked": [("Content-Length", LENGTH), ("Transfer-Encoding", "Chunked")],
    "length and another coding": [("Content-Length", LENGTH), ("Transfer-Encoding", "x")],
    "chunked, not last": [("Content-Length", None), ("Transfer-Encoding", "chunked, gzip")],
    "gzip alone": [("Content-Length", None), ("Transfer-Encoding", "gzip")],
    "a coding unknown": [("Content-Length", None), ("Transfer-Encoding", "xchunked")],
    "chunked twice": [("Content-Length", None), ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
    "1 MB in a header": [("X-A", "a" * MEGABYTE)],
    "1 MB in Content-Type": [("Content-Type", "text/xml; a=" + "a" * MEGABYTE)],
    "1 MB in SOAPAction": [("SOAPAction", "a" * MEGABYTE)],
    "1 MB in Authorization": [("Authorization", "Basic " + "a" * MEGABYTE)],
    "1 MB in a header's name": [("a" * MEGABYTE, "x")],
    "1 MB in many headers": [("X-A", "a" * 1000)] * 1000,
    "100,000 headers": [("X", "")] * 100_000,
    "NUL in a header": [("X-A", b"a\x00b")],
    "a control in a header": [("X-A", b"a\x01b")],
    "a space in a name": [("X A", "b")],
    "a space before the colon": [("Host ", "b")],
    "no name": [("", "b")],
    "CR in a header": [("X-A", b"a\rX-B: c")],
}


@inputs(FRAMES)
def test_a_broken_frame_closes_the_connection(
    side: Side, case: list[tuple[str, str | bytes | None]], shared_master: Master
) -> None:
    """Where it is not sure where a request ends, it is refused and the connection with it."""
    request = side.request(envelope(side.call()), shared_master, headers=case)
    refused(shared_master, request, plain(400, 431), closed=True)


CHUNKS = {
    "no digits": b"zz\r\n",
    "nothing": b"\r\n",
    "minus": b"-1\r\nabc",
    "plus": b"+5\r\nabcde\r\n0\r\n\r\n",
    "0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "a space before": b" 5\r\nabcde\r\n0\r\n\r\n",
    "16 digits": b"ffffffffffffffff0\r\nabc",
    "too short": b"3\r\nabcde\r\n0\r\n\r\n",
    "another end": b"5\r\nabcdeXX0\r\n\r\n",
    "lines without CR": b"5\nabcde\n0\n\n",
    "underscore": b"1_0\r\nabcdeabcdeabcdef\r\n0\r\n\r\n",
    "after a good one": b"5\r\nabcde\r\nzz\r\n",
    "NUL": b"5\x00\r\nabcde\r\n0\r\n\r\n",
}


@inputs(CHUNKS)
def test_a_broken_chunk_closes_the_connection(side: Side, case: bytes, shared_master: Master) -> None:
    """A body whose chunks do not fit is refused with 400."""
    headers = [("Content-Length", None), ("Transfer-Encoding", "chunked")]
    refused(shared_master, side.request(b"", shared_master, headers=headers) + case, plain(400), closed=True)


LINES = {
    "no method": b"/cdb/v2/calibration HTTP/1.1\r\n\r\n",
    "unknown method": b"FETCH /cdb/v2/calibration HTTP/1.1\r\nHost: x\r\n\r\n",
    "unknown version": b"POST /cdb/v2/calibration HTTP/3.7\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"POST /cdb/v2/calibration ICY/1.0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
    "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
    "words": b"hello, is there anybody?\r\n\r\n",
    "bytes in the path": b"POST /cdb/v2/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"POST /cdb/v2/ calibration HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without colon": b"POST /cdb/v2/calibration HTTP/1.1\r\nHost\r\n\r\n",
    "1 MB in the path": b"POST /" + b"a" * MEGABYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "1 MB in the query": b"POST /cdb/v2/calibration?" + b"a" * MEGABYTE + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "NULs": b"\x00" * 1000,
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_what_is_no_http_closes_the_connection(line: bytes, shared_master: Master) -> None:
    """What does not speak HTTP/1.1 is told so once."""
    refused(shared_master, line, plain(400, 431, 505), closed=True)


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.2"])
def test_an_offer_to_speak_otherwise_is_passed_over(protocol: str, shared_master: Master) -> None:
    """A client that offers another protocol, as Java's does by itself, is answered in HTTP/1.1 with its body read."""
    headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol), ("HTTP2-Settings", "AAMAAABk")]
    request = wire.request(wire.READING, envelope("<t:get_status/>"), headers=headers)
    with wire.Peer(shared_master.url) as peer:
        assert peer.ask(request).status == 200
        assert peer.ask(request).status == 200


# "body larger than the limit, announced or not (chunked)": HTTP 413, refused before it is read whole, and the sender
# gets to read it


@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize("length", [70_000, MEGABYTE, 16 * MEGABYTE], ids=["70 kB", "1 MB", "16 MB"])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_body_over_the_limit_is_too_large(side: Side, length: int, announced: bool, small_master: Master) -> None:
    """Whoever sends all of it first, as most clients do, reads the refusal afterwards."""
    body = envelope(side.call()).ljust(length)
    if announced:
        request = side.request(body, small_master)
    else:
        headers = [("Content-Length", None), ("Transfer-Encoding", "chunked")]
        request = side.request(b"", small_master, headers=headers) + wire.chunked(body)
    refused(small_master, request, plain(413))


@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize("length", [2**26, 2**40, 2**63], ids=str)
def test_a_body_over_the_limit_is_refused_before_it_comes(side: Side, length: int, shared_master: Master) -> None:
    """An announcement is enough, with the usual limit too."""
    headers = [("Content-Length", str(length))]
    refused(shared_master, side.request(b"", shared_master, headers=headers), plain(413))


@pytest.mark.parametrize("side", SIDES, ids=str)
def test_a_body_over_the_limit_is_refused_before_its_end(side: Side, small_master: Master) -> None:
    """Chunks that went beyond the limit are answered though the last one never comes."""
    headers = [("Content-Length", None), ("Transfer-Encoding", "chunked")]
    unended = wire.chunked(b" " * 100_000).removesuffix(b"0\r\n\r\n")
    refused(small_master, side.request(b"", small_master, headers=headers) + unended, plain(413))


# "payload over the limit in a body within it": C.TooLarge


@each_upload
@pytest.mark.parametrize("length", [1001, 10_000])
def test_a_payload_over_the_limit_is_too_large(operation: str, length: int, small_master: Master) -> None:
    """A payload a little too large is told so in a fault with the limit."""
    body = envelope(WRITE.call(operation, data="YWFh" * (length // 3 + 1)))
    refused(small_master, WRITE.request(body, small_master), fault("TooLarge", limit="1000"))


@each_upload
def test_a_payload_over_the_usual_limit_is_too_large(operation: str, shared_master: Master) -> None:
    """The same at full size: 33 MiB, where 32 are taken."""
    body = envelope(WRITE.call(operation, data="YWFh" * (11 * MEGABYTE)))
    # 46 MB to send and to read take their time where the machine has other work.
    outcome = fault("TooLarge", limit=str(32 * MEGABYTE))
    refused(shared_master, WRITE.request(body, shared_master), outcome, within=3)


# "as_of in the future, or later than a mirror knows": C.AsOfNotReached


@pytest.mark.parametrize("as_of", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59"])
@pytest.mark.parametrize(
    "operation",
    [
        operation
        for operation, known in CONTRACTS[wire.READING].operations.items()
        if "as_of" in [argument.name for argument in known]
    ],
)
def test_an_as_of_in_the_future_is_not_reached(operation: str, as_of: str, shared_master: Master) -> None:
    """Nobody can say what the database will be."""
    body = envelope(READ.call(operation, as_of=as_of))
    refused(shared_master, READ.request(body, shared_master), fault("AsOfNotReached"))


# "unknown calibration, run, id, sha256": C.CalibrationNotFound, C.RunNotFound, C.CalibrationNotFound, C.PayloadNotFound

FAR = str(2**63 - 1)
UNKNOWN_KEYS: dict[str, tuple[str, dict[str, str], str, dict[str, str]]] = {
    "by date": (
        "get_calibration_for_date",
        {"device_name": "never", "calibration_type": "T0"},
        "CalibrationNotFound",
        {"device_name": "NEVER", "calibration_type": "t0", "date": "2016-03-01T08:00:00.000000Z"},
    ),
    "by the first date": (
        "get_calibration_for_date",
        {"date": "0001-01-01T00:00:00Z"},
        "CalibrationNotFound",
        {"date": "0001-01-01T00:00:00.000000Z"},
    ),
    "by the last date": (
        "get_calibration_for_date",
        {"date": "9999-12-31T23:59:59.999999Z"},
        "CalibrationNotFound",
        {"date": "9999-12-31T23:59:59.999999Z"},
    ),
    "current": ("get_current_calibration", {}, "CalibrationNotFound", {"device_name": "NEVER"}),
    "current, as of the first instant": (
        "get_current_calibration",
        {"as_of": "0001-01-01T00:00:00Z"},
        "CalibrationNotFound",
        {"as_of": "0001-01-01T00:00:00.000000Z"},
    ),
    "by id": ("get_calibration_for_id", {"id": FAR}, "CalibrationNotFound", {"id": FAR}),
    "withdrawn": ("withdraw_calibration", {"id": FAR}, "CalibrationNotFound", {"id": FAR}),
    "run": ("get_run", {"run_number": FAR}, "RunNotFound", {"run_number": FAR}),
    "by run": ("get_calibration_for_run", {"run_number": FAR}, "RunNotFound", {"run_number": FAR}),
    "everything of a run": ("get_calibrations_for_run", {"run_number": FAR}, "RunNotFound", {"run_number": FAR}),
}


@pytest.mark.parametrize(("operation", "asked", "name", "told"), UNKNOWN_KEYS.values(), ids=UNKNOWN_KEYS)
def test_what_is_unknown_is_not_found(
    operation: str, asked: dict[str, str], name: str, told: dict[str, str], shared_master: Master
) -> None:
    """A question in order, about what is not there: the fault repeats what was asked."""
    side = WRITE if operation in CONTRACTS[wire.WRITING].operations else READ
    body = envelope(side.call(operation, **asked))
    refused(shared_master, side.request(body, shared_master), fault(name, **told))


# "write without token, with a wrong one, from outside the allowed networks, with a forged X-Forwarded-For":
# HTTP 401, 401, 403, 403


def _credentials(token: str) -> dict[str, str | bytes | None]:
    return {
        "none": None,
        "empty": "",
        "the scheme alone": "Basic",
        "no base64": "Basic !!!!",
        "half base64": "Basic YWxpY2U",
        "bytes": b"Basic \xff\xfe\x80",
        "letters with accents": "Basic é",
        "no colon": "Basic " + wire.basic("alice", "")[6:-4],
        "no token": wire.basic("alice", ""),
        "no user": wire.basic("", token),
        "a wrong token": wire.basic("alice", "wrong"),
        "a token and a letter": wire.basic("alice", token + "x"),
        "a token less a letter": wire.basic("alice", token[:-1]),
        "a token in capitals": wire.basic("alice", token.upper()),
        "a token with a line": wire.basic("alice", token + "\n"),
        "the hash of a token": wire.basic("alice", "0" * 64),
        "another user": wire.basic("bob", token),
        "the user in capitals": wire.basic("ALICE", token),
        "NUL": wire.basic("alice\x00", token),
        "NUL in the token": wire.basic("alice", f"{token}\x00"),
        "no UTF-8": "Basic //46eA==",
        "SQL": wire.basic("alice' --", "x"),
        "another scheme": f"Bearer {token}",
        "Digest": 'Digest username="alice"',
        "the token in plain": f"Basic alice:{token}",
        "30,000 letters": wire.basic("a" * 15_000, "b"),
    }


@pytest.mark.parametrize("case", _credentials("a-token"))
@pytest.mark.parametrize("operation", list(CONTRACTS[wire.WRITING].operations))
def test_who_shows_no_valid_token_may_not_write(case: str, operation: str, shared_master: Master) -> None:
    """A write needs a user and that user's token, exactly."""

    def unauthorised(reply: wire.Reply) -> None:
        plain(401)(reply)
        assert reply.headers["www-authenticate"].startswith("Basic ")

    authorization = _credentials(shared_master.token)[case]
    body = envelope(WRITE.call(operation))
    request = wire.request(wire.WRITING, body, headers=[("Authorization", authorization)])
    refused(shared_master, request, unauthorised)


FORGED = {
    "nothing": [],
    "X-Forwarded-For": [("X-Forwarded-For", "127.0.0.1")],
    "X-Forwarded-For, an allowed one": [("X-Forwarded-For", "192.0.2.1")],
    "X-Forwarded-For, a list": [("X-Forwarded-For", "192.0.2.1, 127.0.0.1")],
    "X-Forwarded-For twice": [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2")],
    "Forwarded": [("Forwarded", "for=192.0.2.1")],
    "X-Real-IP": [("X-Real-IP", "192.0.2.1")],
    "X-Client-IP": [("X-Client-IP", "192.0.2.1")],
    "Host": [("Host", "192.0.2.1")],
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("token", ["right", "wrong", "none"])
def test_from_outside_the_networks_nobody_may_write(
    headers: list[tuple[str, str]], token: str, far_master: Master
) -> None:
    """The socket's peer is judged, not what headers claim, and before the token."""
    credentials = {"right": (far_master.user, far_master.token), "wrong": ("alice", "wrong"), "none": None}[token]
    request = wire.request(wire.WRITING, envelope(WRITE.call()), headers=headers, credentials=credentials)
    refused(far_master, request, plain(403))


# "`Host: evil.example` on ?wsdl": the configured address


@pytest.mark.parametrize("path", [wire.READING, wire.WRITING])
@pytest.mark.parametrize("before", ["GET", "POST"])
def test_the_host_of_a_request_leaves_no_trace(path: str, before: str, shared_master: Master) -> None:
    """Neither the request that names another Host nor the one after it is told any address but the configured one."""
    evil = [("Host", "evil.example"), ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https")]
    for headers in (evil, []):
        with wire.Peer(shared_master.url) as peer:
            peer.ask(wire.request(f"{path}?wsdl", b"", method=before, headers=headers))
        connection = http.client.HTTPConnection(urlsplit(shared_master.url).netloc, timeout=10)
        connection.request("GET", f"{path}?wsdl", headers={"Host": "evil.example"} if headers else {})
        document = connection.getresponse().read()
        connection.close()
        assert b"evil" not in document
        assert f'location="{shared_master.url}{path}"'.encode() in document
