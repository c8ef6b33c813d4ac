"""What a connection answers itself, without HTTP's parser, is what the application would have answered.

A connection knows a request's head by its bytes, once it was read the long way; `was_at_once` tells which way it went.
"""

import base64
import hashlib
import queue
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests import servers
from tests.certificates import Certificates
from tests.fuzz import wire
from tests.in_process_server import InProcessServer, by_id, envelope, raw_reply, watched

ADD = (
    "<device_name>TOF1</device_name><calibration_type>t0</calibration_type><valid_from>{}</valid_from><data>{}</data>"
    "<comment>&lt;Käfig&gt;</comment>"
)
LENGTH = 100_000
DATA = bytes(range(250)) * (LENGTH // 250)
CURRENT = envelope("get_current_calibration", "<device_name>tof1</device_name><calibration_type>t0</calibration_type>")
HISTORY = envelope("get_history", "<device_name>tof1</device_name><calibration_type>t0</calibration_type>")
PINNED = envelope("get_calibration_for_id", "<id>1</id><as_of>2016-03-01T08:00:00Z</as_of>")


def ids(reply: bytes) -> list[int]:
    return [int(id) for id in re.findall(rb"<tns:id>(\d+)</tns:id>", reply)]


def fill(running: InProcessServer) -> None:
    """Two calibrations, and a run."""
    for day in (1, 2):
        data = base64.b64encode(DATA[day:]).decode()
        running.write("add_calibration", ADD.format(f"2016-03-0{day}T00:00:00Z", data))
    running.write("add_run", "<run_number>1</run_number><start_time>2016-03-01T12:00:00Z</start_time>")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    """An application with two calibrations of 100 kB."""
    with watched(f"sqlite:///{tmp_path_factory.mktemp('hot')}/cdb.sqlite") as running:
        fill(running)
        yield running


@pytest.fixture
def hot(shared: InProcessServer) -> InProcessServer:
    """The same, which has not been asked anything that the test does not know of."""
    shared.forget()
    return shared


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, ours: Certificates) -> Iterator[InProcessServer]:
    """The same over TLS."""
    with watched(f"sqlite:///{tmp_path_factory.mktemp('secure')}/cdb.sqlite", certificates=ours) as running:
        fill(running)
        yield running


def learned(running: InProcessServer, request: bytes, *, anew: bool = False) -> bytes:
    """The answer to a request, after which its head is known; `anew`, it was not before."""
    with running.peer() as peer:
        peer.socket.sendall(request)
        reply = raw_reply(peer)
    assert not (running.took_fast_path() and anew)
    return reply


HEADS = {
    "as usual": [],
    "closing": [("Connection", "close")],
    "Close": [("Connection", "CLOSE")],
    "kept": [("Connection", "keep-alive")],
    "lower case": [("content-type", "text/xml"), ("soapaction", '""')],
    "action": [("SOAPAction", '"urn:mice:cdb:2#get_current_calibration"')],
    "held": [("CDB-Have", hashlib.sha256(DATA[2:]).hexdigest())],
    "offering": [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")],
    "much": [(f"X-{number}", "x" * 100) for number in range(30)],
}


@pytest.mark.parametrize("over", ["hot", "secure"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("headers", HEADS.values(), ids=HEADS)
def test_fast_path_and_full_protocol_answer_with_the_same_bytes(
    headers: list[tuple[str, str]], version: str, over: str, request: pytest.FixtureRequest
) -> None:
    """Head and body are the same but for the date, and so is whether the connection ends."""
    running: InProcessServer = request.getfixturevalue(over)
    named = [*headers, ("X-Version", version)]
    asked = wire.request(wire.READING, CURRENT, headers=named).replace(b"HTTP/1.1", b"HTTP/%s" % version.encode(), 1)
    expected = learned(running, asked, anew=True)
    assert expected.startswith(b"HTTP/1.1 200 OK\r\n")
    assert ids(expected) == [2]
    with running.peer() as peer:
        peer.socket.sendall(asked)
        assert raw_reply(peer) == expected
        assert running.took_fast_path()
        if b"\r\nconnection: close\r\n" in expected:
            assert peer.ended()
        else:
            peer.socket.sendall(asked)
            assert raw_reply(peer) == expected
            assert running.took_fast_path()


@pytest.mark.parametrize("over", ["hot", "secure"])
def test_an_answer_without_payload_takes_the_fast_path(over: str, request: pytest.FixtureRequest) -> None:
    """Lists have one part, and the empty ones after it are not sent."""
    running: InProcessServer = request.getfixturevalue(over)
    asked = wire.request(wire.READING, HISTORY)
    learned(running, asked)
    with running.peer() as peer:
        for _ in range(3):
            peer.socket.sendall(asked)
            assert ids(raw_reply(peer)) == [1, 2]
            assert running.took_fast_path()


def test_a_new_query_with_a_cached_head_takes_the_fast_path(hot: InProcessServer) -> None:
    """Only the head must be known: another body of the same length is another question."""
    learned(hot, by_id(1))
    with hot.peer() as peer:
        for id in (2, 1, 2):
            peer.socket.sendall(by_id(id))
            assert ids(raw_reply(peer)) == [id]
            assert hot.took_fast_path()


def test_a_fault_takes_the_full_protocol(hot: InProcessServer) -> None:
    """A fault under a known head, and what is refused there, is answered as under an unknown one."""
    learned(hot, by_id(1))
    wrong = {
        b"<id>9</id>": b"CalibrationNotFound",
        b"<id>0</id>": b"InvalidArgument",
        b"<ix>1</ix>": b"MalformedRequest",
        b"<id>1<id/>": b"MalformedRequest",
    }
    with hot.peer() as peer:
        for content, fault in wrong.items():
            peer.socket.sendall(by_id(1).replace(b"<id>1</id>", content))
            reply = raw_reply(peer)
            assert reply.startswith(b"HTTP/1.1 500 ")
            assert fault in reply
            assert not hot.took_fast_path()
        peer.socket.sendall(by_id(1).replace(b"<s:Envelope", b"\xfe\xff<s:Envelo"))
        assert raw_reply(peer).startswith(b"HTTP/1.1 415 ")
        assert not hot.took_fast_path()


def test_a_request_in_two_pieces_is_one_request(hot: InProcessServer) -> None:
    """Wherever it is cut: the first piece is waited with, the rest completes it, and the next whole one is at once."""
    asked = by_id(1)
    expected = learned(hot, asked)
    with hot.peer() as peer:
        for at in range(1, len(asked)):
            peer.socket.sendall(asked[:at])
            assert not hot.took_fast_path()
            peer.socket.sendall(asked[at:])
            assert raw_reply(peer) == expected, at
        peer.socket.sendall(asked)
        assert raw_reply(peer) == expected
        assert hot.took_fast_path()


def test_a_request_in_many_pieces_is_one_request(hot: InProcessServer) -> None:
    """Byte by byte, too."""
    asked = by_id(1)
    expected = learned(hot, asked)
    with hot.peer() as peer:
        peer.socket.sendall(asked[:1])
        assert not hot.took_fast_path()
        for at in range(1, len(asked)):
            peer.socket.sendall(asked[at : at + 1])
        assert raw_reply(peer) == expected


def test_requests_in_one_piece_are_answered_in_order(hot: InProcessServer) -> None:
    """All of them, each once, and with a part of another after them."""
    for id in (1, 2):
        learned(hot, by_id(id))
    with hot.peer() as peer:
        for count in (2, 3, 10):
            wanted = [1, 2, 2, 1, 1, 2, 1, 2, 2, 1][:count]
            peer.socket.sendall(b"".join(map(by_id, wanted)))
            assert [ids(raw_reply(peer)) for _ in wanted] == [[id] for id in wanted]
            assert not hot.took_fast_path()
        peer.socket.sendall(by_id(1) + by_id(2)[:20])
        assert ids(raw_reply(peer)) == [1]
        assert not hot.took_fast_path()
        peer.socket.sendall(by_id(2)[20:] + by_id(1))
        assert [ids(raw_reply(peer)) for _ in range(2)] == [[2], [1]]
        peer.socket.sendall(by_id(2))
        assert ids(raw_reply(peer)) == [2]
        assert hot.took_fast_path()


@pytest.mark.parametrize("answered_before", [False, True])
def test_a_cached_head_within_another_is_no_request(hot: InProcessServer, answered_before: bool) -> None:
    """What comes after the beginning of a head belongs to that head, though alone it would be known."""
    asked = by_id(1)
    learned(hot, asked)
    with hot.peer() as peer:
        # uvicorn's parser has this beginning: it stands behind a request, or an empty line.
        peer.socket.sendall((asked if answered_before else b"\r\n") + b"GET /none HTTP/1.1\r\nX-Quoted: ")
        if answered_before:
            assert ids(raw_reply(peer)) == [1]
        assert not hot.took_fast_path()
        peer.socket.sendall(asked)
        assert raw_reply(peer).startswith(b"HTTP/1.1 404 ")


def test_a_body_longer_than_its_length_does_not_match_a_cached_head(hot: InProcessServer) -> None:
    """The rest is another request, or none: that ends the connection after the answer."""
    expected = learned(hot, by_id(1))
    with hot.peer() as peer:
        peer.socket.sendall(by_id(1) + b"\0")
        assert ids(raw_reply(peer)) == ids(expected)
        assert peer.ended()
        assert not hot.took_fast_path()


def test_a_body_in_chunks_is_read_each_time(hot: InProcessServer) -> None:
    """Its head says nothing of its length."""
    head = wire.request(wire.READING, headers=[("Content-Length", None), ("Transfer-Encoding", "chunked")])
    body = envelope("get_calibration_for_id", "<id>2</id>")
    with hot.peer() as peer:
        for _ in range(3):
            peer.socket.sendall(head + wire.chunked(body, 100))
            assert ids(raw_reply(peer)) == [2]
            assert not hot.took_fast_path()


def test_whoever_waits_to_be_told_to_go_on_is_told(hot: InProcessServer) -> None:
    """Also where the body was sent without waiting, and each time."""
    body = envelope("get_calibration_for_id", "<id>2</id>")
    asked = wire.request(wire.READING, body, headers=[("Expect", "100-continue")])
    with hot.peer() as peer:
        for _ in range(3):
            peer.socket.sendall(asked)
            assert raw_reply(peer) == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert ids(raw_reply(peer)) == [2]
            assert not hot.took_fast_path()


@pytest.mark.parametrize("path", [wire.READING, f"{wire.READING}?x", "/none"])
@pytest.mark.parametrize("method", ["HEAD", "PUT", "GET"])
def test_requests_other_than_queries_are_not_cached(hot: InProcessServer, method: str, path: str) -> None:
    """Another method or another place is refused each time."""
    asked = wire.request(path, envelope("get_calibration_for_id", "<id>2</id>"), method=method)
    for _ in range(2):
        with hot.peer() as peer:
            assert peer.ask(asked, head=method == "HEAD").status == (404 if path == "/none" else 405)
            assert not hot.took_fast_path()


def test_a_peer_that_reads_nothing_is_not_answered_on(hot: InProcessServer) -> None:
    """What waits to be sent to it is bounded; once it reads, all answers come, in order."""
    for id in (1, 2):
        learned(hot, by_id(id))
    hot.forget()
    wanted: list[int] = []
    with hot.peer() as peer:
        # Until the kernel takes no more, and what comes is left to uvicorn, which waits until it can write.
        with suppress(queue.Empty):
            while len(wanted) < 1_000:
                wanted.append(len(wanted) % 2 + 1)
                peer.socket.sendall(by_id(wanted[-1]))
                assert hot.told.get(timeout=0.5)
        assert len(wanted) < 1_000
        for id in (1, 1, 2, 1, 2, 2):
            wanted.append(id)
            peer.socket.sendall(by_id(id))
        assert [ids(raw_reply(peer)) for _ in wanted] == [[id] for id in wanted]
        peer.socket.sendall(by_id(1))
        assert ids(raw_reply(peer)) == [1]
    # The mark at which writing is paused, and one answer more: its payload in base64, and what stands around it.
    assert hot.unsent < 2**16 + LENGTH * 4 // 3 + 2_000


def test_an_idle_connection_ends(tmp_path: Path) -> None:
    """What is asked at once keeps a connection open like anything else; without it, it is closed in time."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite", keep_alive=1) as running:
        fill(running)
        learned(running, by_id(1))
        with running.peer() as peer, running.peer() as only_once:
            only_once.ask(by_id(1))
            begin = time.monotonic()
            while time.monotonic() < begin + 1.5:
                peer.ask(by_id(1))
                last = time.monotonic()
                # Well within the time after which an idle connection ends.
                time.sleep(0.1)
            assert peer.ended()
            assert 0.9 < time.monotonic() - last < 2.5
            assert only_once.ended()


def test_a_connection_does_not_end_while_a_request_comes(tmp_path: Path) -> None:
    """From its first byte on it has the time of any head, however long it was idle before."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite", keep_alive=1) as running:
        fill(running)
        with running.peer() as peer:
            peer.ask(by_id(1))
            time.sleep(0.8)
            peer.socket.sendall(by_id(1)[:40])
            time.sleep(0.6)
            assert peer.ask(by_id(1)[40:]).status == 200


def test_a_connection_that_starts_on_the_fast_path_has_deadlines(tmp_path: Path) -> None:
    """Half a head after an answer at once is not waited for without end."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite", header_seconds=0.5) as running:
        fill(running)
        learned(running, by_id(1))
        with running.peer() as peer:
            peer.ask(by_id(1))
            peer.socket.sendall(by_id(1)[:20])
            begin = time.monotonic()
            assert peer.ended()
            assert 0.4 < time.monotonic() - begin < 5


def test_a_server_told_to_end_ends_open_connections(tmp_path: Path) -> None:
    """Connections that were answered at once are closed in order, after the answer on its way is whole."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        for day in (1, 2):
            data = base64.b64encode(DATA[day:]).decode()
            body = envelope("add_calibration", ADD.format(f"2016-03-0{day}T00:00:00Z", data))
            with wire.Peer(master.url) as peer:
                credentials = (master.user, master.token)
                assert peer.ask(wire.request(wire.WRITING, body, credentials=credentials)).status == 200
        peers = [wire.Peer(master.url) for _ in range(8)]
        for peer in peers * 3:
            assert ids(peer.ask(by_id(1)).body) == [1]
        for peer in peers[:4]:
            peer.socket.sendall(by_id(2))
        # Asked before the signal; whether read before it, too, shows in the answer.
        for peer in peers[:4]:
            assert peer.socket.recv(1, socket.MSG_PEEK)
        begin = time.monotonic()
        master.process.send_signal(signal.SIGTERM)
        for peer in peers[:4]:
            assert ids(raw_reply(peer)) == [2]
        for peer in peers:
            assert peer.ended()
            peer.socket.close()
        assert master.process.wait(20) == 0
        assert time.monotonic() - begin < 8


def test_while_the_database_is_locked_questions_wait_and_others_do_not(tmp_path: Path) -> None:
    """The event loop goes on, and the questions are answered, rightly, once the lock is gone."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite") as running:
        fill(running)
        for id in (1, 2):
            learned(running, by_id(id))
        with closing(sqlite3.connect(tmp_path / "cdb.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            peers = [running.peer() for _ in range(12)]
            for number, peer in enumerate(peers):
                peer.socket.sendall(by_id(number % 3 + 1))
                # Not even ready answers: what the other will have written is not known.
                assert not running.took_fast_path()
            with running.peer() as another:
                for _ in range(5):
                    assert another.ask(wire.request(f"{wire.READING}?wsdl", method="GET")).status == 200
                    assert not running.took_fast_path()
            for peer in peers:
                peer.socket.setblocking(False)
                with pytest.raises(BlockingIOError):
                    peer.socket.recv(1)
                peer.socket.settimeout(wire.PATIENCE)
            other.execute("ROLLBACK")
        for number, peer in enumerate(peers):
            reply = raw_reply(peer)
            assert reply.startswith(b"HTTP/1.1 500 " if number % 3 == 2 else b"HTTP/1.1 200 ")
            assert ids(reply) == [number % 3 + 1]
            peer.socket.close()


def test_every_response_carries_the_journal_position(tmp_path: Path) -> None:
    """CDB-Serial grows with the journal though a pinned answer stays as it is, and CDB-Digest proves both."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite") as running:
        fill(running)
        pinned = wire.request(
            wire.READING,
            envelope("get_payload", f"<sha256>{hashlib.sha256(DATA[1:]).hexdigest()}</sha256>"),
        )
        learned(running, pinned)
        learned(running, by_id(1))
        with running.peer() as peer:
            answers: dict[bytes, bytes] = {}
            for serial in range(3, 7):
                for asked in (pinned, by_id(1)):
                    reply = peer.ask(asked)
                    assert running.took_fast_path()
                    assert reply.headers["cdb-serial"] == str(serial)
                    around = re.sub(rb"(<tns:data>).*(</tns:data>)", rb"\1\2", reply.body)
                    proof = base64.b64encode(hashlib.sha256(around).digest()).decode()
                    assert reply.headers["cdb-digest"] == f"sha-256=:{proof}:;serial={serial}"
                    assert "cdb-age" not in reply.headers
                    assert answers.setdefault(asked, reply.body) == reply.body
                start = f"2016-03-01T12:00:0{serial}Z"
                running.write("add_run", f"<run_number>1</run_number><start_time>{start}</start_time>")
