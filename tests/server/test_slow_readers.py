"""How slowly an answer may be read: at the least rate, through whatever buffers there are between, and no slower.

The least rate is higher here, so that it takes seconds and not minutes to see the difference.
"""

import asyncio
import base64
import hashlib
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cdb_server.http.protocol.limits import ReadRate
from tests import certificates
from tests.fuzz import wire
from tests.server.test_slow_peers import ADD, GET, USER, Impatient, impatient_master

# More than the buffers of both kernels take, so that a good part of it is sent while it is read.
LARGEST = random.Random(6).randbytes(10 * 2**20)
# The same of an answer that is kept ready, and sent by the kernel.
KEPT = LARGEST[: 9 * 2**19]
RATE, DEADLINE = 1_500_000, 1.0
PIECE = 2**15
GET_LARGEST = wire.request(f"/cdb/v2/payload/{hashlib.sha256(LARGEST).hexdigest()}", method="GET")
GET_KEPT = wire.request(wire.READING, GET.replace(b"LARGE", b"KEPT"))
ASKED = {"GET": GET_LARGEST, "SOAP": wire.request(wire.READING, GET), "SOAP, kept ready": GET_KEPT}


@contextmanager
def running(folder: Path, of: certificates.Certificates | None = None) -> Iterator[Impatient]:
    with impatient_master(
        folder, len(LARGEST), of, stall_seconds=DEADLINE, min_bytes_per_second=RATE, workers=1
    ) as master:
        for device, data in ((b"LARGE", LARGEST), (b"KEPT", KEPT)):
            body = (ADD % base64.b64encode(data)).replace(b"LARGE", device, 1)
            with master.peer() as peer:
                assert peer.ask(wire.request(wire.WRITING, body, credentials=(USER, master.token))).status == 200
        yield master


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "TLS"])
def master(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Impatient]:
    """A master that wants its answers read at RATE."""
    folder = tmp_path_factory.mktemp("readers")
    with running(folder, certificates.make(folder / "tls") if request.param else None) as started:
        yield started


def read(peer: wire.Peer, rate: float, seconds: float) -> int:
    """Read for so many seconds, evenly at `rate`, then as fast as it goes; the length of all that came."""
    begin, length = time.monotonic(), 0
    # It ends with the answer: so was it asked for.
    with suppress(ConnectionResetError):
        while read := peer.socket.recv(PIECE):
            length += len(read)
            if time.monotonic() - begin < seconds:
                time.sleep(max(0.0, begin + length / rate - time.monotonic()))
    return length


def asked(master: Impatient, kind: str) -> tuple[wire.Peer, int]:
    """A connection over which an answer was asked for, and how long its body is."""
    # Often enough to be kept, where it is; on a busy machine this peer may itself be too slow now and then.
    lengths: list[int] = []
    for _ in range(9):
        with suppress(wire.Broken), master.peer() as peer:
            lengths.append(len(peer.ask(ASKED[kind]).body))
        if len(lengths) == 3:
            break
    length = lengths[2]
    peer = master.peer()
    peer.socket.sendall(ASKED[kind].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    return peer, length


@pytest.mark.parametrize("kind", ASKED)
def test_a_reader_above_the_least_rate_gets_its_answer(kind: str, master: Impatient) -> None:
    """Whole, though the kernel's buffer has room for more only once in a while."""
    # On a busy machine this peer may wait for a processor, and read slower than it means to.
    for _ in range(3):
        peer, length = asked(master, kind)
        with peer:
            if (came := read(peer, 1.3 * RATE, 60)) > length:
                break
    assert came > length


@pytest.mark.parametrize("kind", ASKED)
def test_a_reader_below_the_least_rate_is_cut_off(kind: str, master: Impatient) -> None:
    """After the deadline and the time for what came at once; nothing more comes than was on its way."""
    peer, length = asked(master, kind)
    with peer:
        assert read(peer, 0.4 * RATE, 4) < length


def test_what_a_peer_takes_is_measured_on_any_loop() -> None:
    """On asyncio's own too: the system of a peer that reads nothing takes something, then it stands still."""

    async def scenario() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *listening.getsockname())
        peer, _ = listening.accept()
        taking = ReadRate(transport, least_rate=1_000, deadline=1)
        taking.start(0)
        transport.write(bytes(2**25))
        await asyncio.sleep(0.1)
        # What it took in advance counts for later, though not for ever.
        assert not taking.is_too_slow(2)
        assert taking.is_too_slow(1_000)
        with peer:
            peer.settimeout(5)
            taking.start(1_000)
            while not transport.is_closing() and taking.is_too_slow(1_000):
                peer.recv(2**20)
                await asyncio.sleep(0)
        transport.abort()
        listening.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
