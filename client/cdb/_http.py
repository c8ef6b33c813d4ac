"""One request to one server and its whole answer, or why there is none.

Bounded in time and in size; no redirect is followed, nothing is unpacked, and what was damaged on its way is no answer.
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
from cdb._deadline import Clock, Share
from cdb._failures import Again, Failed
from cdb._files import check_regular
from cdb._reasons import check_status, reason_of
from cdb._secrets import Secrets
from cdb._way import CHUNK, Response, Troubles, Way, environment

# More than any payload or list that a server is set to give.
LONGEST_ANSWER = 2**29

# Bytes. Of a file with a certificate, its key and the chain of its authorities, far more than there are.
LONGEST_CERTIFICATE = 2**20

# A digest of all but the payload, with the serial, which no digest of the content covers.
_DIGEST = re.compile(r"\bsha-256=:([^:,;]*):(?:\s*;\s*serial=([0-9]{1,18})\b)?")
_DATA, _DATA_END = b"<tns:data>", b"</tns:data>"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP response. `proven` by its CDB-Digest; `serial` is how far the server knew the journal."""

    status: int
    content_type: str
    content: bytes
    proven: bool
    serial: int | None


class Http:
    """The way to servers: a line for each thread, and anew after a fork."""

    def __init__(self, auth: tuple[str, str] | None, client_cert: str | None) -> None:
        self._auth = auth
        self.secrets = Secrets(auth)
        self._client_cert = client_cert
        self._of_thread = threading.local()

    def get(self, server: str, path: str, share: Share) -> Reply:
        """Read what one server has at a path. Raises what `post` raises."""
        return self._asked("GET", server, path, {}, None, share)

    def post(
        self,
        server: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        share: Share,
        longest: int = LONGEST_ANSWER,
    ) -> Reply:
        """Ask one server. Raises Failed, and the CdbPermanentError of an answer that is HTTP's own.

        Of an answer, at most `longest` bytes and a part are read.
        """
        return self._asked("POST", server, path, headers, body, share, longest)

    def forget(self) -> None:
        """Close this thread's connections: what may still come on them belongs to no question."""
        line: _Line | None = getattr(self._of_thread, "line", None)
        if line is not None and line.process == os.getpid():
            line.close()

    def _asked(
        self,
        method: str,
        server: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        share: Share,
        longest: int = LONGEST_ANSWER,
    ) -> Reply:
        address = server.rstrip("/") + path
        line = self._line()
        clock = line.clock
        clock.start(share)
        began = time.monotonic()
        try:
            with closing(line.ask(method, address, headers, body)) as response:
                reply = _whole(response, server, clock, longest)
        except Troubles as error:
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
            hidden=self.secrets.hidden,
        )
        return reply

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
    """The ways of one thread: from server to server, at one time."""

    def __init__(self, auth: tuple[str, str] | None, client_cert: str | None) -> None:
        self.process = os.getpid()
        self.clock = Clock()
        self._auth = auth
        self._client_cert = client_cert
        self._environment: list[str | None] = []
        self._ways: dict[tuple[str, str], Way] = {}

    def ask(self, method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """The response to a request, whose content is still to come."""
        if (found := environment()) != self._environment:
            self.close()
            self._environment = found
        way = method, address
        if way not in self._ways:
            self._ways[way] = Way(method, address, self._auth, self._client_cert, self.clock)
        return self._ways[way].ask(headers, body)

    def close(self) -> None:
        """Close the connections, and look at all that is set anew."""
        while self._ways:
            self._ways.popitem()[1].close()


def _whole(response: Response, server: str, clock: Clock, longest: int) -> Reply:
    content = bytearray()
    # As it comes: nothing is unpacked.
    while chunk := response.read1(CHUNK, decode_content=False):
        content += chunk
        if len(content) > longest:
            told = f"{server}: its answer has more than {longest} bytes, and is not one of a calibration database"
            raise Failed(errors.ForeignAnswer(told), Again.NEVER)
        clock.left()
    damaged = Failed(errors.ServerUnreachable(f"{server}: its answer arrived damaged"), Again.AT_ONCE)
    serial = response.headers.get("CDB-Serial")
    digest = _DIGEST.search(response.headers.get("CDB-Digest", ""))
    if digest is not None:
        if digest[1] != _digest(content):
            raise damaged
        if None not in (serial, digest[2]) and serial != digest[2]:
            raise damaged
        # Of the services only answers of SOAP have a digest: here it is the status that is not as it was sent.
        if response.status not in (200, 500):
            raise damaged
        serial = serial or digest[2]
    return Reply(
        response.status,
        response.headers.get("Content-Type", ""),
        bytes(content),
        digest is not None,
        int(serial) if serial is not None and re.fullmatch("[0-9]{1,18}", serial) else None,
    )


def _digest(content: bytearray) -> str:
    """The SHA-256, in base64, of an answer without its payload, which is held against its own sha256."""
    begin, end = content.find(_DATA) + len(_DATA), content.rfind(_DATA_END)
    digest = hashlib.sha256(content if end < 0 else content[:begin])
    if end >= 0:
        digest.update(content[end:])
    return base64.b64encode(digest.digest()).decode("ascii")


def _check_certificate(file: str) -> None:
    """Raise ServerUnreachable where CDB_CLIENT_CERT names no usable certificate."""

    def no_password() -> str:
        raise errors.ServerUnreachable(f"CDB_CLIENT_CERT {file}: its key is encrypted, and no password can be given")

    try:
        # OpenSSL would wait for a pipe and read a device without end.
        if check_regular(file).st_size > LONGEST_CERTIFICATE:
            raise ssl.SSLError
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password=no_password)
    except ssl.SSLError:
        raise errors.ServerUnreachable(
            f"CDB_CLIENT_CERT {file} does not hold a certificate and its key, in PEM, for TLS"
        ) from None
    except OSError as error:
        raise errors.ServerUnreachable(
            f"CDB_CLIENT_CERT {file}, the certificate for TLS, cannot be read: {error.strerror}"
        ) from None
