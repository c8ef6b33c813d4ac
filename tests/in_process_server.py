"""The application served in this process, with its connections telling which requests they answered themselves."""

import asyncio
import queue
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn

from cdb_server.database.transactions import CircuitBreaker, Database
from cdb_server.http import serve
from cdb_server.http.app import create_app
from cdb_server.http.metrics import SharedCounters, counter_layout
from cdb_server.http.protocol.fast_path import FastPath
from cdb_server.http.serve import listen
from cdb_server.repository.tokens import Tokens
from cdb_server.settings import Settings
from tests.certificates import Certificates
from tests.fuzz import wire

NAMESPACE = "urn:mice:cdb:2"
USER = "alice"


@dataclass
class InProcessServer:
    """A running application.

    For each piece that a connection received when all before it was answered, `told` gets whether the connection
    answered it itself. `unsent` is how much was ever left to be sent to one peer after such a piece, in bytes.
    """

    settings: Settings
    token: str
    tls: ssl.SSLContext | None = None
    told: "queue.SimpleQueue[bool]" = field(default_factory=queue.SimpleQueue)
    unsent: int = 0
    loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return self.settings.public_url

    def peer(self) -> wire.Peer:
        """A connection to it."""
        return wire.Peer(self.url, tls=self.tls)

    def took_fast_path(self) -> bool:
        """Whether the next piece received was answered by its connection; waits for that piece."""
        return self.told.get(timeout=wire.PATIENCE)

    def forget(self) -> None:
        """Begin to tell anew, of what is received from now on."""
        begun = threading.Event()

        def begin() -> None:
            self.told, self.unsent = queue.SimpleQueue(), 0
            begun.set()

        # A peer may have its answer before that is told.
        assert self.loop, "nothing was asked yet"
        self.loop.call_soon_threadsafe(begin)
        assert begun.wait(wire.PATIENCE)

    def write(self, operation: str, arguments: str) -> bytes:
        """What is answered to a write, by a connection of its own."""
        asked = wire.request(wire.WRITING, envelope(operation, arguments), credentials=(USER, self.token))
        with self.peer() as peer:
            reply = peer.ask(asked)
        assert reply.status == 200, reply.body
        assert not self.took_fast_path()
        return reply.body


def raw_reply(peer: wire.Peer) -> bytes:
    """One whole answer as it came, but for its date."""
    while b"\r\n\r\n" not in peer._read:
        peer._more()
    head, end, peer._read = peer._read.partition(b"\r\n\r\n")
    found = re.search(rb"\r\ncontent-length: (\d+)", head)
    length = int(found[1]) if found else 0
    while len(peer._read) < length:
        peer._more()
    body, peer._read = peer._read[:length], peer._read[length:]
    return re.sub(rb"date: [^\r]*\r\n", b"", head + end) + body


def envelope(operation: str, arguments: str = "") -> bytes:
    """A request's body."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<{operation} xmlns="{NAMESPACE}">{arguments}</{operation}></s:Body></s:Envelope>'
    ).encode()


def by_id(id: int) -> bytes:
    """The request for a calibration by its id."""
    return wire.request(wire.READING, envelope("get_calibration_for_id", f"<id>{id}</id>"))


@contextmanager
def watched(
    database_url: str, *, keep_alive: int = 30, certificates: Certificates | None = None, **settings: Any
) -> Iterator[InProcessServer]:
    """Make a database and serve it with one worker, in a thread, until the block ends."""
    Database.create(database_url)
    with Database.open(database_url) as database:
        token = Tokens(database).add(USER)
    public_url = "https://127.0.0.1:0" if certificates else "http://127.0.0.1:0"
    given = Settings(
        database_url, port=0, public_url=public_url, tls=certificates.tls if certificates else None, **settings
    )
    listening, given = listen(given)
    running = InProcessServer(given, token, certificates.context() if certificates else None)

    class Telling(FastPath):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            running.loop = self._loop

        def _answer_immediately(self, data: bytes) -> bool:
            done = super()._answer_immediately(data)
            running.told.put(done)
            return done

        def send(self) -> None:
            super().send()
            running.unsent = max(running.unsent, self._transport.get_write_buffer_size())

    config = serve.ServerConfig(
        given,
        app=partial(create_app, given, CircuitBreaker(), SharedCounters(counter_layout(), rows=2)),
        factory=True,
        http=partial(Telling, given),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()
