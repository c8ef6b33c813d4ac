"""A false master: what a true one says, passed on word for word, or with a lie in it."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Raw:
    """What is sent as it is, part by part, before the connection is closed."""

    parts: Callable[[], Iterator[bytes]]


# Of an operation and the true answer to it: what is said instead, as SOAP or as it is.
Tell = Callable[[str, bytes], bytes | Raw]


class FalseMaster(ThreadingHTTPServer):
    """A server at an address of its own that passes on what a true master says; `tell` may lie."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, truth: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.truth = truth
        self.tell: Tell | None = None
        # Held by whoever changes what is true, or what is told: nobody is answered meanwhile.
        self.quiet = threading.Lock()
        # What ends slow lies.
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """Where a mirror finds it."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever goes away while being lied to is none of a test's business."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FalseMaster

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("content-length", 0)))
        truth = urlsplit(self.server.truth)
        operation = self.headers["soapaction"].strip('"').rpartition("#")[2]
        self.close_connection = True
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(str(truth.hostname), truth.port, timeout=30)
            with self.server.quiet, closing(connection):
                headers = {name: self.headers[name] for name in ("content-type", "soapaction")}
                connection.request("POST", self.path, request, headers)
                with connection.getresponse() as response:
                    status, answer = response.status, response.read()
                said = answer if self.server.tell is None else self.server.tell(operation, answer)
            if isinstance(said, Raw):
                for part in said.parts():
                    self.wfile.write(part)
                return
            self.send_response(500 if b":Fault>" in said[:400] else status)
            self.send_header("Content-Type", "text/xml; charset=utf-8")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
            self.close_connection = False

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def false_master(truth: str) -> Iterator[FalseMaster]:
    """A false master until the block ends."""
    with FalseMaster(truth) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.ended.set()
        server.shutdown()
        thread.join()
