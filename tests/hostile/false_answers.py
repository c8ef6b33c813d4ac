"""Every kind of lie that a false master tells: of its status, its entries, its payloads, of SOAP and of HTTP.

A lie is made of the truth at the moment when it is told. What breaks only a rule of the database comes with the right
digest: a master that accepts too much would send just that.
"""

import base64
import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

from cdb_server import instants, journal
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal, sha256_of
from tests.hostile.false_master import Raw, Tell

NAMESPACE = "urn:mice:cdb:2"
START = instants.parse("2016-03-01T00:00:00Z")
DATA = b"forged"
STEP = timedelta(seconds=1)


@dataclass(frozen=True)
class Truth:
    """The true journal: its last entry's serial, digest and `created`, and ids of interest."""

    serial: int
    digest: str
    created: datetime
    promised: datetime
    run: int
    withdrawn: int


@dataclass(frozen=True)
class Lie:
    """A lie; `harmless`, nothing need be told of it, for nothing of it is believed."""

    name: str
    make: Callable[[Truth], Tell]
    harmless: bool = False


def envelope(operation: str, content: str) -> bytes:
    """An answer of SOAP."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:tns="urn:mice:cdb:2"><s:Body>'
        f"<tns:{operation}Response>{content}</tns:{operation}Response></s:Body></s:Envelope>"
    ).encode()


def fault(code: str, detail: str = "", text: str = "no") -> bytes:
    """A fault of SOAP."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:tns="urn:mice:cdb:2"><s:Body><s:Fault>'
        f"<faultcode>s:{code}</faultcode><faultstring>{text}</faultstring><detail>{detail}</detail></s:Fault>"
        "</s:Body></s:Envelope>"
    ).encode()


def in_place(operation: str, pattern: str, said: str) -> Callable[[Truth], Tell]:
    """All places of an operation's answer changed."""

    def tell(asked: str, answer: bytes) -> bytes:
        return re.sub(pattern.encode(), said.encode(), answer) if asked == operation else answer

    return lambda truth: tell


def of_field(operation: str, field: str, said: str) -> Callable[[Truth], Tell]:
    """Another value in a field."""
    return in_place(operation, rf"(<tns:{field}>)[^<]*(</tns:{field}>)", rf"\g<1>{said}\g<2>")


def always(said: bytes | Raw, *operations: str) -> Callable[[Truth], Tell]:
    """One answer to some operations, or to all."""
    return lambda truth: lambda asked, answer: said if not operations or asked in operations else answer


def raw(*parts: bytes) -> Raw:
    """Bytes as they are."""
    return Raw(lambda: iter(parts))


def http_answer(status: str, body: bytes = b"", *headers: str) -> Raw:
    """An answer of HTTP."""
    lines = (f"HTTP/1.1 {status}", "Content-Type: text/xml", f"Content-Length: {len(body)}", *headers, "", "")
    return raw("\r\n".join(lines).encode(), body)


# What the last new entries are changed to, behind their truth.
def entries(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Truth], Tell]:
    """The entries of a get_journal in another order, number or form."""

    def tell(asked: str, answer: bytes) -> bytes:
        found = re.findall(rb"<tns:entry>.*?</tns:entry>", answer, re.S)
        if asked != "get_journal" or not found:
            return answer
        return envelope("get_journal", b"".join(change(found)).decode())

    return lambda truth: tell


def spelled(value: Any) -> str:
    return instants.format_instant(value) if isinstance(value, datetime) else escape(str(value))


def forged(content: Callable[[Truth], Any], data: bytes = DATA, **other: Any) -> Callable[[Truth], Tell]:
    """One entry more, whose digest is right: as a master would send it that accepted what it must not."""

    def make(truth: Truth) -> Tell:
        made = content(truth)
        created = other.get("created", lambda truth: max(truth.created, instants.now()) + STEP)(truth)
        entry = Entry(truth.serial + 1, created, other.get("author", "mallory"), made)
        digest = journal.digest(truth.digest, entry)
        fields = {"serial": entry.serial, "kind": made.kind, "created": created, "author": entry.author}
        fields |= {"digest": digest} | {name: getattr(made, name) for name in made.__slots__}
        text = "".join(
            f"<tns:{name}>{spelled(value)}</tns:{name}>" for name, value in fields.items() if value is not None
        )

        def tell(asked: str, answer: bytes) -> bytes:
            if asked == "get_status":
                answer = re.sub(rb"(<tns:serial>)\d+", rb"\g<1>%d" % entry.serial, answer)
                return re.sub(rb"(<tns:digest>)\w+", rb"\g<1>" + digest.encode(), answer)
            if asked == "get_journal":
                return answer.replace(b"</tns:get_journalResponse>", f"<tns:entry>{text}</tns:entry>".encode() + _END)
            return envelope("get_payload", f"<tns:data>{base64.b64encode(data).decode()}</tns:data>")

        return tell

    return make


_END = b"</tns:get_journalResponse>"


def _run(number: int, truth: Truth) -> RunTimes:
    return RunTimes(number, START, None)


def calibration(**changed: Any) -> Callable[[Truth], NewCalibration]:
    """A calibration that would be right but for what is changed."""
    values: dict[str, Any] = {"device_name": "FORGED", "calibration_type": "t0", "valid_from": START, "comment": None}
    values |= {"size": len(DATA), "sha256": sha256_of(DATA)}
    return lambda truth: NewCalibration(**(values | changed))


def other_history(truth: Truth) -> Tell:
    """Two masters that take turns."""
    turns = iter(range(10**9))

    def tell(asked: str, answer: bytes) -> bytes:
        if asked == "get_status" and next(turns) % 2:
            return re.sub(rb"(<tns:digest>)\w+", rb"\g<1>" + b"ab" * 32, answer)
        return answer

    return tell


def endless(head: bytes, part: bytes) -> Raw:
    """An answer without an end."""

    def parts() -> Iterator[bytes]:
        yield head
        for _ in range(2_000):
            yield part

    return Raw(parts)


BIG = 2**18
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
_DATA = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:tns="urn:mice:cdb:2"><s:Body>'
    b"<tns:get_payloadResponse><tns:data>"
)
_LAUGHS = (
    b'<!DOCTYPE a [<!ENTITY a "' + b"x" * 1000 + b'">' + b'<!ENTITY b "' + b"&a;" * 1000 + b'">'
    b'<!ENTITY c "' + b"&b;" * 1000 + b'">]>'
)


def _status() -> Iterator[Lie]:
    values: dict[str, tuple[str, ...]] = {
        "serial": ("0", "1", "-1", str(2**63 - 1), str(2**63), str(2**64), "9" * 400, "", "many", "1e3", "2.5"),
        "digest": ("", "0" * 64, "z" * 64, "ab", "ab" * 20_000),
        "complete_until": (
            "", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
            "0000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "12026-01-01T00:00:00Z",
        ),
        "role": ("",),
        "status": ("",),
        "version": ("v" * 100_000,),
    }  # fmt: skip
    for field, wrong in values.items():
        for said in wrong:
            # An empty digest is looked at where both are as long; an empty text is still none.
            yield Lie(f"status, {field} {said[:30]!r}", of_field("get_status", field, said))
    for until in ("9999-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2999-01-01T00:00:00"):
        yield Lie(f"status, complete until {until}", of_field("get_status", "complete_until", until), harmless=True)
    yield Lie("status, role 'boss'", of_field("get_status", "role", "boss"), harmless=True)
    for field, wrong in {
        "lag_seconds": ("NaN", "INF", "-INF", "1e300", "1e400", "-1", "-1e300"),
        "lag_entries": ("-1", str(-(2**63)), str(2**63 - 1), str(2**63), "9" * 30),
    }.items():
        for said in wrong:
            element = f"<tns:{field}>{said}</tns:{field}></tns:status>"
            yield Lie(f"status, {field} {said[:30]}", in_place("get_status", "</tns:status>", element))
    for field in ("serial", "digest", "complete_until", "version", "role"):
        yield Lie(f"status without {field}", in_place("get_status", rf"<tns:{field}>[^<]*</tns:{field}>", ""))


def _changed_entries() -> Iterator[Lie]:
    values: dict[str, tuple[str, ...]] = {
        "serial": ("0", "-1", "7777", str(2**63), ""),
        "kind": ("", "release", "k" * 10_000),
        "created": ("", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2016-03-01T00:00:00Z"),
        "author": ("", "mallory", "a" * 10_000),
        "digest": ("", "0" * 64),
        "device_name": ("", "../../x", "other"),
        "valid_from": ("", "0001-01-01T00:00:00+01:00", "2016-03-01T00:00:01.0000001Z"),
        "size": ("", "-1", "1", str(2**31), str(2**63)),
        "sha256": ("", "0" * 64, "../../etc/passwd"),
        "run_number": ("", "-7", str(2**63), "0"),
        "start_time": ("", "9999-12-31T23:59:59-14:00"),
    }
    for field, wrong in values.items():
        for said in wrong:
            yield Lie(f"entry, {field} {said[:30]!r}", of_field("get_journal", field, said))
    yield Lie("entries swapped", entries(lambda found: [found[0], *reversed(found[1:])]))
    yield Lie("an entry missing", entries(lambda found: [found[0], *found[2:]]))
    yield Lie("an entry twice", entries(lambda found: [*found[:2], *found[1:]]))
    yield Lie("the last known entry missing", entries(lambda found: found[1:]))
    yield Lie("no entries", entries(lambda found: []))
    yield Lie("none that is new", entries(lambda found: found[:1]))
    yield Lie("entries again and again", entries(lambda found: found[:1] * 2_000))
    yield Lie("entries of nothing", entries(lambda found: [found[0], b"<tns:entry/>"]))


def _forged_entries() -> Iterator[Lie]:
    right = calibration()
    for name in ("../x", "A\tB", "\u202eTOF", "tof1", "A" * 65, "TOF1 ", "T\u00c4", "A/B", ".."):
        yield Lie(f"forged, device {name[:30]!r}", forged(calibration(device_name=name)))
    for name in ("T0", "1t", "../t0", "t" * 65, "t0 "):
        yield Lie(f"forged, type {name[:30]!r}", forged(calibration(calibration_type=name)))
    yield Lie("forged, comment too long", forged(calibration(comment="c" * 4_097)))
    yield Lie("forged, comment of 20 MB", forged(calibration(comment="c" * 20_000_000)))
    yield Lie("forged, comment of 100 kB", forged(calibration(comment="c" * 100_000)))
    yield Lie("forged, size below zero", forged(calibration(size=-1)))
    yield Lie("forged, size too small", forged(calibration(size=2)))
    yield Lie("forged, size too large", forged(calibration(size=1_000)))
    yield Lie("forged, size above the limit", forged(calibration(size=2**25 + 1)))
    yield Lie("forged, size of a terabyte", forged(calibration(size=2**40)))
    yield Lie("forged, sha256 in upper case", forged(calibration(sha256=sha256_of(DATA).upper())))
    yield Lie("forged, sha256 a path", forged(calibration(sha256="../../etc/passwd")))
    yield Lie("forged, payload of other bytes", forged(right, b"forget"))
    yield Lie("forged, created in 9999", forged(right, created=lambda truth: instants.parse("9999-12-31T00:00:00Z")))
    yield Lie("forged, created in an hour", forged(right, created=lambda truth: instants.now() + timedelta(hours=1)))
    yield Lie("forged, created as the last", forged(right, created=lambda truth: truth.created))
    yield Lie("forged, created in 1066", forged(right, created=lambda truth: instants.parse("1066-10-14T00:00:00Z")))
    yield Lie("forged, created as promised", forged(right, created=lambda truth: max(truth.promised, truth.created)))
    yield Lie("forged, author missing", forged(right, author=""))
    yield Lie("forged, author too long", forged(right, author="a" * 5_000))
    for number in (0, -7, -(2**63)):
        yield Lie(f"forged, run {number}", forged(partial(_run, number)))
    yield Lie("forged, run that stops before it starts", forged(lambda truth: RunTimes(1, START, START - STEP)))
    yield Lie("forged, withdrawal of nothing", forged(lambda truth: Withdrawal(9_999_999, "gone")))
    yield Lie("forged, withdrawal of itself", forged(lambda truth: Withdrawal(truth.serial + 1, "gone")))
    yield Lie("forged, withdrawal of a run", forged(lambda truth: Withdrawal(truth.run, "gone")))
    yield Lie("forged, withdrawal again", forged(lambda truth: Withdrawal(truth.withdrawn, "gone")))
    yield Lie("forged, withdrawal of -1", forged(lambda truth: Withdrawal(-1, "gone")))
    yield Lie("forged, reason blank", forged(lambda truth: Withdrawal(1, "  ")))
    yield Lie("forged, reason too long", forged(lambda truth: Withdrawal(1, "r" * 5_000)))


def _payloads() -> Iterator[Lie]:
    def answered(content: str) -> Callable[[Truth], Tell]:
        return always(envelope("get_payload", content), "get_payload")

    yield Lie("payload of other bytes", answered("<tns:data>AAAA</tns:data>"))
    yield Lie("payload empty", answered("<tns:data/>"))
    yield Lie("payload missing", answered(""))
    yield Lie("payload twice", answered("<tns:data>AAAA</tns:data><tns:data>AAAA</tns:data>"))
    yield Lie("payload no base64", answered("<tns:data>!!!!A</tns:data>"))
    yield Lie("payload much longer than its entry", answered(f"<tns:data>{'A' * 2**20}</tns:data>"))
    yield Lie("payload without end", always(endless(_OK + b"\r\n" + _DATA, b"A" * BIG), "get_payload"))
    length = b"Content-Length: 500000000\r\n\r\n"
    yield Lie("payload of 500 MB", always(endless(_OK + length + _DATA, b"A" * BIG), "get_payload"))
    yield Lie("payload not found", always(fault("Client.PayloadNotFound", "<tns:PayloadNotFound/>"), "get_payload"))
    yield Lie("payload damaged there", always(fault("Server.Integrity", "<tns:Integrity/>"), "get_payload"))


def _soap() -> Iterator[Lie]:
    body = b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>%s</s:Body></s:Envelope>'
    for operation in ("get_status", "get_journal"):
        said: dict[str, bytes] = {
            "an empty Body": body % b"",
            "two answers": body % b"<a/><b/>",
            "another's answer": envelope("get_run", "<tns:run/>"),
            "no XML": b"{}",
            "nothing": b"",
            "laughs": _LAUGHS + body % b"<a>&c;</a>",
            "nesting": body % (b"<a>" * 5_000 + b"</a>" * 5_000),
            "elements without number": envelope(operation, "<a/>" * 100_000),
            "UTF-16": envelope(operation, "").decode().encode("utf-16"),
            "a fault of the client": fault("Client"),
            "a fault of the server": fault("Server"),
            "a fault without words": fault("Server", text=""),
            "a long fault": fault("Server", text="x" * 50_000),
            "a fault of no number": fault("Client.TooLarge", "<tns:TooLarge><tns:limit>x</tns:limit></tns:TooLarge>"),
            "a fault of a number below zero": fault(
                "Client.TooLarge", "<tns:TooLarge><tns:limit>-5</tns:limit></tns:TooLarge>"
            ),
            "a fault of a number too large": fault(
                "Client.TooLarge", f"<tns:TooLarge><tns:limit>{'9' * 40}</tns:limit></tns:TooLarge>"
            ),
            "a fault of a time before year 1": fault(
                "Client.AsOfNotReached",
                "<tns:AsOfNotReached><tns:as_of>0001-01-01T00:00:00+14:00</tns:as_of></tns:AsOfNotReached>",
            ),
        }
        for name, answer in said.items():
            yield Lie(f"{operation}: {name}", always(answer, operation))


def _http() -> Iterator[Lie]:
    for status in ("204 No Content", "304 Not Modified", "400 Bad Request", "401 Unauthorized", "403 Forbidden",
                   "404 Not Found", "429 Too Many", "500 Oops", "502 Bad Gateway", "503 Busy", "999 What"):  # fmt: skip
        yield Lie(f"HTTP {status}", always(http_answer(status, b"" if status[0] in "23" else b"<html/>")))
    for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
        yield Lie(f"HTTP {status}", always(http_answer(status, b"", "Location: http://127.0.0.1:9/")))
    yield Lie("not HTTP", always(raw(b"SSH-2.0-OpenSSH_9.2\r\n")))
    yield Lie("no answer at all", always(raw()))
    yield Lie("a huge header", always(raw(_OK + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n")))
    yield Lie("headers without number", always(endless(_OK, b"X-A: 1\r\n" * 1_000)))
    yield Lie("cut off", always(raw(_OK + b"Content-Length: 5000\r\n\r\n<s:Env")))
    yield Lie("a length that is none", always(raw(_OK + b"Content-Length: many\r\n\r\n")))
    yield Lie("chunks that are none", always(raw(_OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc")))
    bomb = gzip.compress(bytes(2**26))
    yield Lie("a gzip bomb", always(http_answer("200 OK", bomb, "Content-Encoding: gzip")))
    for operation in ("get_status", "get_journal"):
        yield Lie(f"{operation} without end", always(endless(_OK + b"\r\n", b" " * BIG), operation))


def slow(ended: Callable[[float], bool]) -> list[Lie]:
    """Lies that take as long as an answer may take; `ended` waits, and says whether it is over."""

    def silent() -> Iterator[bytes]:
        while not ended(0.05):
            yield b""

    def dripping() -> Iterator[bytes]:
        yield _OK + b"Content-Length: 5000\r\n\r\n"
        while not ended(0.05):
            yield b" "

    return [Lie("silence", always(Raw(silent))), Lie("a slow drip", always(Raw(dripping)))]


LIES = [
    *_status(),
    *_changed_entries(),
    *_forged_entries(),
    *_payloads(),
    *_soap(),
    *_http(),
    Lie("two histories that take turns", other_history),
]
