"""HTTP/1.1 as bytes on a socket: requests as wrong as one likes, answers read strictly."""

import base64
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

READING = "/cdb/v2/calibration"
WRITING = "/cdb/v2/calibrationSuperMouse"

# Longer than any deadline of the service, so that a test sees which one it was.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. `seconds` passed between the last byte sent and the last byte read."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def closes(self) -> bool:
        """Whether the server says that it closes the connection."""
        return self.headers.get("connection", "").lower() == "close"


class Broken(Exception):
    """The connection ended, or went wrong, before an answer was whole."""


class Peer:
    """One connection to a server, over TLS where there is a context for it."""

    def __init__(self, url: str, patience: float = PATIENCE, tls: ssl.SSLContext | None = None) -> None:
        address = urlsplit(url)
        assert address.port is not None, url
        self.socket = socket.create_connection((address.hostname, address.port), patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=address.hostname)
        self._read = b""

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def ask(self, request: bytes, *, head: bool = False) -> Reply:
        """Send a request, as far as the server takes it, and read the answer. Raises Broken."""
        # Whoever is refused while sending finds the answer there all the same.
        with suppress(OSError):
            self.socket.sendall(request)
        return self.reply(head=head)

    def reply(self, *, head: bool = False) -> Reply:
        """Read one answer, after any that says to go on. Raises Broken."""
        start = time.perf_counter()
        while True:
            reply = self._one(start, head=head)
            if reply.status != 100:
                return reply

    def _one(self, start: float, *, head: bool) -> Reply:
        while b"\r\n\r\n" not in self._read:
            self._more()
        top, _, self._read = self._read.partition(b"\r\n\r\n")
        status_line, *lines = top.decode("latin-1").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        if version != "HTTP/1.1":
            raise Broken(status_line)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() in headers:
                raise Broken(f"{name} stands twice")
            headers[name.lower()] = value.strip()
        head |= status == "100"
        if not head and not headers.get("content-length", "").isdigit():
            raise Broken(f"an answer without length: {top!r}")
        length = 0 if head else int(headers["content-length"])
        while len(self._read) < length:
            self._more()
        body, self._read = self._read[:length], self._read[length:]
        return Reply(int(status), headers, body, time.perf_counter() - start)

    def ended(self) -> bool:
        """Wait until the server has ended the connection: in order or not, but without another byte."""
        try:
            return not self._read and not self.socket.recv(1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _more(self) -> None:
        try:
            read = self.socket.recv(2**18)
        except OSError as error:
            raise Broken(f"{error!r} after {self._read[:200]!r}") from error
        if not read:
            raise Broken(f"the connection ended after {self._read[:200]!r}")
        self._read += read


def request(
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Iterable[tuple[str, str | bytes | None]] = (),
    credentials: tuple[str, str] | None = None,
) -> bytes:
    """The bytes of a request. `headers` replace those that a client sends by itself; with None they are left out.

    A header named twice in `headers` stands there twice.
    """
    given = list(headers)
    named = {name.lower() for name, _ in given}
    usual: list[tuple[str, str | bytes | None]] = [
        ("Host", "localhost"),
        ("Content-Type", "text/xml; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    if credentials is not None:
        usual.append(("Authorization", basic(*credentials)))
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    for name, value in [*(header for header in usual if header[0].lower() not in named), *given]:
        if value is not None:
            lines.append(
                name.encode("latin-1") + b": " + (value.encode("latin-1") if isinstance(value, str) else value)
            )
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def basic(user: str, token: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode("ascii")


def chunked(body: bytes, size: int = 2**16) -> bytes:
    """A body in chunks."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
