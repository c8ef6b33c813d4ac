"""A way to a server that spoils what comes back on it: a small TCP proxy, for plain HTTP and for TLS alike."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

CHUNK = 2**16

Kind = Literal["cut", "reset", "flip", "stall", "trickle"]
# What answers a connection: the address of a server, or a function from a request to the answer's bytes.
Upstream = str | Callable[[bytes], bytes]


@dataclass(frozen=True)
class Fault:
    """What happens to byte `at`, counted from 0, and after: of the flip, `bits` are what is changed in it."""

    kind: Kind
    at: int
    bits: int = 1


class DamagingProxy:
    """A proxy at `url`. It is clean until it is told to spoil."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._changing = threading.Lock()
        self._told = 0
        self._fault: Fault | None = None
        self._left = 0
        self._ended = threading.Event()
        scheme = urlsplit(upstream).scheme if isinstance(upstream, str) else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def spoil(self, fault: Fault, times: int = 1) -> None:
        """Do this to what comes on the next so many connections, open ones too; bytes count from now."""
        with self._changing:
            self._told += 1
            self._fault, self._left = fault, times

    def close(self) -> None:
        """Let go of everybody."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        way = _Way(self, connection)
        with connection, contextlib.suppress(OSError):
            if isinstance(self._upstream, str):
                address = urlsplit(self._upstream)
                with socket.create_connection((str(address.hostname), int(address.port or 0))) as server:
                    # In one thread: a connection that another one reads is not closed by closing it.
                    while True:
                        ready, _, _ = select.select([connection, server], [], [])
                        if connection in ready:
                            if not (part := connection.recv(CHUNK)):
                                break
                            server.sendall(part)
                        if server in ready and (not (part := server.recv(CHUNK)) or not way.give(part)):
                            break
            else:
                while request := _request(connection):
                    if not way.give(self._upstream(request)):
                        break

    def taken(self, seen: int) -> tuple[int, Fault | None]:
        """The fault for a connection that has `seen` so many orders, if it is one of those that are spoiled."""
        with self._changing:
            if seen == self._told:
                return seen, None
            if self._left == 0:
                return self._told, None
            self._left -= 1
            return self._told, self._fault

    def pause(self, seconds: float | None = None) -> bool:
        """Wait, at most until the end of all, and say whether that has come."""
        return self._ended.wait(seconds)


class _Way:
    """What passes on one connection."""

    def __init__(self, proxy: DamagingProxy, connection: socket.socket) -> None:
        self._proxy = proxy
        self._connection = connection
        self._seen = 0
        self._count = 0
        self._fault: Fault | None = None

    def give(self, part: bytes) -> bool:
        """Pass a part on, spoiled as told, and say whether the connection goes on."""
        seen, fault = self._proxy.taken(self._seen)
        if seen != self._seen:
            self._seen, self._fault, self._count = seen, fault, 0
        fault, at = self._fault, self._fault.at - self._count if self._fault else 0
        self._count += len(part)
        if fault is None or at >= len(part) or (at < 0 and fault.kind == "flip"):
            self._connection.sendall(part)
            return True
        at = max(at, 0)
        if fault.kind == "flip":
            self._connection.sendall(part[:at] + bytes([part[at] ^ fault.bits]) + part[at + 1 :])
            return True
        self._connection.sendall(part[:at])
        if fault.kind == "stall":
            self._proxy.pause(60)
        elif fault.kind == "trickle":
            for byte in part[at:]:
                if self._proxy.pause(0.05):
                    return False
                self._connection.sendall(bytes([byte]))
            return True
        elif fault.kind == "reset":
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return False


def _request(connection: socket.socket) -> bytes:
    """A whole request with a length; empty at the end."""
    received = b""
    while True:
        headers, found, body = received.partition(b"\r\n\r\n")
        if found:
            lengths = [line for line in headers.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if len(body) >= int(lengths[0].partition(b":")[2]):
                return received
        part = connection.recv(CHUNK)
        if not part:
            return b""
        received += part


@contextlib.contextmanager
def faulty(upstream: Upstream) -> Iterator[DamagingProxy]:
    """A proxy until the block ends."""
    proxy = DamagingProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
