"""Long answers that were found are sent together, and none is lost, late or out of order for that."""

import asyncio
import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cdb_server.http.protocol.fast_path import MAX_BATCHED_ANSWERS, SendBatcher
from tests.fuzz import wire
from tests.in_process_server import InProcessServer, envelope, raw_reply, watched

DATA = b"0123456789" * 10_000


def asked(day: int) -> bytes:
    """A question, by each day another, that has the same long answer."""
    key = "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
    return wire.request(
        wire.READING, envelope("get_calibration_for_date", f"{key}<date>2016-03-{day:02}T00:00:00Z</date>")
    )


@contextmanager
def running_in(folder: Path, **settings: Any) -> Iterator[InProcessServer]:
    """An application that knows the head of the questions."""
    with watched(f"sqlite:///{folder}/cdb.sqlite", **settings) as started:
        started.write(
            "add_calibration",
            "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
            f"<valid_from>2016-03-01T00:00:00Z</valid_from><data>{base64.b64encode(DATA).decode()}</data>",
        )
        with started.peer() as peer:
            assert peer.ask(asked(1)).status == 200
        started.forget()
        yield started


@pytest.fixture
def running(tmp_path: Path) -> Iterator[InProcessServer]:
    with running_in(tmp_path) as started:
        yield started


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a turn does not come."""
    monkeypatch.setattr(SendBatcher, "schedule", lambda outbox, sender: None)


def is_whole(reply: bytes) -> bool:
    return reply.startswith(b"HTTP/1.1 200 OK\r\n") and base64.b64encode(DATA) in reply


def test_batched_responses_are_sent_at_the_end_of_the_loop_iteration() -> None:
    """Or when there is much: each once, in order, and also after one that fails."""

    class Sender:
        def __init__(self, number: int) -> None:
            self.number = number

        def send(self) -> None:
            sent.append(self.number)
            if self.number == 1:
                raise OSError("no")

    sent: list[int] = []
    told: list[Any] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        outbox = SendBatcher()
        for number in range(MAX_BATCHED_ANSWERS + 2):
            outbox.schedule(Sender(number))
            assert sent == list(range(MAX_BATCHED_ANSWERS if number >= MAX_BATCHED_ANSWERS - 1 else 0))
        await asyncio.sleep(0)
        assert sent == list(range(MAX_BATCHED_ANSWERS + 2))
        outbox.schedule(Sender(MAX_BATCHED_ANSWERS + 2))
        await asyncio.sleep(0)
        assert sent == list(range(MAX_BATCHED_ANSWERS + 3))
        assert [str(error) for error in told] == ["no"]

    asyncio.run(scenario())


def test_a_long_answer_comes(running: InProcessServer) -> None:
    """To each of many peers that ask at once."""
    peers = [running.peer() for _ in range(2 * MAX_BATCHED_ANSWERS + 1)]
    for day, peer in enumerate(peers, 1):
        peer.socket.sendall(asked(day))
    assert all(is_whole(raw_reply(peer)) for peer in peers)
    assert all(running.took_fast_path() for _ in peers)
    for peer in peers:
        peer.socket.close()


@pytest.mark.usefixtures("waiting")
def test_pipelined_requests_are_answered_in_order(running: InProcessServer) -> None:
    """Answers come in the order of the questions, whoever gives them."""
    with running.peer() as peer:
        peer.socket.sendall(asked(2))
        assert running.took_fast_path()
        peer.socket.sendall(wire.request("/none", b""))
        assert is_whole(raw_reply(peer))
        assert raw_reply(peer).startswith(b"HTTP/1.1 404 ")


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("before", [b"", wire.request("/none", b"")], ids=["first", "later"])
def test_a_half_closed_connection_is_answered(running: InProcessServer, before: bytes) -> None:
    """A peer may close its side once it has asked, on a connection that was uvicorn's or was not."""
    with running.peer() as peer:
        if before:
            assert peer.ask(before).status == 404
            running.took_fast_path()
        peer.socket.sendall(asked(2))
        assert running.took_fast_path()
        peer.socket.shutdown(socket.SHUT_WR)
        assert is_whole(raw_reply(peer))
        assert peer.ended()


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("before", [b"", wire.request("/none", b"")], ids=["first", "later"])
def test_a_stopping_server_sends_batched_responses(tmp_path: Path, before: bytes) -> None:
    """A question that was answered is no longer under way, but its answer is."""
    with running_in(tmp_path) as running:
        peer = running.peer()
        if before:
            assert peer.ask(before).status == 404
            running.took_fast_path()
        peer.socket.sendall(asked(2))
        assert running.took_fast_path()
    with peer:
        assert is_whole(raw_reply(peer))
        assert peer.ended()


def test_a_peer_that_reads_late_keeps_its_connection(tmp_path: Path) -> None:
    """What it had no room for is handed on, and is no beginning of a request that is due."""
    data = base64.b64encode(DATA * 50).decode()
    with running_in(tmp_path, nonblocking_payload_bytes=2**24, header_seconds=1.0) as running:
        running.write(
            "add_calibration",
            "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
            f"<valid_from>2016-03-02T00:00:00Z</valid_from><data>{data}</data>",
        )
        with running.peer() as peer:
            peer.socket.sendall(asked(3))
            assert running.took_fast_path()
            assert data.encode() in raw_reply(peer)
            # Longer than a head may take.
            peer.socket.settimeout(1.5)
            with pytest.raises(TimeoutError):
                peer.socket.recv(1)
            peer.socket.settimeout(wire.PATIENCE)
            peer.socket.sendall(asked(1))
            assert is_whole(raw_reply(peer))
