"""The way from a mirror to its master: a proxy that cuts, truncates or changes what passes, or leads elsewhere."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Change = Callable[[str, bytes], bytes]


class SoapProxy(ThreadingHTTPServer):
    """A proxy at an address of its own that leads to a server, which may change."""

    daemon_threads = True
    # Who was being answered when it ends is not waited for.
    block_on_close = False

    def __init__(self, to: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.to = to
        # Nothing passes.
        self.is_cut = False
        # Given an operation and the bytes of its answer, those that arrive.
        self.change: Change = lambda operation, answer: answer
        # Half of each answer arrives.
        self.truncates = False
        # How many answers passed whole.
        self.passed = 0

    @property
    def url(self) -> str:
        """Where the mirror finds what it takes for its master."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever goes away while being answered is none of a test's business."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SoapProxy

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.close_connection = True
        if self.server.is_cut:
            return
        master = urlsplit(self.server.to)
        connection = http.client.HTTPConnection(str(master.hostname), master.port, timeout=60)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            headers = {name: self.headers[name] for name in ("content-type", "soapaction")}
            connection.request("POST", self.path, request, headers)
            with connection.getresponse() as response:
                content = response.read()
            operation = self.headers["soapaction"].strip('"').rpartition("#")[2]
            answer = self.server.change(operation, content)
            if self.server.is_cut:
                return
            self.send_response(response.status)
            self.send_header("Content-Type", response.headers["content-type"])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.server.truncates:
                self.wfile.write(answer[: len(answer) // 2])
                return
            self.wfile.write(answer)
            self.server.passed += 1
            self.close_connection = False

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def soap_proxy(to: str) -> Iterator[SoapProxy]:
    """A way to a server until the block ends."""
    with SoapProxy(to) as leading:
        thread = threading.Thread(target=leading.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield leading
        leading.shutdown()
        thread.join()
