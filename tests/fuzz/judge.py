"""What an answer must be, whatever came in: the one place that says what a failure is."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from lxml import etree

from tests.fuzz import oracle, schema
from tests.fuzz.generate import Input
from tests.fuzz.oracle import SOAP, Call, Doubt, Refusal
from tests.fuzz.schema import NAMESPACE
from tests.fuzz.wire import Reply

T = f"{{{NAMESPACE}}}"
UTC = timezone.utc
# Design: "HTTP's own answers (400, 401, 403, 404, 405, 413, 415, 431) are one line of text/plain".
# RFC 9112 adds 501 and 505.
REFUSALS = frozenset({400, 401, 403, 404, 405, 413, 415, 431, 501, 505})
# Beside them, 408 tells a sender that its body did not come.
TOO_SLOW = 408
KINDS = {
    "calibration": {"device_name", "calibration_type", "valid_from", "comment", "size", "sha256"},
    "withdrawal": {"calibration_id", "reason"},
    "run": {"run_number", "start_time", "stop_time"},
}
INSIDE = re.compile(rb"Traceback|File &quot;|File \"|site-packages|\.pyx?\b|cdb_server|spyne|sqlalchemy|/tmp/")

# Asks the reading service; the answer's element.
Ask = Callable[[str], etree._Element]


class Failure(Exception):
    """Something that must never happen."""


@dataclass(frozen=True)
class Outcome:
    """How an answer is counted: `code` of the fault, or the HTTP status, or the operation that was carried out."""

    name: str
    written: bool = False


def require(condition: object, what: str) -> None:
    """Raise Failure unless it holds."""
    if not condition:
        raise Failure(what)


def judge_soap(made: Input, fault: bool, body: bytes, since: datetime, ask: Ask | None) -> Outcome:
    """Judge the answer to an input that reached the service as it is, sent at `since`.

    `ask` reads back what was written.
    """
    expected = oracle.read(made.body, made.action, made.side)
    flooded = made.mutations and made.mutations[-1].startswith(("many_", "deep", "long_"))
    if fault:
        return _judge_fault(made, body, None if flooded else expected)
    if isinstance(expected, Refusal) and not flooded:
        raise Failure(f"accepted, but {expected.why}")
    return _judge_answer(made, body, expected if isinstance(expected, Call) else None, since, ask)


def judge_http(made: Input, reply: Reply, since: datetime, ask: Ask | None) -> Outcome:
    """Judge an HTTP answer to an input sent at `since`."""
    as_it_is = made.http is None
    media = reply.headers.get("content-type")
    if reply.status in (200, 500):
        require(reply.status == 200 or media != "text/plain; charset=utf-8", f"uncaught: {reply.body[:100]!r}")
        require(media == "text/xml; charset=utf-8", f"Content-Type {media}")
        if reply.status == 200 and b"<wsdl:definitions" in reply.body[:200]:
            require("?" in made.around.path and made.around.method == "GET", "the WSDL, unasked")
            return Outcome("WSDL")
        if as_it_is:
            return judge_soap(made, reply.status == 500, reply.body, since, ask)
        if reply.status == 500:
            return _judge_fault(made, reply.body, None)
        return _judge_answer(made, reply.body, None, since, ask)
    slow = reply.status == TOO_SLOW and not made.around.whole
    require(reply.status in REFUSALS or slow, f"HTTP status {reply.status}")
    if not slow:
        require(media == "text/plain; charset=utf-8", f"Content-Type {media}")
        require(reply.body.strip().count(b"\n") == 0, "more than a line")
    _check_inside(made, reply.body)
    return judge_refused(made, reply.status) if as_it_is else Outcome(str(reply.status))


def judge_refused(made: Input, status: int) -> Outcome:
    """Judge HTTP's own answer to an input in usual HTTP: without credentials nobody writes, bytes may turn out to be of
    another encoding, and floods to be too long.
    """
    require(status in (401, 413, 415), f"HTTP status {status} for usual HTTP")
    if status == 413:
        require(len(made.body) > 2**20, "413 for a short body")
    if status == 415:
        require(not isinstance(oracle.read(made.body, made.action, made.side), Call), "415 for a request in order")
    return Outcome(str(status))


def _check_inside(made: Input, body: bytes) -> None:
    """Nothing of the server's inside stands in an answer, but where the question had the same letters."""
    asked = made.body.lower()
    require(all(found.group().lower() in asked for found in INSIDE.finditer(body)), "the server's inside")


def _judge_fault(made: Input, body: bytes, expected: Call | Refusal | Doubt | None) -> Outcome:
    fault = _content(body)
    require(fault.tag == f"{{{SOAP}}}Fault", f"not a fault: {fault.tag!r}")
    _check_inside(made, body)
    prefix, _, code = fault.findtext("faultcode", "").partition(":")
    require(fault.nsmap.get(prefix) == SOAP, f"a code of another namespace: {prefix}")
    side, _, name = code.rpartition(".")
    if code in ("VersionMismatch", "MustUnderstand"):
        require(fault.find("detail") is None, "a detail")
    else:
        known = frozenset.union(*schema.contract(made.side).faults.values())
        require(side == "Client" and name in known, f"fault {code}: {fault.findtext('faultstring', '')[:200]}")
        details = fault.findall("detail/*")
        require([detail.tag for detail in details] == [f"{T}{name}"], "the detail is another")
        require(schema.contract(made.side).validator.validate(details[0]), "the detail is not the contract's")
        require(details[0].findtext(f"{T}message") == fault.findtext("faultstring"), "two messages")
    if isinstance(expected, Refusal):
        require(code == expected.code, f"fault {code} for {expected.why}, not {expected.code}")
        if expected.arguments:
            named = fault.findtext(f"detail/{T}InvalidArgument/{T}argument")
            require(named in expected.arguments, f"{named} named for {expected.why}")
    elif isinstance(expected, Call):
        declared = schema.contract(made.side).faults[expected.operation]
        require(name in declared and name != "MalformedRequest", f"fault {code} for a request in order")
        if name == "InvalidArgument":
            named = fault.findtext(f"detail/{T}InvalidArgument/{T}argument")
            require(named in _senseless(expected), f"{named} refused in a request in order")
    return Outcome(code)


def _senseless(call: Call) -> set[str]:
    """Arguments whose values are of their types, and cannot be accepted all the same."""
    values, found = call.values, set()
    if "start_time" in values and values.get("stop_time", values["start_time"]) < values["start_time"]:
        found.add("stop_time")
    if not values.get("reason", "x").strip():
        found.add("reason")
    if values.get("data") == b"" and "sha256" not in values:
        found.add("data")
    return found


def _judge_answer(made: Input, body: bytes, call: Call | None, since: datetime, ask: Ask | None) -> Outcome:
    answer = _content(body)
    tag = etree.QName(answer).text
    operation = tag.removeprefix(T).removesuffix("Response")
    require(tag == f"{T}{operation}Response", f"not an answer: {tag}")
    require(schema.contract(made.side).validator.validate(answer), "the answer is not the contract's")
    if call is not None:
        require(call.operation == operation, f"an answer of {operation} to {call.operation}")
        _compare(call, answer, since, ask)
    return Outcome(f"done {operation}", made.side == "writing")


def _compare(call: Call, answer: etree._Element, since: datetime, ask: Ask | None) -> None:
    """Compare what is stored, in the answer and as read back, with what the request says."""
    values = call.values
    if call.operation == "add_run":
        stored = [answer[0]]
        if ask is not None:
            again = ask(f"<t:get_run><t:run_number>{values['run_number']}</t:run_number></t:get_run>")[0]
            # Another may have registered the run again since.
            if again.findtext(f"{T}created") == answer[0].findtext(f"{T}created"):
                stored.append(again)
        for run in stored:
            require(int(run.findtext(f"{T}run_number", "")) == values["run_number"], "another run")
            require(_instant(run, "start_time") == values["start_time"], "another start")
            require(_instant(run, "stop_time") == values.get("stop_time"), "another stop")
    elif call.operation == "preview_calibration":
        _check_preview(call, answer[0])
    elif call.operation == "get_journal":
        _check_journal(call, answer)
    elif call.operation in ("add_calibration", "withdraw_calibration"):
        stored = [answer[0]]
        if ask is not None:
            id = answer[0].findtext(f"{T}id")
            stored.append(ask(f"<t:get_calibration_for_id><t:id>{id}</t:id></t:get_calibration_for_id>")[0])
        for record in stored:
            _compare_calibration(call, record, since)


def _check_preview(call: Call, preview: etree._Element) -> None:
    ranges = [
        (int(found.findtext(f"{T}first_run", "")), int(found.findtext(f"{T}last_run", "")))
        for found in preview.findall(f"{T}run_range")
    ]
    count = int(preview.findtext(f"{T}run_count", ""))
    require(len(ranges) == 1000 or sum(last - first + 1 for first, last in ranges) == count, "another count of runs")
    require(all(last + 1 < first for (_, last), (first, _) in pairwise(ranges)), "ranges that are one")
    before = preview.find(f"{T}takes_over_from")
    if before is not None:
        require(before.findtext(f"{T}device_name") == call.values["device_name"].upper(), "another device")
        require(_instant(before, "valid_from") <= call.values["valid_from"], "taken over from before it began")


def _check_journal(call: Call, answer: etree._Element) -> None:
    require(len(answer) <= call.values["limit"], "more entries than asked for")
    serials = [int(entry.findtext(f"{T}serial", "")) for entry in answer]
    first = call.values["after_serial"] + 1
    require(serials == list(range(first, first + len(serials))), "entries out of order")
    for entry in answer:
        names = {etree.QName(child).text.removeprefix(T) for child in entry}
        fields = names - {"serial", "kind", "created", "author", "digest"}
        require(fields <= KINDS[entry.findtext(f"{T}kind", "")], "fields of another kind")


def _compare_calibration(call: Call, record: etree._Element, since: datetime) -> None:
    values = call.values
    if call.operation == "withdraw_calibration":
        require(int(record.findtext(f"{T}id", "")) == values["id"], "another id")
        require(record.findtext(f"{T}withdrawn") == "true", "not withdrawn")
        # Rule 9: what is withdrawn stays so, with the reason that was first.
        if _instant(record, "withdrawn_at") >= since:
            require(record.findtext(f"{T}withdrawn_reason") == values["reason"], "another reason")
        return
    require(record.findtext(f"{T}device_name") == values["device_name"].upper(), "another device")
    require(record.findtext(f"{T}calibration_type") == values["calibration_type"].lower(), "another type")
    require(_instant(record, "valid_from") == values["valid_from"], "another valid_from")
    require(record.findtext(f"{T}sha256") == hashlib.sha256(values["data"]).hexdigest(), "another sha256")
    require(int(record.findtext(f"{T}size", "")) == len(values["data"]), "another size")
    data = record.find(f"{T}data")
    require(data is None or base64.b64decode(data.text or "") == values["data"], "other bytes")
    # Rule 9: equal bytes are the calibration that is there, with its own comment.
    if _instant(record, "created") >= since:
        require(record.findtext(f"{T}comment") == (values.get("comment") or None), "another comment")


def _instant(record: etree._Element, name: str) -> Any:
    text = record.findtext(f"{T}{name}")
    return None if text is None else datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def _content(body: bytes) -> etree._Element:
    """The one element of a SOAP answer's Body."""
    try:
        envelope = etree.fromstring(body)
    except etree.XMLSyntaxError as error:
        raise Failure(f"the answer is no XML: {error}") from error
    found = envelope.findall(f"{{{SOAP}}}Body/*")
    require(envelope.tag == f"{{{SOAP}}}Envelope" and len(found) == 1, "the answer is no envelope")
    return found[0]
