"""Exchange one request for one whole response: size limit, digest check, one session per thread.

Follows no redirect, decompresses nothing, and rejects a damaged response.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from cdb import _exceptions as errors
from cdb._files import check_regular
from cdb._transport.connection import CHUNK_BYTES, Endpoint, Response, TransportErrors, network_environment
from cdb._transport.credentials import TokenRedactor
from cdb._transport.failures import AttemptFailed, Retry, check_status, explain_failure
from cdb._transport.timeouts import AttemptBudget, Deadline

# More than any payload or list has.
MAX_RESPONSE_BYTES = 2**29

# Bytes; far more than a file with a certificate, its key and its chain has.
MAX_CERTIFICATE_BYTES = 2**20

# The digest of an answer without its payload, and the serial, which that digest does not cover.
_DIGEST = re.compile(r"\bsha-256=:([^:,;]*):(?:\s*;\s*serial=([0-9]{1,18})\b)?")
_DATA, _DATA_END = b"<tns:data>", b"</tns:data>"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole HTTP response. `serial` is the server's journal position; CDB-Digest verifies the digest."""

    status: int
    content_type: str
    content: bytes
    digest_verified: bool
    serial: int | None


class HttpClient:
    """Sends requests to servers, over one session for each thread; a forked process makes its own."""

    def __init__(self, auth: tuple[str, str] | None, client_cert: str | None) -> None:
        self._auth = auth
        self.redactor = TokenRedactor(auth)
        self._client_cert = client_cert
        self._thread_local = threading.local()

    def discard_connections(self) -> None:
        """Close this thread's connections: bytes that may still arrive on them answer no later request."""
        session: _ThreadSession | None = getattr(self._thread_local, "session", None)
        if session is not None and session.process == os.getpid():
            session.close()

    def exchange(
        self,
        server: str,
        path: str,
        budget: AttemptBudget,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> HttpResponse:
        """Send one request to one server, a POST where it has a body, and return the whole response.

        A response of more than `max_bytes` bytes is not read to its end. Raises AttemptFailed, and a CdbPermanentError
        for a response that is not SOAP.
        """
        method = "GET" if body is None else "POST"
        address = server.rstrip("/") + path
        session = self._thread_session()
        deadline = session.deadline
        deadline.start(budget)
        began = time.monotonic()
        try:
            with closing(session.send(method, address, headers or {}, body)) as response:
                reply = _read_whole(response, server, deadline, max_bytes)
        except TransportErrors as error:
            took = time.monotonic() - began
            told, retry = explain_failure(
                error, address, self._client_cert, has_received=deadline.has_received, took=took
            )
            raise AttemptFailed(errors.ServerUnreachable(f"{server}: {told}"), retry) from error
        check_status(reply, server, address, writing=self._auth is not None, redact=self.redactor.redact)
        return reply

    def _thread_session(self) -> _ThreadSession:
        # A new one after a fork: the parent's connections carry the parent's answers.
        session: _ThreadSession | None = getattr(self._thread_local, "session", None)
        if session is None or session.process != os.getpid():
            if self._client_cert is not None:
                _check_certificate(self._client_cert)
            session = self._thread_local.session = _ThreadSession(self._auth, self._client_cert)
        return session


class _ThreadSession:
    """The endpoints of one thread, with one deadline."""

    def __init__(self, auth: tuple[str, str] | None, client_cert: str | None) -> None:
        self.process = os.getpid()
        self.deadline = Deadline()
        self._auth = auth
        self._client_cert = client_cert
        self._environment: list[str | None] = []
        self._endpoints: dict[tuple[str, str], Endpoint] = {}

    def send(self, method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Send a request and return the response, before its content is read."""
        if (found := network_environment()) != self._environment:
            self.close()
            self._environment = found
        key = method, address
        if key not in self._endpoints:
            self._endpoints[key] = Endpoint(method, address, self._auth, self._client_cert, self.deadline)
        return self._endpoints[key].send(headers, body)

    def close(self) -> None:
        """Close the connections; the next request makes its endpoint anew."""
        while self._endpoints:
            self._endpoints.popitem()[1].close()


def _read_whole(response: Response, server: str, deadline: Deadline, max_bytes: int) -> HttpResponse:
    content = bytearray()
    # Decompress nothing: the size limit holds for what is received.
    while chunk := response.read1(CHUNK_BYTES, decode_content=False):
        content += chunk
        if len(content) > max_bytes:
            told = f"{server}: its answer has more than {max_bytes} bytes, and is not one of a calibration database"
            raise AttemptFailed(errors.ForeignAnswer(told), Retry.NEVER)
        deadline.seconds_left()
    serial = response.headers.get("CDB-Serial")
    digest = _DIGEST.search(response.headers.get("CDB-Digest", ""))
    if digest is not None:
        if (
            digest[1] != _digest(content)
            or (None not in (serial, digest[2]) and serial != digest[2])
            # Only SOAP has a digest, with one of these: another status was changed on the way.
            or response.status not in (200, 500)
        ):
            raise AttemptFailed(errors.ServerUnreachable(f"{server}: its answer arrived damaged"), Retry.IMMEDIATELY)
        serial = serial or digest[2]
    return HttpResponse(
        response.status,
        response.headers.get("Content-Type", ""),
        bytes(content),
        digest is not None,
        int(serial) if serial is not None and re.fullmatch("[0-9]{1,18}", serial) else None,
    )


def _digest(content: bytearray) -> str:
    """Return the SHA-256, in base64, of an answer without its payload, which has a sha256 of its own."""
    begin, end = content.find(_DATA) + len(_DATA), content.rfind(_DATA_END)
    digest = hashlib.sha256(content if end < 0 else content[:begin])
    if end >= 0:
        digest.update(content[end:])
    return base64.b64encode(digest.digest()).decode("ascii")


def _check_certificate(file: str) -> None:
    """Raise AttemptFailed where CDB_CLIENT_CERT names no usable certificate."""

    def unusable(told: str) -> AttemptFailed:
        return AttemptFailed(errors.ServerUnreachable(f"CDB_CLIENT_CERT {file}{told}"), Retry.NEVER)

    def no_password() -> str:
        raise unusable(": its key is encrypted, and no password can be given")

    try:
        # OpenSSL would wait for a pipe and read a device without end.
        if check_regular(file).st_size > MAX_CERTIFICATE_BYTES:
            raise ssl.SSLError
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password=no_password)
    except ssl.SSLError:
        raise unusable(" does not hold a certificate and its key, in PEM, for TLS") from None
    except OSError as error:
        raise unusable(f", the certificate for TLS, cannot be read: {error.strerror}") from None
