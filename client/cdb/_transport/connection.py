"""Open connections with requests and urllib3: proxies, TLS files, cookies, one pool per address.

Only this module imports requests and urllib3. Prepares what depends on address and environment once, not for each
request: it takes longer than all else in a call.
"""

from __future__ import annotations

import functools
import http.client
import io
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
from requests.cookies import extract_cookies_to_jar, get_cookie_header

from cdb._files import NotRegular, check_regular
from cdb._transport import timeouts
from cdb._transport.timeouts import Deadline

CHUNK_BYTES = 2**16
# Bytes; far more than the certificates of all public authorities have.
MAX_CA_BUNDLE_BYTES = 2**25

Response = urllib3.BaseHTTPResponse
# The errors that an endpoint may raise.
TransportErrors = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

_NETWORK_VARIABLES = [
    name
    for setting in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle")
    for name in (setting, setting.upper())
]


def network_environment() -> list[str | None]:
    """Return the environment's network settings: a change makes endpoints obsolete."""
    return [os.environ.get(name) for name in _NETWORK_VARIABLES]


class Endpoint:
    """Sends requests to one address as requests would; prepares once what each has in common."""

    def __init__(
        self, method: str, address: str, auth: tuple[str, str] | None, client_cert: str | None, deadline: Deadline
    ) -> None:
        session = requests.Session()
        if client_cert is not None:
            # Also named as the key: then OpenSSL refuses an encrypted key, instead of asking for its password.
            session.cert = (client_cert, client_cert)
        # Not by the session, which would read ~/.netrc: that is for other programs.
        self._request = requests.Request(method, address, session.headers, auth=auth).prepare()
        self._headers = {**self._request.headers, "Accept-Encoding": "identity"}
        # Each request sets its own.
        self._headers.pop("Content-Length", None)
        self._cookies = session.cookies
        self._deadline = deadline
        self._adapter = _Adapter(deadline)
        url = str(self._request.url)
        found: dict[str, Any] = {**session.merge_environment_settings(url, {}, True, None, None)}
        verify, proxies, cert = found["verify"], found["proxies"], found["cert"]
        if isinstance(verify, str):
            _check_ca_bundle(verify)
        self._pool: Any = self._adapter.get_connection_with_tls_context(self._request, verify, proxies, cert)
        self._adapter.cert_verify(self._pool, url, verify, cert)
        self._target = self._adapter.request_url(self._request, proxies)

    def send(self, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Send a request and return the response, before its content is read."""
        if self._cookies and (cookie := get_cookie_header(self._cookies, self._request)):
            # A load balancer may have set it.
            headers = {**headers, "Cookie": cookie}
        response: Response = self._pool.urlopen(
            self._request.method,
            self._target,
            body,
            {**self._headers, **headers},
            retries=self._adapter.max_retries,
            redirect=False,
            assert_same_host=False,
            # urllib3 needs a value; the connection sets the deadline's own.
            timeout=self._deadline.seconds_left(),
            preload_content=False,
            decode_content=False,
        )
        if "Set-Cookie" in response.headers:
            extract_cookies_to_jar(self._cookies, self._request, response)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()


def _check_ca_bundle(path: str) -> None:
    """Raise the OSError of requests for a missing bundle where the path is no file or folder.

    OpenSSL would wait for a pipe and read a device without end.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        try:
            too_long = check_regular(path).st_size > MAX_CA_BUNDLE_BYTES
        except NotRegular:
            too_long = True
        if too_long:
            raise OSError(f"no suitable TLS CA certificate bundle: {path}")


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections that keep a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_our_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_our_connections(manager)
        return manager

    def _use_our_connections(self, manager: urllib3.PoolManager) -> None:
        # SOCKS proxies have connections of their own.
        if manager.pool_classes_by_scheme["http"] is urllib3.HTTPConnectionPool:
            manager.pool_classes_by_scheme = {
                "http": self._pool_factory(urllib3.HTTPConnectionPool, _Connection),
                "https": self._pool_factory(urllib3.HTTPSConnectionPool, _TlsConnection),
            }

    def _pool_factory(self, kind: Callable[..., Any], connection: Callable[..., Any]) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            pool = kind(*args, **kwargs)
            pool.ConnectionCls = functools.partial(connection, self._deadline)
            return pool

        return make


class _Connection(urllib3.connection.HTTPConnection):
    """A connection whose every wait is limited by a deadline."""

    def __init__(self, deadline: Deadline, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = deadline
        self._buffered: list[bytes] | None = None
        self.response_class = functools.partial(_Response, deadline)  # type: ignore[assignment]  # it makes one

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            # A request to a proxy must not wait in the buffer.
            self.connect()
        parts: list[bytes] = []
        self._buffered = parts
        try:
            super().request(*args, **kwargs)
        finally:
            self._buffered = None
        if sum(map(len, parts)) <= CHUNK_BYTES:
            # Send headers and content together: one system call, and one wake-up of the server.
            parts = [b"".join(parts)]
        for part in parts:
            timeouts.send_all(self.sock, part, self._deadline)

    def _new_conn(self) -> socket.socket:
        try:
            return timeouts.connect(self._dns_host, self.port, self.socket_options or (), self._deadline)
        except socket.gaierror as error:
            raise urllib3.exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, str(error)) from error

    def send(self, data: Any) -> None:
        if self._buffered is None:
            timeouts.send_all(self.sock, data, self._deadline)
        else:
            self._buffered.append(data)


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """A connection over TLS."""


class _Response(http.client.HTTPResponse):
    """A response whose reads keep a deadline. Rejects headers that are damaged or do not tell the length."""

    def __init__(self, deadline: Deadline, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(timeouts.DeadlineReader(self.fp.detach(), sock, deadline), CHUNK_BYTES)

    def begin(self) -> None:
        super().begin()
        # RFC 9112, 9.3 and 9.6: without "close" the connection stays open, so that the length must be known.
        endless = self.version == 11 and not self.chunked and self.length is None
        closing = "close" in self.headers.get("Connection", "").lower()
        # A status without a body, with the length of one.
        silenced = self.status in (204, 304) and self.headers.get("Content-Length", "0") != "0"
        if self.headers.defects or self.headers.get_payload() or (endless and not closing) or silenced:
            raise http.client.HTTPException("damaged headers")
        # requests would read the whole answer to follow it, and it may be no address.
        del self.headers["Location"]
