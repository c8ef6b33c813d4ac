"""One request to one server and its whole answer, or why there is none. Alone imports requests and urllib3.

Bounded in time and in size; no redirect is followed, nothing is unpacked, and what was damaged on its way is no answer.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import io
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

from cdb import _deadline
from cdb import _exceptions as errors
from cdb._deadline import Clock, Share
from cdb._failures import Again, Failed
from cdb._reasons import check_status, reason_of

CHUNK = 2**16
# More than any payload or list that a server is set to give.
LONGEST_ANSWER = 2**29

# RFC 9530, with the serial that our servers add: no digest of the content covers CDB-Serial.
_DIGEST = re.compile(r"\bsha-256=:([^:,;]*):(?:\s*;\s*serial=([0-9]{1,18})\b)?")

# What requests takes from the environment; to look at it as requests does would be a fifth of a call.
_ENVIRONMENT = [
    name
    for setting in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle")
    for name in (setting, setting.upper())
]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP response. `proven` by its Content-Digest; `serial` is how far the server knew the journal."""

    status: int
    content_type: str
    content: bytes
    proven: bool
    serial: int | None


class Http:
    """The way to servers: a line for each thread, and anew after a fork."""

    def __init__(self, auth: tuple[str, str] | None, client_cert: str | None) -> None:
        self._auth = auth
        self._client_cert = client_cert
        self._of_thread = threading.local()

    def post(self, server: str, path: str, headers: Mapping[str, str], body: bytes, share: Share) -> Reply:
        """Ask one server. Raises Failed, and the CdbPermanentError of an answer that is HTTP's own."""
        address = server.rstrip("/") + path
        line = self._line()
        clock = line.clock
        clock.start(share)
        began = time.monotonic()
        try:
            with line.post(address, headers, body) as response:
                reply = _whole(response, server, clock)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            took = time.monotonic() - began
            told, again = reason_of(error, address, self._client_cert, begun=clock.begun, took=took)
            raise Failed(errors.ServerUnreachable(f"{server}: {told}"), again) from error
        check_status(
            reply.status,
            reply.content_type,
            reply.content,
            proven=reply.proven,
            writing=self._auth is not None,
            address=address,
            server=server,
        )
        return reply

    def forget(self) -> None:
        """Close this thread's connections: what may still come on them belongs to no question."""
        line: _Line | None = getattr(self._of_thread, "line", None)
        if line is not None and line.process == os.getpid():
            line.close()

    def _line(self) -> _Line:
        # One for each thread, and anew after a fork: the parent's connections carry the parent's answers.
        line: _Line | None = getattr(self._of_thread, "line", None)
        if line is None or line.process != os.getpid():
            if self._client_cert is not None:
                try:
                    _check_certificate(self._client_cert)
                except errors.ServerUnreachable as error:
                    raise Failed(error, Again.NEVER) from None
            line = self._of_thread.line = _Line(self._auth, self._client_cert)
        return line


class _Line:
    """The connections of a thread, and what is the same in each request on them: it is made once."""

    def __init__(self, auth: tuple[str, str] | None, client_cert: str | None) -> None:
        self.process = os.getpid()
        self.clock = Clock()
        self._auth = auth
        self._session = requests.Session()
        if client_cert is not None:
            # Twice the same: named as a key, too, one with a password is refused instead of asking the terminal.
            self._session.cert = (client_cert, client_cert)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self.clock))
        self._environment: tuple[str | None, ...] = ()
        self._prepared: dict[str, tuple[requests.PreparedRequest, dict[str, Any]]] = {}

    def post(self, address: str, headers: Mapping[str, str], body: bytes) -> requests.Response:
        """The response to a request, whose content is still to come."""
        environment = tuple(map(os.environ.get, _ENVIRONMENT))
        if environment != self._environment:
            self._environment = environment
            self._prepared.clear()
        if address not in self._prepared:
            self._prepared[address] = self._prepare(address)
        prepared, settings = self._prepared[address]
        request = prepared.copy()
        request.headers.update(headers)
        request.prepare_body(body, None)
        if self._session.cookies:
            # Of a balancer before the servers.
            request.prepare_cookies(self._session.cookies)
        # The rest of the time is the clock's; urllib3 asks for one all the same.
        return self._session.send(request, timeout=self.clock.left(), allow_redirects=False, **settings)

    def close(self) -> None:
        """Close the connections, and look at all settings anew."""
        self._session.close()
        self._prepared.clear()

    def _prepare(self, address: str) -> tuple[requests.PreparedRequest, dict[str, Any]]:
        headers = {**self._session.headers, "Accept-Encoding": "identity"}
        # Not by the session: what a ~/.netrc says of the host is for other programs.
        request = requests.Request("POST", address, headers, auth=self._auth).prepare()
        return request, {**self._session.merge_environment_settings(address, {}, True, None, None)}


def _whole(response: requests.Response, server: str, clock: Clock) -> Reply:
    content = bytearray()
    # As it comes: nothing is unpacked.
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        content += chunk
        if len(content) > LONGEST_ANSWER:
            raise Failed(errors.ServerUnreachable(f"{server}: its answer does not end"), Again.NEVER)
        clock.left()
    damaged = Failed(errors.ServerUnreachable(f"{server}: its answer arrived damaged"), Again.AT_ONCE)
    serial = response.headers.get("CDB-Serial")
    digest = _DIGEST.search(response.headers.get("Content-Digest", ""))
    if digest is not None:
        if digest[1] != base64.b64encode(hashlib.sha256(content).digest()).decode("ascii"):
            raise damaged
        if None not in (serial, digest[2]) and serial != digest[2]:
            raise damaged
        # Of the services only answers of SOAP have a digest: here it is the status that is not as it was sent.
        if response.status_code not in (200, 500):
            raise damaged
        serial = serial or digest[2]
    return Reply(
        response.status_code,
        response.headers.get("Content-Type", ""),
        bytes(content),
        digest is not None,
        int(serial) if serial is not None and re.fullmatch("[0-9]{1,18}", serial) else None,
    )


class _Adapter(requests.adapters.HTTPAdapter):
    """What gives a session connections that look at its clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._set(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._set(manager)
        return manager

    def _set(self, manager: urllib3.PoolManager) -> None:
        # Proxies of another kind, SOCKS, bring their own connections.
        if manager.pool_classes_by_scheme["http"] is urllib3.HTTPConnectionPool:
            manager.pool_classes_by_scheme = {
                "http": self._made(urllib3.HTTPConnectionPool, _Connection),
                "https": self._made(urllib3.HTTPSConnectionPool, _TlsConnection),
            }

    def _made(self, kind: Callable[..., Any], connection: Callable[..., Any]) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            pool = kind(*args, **kwargs)
            pool.ConnectionCls = functools.partial(connection, self._clock)
            return pool

        return make


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that waits for nothing longer than a clock says."""

    def __init__(self, clock: Clock, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock
        self.response_class = functools.partial(_Response, clock)  # type: ignore[assignment]  # it makes one

    def _new_conn(self) -> socket.socket:
        try:
            return _deadline.connected(self._dns_host, self.port, self.socket_options or (), self._clock)
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        _deadline.send(self.sock, data, self._clock)


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _Response(http.client.HTTPResponse):
    """What comes on such a connection. Where its headers do not say its end, or are none, it was damaged."""

    def __init__(self, clock: Clock, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_deadline.Incoming(self.fp.detach(), sock, clock), CHUNK)

    def begin(self) -> None:
        super().begin()
        # RFC 9112, 9.3 and 9.6: without "close" a connection stays, so that a body must tell its length.
        endless = self.version == 11 and not self.chunked and self.length is None
        closing = "close" in self.headers.get("Connection", "").lower()
        # What has no body by its status, and announces one.
        silenced = self.status in (204, 304) and self.headers.get("Content-Length", "0") != "0"
        if self.headers.defects or self.headers.get_payload() or (endless and not closing) or silenced:
            raise http.client.HTTPException("damaged headers")
        # requests would read the whole answer to learn where it points, and what that is may be no address.
        del self.headers["Location"]


def _check_certificate(file: str) -> None:
    """Raise ServerUnreachable where CDB_CLIENT_CERT names no usable certificate."""

    def no_password() -> str:
        raise errors.ServerUnreachable(f"CDB_CLIENT_CERT {file}: its key is encrypted, and no password can be given")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password=no_password)
    except ssl.SSLError:
        raise errors.ServerUnreachable(
            f"CDB_CLIENT_CERT {file} does not hold a certificate and its key, in PEM, for TLS"
        ) from None
    except OSError as error:
        raise errors.ServerUnreachable(
            f"CDB_CLIENT_CERT {file}, the certificate for TLS, cannot be read: {error.strerror}"
        ) from None
