"""Answers that the kernel sends by itself: the bytes that came before, to whoever reads late, and no memory kept."""

import asyncio
import base64
import errno
import os
import queue
import random
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from cdb_server.http.response_cache import CacheKey, EncodedResponse, MemoryFiles, ResponseCache
from cdb_server.model import JournalPosition
from cdb_server.soap.endpoint import SoapResult
from cdb_server.soap.operations import VALID_FOREVER
from tests.in_process_server import InProcessServer, by_id, raw_reply, watched

STATE = JournalPosition(1, "a" * 64, None)
LENGTH, MANY = 200_000, 40


def fill(running: InProcessServer) -> None:
    """Calibrations, each of other bytes."""
    for number in range(MANY):
        data = base64.b64encode(random.Random(number).randbytes(LENGTH)).decode()
        running.write(
            "add_calibration",
            f"<device_name>TOF1</device_name><calibration_type>t{number}</calibration_type>"
            f"<valid_from>2016-03-01T00:00:00Z</valid_from><data>{data}</data>",
        )


def asked(running: InProcessServer, id: int) -> bytes:
    with running.peer() as peer:
        peer.socket.sendall(by_id(id))
        return raw_reply(peer)


def held() -> int:
    """Bytes of memory that lie on shelves of this process."""
    files = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.stat(file).st_blocks * 512 for file in files if "memfd:cdb-answer" in _target(file))


def _target(file: str) -> str:
    # The folder's own is gone.
    return os.readlink(file) if os.path.lexists(file) else ""


def test_a_response_being_sent_is_not_overwritten(tmp_path: Path) -> None:
    """A peer reads only once its answer is forgotten, and others were given more than is kept: it gets its own."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite", response_cache_bytes=2**22) as running:
        fill(running)
        expected = {id: [asked(running, id) for _ in range(3)] for id in range(1, MANY + 1)}
        assert all(first == second == third for first, second, third in expected.values())
        for _ in range(3):
            asked(running, 1)
        wanted = 0
        with running.peer() as late:
            running.forget()
            # Until the kernel takes no more, and the server waits until it can write.
            with suppress(queue.Empty):
                while wanted < 1_000:
                    wanted += 1
                    late.socket.sendall(by_id(1))
                    assert running.told.get(timeout=0.5)
            assert 2 < wanted < 1_000
            for id, (first, *_) in expected.items():
                for _ in range(3):
                    assert asked(running, id) == first
            for _ in range(wanted):
                assert raw_reply(late) == expected[1][0]


def test_a_peer_that_goes_in_the_middle_does_no_harm(tmp_path: Path) -> None:
    """It resets its connection while an answer is under way: others, and it itself on a new one, are answered."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite") as running:
        fill(running)
        expected = [asked(running, 1) for _ in range(3)][-1]
        for _ in range(50):
            with running.peer() as peer:
                peer.socket.sendall(by_id(1))
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with suppress(OSError):
                    peer.socket.recv(1)
        assert asked(running, 1) == expected


@pytest.mark.parametrize("size", [100_000, 100_001, 2**20])
def test_an_evicted_response_frees_its_memory(size: int) -> None:
    """Answers and their copies stay within the bound, and nothing is left of those that went."""
    most = 16 * 2**20
    answers = ResponseCache(most, memory_files=MemoryFiles(1_000))
    before, greatest = held(), 0
    for number in range(200):
        question = CacheKey("", "", b"%d" % number)
        for _ in range(2):
            answers.put(
                question,
                EncodedResponse.from_result(SoapResult("", (b"begin", os.urandom(size), b"end"), VALID_FOREVER), STATE),
            )
        assert answers.find(question, STATE)
        greatest = max(greatest, held() - before)
    # Half of it is the answers themselves; pages are whole.
    assert most // 4 < greatest <= 1.05 * most / 2
    del answers
    assert held() == before


class Transport(asyncio.Transport):
    """Over a socket."""

    def __init__(self, over: socket.socket) -> None:
        super().__init__({"socket": over})


@pytest.mark.parametrize("size", [5_000, 8_192, 100_000])
def test_sendfile_sends_the_same_bytes(size: int) -> None:
    """Also where it is forgotten before it is read: what is on its way is neither changed nor cut off."""
    here, there = socket.socketpair()
    with here, there:
        for number in range(20):
            parts = (b"<%d>" % number, os.urandom(size), b"</%d>" % number)
            copy = MemoryFiles(1).create_file(parts)
            assert copy is not None
            whole = b"head\r\n\r\n" + b"".join(parts)
            assert copy.send(Transport(here), whole[:8]) == len(whole)
            del copy
            received = b""
            while len(received) < len(whole):
                received += there.recv(2**16)
            assert received == whole


def test_the_number_of_memory_files_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that connections find open files too; what goes makes room, and what cannot be had is not tried again."""
    shelf = MemoryFiles(2)
    first, second, third = (shelf.create_file((b"answer",)) for _ in range(3))
    assert first
    assert second
    assert third is None
    del first
    assert shelf.create_file((b"answer",)) is not None

    def refused(name: str) -> int:
        raise OSError(errno.EMFILE, name)

    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", refused)
        assert shelf.create_file((b"answer",)) is None
    assert shelf.create_file((b"answer",)) is None
    del second
    assert shelf.create_file((b"answer",)) is None
