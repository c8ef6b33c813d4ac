"""Requests as RFC 9112 frames them: what is not so is refused, and it does not matter how the network splits them."""

import fcntl
import socket
import sqlite3
import struct
import termios
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cdb
from cdb_server.http.protocol import request_rules
from tests import servers
from tests.fuzz import wire
from tests.in_process_server import InProcessServer, by_id, envelope, raw_reply, watched

STATUS = envelope("get_status")
PLAIN = "/cdb/v2/calibration/TOF1/t0"
ADD = (
    "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
    "<valid_from>2016-03-01T00:00:00Z</valid_from><data>YWJj</data>"
)
OFFER = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
CHUNKED: list[tuple[str, str | bytes | None]] = [("Content-Length", None), ("Transfer-Encoding", "chunked")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessServer]:
    """An application with a calibration."""
    with watched(f"sqlite:///{tmp_path_factory.mktemp('framing')}/cdb.sqlite") as running:
        running.write("add_calibration", ADD)
        yield running


def replies(running: InProcessServer, pieces: list[bytes], count: int = 1) -> list[bytes]:
    """The answers to what is sent in pieces, each by itself."""
    with running.peer() as peer:
        for piece in pieces:
            peer.socket.sendall(piece)
            _delivered(peer.socket)
        return [raw_reply(peer) for _ in range(count)]


def _delivered(connection: socket.socket) -> None:
    """Wait until the other side has acknowledged all that was sent."""
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]:
        pass


# A head is read alike wherever it is split.

SPLIT = {
    "an offer": wire.request(wire.READING, STATUS, headers=OFFER),
    "an offer, chunked": wire.request(
        wire.READING, wire.chunked(by_id(1)[:0] + STATUS, 100), headers=[*OFFER, *CHUNKED]
    ),
    "empty lines before": b"\r\n\r\n" + wire.request(wire.READING, STATUS, headers=OFFER),
    "plain": wire.request(PLAIN, method="GET", headers=[("Content-Length", None), *OFFER]),
}


@pytest.mark.parametrize("request_", SPLIT.values(), ids=SPLIT)
def test_a_request_is_answered_alike_wherever_it_is_split(request_: bytes, served: InProcessServer) -> None:
    """In two segments, split at every byte of its head and some of its body; and in one."""
    [expected] = replies(served, [request_])
    assert expected.startswith(b"HTTP/1.1 200 OK\r\n")
    head = request_.index(b"HTTP/1.1") + len(request_[request_.index(b"HTTP/1.1") :].split(b"\r\n\r\n")[0]) + 5
    for at in (*range(1, min(head, len(request_))), *range(head, len(request_), 40)):
        [reply] = replies(served, [request_[:at], request_[at:]])
        assert _without_time(reply) == _without_time(expected), at


def _without_time(reply: bytes) -> bytes:
    """What does not tell when it was asked."""
    head, _, _ = reply.partition(b"\r\ncdb-digest")
    return head if b"complete_until" in reply else reply


@pytest.mark.parametrize("first", [STATUS, b""], ids=["a body", "none"])
@pytest.mark.parametrize("how", [[], CHUNKED], ids=["length", "chunked"])
def test_what_follows_another_request_is_framed_by_itself(
    first: bytes, how: list[tuple[str, str | bytes | None]], served: InProcessServer
) -> None:
    """Requests that come together, offers among them, are each read with their own bodies, wherever they are split."""
    one = wire.request(wire.READING, wire.chunked(first, 7) if how else first, headers=[*OFFER, *how])
    two = wire.request(wire.READING, STATUS, headers=OFFER)
    sent = one + two + one + two
    for at in range(1, len(sent), 7):
        answers = replies(served, [sent[:at], sent[at:]], 4)
        statuses = [answer[9:12] for answer in answers]
        assert statuses == ([b"200"] * 4 if first else [b"500", b"200"] * 2), at


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000])
def test_a_body_in_chunks_ends_where_the_parser_says(size: int) -> None:
    """Whatever its pieces: the end of the pieces is that of the body, and none lies beyond it."""
    body = wire.chunked(b"\r\n\r\n\r\n0\r\n\r\n" * 3, 5)
    chunks, position, ends = request_rules.ChunkScanner(), 0, []
    data = body + b"POST"
    for start in range(0, len(data), size):
        piece, at = data[start : start + size], 0
        while at < len(piece):
            at = chunks.end(piece, at)
            ends.append(start + at)
            position = start + at
    assert position == len(data)
    assert len(body) in ends


# RFC 9112, sections 2.2, 3, 5 and 6.

HOSTS = {
    "none": [("Host", None)],
    "two": [("Host", "cdb"), ("Host", "cdb")],
    "two that differ": [("Host", "cdb"), ("host", "evil.example")],
    "a list": [("Host", "cdb, cdb")],
    "a path": [("Host", "cdb/path")],
    "a user": [("Host", "user@cdb")],
    "a space": [("Host", "c db")],
    "a letter for a port": [("Host", "cdb:x")],
    "half a bracket": [("Host", "[::1")],
    "not ASCII": [("Host", b"\xc3\xa9")],
}
FRAMES = {
    "HTTP/1.0 in chunks": b"POST %s HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"POST %s HTTP/1.1\r\nHost: cdb\r\nX: a\r\n b\r\n\r\n",
    "a folded first header": b"POST %s HTTP/1.1\r\n Host: cdb\r\n\r\n",
    "a space before the colon": b"POST %s HTTP/1.1\r\nHost: cdb\r\nX : a\r\n\r\n",
    "a tab before the colon": b"POST %s HTTP/1.1\r\nHost: cdb\r\nX\t: a\r\n\r\n",
    "an offer with a space before the colon": b"POST %s HTTP/1.1\r\nHost: cdb\r\nUpgrade : a\r\n\r\n",
    "LF alone": b"POST %s HTTP/1.1\nHost: cdb\n\n\r\n\r\n",
    "LF in a head": b"POST %s HTTP/1.1\r\nHost: cdb\nX: a\r\n\r\n",
    "CR in a head": b"POST %s HTTP/1.1\r\nHost: cdb\rX: a\r\n\r\n",
    "two spaces": b"POST  %s HTTP/1.1\r\nHost: cdb\r\n\r\n",
    "a tab": b"POST\t%s HTTP/1.1\r\nHost: cdb\r\n\r\n",
    "no version": b"POST %s\r\nHost: cdb\r\n\r\n",
    "another protocol": b"SOURCE %s ICE/1.0\r\nHost: cdb\r\n\r\n",
    "a fragment": b"POST %s#x HTTP/1.1\r\nHost: cdb\r\n\r\n",
    "a star": b"POST * HTTP/1.1\r\nHost: cdb\r\n\r\n",
    "another scheme": b"POST ftp://cdb%s HTTP/1.1\r\nHost: cdb\r\n\r\n",
    "a user in the target": b"POST http://user@cdb%s HTTP/1.1\r\nHost: cdb\r\n\r\n",
    "a length in a list": b"POST %s HTTP/1.1\r\nHost: cdb\r\nContent-Length: 0, 0\r\n\r\n",
    "gzip, not chunked": b"POST %s HTTP/1.1\r\nHost: cdb\r\nTransfer-Encoding: gzip\r\n\r\n",
    "identity": b"POST %s HTTP/1.1\r\nHost: cdb\r\nTransfer-Encoding: identity\r\n\r\n",
    "chunked, and not at the end": b"POST %s HTTP/1.1\r\nHost: cdb\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked with a parameter": b"POST %s HTTP/1.1\r\nHost: cdb\r\nTransfer-Encoding: chunked;a=b\r\n\r\n",
    "a length and chunks": b"POST %s HTTP/1.1\r\nHost: cdb\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
}


def refused(running: InProcessServer, sent: bytes, status: int) -> None:
    """It is refused by HTTP alone, and the connection ends."""
    with running.peer() as peer:
        reply = peer.ask(sent)
        assert (reply.status, reply.closes) == (status, True), reply
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert peer.ended()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("hosts", HOSTS.values(), ids=HOSTS)
def test_a_request_has_one_host(
    hosts: list[tuple[str, str | bytes | None]], version: bytes, served: InProcessServer
) -> None:
    """Section 3.2: 400 to a request of HTTP/1.1 without one, and to any with more than one, or an invalid one."""
    sent = wire.request(wire.READING, STATUS, headers=hosts).replace(b"HTTP/1.1", b"HTTP/" + version, 1)
    if hosts == [("Host", None)] and version == b"1.0":
        with served.peer() as peer:
            assert peer.ask(sent).status == 200
    else:
        refused(served, sent, 400)


@pytest.mark.parametrize("host", ["", "cdb", "cdb:80", "cdb:", "[::1]:8080", "192.0.2.1", "a_b.example.", "a%20b"])
def test_a_host_is_a_name_or_an_address_and_perhaps_a_port(host: str, served: InProcessServer) -> None:
    """What RFC 3986 takes is taken, and so is none at all."""
    with served.peer() as peer:
        assert peer.ask(wire.request(wire.READING, STATUS, headers=[("Host", host)])).status == 200


@pytest.mark.parametrize("path", [wire.READING, wire.WRITING, "/metrics", "/"])
@pytest.mark.parametrize("sent", FRAMES.values(), ids=FRAMES)
def test_a_frame_that_is_not_certain_is_refused(sent: bytes, path: str, served: InProcessServer) -> None:
    """Whatever is asked."""
    refused(served, sent.replace(b"%s", path.encode()), 400)


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip,chunked", "identity, chunked", "x , chunked"])
def test_a_coding_that_is_not_known_is_not_implemented(coding: str, served: InProcessServer) -> None:
    """Section 6.1: 501."""
    headers: list[tuple[str, str | bytes | None]] = [("Content-Length", None), ("Transfer-Encoding", coding)]
    refused(served, wire.request(wire.READING, wire.chunked(STATUS), headers=headers), 501)
    lines = [("Content-Length", None), *(("Transfer-Encoding", part.strip()) for part in coding.split(","))]
    refused(served, wire.request(wire.READING, wire.chunked(STATUS), headers=lines), 501)


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.7"])
def test_another_version_is_not_spoken(version: bytes, served: InProcessServer) -> None:
    """505."""
    refused(served, wire.request(wire.READING, STATUS).replace(b"HTTP/1.1", b"HTTP/" + version, 1), 505)


@pytest.mark.parametrize("target", [f"http://cdb:80{PLAIN}", f"HTTPS://cdb{PLAIN}"])
def test_a_target_may_be_a_whole_address(target: str, served: InProcessServer) -> None:
    """Section 3.2.2: it is accepted as the path in it is."""
    with served.peer() as peer:
        assert peer.ask(wire.request(target, method="GET")).body == b"abc"
        assert peer.ask(wire.request("http://cdb", method="GET")).status == 200
        assert peer.ask(wire.request("http://cdb?x", method="GET")).status == 200


def test_a_trailer_is_no_header(served: InProcessServer) -> None:
    """RFC 9110, section 6.5.1: behind a body nobody shows a token."""
    body = wire.chunked(envelope("add_run", "<run_number>1</run_number><start_time>2016-03-01T00:00:00Z</start_time>"))
    told = f"Authorization: {wire.basic('alice', served.token)}\r\n\r\n".encode()
    with served.peer() as peer:
        sent = wire.request(wire.WRITING, body.removesuffix(b"\r\n") + told, headers=CHUNKED)
        assert peer.ask(sent).status == 401


def test_what_came_before_a_broken_request_is_answered(served: InProcessServer) -> None:
    """In order, and only then the connection ends."""
    with served.peer() as peer:
        peer.socket.sendall(wire.request(PLAIN, method="GET") * 3 + b"nonsense\r\n\r\n")
        assert [raw_reply(peer)[-3:] for _ in range(3)] == [b"abc"] * 3
        assert peer.ended()
    with served.peer() as peer:
        broken = wire.request(wire.READING, b"zz\r\n", headers=CHUNKED)
        peer.socket.sendall(wire.request(PLAIN, method="GET") * 3 + broken)
        assert [raw_reply(peer)[-3:] for _ in range(3)] == [b"abc"] * 3
        assert peer.ended()


# A peer that sends no more may still read.

ASKED = {
    "SOAP": by_id(1),
    "SOAP by a thread": wire.request(wire.READING, envelope("get_status")),
    "a fault": by_id(99),
    "HTTP's own answer": wire.request(wire.READING, STATUS, headers=[("Content-Type", "text/plain")]),
    "WSDL": wire.request(f"{wire.READING}?wsdl", method="GET"),
    "a write": wire.request(wire.WRITING, envelope("add_calibration", ADD)),
    "plain GET": wire.request(PLAIN, method="GET"),
    "a range": wire.request(PLAIN, method="GET", headers=[("Range", "bytes=1-2")]),
    "metrics": wire.request("/metrics", method="GET"),
    "a page": wire.request("/", method="GET", headers=[("Accept", "text/html")]),
    "a page that is not there": wire.request("/nowhere", method="GET", headers=[("Accept", "text/html")]),
    "an archive": wire.request("/archive?run=1", method="GET"),
    "the earlier service": wire.request("/cdb/calibration", envelope("getStatus").replace(b"urn:mice:cdb:2", b"urn:x")),
    "its WSDL": wire.request("/cdb/calibration?wsdl", method="GET"),
    "no request": b"nonsense\r\n\r\n",
    "no Host": wire.request("/", method="GET", headers=[("Host", None)]),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_peer_that_sends_no_more_is_answered(asked: bytes, served: InProcessServer) -> None:
    """As one that may go on, but that the connection ends, each kind of request, the first time and again."""
    for _ in range(3):
        [expected] = replies(served, [asked])
        with served.peer() as peer:
            peer.socket.sendall(asked)
            peer.socket.shutdown(socket.SHUT_WR)
            assert raw_reply(peer)[:20] == expected[:20]
            assert peer.ended()


def test_all_that_came_whole_is_answered_to_a_peer_that_sends_no_more(served: InProcessServer) -> None:
    """Several requests, the last of which is not whole."""
    with served.peer() as peer:
        peer.socket.sendall(wire.request(PLAIN, method="GET") * 3 + b"GET / HT")
        peer.socket.shutdown(socket.SHUT_WR)
        assert [raw_reply(peer)[-3:] for _ in range(3)] == [b"abc"] * 3
        assert peer.ended()


def test_a_peer_that_sends_no_more_of_a_request_is_gone(served: InProcessServer) -> None:
    """Nobody waits for the rest of it."""
    for asked in (by_id(1)[:-1], by_id(1)[:20], b"", wire.request(wire.READING, headers=CHUNKED)):
        with served.peer() as peer:
            peer.socket.sendall(asked)
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.ended()


def test_a_peer_that_sends_no_more_is_not_waited_for_long(tmp_path: Path) -> None:
    """It may be gone as well: an answer that has not begun within the deadline is given up."""
    database = tmp_path / "cdb.sqlite"
    with watched(f"sqlite:///{database}", half_closed_seconds=0.2) as running, running.peer() as peer:
        locking = sqlite3.connect(database, isolation_level=None)
        with closing(locking):
            locking.execute("BEGIN IMMEDIATE")
            headers = [("Authorization", wire.basic("alice", running.token))]
            peer.socket.sendall(wire.request(wire.WRITING, envelope("add_calibration", ADD), headers=headers))
            peer.socket.shutdown(socket.SHUT_WR)
            # The write waits for the lock, which is held.
            assert peer.ended()


def test_peers_that_go_while_they_are_answered_leave_nothing_in_the_log(tmp_path: Path) -> None:
    """Those too that asked for several things at once."""
    many = wire.request(PLAIN, method="GET") * 3
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        writer.add_calibration("TOF1", "t0", "2016-03-01", b"0123456789abcdef" * 2**19)
        for at in (len(many), len(many) - 1, len(many) // 3, len(many) // 2):
            for _ in range(3):
                with wire.Peer(master.url) as peer:
                    peer.socket.sendall(many[:at])
                    assert peer.socket.recv(1)
    assert master.log.read_text() == ""
