"""Payloads and calibrations by plain GET: the same answers as by SOAP, parts of them, and what a cache may do."""

import hashlib
import random
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

import cdb
from cdb_server.database.transactions import Database
from cdb_server.http.routes.rest import IMMUTABLE, REVALIDATE
from cdb_server.instants import UTC, format_instant
from cdb_server.repository.tokens import Tokens
from cdb_server.repository.writer import Upload, Writer
from tests import mirrors, servers
from tests.fuzz import wire
from tests.server.oracle import Clock
from tests.servers import Master, Server

HOUR = timedelta(hours=1)
START = datetime(2016, 3, 1, 8, tzinfo=UTC)
DEVICES = ("TOF1", "KL A")
TYPES = ("t0", "tw")
RUNS = range(1, 7)
DATA = bytes(range(100))
SHA256 = hashlib.sha256(DATA).hexdigest()

# The status of GET for each error of SOAP.
STATUS = {cdb.CalibrationNotFound: 404, cdb.RunNotFound: 404, cdb.InvalidArgument: 400, cdb.AsOfNotReached: 503}


def upload(device_name: str, calibration_type: str, valid_from: datetime, data: bytes) -> Upload:
    sha256 = hashlib.sha256(data).hexdigest()
    return Upload.validated(device_name, calibration_type, valid_from, data, sha256, None, max_payload=100)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master whose journal was written, by chance, in the first 60 hours from START: uploads of few different bytes,
    withdrawals, runs registered late and corrected."""
    folder = tmp_path_factory.mktemp("past")
    url = f"sqlite:///{folder}/cdb.sqlite"
    chance = random.Random(7)
    clock = Clock(START)
    Database.create(url)
    with Database.open(url) as database:
        writer = Writer(database, clock=clock)
        stored = [1]
        for _ in range(60):
            clock.now += HOUR
            at = START + chance.randrange(60) * HOUR
            match chance.randrange(6):
                case 0:
                    writer.add_run(chance.choice(RUNS), at, None, author="alice")
                case 1 if len(stored) > 3:
                    writer.withdraw_calibration(chance.choice(stored[1:]), "a mistake", author="alice")
                case _:
                    made = upload(chance.choice(DEVICES), chance.choice(TYPES), at, chance.choice([b"a", b"b", b""]))
                    stored.append(writer.add_calibration(made, author="alice").id)
        writer.add_calibration(upload("BYTES", "t0", START, DATA), author="alice")
        token = Tokens(database).add(servers.USER)
    with servers.serving(url, folder, token, "--workers", "1") as running:
        yield running


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, server.url + path, headers=headers, timeout=10)


def refused(answer: requests.Response, status: int) -> str:
    """The sentence of an error, as every error is."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text.endswith("\n")
    assert answer.text.count("\n") == 1
    return answer.text[:-1]


def test_get_answers_what_soap_answers(past: Master) -> None:
    """Questions by chance, of all kinds: the same bytes and the same calibration, or the same refusal."""
    client = cdb.Calibration(past.url, direct=True)
    chance = random.Random(11)
    kept, outcomes, said = {REVALIDATE: 0, IMMUTABLE: 0}, set(), []
    instants = [START + (hours * HOUR) / 2 for hours in range(-2, 130)]
    for _ in range(300):
        key = chance.choice([*DEVICES, *DEVICES, "tof1", "nobody", "TOF1 "]), chance.choice([*TYPES, *TYPES, "T0", "x"])
        as_of = chance.choice([None, *chance.sample(instants, 3), datetime(2999, 1, 1, tzinfo=UTC)])
        asked = {} if as_of is None else {"as_of": format_instant(as_of)}
        date, run = chance.choice(instants), chance.choice([*RUNS, 99, 0])
        if as_of is not None and as_of.year == 2999:
            # Wrong in one way at a time: which of two is told is not laid down.
            key, run = ("TOF1", "t0"), 1
        try:
            match chance.randrange(3):
                case 0:
                    asked["date"] = format_instant(date)
                    text = client.get_calibration_for_date(*key, date, as_of=as_of)
                case 1:
                    asked["run"] = str(run)
                    text = client.get_calibration_for_run(*key, run, as_of=as_of)
                case _:
                    text = client.get_current_calibration(*key, as_of=as_of)
        except cdb.CdbError as error:
            answer = requests.get(past.url + "/cdb/v2/calibration/" + "/".join(map(quote, key)), asked, timeout=10)
            told = refused(answer, STATUS[type(error)])
            # Of when it is complete until, both say the moment at which they were asked; and what the WSDL does not
            # admit, SOAP refuses in the words of the WSDL.
            if type(error) is not cdb.InvalidArgument:
                said.append((told, error.message))
            assert (answer.headers.get("Retry-After") is not None) == (answer.status_code == 503)
            outcomes.add(type(error))
            continue
        answer = requests.get(past.url + "/cdb/v2/calibration/" + "/".join(map(quote, key)), asked, timeout=10)
        assert (answer.status_code, answer.content) == (200, text.data)
        headers = {
            "CDB-Id": str(text.id),
            "CDB-SHA256": text.sha256,
            "CDB-Device-Name": text.device_name,
            "CDB-Calibration-Type": text.calibration_type,
            "CDB-Valid-From": format_instant(text.valid_from),
            "CDB-Valid-Until": None if text.valid_until is None else format_instant(text.valid_until),
        }
        assert {name: answer.headers.get(name) for name in headers} == headers
        assert answer.headers["Cache-Control"] == (REVALIDATE if as_of is None else IMMUTABLE)
        assert int(answer.headers["CDB-Serial"]) > 0
        kept[answer.headers["Cache-Control"]] += 1
    assert outcomes == set(STATUS)
    assert all(told.partition("complete until")[0] == message.partition("complete until")[0] for told, message in said)
    assert min(kept.values()) > 20


def test_an_answer_that_may_be_kept_for_ever_is_given_for_ever(shared_master: Master) -> None:
    """Each question with as_of, asked again after a run was first registered, corrected, and its calibration superseded
    and withdrawn: what was answered once is answered to the letter; what was an error was kept by nobody."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    as_of = "2016-03-01T00:00:00Z"  # before anything that is written here
    first = writer.add_calibration("EVER", "t0", "2016-03-01", b"1")
    path = "/cdb/v2/calibration/EVER/t0"
    now = (first.created + timedelta(microseconds=1)).isoformat().replace("+00:00", "Z")
    questions = [f"{path}?{kind}as_of={as_of}" for kind in ("run=770001&", "date=2016-04-01T00:00:00Z&", "")]
    later = [f"{path}?{kind}as_of={now}" for kind in ("run=770001&", "date=2016-04-01T00:00:00Z&", "")]
    for question in questions:
        refused(ask(shared_master, question), 404)
    for question in later:
        refused(ask(shared_master, question), 503)
    wait_until_complete(shared_master, first.created + timedelta(microseconds=1))
    assert [ask(shared_master, question).status_code for question in later] == [404, 200, 200]
    # Registered long after as_of: it exists for it, and from now on for ever as it is now.
    writer.add_run(770001, "2016-03-02T00:00:00Z")
    answers = [ask(shared_master, question) for question in later]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"1")}
    assert {answer.headers["Cache-Control"] for answer in answers} == {IMMUTABLE}
    writer.add_run(770001, "2015-01-01T00:00:00Z")  # before anything applies
    writer.add_calibration("EVER", "t0", "2016-03-01", b"2")
    writer.withdraw_calibration(first.id, reason="a mistake")
    for question, answer in zip(later, answers, strict=True):
        again = ask(shared_master, question)
        assert again.content == answer.content
        moment = ("date", "cdb-serial")
        told = [{name: value for name, value in each.headers.items() if name not in moment} for each in (again, answer)]
        assert told[0] == told[1]
    for question in questions:
        refused(ask(shared_master, question), 404)


def wait_until_complete(master: Master, instant: datetime) -> None:
    """Until an as_of can be answered, some ten seconds after it."""
    servers.until(lambda: cdb.Calibration(master.url).get_status().complete_until >= instant, 20)


def test_an_answer_that_may_change_is_asked_for_again(shared_master: Master) -> None:
    """304 as long as nothing changed; the new answer when bytes, id or only the end of its validity did."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    writer.add_calibration("AGAIN", "t0", "2016-03-01", b"same")
    path = "/cdb/v2/calibration/AGAIN/t0?date=2016-03-01T12:00:00Z"
    seen: list[requests.Response] = []

    def changed() -> None:
        known = seen[-1].headers["ETag"] if seen else '"none"'
        answer = ask(shared_master, path, **{"If-None-Match": f'"other", W/{known}'})
        assert answer.status_code == 200
        again = ask(shared_master, path, **{"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content, again.headers["Cache-Control"]) == (304, b"", REVALIDATE)
        # The answer may be old; what it is held against is not.
        assert int(again.headers["CDB-Serial"]) >= int(answer.headers["CDB-Serial"])
        seen.append(answer)

    changed()
    later = writer.add_calibration("AGAIN", "t0", "2016-03-05", b"later")
    changed()
    assert seen[1].headers["CDB-Valid-Until"] == "2016-03-05T00:00:00.000000Z"
    writer.withdraw_calibration(later.id, reason="a mistake")
    changed()
    assert "CDB-Valid-Until" not in seen[2].headers
    writer.add_calibration("AGAIN", "t0", "2016-03-01T06:00:00Z", b"same")
    changed()
    assert seen[2].headers["CDB-Id"] != seen[3].headers["CDB-Id"]
    assert {answer.content for answer in seen} == {b"same"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=10-", (10, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=0-99999999999999999", (0, 100)),
        ("BYTES=\t0-9 ", (0, 10)),
        # Outside.
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=100-200", None),
        # No range, or several: the whole.
        ("bytes=9-0", ()),
        ("bytes=-", ()),
        ("bytes=0-1,3-4", ()),
        ("lines=0-1", ()),
        ("bytes=a-b", ()),
        ("bytes=" + "9" * 5000 + "-", ()),
        ("bytes=\u0661-", ()),
        ("", ()),
    ],
)
def test_a_part_can_be_asked_for(asked: str, expected: tuple[int, int] | tuple[()] | None, past: Master) -> None:
    """One range of bytes, of a payload and of a calibration; HEAD is not asked for parts."""
    for path in (f"/cdb/v2/payload/{SHA256.upper()}", "/cdb/v2/calibration/BYTES/t0"):
        answer = requests.get(past.url + path, headers={"Range": asked.encode()}, timeout=10)
        if expected is None:
            refused(answer, 416)
            assert answer.headers["Content-Range"] == "bytes */100"
        elif not expected:
            assert (answer.status_code, answer.content) == (200, DATA)
        else:
            first, stop = expected
            assert (answer.status_code, answer.content) == (206, DATA[first:stop])
            assert answer.headers["Content-Range"] == f"bytes {first}-{stop - 1}/100"
        head = requests.head(past.url + path, headers={"Range": asked.encode()}, timeout=10)
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "100", b"")


def test_a_part_of_something_else_is_not_given(past: Master) -> None:
    """If-Range: the part where the tag is that of the answer, else the whole."""
    path = f"/cdb/v2/payload/{SHA256}"
    for tag, status in ((f'"{SHA256}"', 206), ('"other"', 200), (f'W/"{SHA256}"', 200)):
        assert ask(past, path, **{"Range": "bytes=5-", "If-Range": tag}).status_code == status


def test_a_payload_may_be_kept_for_ever(past: Master) -> None:
    """Whoever has it is told so; the empty one is one too, and of no answer the type is guessed."""
    for data in (DATA, b""):
        path = f"/cdb/v2/payload/{hashlib.sha256(data).hexdigest()}"
        answer = ask(past, path)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["Cache-Control"] == IMMUTABLE
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for tags in (answer.headers["ETag"], f'"x", {answer.headers["ETag"]}', "*"):
            known = ask(past, path, **{"If-None-Match": tags})
            assert (known.status_code, known.content, known.headers["Cache-Control"]) == (304, b"", IMMUTABLE)
            assert known.headers["ETag"] == answer.headers["ETag"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"payload/{SHA256}?x=1", 400),
        (f"payload/{SHA256}?run=1", 400),
        ("payload/", 404),
        ("payload/00", 400),
        (f"payload/{SHA256}0", 400),
        (f"payload/{'0' * 64}", 404),
        (f"payload/{SHA256[:-1]}%0A", 400),
        (f"payload/{SHA256}/", 404),
        ("calibration/BYTES/t0?run=", 400),
        ("calibration/BYTES/t0?run=1.0", 400),
        ("calibration/BYTES/t0?run=-1", 400),
        ("calibration/BYTES/t0?run=%2B1", 400),
        ("calibration/BYTES/t0?run=%D9%A1", 400),
        (f"calibration/BYTES/t0?run={2**63}", 400),
        (f"calibration/BYTES/t0?run={'9' * 30000}", 400),
        ("calibration/BYTES/t0?run=1&run=1", 400),
        ("calibration/BYTES/t0?date=2016-03-01T00:00:00Z&run=1", 400),
        ("calibration/BYTES/t0?date=2016-03-01", 400),
        ("calibration/BYTES/t0?date=now", 400),
        ("calibration/BYTES/t0?date=", 400),
        ("calibration/BYTES/t0?as_of=%00", 400),
        ("calibration/BYTES/t0?as_of=%FF%FE%0A", 400),
        ("calibration/BYTES/t0?as_of=2016-03-01T00:00:00Z&as_of=2016-03-02T00:00:00Z", 400),
        ("calibration/BYTES/t0?as_of=9999-12-31T23:59:59Z", 503),
        ("calibration/BYTES/t0?as_of=0001-01-01T00:00:00Z", 404),
        ("calibration/BYTES/t0?date=0001-01-01T00:00:00Z", 404),
        ("calibration/BYTES/t0?Run=1", 400),
        ("calibration/BYTES/t0?wsdl", 400),
        ("calibration/BYTES/t0?%00=1", 400),
        ("calibration/BYTES/t0?%0D%0AX-Y:%201=1", 400),
        ("calibration/BYTES/t0?" + "x" * 60000, 400),
        ("calibration/BYTES/t0?" + "&" * 60000, 200),
        ("calibration/BYTES/t0?" + "a=1&" * 15000, 400),
        ("calibration/BYTES/t0?", 200),
        ("calibration/BYTES/t0?;", 400),
        ("calibration/BYTES", 404),
        ("calibration//t0", 404),
        ("calibration/BYTES/", 404),
        ("calibration/BYTES/t0/", 404),
        ("calibration/bytes/T0", 200),
        ("calibration/B%59TES/t%30", 200),
        ("calibration/BYTES%20/t0", 400),
        ("calibration/BYTES+/t0", 404),
        ("calibration/BYTES%2Ft0", 200),
        ("calibration/A%2FB/t0", 404),
        ("calibration/%00/t0", 400),
        ("calibration/BYTES%00/t0", 400),
        ("calibration/%FF%FE/t0", 400),
        ("calibration/%C3%A9/t0", 400),
        ("calibration/%0D%0ASet-Cookie:x/t0", 400),
        ("calibration/%/t0", 400),
        ("calibration/%zz/t0", 400),
        ("calibration/../t0", 400),
        ("calibration/BYTES/0t", 400),
        (f"calibration/{'x' * 65}/t0", 400),
        (f"calibration/{'x' * 60000}/t0", 400),
        ("calibration/BYTES/t0#fragment", 400),
        ("calibration/" + "a/" * 20000, 404),
    ],
)
def test_whatever_is_asked_is_answered_or_refused_in_a_line(path: str, status: int, past: Master) -> None:
    """Unknown, doubled and wrong arguments, names in every disguise, and too long: never an error of the server's."""
    with wire.Peer(past.url) as peer:
        reply = peer.ask(f"GET /cdb/v2/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
    assert reply.status == status, reply.body[:300]
    if status != 200:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert status == 431 or reply.headers["cache-control"] == "no-store"
        assert reply.body.count(b"\n") == 1
        assert len(reply.body) < 400
    assert "set-cookie" not in reply.headers
    assert "Traceback" not in past.log.read_text()


def test_an_offset_whose_plus_became_a_space_is_told_how_to_write_it(past: Master) -> None:
    """`+` in a query is a space: the message says `%2B`, there and for no other wrong time."""
    path = "calibration/BYTES/t0?{}=2016-03-01T00:00:00{}"
    for argument in ("date", "as_of"):
        for offset in ("+01:00", "%2001:00", ".5+01:00"):
            assert "is written %2B" in refused(ask(past, f"/cdb/v2/{path.format(argument, offset)}"), 400)
    assert ask(past, f"/cdb/v2/{path.format('date', '%2B01:00')}").status_code == 404
    for offset in ("+1", "+99:00", "%20x", "Z+01:00"):
        assert "%2B" not in refused(ask(past, f"/cdb/v2/{path.format('date', offset)}"), 400)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/cdb/v2/calibration/\xff\xfe/t0", 400),
        (b"/cdb/v2/payload/\xc3\xa9", 400),
        (b"/cdb/v2/x y", 400),
        (b"/" + b"x" * 70000, 431),
    ],
)
def test_a_path_that_is_no_path_is_refused(path: bytes, status: int, past: Master) -> None:
    """Bytes that must not stand in an address, or too many of them."""
    with wire.Peer(past.url) as peer:
        reply = peer.ask(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == status
    assert "Traceback" not in past.log.read_text()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_only_get_and_head_are_answered(method: str, past: Master) -> None:
    """405 says which are; also with a large body, which is not waited for."""
    for path in (f"/cdb/v2/payload/{SHA256}", "/cdb/v2/calibration/BYTES/t0?run=1"):
        for body in (b"", bytes(2**21)):
            answer = requests.request(method, past.url + path, data=body, timeout=10)
            assert refused(answer, 405)
            assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_head_tells_what_get_would(past: Master) -> None:
    """The same headers without the bytes, and the connection goes on; of errors too."""
    for path in (f"/cdb/v2/payload/{SHA256}", "/cdb/v2/calibration/BYTES/t0", "/cdb/v2/payload/00"):
        with wire.Peer(past.url) as peer:
            got = peer.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            told = peer.ask(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), head=True)
            again = peer.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for reply in (got, told, again):
            reply.headers.pop("date")
        assert got.headers == told.headers == again.headers
        assert (told.status, told.body, again.body) == (got.status, b"", got.body)


@pytest.mark.parametrize("path", [f"/cdb/v2/payload/{SHA256}", f"{wire.READING}?wsdl", "/nothing"])
def test_a_body_where_none_is_looked_at_does_no_harm(path: str, past: Master) -> None:
    """A whole one is passed over; one that never comes keeps no answer back."""
    expected = 404 if path == "/nothing" else 200
    asked = f"GET {path} HTTP/1.1\r\nHost: x\r\n"
    for body in ("Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"):
        with wire.Peer(past.url) as peer:
            assert peer.ask(f"{asked}{body}".encode()).status == expected
    host, port = past.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as slow:
        slow.sendall(f"{asked}Content-Length: 10\r\n\r\n".encode())
        assert slow.recv(100).startswith(f"HTTP/1.1 {expected} ".encode())


def test_a_copy_says_how_old_its_knowledge_is_and_where_to_write(past: Master, tmp_path: Path) -> None:
    """CDB-Age on every answer, those that never change too. Writing is refused at once."""
    with mirrors.mirror(past.url, f"sqlite:///{tmp_path}/mirror.sqlite", tmp_path, "--workers", "1") as mirror:
        serial = cdb.Calibration(past.url).get_status().serial
        servers.until(lambda: cdb.Calibration(mirror.url).get_status().serial == serial, 20)
        as_of = format_instant(START + 100 * HOUR)
        for path, may_be_kept in (
            ("/cdb/v2/calibration/BYTES/t0", REVALIDATE),
            (f"/cdb/v2/payload/{SHA256}", IMMUTABLE),
            (f"/cdb/v2/calibration/BYTES/t0?as_of={as_of}", IMMUTABLE),
        ):
            answer = ask(mirror, path)
            assert (answer.content, answer.headers["Cache-Control"]) == (DATA, may_be_kept)
            assert answer.headers["ETag"] == ask(past, path).headers["ETag"]
            assert 0 <= int(answer.headers["CDB-Age"]) < 20
            assert int(answer.headers["CDB-Serial"]) == serial
        # The address of writing says where to write instead, to an upload that has not come as well.
        for method in ("GET", "POST"):
            answer = requests.request(method, mirror.url + wire.WRITING, data=bytes(2**22), timeout=10)
            assert refused(answer, 404) == f"this is a mirror, and takes no writes: write to {past.url}"
        with wire.Peer(mirror.url) as peer:
            reply = peer.ask(f"POST {wire.WRITING} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode())
            assert (reply.status, reply.closes) == (404, True)
