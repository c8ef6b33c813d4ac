"""What a network can send to the earlier CDB's services: no call gets a line of text, a wrong one an error in-band."""

import base64
import re
from collections.abc import Callable

import pytest
from lxml import etree

from cdb_server.soap.legacy_operations import LEGACY_SERVICES
from tests import servers
from tests.fuzz import wire
from tests.server.test_bad_input import NOT_SOAP, NOT_XML, SOAP, SOAP_12, envelope, plain, refused
from tests.server.test_legacy import ALLOWED, FROM, open_master
from tests.servers import Master

__all__ = ["open_master"]

READING, WRITING = "/cdb/calibration", "/cdb/calibrationSuperMouse"
OURS = "urn:mice:cdb:1"
GOOD = "<t:getStatus/>"
NO_CALL = plain(400)


def call(operation: str, *arguments: str, namespace: str = OURS, name: str = "arg") -> str:
    """An operation's element; arguments are XML, in no namespace, as JAX-WS has it."""
    inner = "".join(f"<{name}{number}>{argument}</{name}{number}>" for number, argument in enumerate(arguments))
    return f'<l:{operation} xmlns:l="{namespace}">{inner}</l:{operation}>'


def returned(reply: wire.Reply) -> str:
    """What an answer returns."""
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/xml; charset=utf-8"
    answer = etree.fromstring(reply.body)
    [text] = answer.findall(f"{{{SOAP}}}Body/*/return")
    return text.text or ""


def in_band(text: str) -> Callable[[wire.Reply], None]:
    """The outcome: <error> with this in its text, as base64 where it may be."""

    def check(reply: wire.Reply) -> None:
        said = returned(reply)
        if not said.startswith("<"):
            said = base64.b64decode(said, validate=True).decode("ascii")
        error = etree.fromstring(said.encode("ascii"))
        assert error.tag == "error"
        assert text in (error.text or "")

    return check


def ask(master: Master, path: str, content: str, **headers: str) -> wire.Reply:
    with wire.Peer(master.url) as peer:
        return peer.ask(wire.request(path, envelope(content), headers=list(headers.items())))


@pytest.mark.parametrize("path", LEGACY_SERVICES)
@pytest.mark.parametrize("case", NOT_XML)
def test_what_is_no_xml_is_no_call(case: str, path: str, open_master: Master) -> None:
    """One line of text and HTTP 400: what was called, and so how an answer would look, is not known."""
    refused(open_master, wire.request(path, NOT_XML[case]), NO_CALL)


@pytest.mark.parametrize("case", NOT_SOAP)
def test_what_is_no_envelope_with_one_operation_is_no_call(case: str, open_master: Master) -> None:
    """Likewise."""
    refused(open_master, wire.request(WRITING, NOT_SOAP[case](GOOD).encode()), NO_CALL)


HOSTILE = {
    "SOAP 1.2": envelope(GOOD).replace(SOAP.encode(), SOAP_12.encode()),
    "mustUnderstand": envelope(GOOD, '<t:x s:mustUnderstand="1"/>'),
    "a document type": b"<!DOCTYPE x>" + envelope(GOOD),
    "an external one": b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + envelope(GOOD),
    "an external entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    + envelope("<getName>&e;</getName>"),
    "billion laughs": b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + envelope("<getName>&b;</getName>"),
    "an instruction": b'<?xml-stylesheet href="x"?>' + envelope(GOOD),
    "an instruction within": envelope("<getName><?x y?></getName>"),
    "depth": envelope("<a>" * 300 + "</a>" * 300),
    "great depth": envelope("<a>" * 200_000 + "</a>" * 200_000),
    "elements": envelope(f"<getName>{'<a/>' * 1_000_000}</getName>"),
    "attributes": envelope("<getName " + " ".join(f'a{n}=""' for n in range(100_000)) + "/>"),
    "not UTF-8": envelope(call("getDetectorCalibrationForId", "?")).replace(b"?", b"\xff"),
    "NUL": envelope(call("getDetectorCalibrationForId", "?")).replace(b"?", b"\x00"),
    "a reference to a control character": envelope(call("getDetectorCalibrationForId", "&#1;")),
    "unknown operation": envelope(call("getEverything")),
    "another's operation": envelope(call("getCurrentDetectorCabling", "DAQ")),
    "an operation of ours": envelope('<get_status xmlns="urn:mice:cdb:2"/>'),
    "the case of another": envelope(call("GetStatus")),
    "an operation beyond ASCII": envelope(call("getStatüs")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_hostile_or_unknown_is_no_call(case: str, open_master: Master) -> None:
    """No file and no network is touched for it; of an unknown operation, the line names those that there are."""
    refused(open_master, wire.request(WRITING, HOSTILE[case]), NO_CALL)


def test_a_reading_service_stores_nothing(open_master: Master) -> None:
    """It has no setDetector, whoever asks."""
    good = envelope(call("setDetector", "REFUSED", "t0", FROM, "YWJj"))
    refused(open_master, wire.request(READING, good), NO_CALL)


ELSE = {
    "no method": (wire.request(READING, method="PUT"), 405),
    "no question": (wire.request(READING, method="GET"), 405),
    "plain text": (wire.request(READING, envelope(GOOD), headers=[("Content-Type", "text/plain")]), 415),
    "SOAP 1.2's type": (wire.request(READING, envelope(GOOD), headers=[("Content-Type", "application/soap+xml")]), 415),
    "UTF-16": (wire.request(READING, envelope(GOOD).decode().encode("utf-16")), 415),
    "gzip": (wire.request(READING, envelope(GOOD), headers=[("Content-Encoding", "gzip")]), 415),
    "a path below": (wire.request(f"{READING}/x", envelope(GOOD)), 404),
}


@pytest.mark.parametrize("case", ELSE)
def test_http_is_judged_as_for_the_present_services(case: str, open_master: Master) -> None:
    """One line of text, and its status."""
    request, status = ELSE[case]
    refused(open_master, request, plain(status))


@pytest.mark.parametrize("path", [READING, WRITING])
def test_a_body_above_the_limit_is_refused_unread(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """HTTP 413, announced or not; a payload above its limit in a body within that is an error in-band."""
    folder = tmp_path_factory.mktemp("small")
    small = ("--max-payload", "1000")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *small, *ALLOWED) as master:
        much = envelope(call("setDetector", "REFUSED", "t0", FROM, "A" * 100_000))
        refused(master, wire.request(path, much), plain(413), closed=True)
        unannounced = [("Content-Length", None), ("Transfer-Encoding", "chunked")]
        refused(master, wire.request(path, wire.chunked(much), headers=unannounced), plain(413), closed=True)
        over = envelope(call("setDetector", "REFUSED", "t0", FROM, base64.b64encode(b"x" * 1001).decode()))
        outcome = in_band("the payload has 1001 bytes") if path == WRITING else NO_CALL
        refused(master, wire.request(path, over), outcome)


WRONG = {
    "an argument missing": (call("getCurrentDetectorCalibration", "TOF1"), "the call has 1 arguments"),
    "all missing": (call("getCalibrationIds"), "takes start, stop; the call has 0 arguments"),
    "an argument too many": (call("getStatus", "x"), "takes no arguments; the call has 1 arguments"),
    "elements within": (call("getDetectorCalibrationForId", "<b>1</b>"), "id is not text"),
    "nil": (
        '<getDetectorCalibrationForId><id xsi:nil="true"/></getDetectorCalibrationForId>',
        "id '' is not a whole number",
    ),
    "a reference": (
        '<getDetectorCalibrationForId><id href="#x"/></getDetectorCalibrationForId>',
        "id '' is not a whole number",
    ),
    **{
        f"base64 {data}": (call("setDetector", "REFUSED", "t0", FROM, data), "it must be base64")
        for data in ("!!!!", "YW*Jj", "-_-_", "YWJ", "YWJj=", "====", "é")
    },
    **{
        f"time {time}": (call("setDetector", "REFUSED", "t0", time, "YWJj"), "is no time like")
        for time in (
            "2016-03-01 24:00:00",
            "2016-03-01 08:00:60",
            "2016-02-30 08:00:00",
            "0000-01-01 00:00:00",
            "2016-03-01 08:00:00.123456789",
            "2016-03-01",
            "2016-03-01  08:00:00",
            "0001-01-01 00:00:00+01:00",
            "null",
        )
    },
    **{
        f"number {number}": (call("getDetectorCalibrationForRun", "TOF1", "t0", number), "whole number from 1 to")
        for number in ("0", "-1", "+1", "1_0", "1.0", "0x1", "", "٧", "9223372036854775808", "9" * 400)
    },
    **{
        f"device {device}": (call("setDetector", device, "t0", FROM, "YWJj"), "cannot name a device")
        for device in (
            "",
            "x" * 65,
            "TOF1 ",
            " TOF1",
            "../../etc/passwd",
            "'; DROP TABLE calibration; --",
            "TOF1&#13;&#10;",
            "\u202etof",
            "e\u0301",
        )
    },
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_an_error_in_band(case: str, open_master: Master) -> None:
    """HTTP 200, for these clients read no other; nothing is stored."""
    content, text = WRONG[case]
    refused(open_master, wire.request(WRITING, envelope(content)), in_band(text))


@pytest.mark.parametrize(
    "content",
    [
        call("getDetectorCalibrationForRun", "LIBERAL", "t0", "1"),
        call("getDetectorCalibrationForRun", "LIBERAL", "t0", "1", namespace="http://earlier.example/services"),
        call("getDetectorCalibrationForRun", "LIBERAL", "t0", "1", name="l:in"),
        call("getDetectorCalibrationForRun", "LIBERAL", "t0", "1", name="t:device"),
        call("getDetectorCalibrationForRun", "LIB<!-- -->ERAL", "<![CDATA[t0]]>", "\n 0001 "),
        "<getDetectorCalibrationForRun><a>LIBERAL</a><a>t0</a><a>1</a></getDetectorCalibrationForRun>",
        '<l:getDetectorCalibrationForRun xmlns:l="urn:rpc" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        '<device xsi:type="xs:string">LIBERAL</device><b xsi:type="xs:string">t0</b><c xsi:type="xs:int">1</c>'
        "</l:getDetectorCalibrationForRun>",
    ],
)
@pytest.mark.parametrize("action", ["", '""', "getDetectorCalibrationForRun", '"urn:anything"'])
def test_a_call_is_understood_by_position(content: str, action: str, open_master: Master) -> None:
    """Whatever names and namespaces a compiled-in call has: it is answered in its own."""
    reply = ask(open_master, READING, content, SOAPAction=action)
    assert "run 1 is not registered" in base64.b64decode(returned(reply)).decode()
    asked = etree.fromstring(envelope(content))[0][0]
    assert etree.fromstring(reply.body)[0][0].tag == f"{etree.QName(asked).text}Response"


def test_a_namespace_is_repeated_as_it_is(open_master: Master) -> None:
    """It may hold what XML must escape."""
    answer = etree.fromstring(ask(open_master, READING, call("getName", namespace="urn:a&amp;b'c")).body)
    assert etree.QName(answer[0][0]).namespace == "urn:a&b'c"


def test_status_answers_are_ascii(open_master: Master) -> None:
    """Python 2's `str`, which the earlier client calls on them, knows nothing else."""
    reply = ask(open_master, WRITING, call("setDetector", "Détecteur", "t0", FROM, "YWJj"))
    assert re.search(rb"'D&amp;#233;tecteur' cannot name a device", reply.body)
    assert returned(reply).isascii()
