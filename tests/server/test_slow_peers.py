"""Peers that send or read as slowly as they can: others are served meanwhile, and the slow ones are cut off.

The deadlines are those of `Settings`; the server here has shorter ones, so that waiting for them takes seconds.
"""

import asyncio
import base64
import multiprocessing
import os
import random
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from cdb_server.database.transactions import Database
from cdb_server.http.serve import listen, serve
from cdb_server.repository.tokens import Tokens
from cdb_server.settings import Settings
from tests.certificates import Certificates
from tests.fuzz import wire

SLOW = 200
# Seconds: of the server's patience, of how exactly it is kept, and between two bytes.
DEADLINE = 2.0
GRACE = 1.5
PAUSE = 1.0
# Bytes: of a payload whose answer does not fit between server and reader, and of memory that may be taken for a peer.
LARGE = 3 * 2**20
MEMORY = 64 * 2**20
# Bytes of a body for which a sender would have a minute and more at the least rate.
MUCH = 2**20
USER = "alice"
CHUNKED = [("Content-Length", None), ("Transfer-Encoding", "chunked")]

STATUS = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    b'<get_status xmlns="urn:mice:cdb:2"/></s:Body></s:Envelope>'
)
ADD = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><add_calibration xmlns="urn:mice:cdb:2">'
    b"<device_name>LARGE</device_name><calibration_type>t0</calibration_type>"
    b"<valid_from>2016-03-01T08:00:00Z</valid_from><data>%s</data></add_calibration></s:Body></s:Envelope>"
)
GET = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    b'<get_current_calibration xmlns="urn:mice:cdb:2"><device_name>LARGE</device_name>'
    b"<calibration_type>t0</calibration_type></get_current_calibration></s:Body></s:Envelope>"
)


@dataclass(frozen=True)
class Impatient:
    """A running master with short deadlines."""

    settings: Settings
    token: str
    process: BaseProcess
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return self.settings.public_url

    @property
    def memory(self) -> int:
        """The bytes that its processes hold, the swapped ones aside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        pages = sum(int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in children)
        return pages * os.sysconf("SC_PAGESIZE")

    def peer(self, patience: float = wire.PATIENCE) -> wire.Peer:
        """A connection to it."""
        return wire.Peer(self.url, patience, self.tls)

    def ask(self, body: bytes) -> wire.Reply:
        """One question over a connection of its own."""
        with self.peer() as peer:
            return peer.ask(wire.request(wire.READING, body, headers=[("Connection", "close")]))


@contextmanager
def impatient_master(
    folder: Path, max_payload: int, certificates: Certificates | None = None, **limits: Any
) -> Iterator[Impatient]:
    """A master in processes of its own that waits for nobody longer than DEADLINE, or has these `limits`."""
    url = f"sqlite:///{folder}/cdb.sqlite"
    Database.create(url)
    database = Database.open(url)
    token = Tokens(database).add(USER)
    database.close()
    settings = Settings(url, port=0, public_url="http://127.0.0.1:0", max_payload=max_payload)
    if certificates is not None:
        settings = replace(settings, public_url="https://127.0.0.1:0", tls=certificates.tls)
    limits = {"header_seconds": DEADLINE, "stall_seconds": DEADLINE, **limits}
    listening, settings = listen(replace(settings, **limits))
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(listening, settings))
    process.start()
    listening.close()
    running = Impatient(settings, token, process, certificates.context() if certificates else None)
    # So many questions reach both workers, and wait for them to be ready.
    for _ in range(50):
        assert running.ask(STATUS).status == 200
    yield running
    process.terminate()
    process.join(20)
    assert process.exitcode is not None
    process.close()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Impatient]:
    """An impatient master that takes payloads of 1 MiB."""
    with impatient_master(tmp_path_factory.mktemp("impatient"), 2**20) as running:
        yield running


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Impatient]:
    """An impatient master that holds a large calibration, for one test: such answers leave their memory behind."""
    with impatient_master(tmp_path, LARGE) as running:
        data = base64.b64encode(random.Random(1).randbytes(LARGE))
        with wire.Peer(running.url) as peer:
            assert peer.ask(wire.request(wire.WRITING, ADD % data, credentials=(USER, running.token))).status == 200
        yield running


class SlowPeer:
    """One connection that is slow in some way. `run` returns once the server has ended it."""

    # Seconds after which it must be over.
    patience = DEADLINE

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.address = (address.hostname, address.port)
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.started = 0.0
        self.seconds = 0.0
        self.everyone = threading.Event()

    async def run(self, under_way: Callable[[], None], everyone: threading.Event) -> None:
        """Be slow until it is over. Calls `under_way` once it has begun; `everyone` is set once all have."""
        self.everyone = everyone
        loop = asyncio.get_running_loop()
        with self.socket:
            await loop.sock_connect(self.socket, self.address)
            await self.begin(loop)
            self.started = loop.time()
            under_way()
            await self.dawdle(loop)
            self.seconds = loop.time() - self.started

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do at once what comes before the slow part."""

    async def dawdle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send `slow_part` by a byte each PAUSE until the server ends the connection."""
        ended = asyncio.ensure_future(self._until_end(loop))
        for byte in self.slow_part():
            with suppress(OSError):
                await loop.sock_sendall(self.socket, bytes([byte]))
            await asyncio.wait([ended], timeout=PAUSE)
            if ended.done():
                break
        await ended

    def slow_part(self) -> bytes:
        """What comes slowly."""
        return wire.request(wire.READING, STATUS)

    async def _until_end(self, loop: asyncio.AbstractEventLoop) -> int:
        length = 0
        with suppress(ConnectionResetError):
            while read := await loop.sock_recv(self.socket, 2**18):
                length += len(read)
        return length


class SlowInHeaders(SlowPeer):
    """Sends its headers by a byte a second."""


class SlowInABody(SlowPeer):
    """Sends its headers at once, and its body by a byte a second."""

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        headers = [("Content-Length", str(len(STATUS)))]
        await loop.sock_sendall(self.socket, wire.request(wire.READING, b"", headers=headers))

    def slow_part(self) -> bytes:
        return STATUS


class SlowInAWrite(SlowInABody):
    """The same where writes are taken, without a token: it is refused at once, and its body listened to for a while."""

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        headers = [("Content-Length", str(len(STATUS)))]
        await loop.sock_sendall(self.socket, wire.request(wire.WRITING, b"", headers=headers))


class SlowInChunks(SlowPeer):
    """Sends its body in chunks of a byte, and a byte of that a second."""

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        await loop.sock_sendall(self.socket, wire.request(wire.READING, b"", headers=CHUNKED))

    def slow_part(self) -> bytes:
        return wire.chunked(STATUS, size=1)


class StopsAfterMuch(SlowInABody):
    """Sends most of a body at once, which earns it no more time than a byte."""

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        headers = [("Content-Length", str(MUCH + len(STATUS)))]
        await loop.sock_sendall(self.socket, wire.request(wire.READING, b"", headers=headers) + b" " * MUCH)

    async def dawdle(self, loop: asyncio.AbstractEventLoop) -> None:
        await self._until_end(loop)


class SlowInTrailers(SlowPeer):
    """Sends a body at once, and trailers after its last chunk by a byte a second."""

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        body = wire.chunked(STATUS).removesuffix(b"\r\n")
        await loop.sock_sendall(self.socket, wire.request(wire.READING, b"", headers=CHUNKED) + body)

    def slow_part(self) -> bytes:
        return b"X: y\r\n" * 100


class SlowInItsSecondRequest(SlowPeer):
    """Asks once as all do, and then sends the headers of its next request by a byte a second."""

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        await loop.sock_sendall(self.socket, wire.request(wire.READING, STATUS))
        answer = b""
        while b":Envelope>" not in answer:
            answer += await loop.sock_recv(self.socket, 2**16)


class SlowToRead(SlowPeer):
    """Asks for a large answer, and reads it by a byte a second."""

    # It sees its end only behind what was on its way: what was not tells that it was cut off.
    patience = float("inf")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        await loop.sock_sendall(self.socket, wire.request(wire.READING, GET))
        assert await loop.sock_recv(self.socket, 1) == b"H"

    async def dawdle(self, loop: asyncio.AbstractEventLoop) -> None:
        end = None
        while end is None or loop.time() < end:
            assert len(await loop.sock_recv(self.socket, 1)) == 1
            await asyncio.sleep(PAUSE)
            # To make so many large answers takes a while: the time counts from the last one.
            if end is None and self.everyone.is_set():
                end = loop.time() + DEADLINE + GRACE
        # What was on its way is still there to be read; the rest was thrown away.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        assert await self._until_end(loop) < LARGE * 4 // 3


class Slow(threading.Thread):
    """Slow peers in a thread of their own. Entered, they are all under way; left, they are all over."""

    def __init__(self, url: str, kinds: Sequence[type[SlowPeer]], count: int) -> None:
        super().__init__()
        self.peers = [kind(url) for kind in kinds for _ in range(count)]
        self.all_under_way = threading.Event()
        self.result: BaseException | None = None

    def __enter__(self) -> "Slow":
        self.start()
        assert self.all_under_way.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.join(60)
        assert not self.is_alive()
        if self.result is not None:
            raise self.result

    def run(self) -> None:
        """Run the peers."""
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self.result = error
        finally:
            self.all_under_way.set()

    async def _all(self) -> None:
        waiting = len(self.peers)

        def under_way() -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                self.all_under_way.set()

        await asyncio.gather(*(peer.run(under_way, self.all_under_way) for peer in self.peers))


def served_meanwhile(impatient: Impatient, until: Callable[[], bool]) -> list[float]:
    """The seconds that questions take, asked one after the other, each over a connection of its own."""
    taken = []
    while not until():
        start = time.perf_counter()
        assert impatient.ask(STATUS).status == 200
        taken.append(time.perf_counter() - start)
    return taken


@pytest.mark.parametrize(
    ("kinds", "count"),
    [
        ([SlowInHeaders, SlowInABody], SLOW),
        ([SlowInAWrite, SlowInChunks, StopsAfterMuch, SlowInTrailers, SlowInItsSecondRequest], 20),
    ],
    ids=["200 in headers and 200 in bodies", "20 in five other ways"],
)
def test_others_are_served_beside_slow_senders(
    kinds: Sequence[type[SlowPeer]], count: int, impatient: Impatient
) -> None:
    """While slow senders hold on, others are answered with a p99 under 100 ms; then the slow are cut off."""
    others_are_served(impatient, kinds, count)


def test_others_are_served_beside_slow_readers(large: Impatient) -> None:
    """While slow readers hold on, others are answered with a p99 under 100 ms; then the slow are cut off."""
    others_are_served(large, [SlowToRead], SLOW)


def others_are_served(impatient: Impatient, kinds: Sequence[type[SlowPeer]], count: int) -> None:
    """Check both; where the machine had too much else to do, once more, and once more."""
    for chances in (2, 1, 0):
        try:
            others_are_served_now(impatient, kinds, count)
            break
        except AssertionError:
            if not chances:
                raise


def others_are_served_now(impatient: Impatient, kinds: Sequence[type[SlowPeer]], count: int) -> None:
    """Check both, once."""
    with Slow(impatient.url, kinds, count) as slow:
        enough = time.monotonic() + DEADLINE / 2
        taken = served_meanwhile(impatient, lambda: time.monotonic() > enough)
        assert not any(peer.seconds for peer in slow.peers), "all of them are still there"
    assert len(taken) > 100
    assert statistics.quantiles(taken, n=100)[-1] < 0.1
    late = {type(peer).__name__: peer.seconds for peer in slow.peers if peer.seconds > peer.patience + GRACE}
    assert late == {}
    assert impatient.ask(STATUS).status == 200


def test_a_silent_sender_is_cut_off(impatient: Impatient) -> None:
    """Whoever announces a body and falls silent before its end is let go at the deadline, and told so."""
    with wire.Peer(impatient.url) as peer:
        reply = peer.ask(wire.request(wire.READING, STATUS[:-1], headers=[("Content-Length", str(len(STATUS)))]))
        assert (reply.status, reply.closes) == (408, True)
        assert DEADLINE - GRACE < reply.seconds < DEADLINE + GRACE
        assert peer.ended()


def test_a_silent_connection_is_cut_off(impatient: Impatient) -> None:
    """Whoever connects and says nothing is let go at the deadline."""
    with wire.Peer(impatient.url) as peer:
        start = time.monotonic()
        assert peer.ended()
        assert DEADLINE - GRACE < time.monotonic() - start < DEADLINE + GRACE


def test_a_patient_sender_at_the_least_rate_is_waited_for(impatient: Impatient) -> None:
    """A body that takes longer than the deadline, but comes at the least rate, is taken whole."""
    start = time.monotonic()
    step, total = 10_000, 60_000
    body = STATUS.ljust(total)
    with wire.Peer(impatient.url) as peer:
        peer.socket.sendall(wire.request(wire.READING, b"", headers=[("Content-Length", str(total))]))
        for sent in range(0, total, step):
            peer.socket.sendall(body[sent : sent + step])
            # The rate is what is tested here: there is no event to wait for.
            time.sleep((DEADLINE + 1) * step / total)
        assert peer.reply().status == 200
    assert time.monotonic() - start > DEADLINE


FLOODS = {
    "headers": (b"POST /cdb/v2/calibration HTTP/1.1\r\n", b"X-Header: y\r\n"),
    "one header": (b"POST /cdb/v2/calibration HTTP/1.1\r\nX-Header: ", b"a"),
    "trailers": (wire.request(wire.READING, headers=CHUNKED) + wire.chunked(STATUS)[:-2], b"X-Trailer: y\r\n"),
    "one trailer": (wire.request(wire.READING, headers=CHUNKED) + wire.chunked(STATUS)[:-2] + b"X-Trailer: ", b"a"),
    "a chunk's size": (wire.request(wire.READING, headers=CHUNKED), b"0"),
    "a chunk's extension": (wire.request(wire.READING, headers=CHUNKED) + b"5;", b"a"),
    "chunks of a byte": (wire.request(wire.READING, headers=CHUNKED), b"1\r\na\r\n"),
    "requests": (b"", wire.request(wire.READING, STATUS)),
    "requests for the contract": (b"", wire.request(f"{wire.READING}?wsdl", method="GET")),
}


@pytest.mark.parametrize(("start", "repeated"), FLOODS.values(), ids=FLOODS)
def test_a_flood_does_not_fill_the_memory(start: bytes, repeated: bytes, impatient: Impatient) -> None:
    """Whoever sends the same without end and reads nothing is stopped, or made to wait, before that costs memory."""
    before = impatient.memory
    block = repeated * (2**18 // len(repeated))
    with wire.Peer(impatient.url, patience=0.5) as peer, suppress(OSError):
        peer.socket.sendall(start)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            peer.socket.sendall(block)
    assert impatient.memory - before < MEMORY
    assert impatient.ask(STATUS).status == 200


@pytest.mark.parametrize("path", [wire.READING, wire.WRITING])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_sender_refused_for_length_reads_so_while_sending(path: str, announced: bool, impatient: Impatient) -> None:
    """413 comes while the body is still coming, the rest is taken in, and no error meets the sender."""
    limit = impatient.settings.max_body
    headers = [("Content-Length", str(limit + 4 * 2**20))] if announced else CHUNKED
    start = wire.request(path, b"", headers=headers, credentials=(USER, impatient.token))
    part = b" " * 2**20
    chunk = part if announced else b"%x\r\n%s\r\n" % (len(part), part)
    with wire.Peer(impatient.url) as peer:
        peer.socket.sendall(start)
        peer.socket.sendall(chunk)
        peer.socket.sendall(chunk)
        reply = peer.reply()
        assert (reply.status, reply.closes) == (413, True)
        assert str(limit).encode() in reply.body
        peer.socket.sendall(chunk)
        peer.socket.sendall(chunk)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.socket.recv(1) == b"", "the connection ends in order"


@pytest.mark.parametrize("length", [2**21, 2**24, 2**25])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_usual_client_reads_that_its_body_is_too_long(length: int, announced: bool, impatient: Impatient) -> None:
    """A client that sends everything before it reads gets the 413 too."""
    body = b" " * length if announced else iter([b" " * 2**16] * (length // 2**16))
    answer = requests.post(
        f"{impatient.url}{wire.READING}", data=body, headers={"Content-Type": "text/xml"}, timeout=wire.PATIENCE
    )
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("length", [300_000, 2**20, 2**23])
def test_a_usual_client_reads_that_its_headers_are_too_long(length: int, impatient: Impatient) -> None:
    """A client that sends all its headers before it reads gets the 431."""
    answer = requests.post(
        f"{impatient.url}{wire.READING}", data=STATUS, headers={"X-Long": "a" * length}, timeout=wire.PATIENCE
    )
    assert answer.status_code == 431
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.count("\n") == 1


def test_headers_that_are_too_long_are_refused_whole_too(impatient: Impatient) -> None:
    """Just over the limit, in one piece with their end, and as the second request of a connection."""
    for before in (b"", wire.request(wire.READING, STATUS)):
        longer = wire.request(wire.READING, STATUS, headers=[("X-Long", "a" * impatient.settings.max_header_bytes)])
        with wire.Peer(impatient.url) as peer:
            if before:
                assert peer.ask(before).status == 200
            assert peer.ask(longer).status == 431
