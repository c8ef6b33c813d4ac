"""A SOAP service from here: a call to the servers in their order, an answer or a typed error. Alone imports zeep.

zeep writes requests and reads answers, by the contract that ships with this package; the HTTP in between is bounded in
time and in size, follows no redirects, and takes nothing for an answer that the contract does not describe.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any, TypeVar

import requests
import urllib3
import zeep
import zeep.exceptions
from lxml import etree

from cdb import _exceptions as errors
from cdb._instants import instant

NAMESPACE = "urn:mice:cdb:2"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
CONNECT_SECONDS = 5.0
CHUNK = 2**16
# More than any payload or list that a server is set to give.
LONGEST_ANSWER = 2**29

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What OpenSSL makes of an answer in plain text.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
# OpenSSL's numbers for a chain that ends in no authority that is known.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_INSTANTS = ("date", "as_of", "complete_until")
_NUMBERS = ("run_number", "id", "limit")

Failure = TypeVar("Failure", bound=BaseException)


class _TakesNoWrites(errors.NotAuthorised):
    """A mirror was asked to write. Another server of the list may take it."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """A whole HTTP response."""

    status: int
    content_type: str
    content: bytes


class Service:
    """One service of the contract at one or more servers."""

    def __init__(
        self,
        wsdl: str,
        path: str,
        servers: Sequence[str],
        auth: tuple[str, str] | None,
        client_cert: str | None,
        timeout: float,
    ) -> None:
        with as_file(files("cdb.wsdl").joinpath(wsdl)) as file:
            self._client = zeep.Client(str(file))
        self._path = path
        self._servers = servers
        self._auth = auth
        self._client_cert = client_cert
        self._timeout = timeout
        self._of_thread = threading.local()

    def call(self, operation: str, **arguments: Any) -> Any:
        """Ask the servers in their order; the answer's content as zeep gives it. Raises CdbError."""
        request = self._request(operation, arguments)
        deadline = time.monotonic() + self._timeout
        failures: list[errors.CdbTemporaryError | _TakesNoWrites] = []
        for position, server in enumerate(self._servers):
            # A server that is silent leaves the others their share of the time.
            share = (deadline - time.monotonic()) / (len(self._servers) - position)
            try:
                return self._read(operation, self._post(server, operation, request, time.monotonic() + share), server)
            except (errors.CdbTemporaryError, _TakesNoWrites) as error:
                failures.append(error)
        raise failures[0] if len(failures) == 1 else _all_failed(failures)

    def _request(self, operation: str, arguments: dict[str, Any]) -> bytes:
        for name, value in arguments.items():
            if isinstance(value, str) and _NOT_XML.search(value):
                raise errors.InvalidArgument(f"{name} holds a character that cannot be sent", argument=name)
        try:
            message = self._client.create_message(self._client.service, operation, **arguments)
        except zeep.exceptions.ValidationError as error:
            argument = str(error.path[-1]) if error.path else operation
            raise errors.InvalidArgument(f"{argument}: {error.message}", argument=argument) from None
        request: bytes = etree.tostring(message, encoding="utf-8", xml_declaration=True)
        return request

    def _post(self, server: str, operation: str, request: bytes, deadline: float) -> _Reply:
        address = server.rstrip("/") + self._path
        left = deadline - time.monotonic()
        if left <= 0:
            raise errors.ServerUnreachable(f"{server}: not asked, for the time was up")
        try:
            with self._session().post(
                address,
                data=request,
                headers={
                    "Content-Type": "text/xml; charset=utf-8",
                    "SOAPAction": f'"{NAMESPACE}#{operation}"',
                    "Accept-Encoding": "identity",
                },
                auth=self._auth,
                timeout=(min(CONNECT_SECONDS, left), left),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = bytearray()
                # As it comes: nothing is unpacked, and a trickle does not hold up the look at the clock.
                while chunk := response.raw.read1(CHUNK, decode_content=False):
                    content += chunk
                    if len(content) > LONGEST_ANSWER:
                        raise errors.ServerUnreachable(f"{server}: its answer does not end")
                    if time.monotonic() > deadline:
                        raise errors.ServerUnreachable(f"{server}: no whole answer within {self._timeout:g} s")
                content_type = response.headers.get("content-type", "")
                reply = _Reply(response.status_code, content_type, bytes(content))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise errors.ServerUnreachable(f"{server}: {self._reason(error, address)}") from error
        _check_status(reply, address, server)
        return reply

    def _read(self, operation: str, reply: _Reply, server: str) -> Any:
        foreign = errors.ServerUnreachable(f"{server}: its answer is not one of a calibration database")
        try:
            envelope = etree.fromstring(reply.content, _parser())
        except etree.XMLSyntaxError:
            raise foreign from None
        contents = envelope.xpath("/s:Envelope/s:Body/*", namespaces={"s": SOAP})
        if len(contents) != 1:
            raise foreign
        content = contents[0]
        if content.tag == f"{{{SOAP}}}Fault":
            raise _typed(content, server)
        if reply.status != 200 or content.tag != f"{{{NAMESPACE}}}{operation}Response" or _has_doctype(envelope):
            raise foreign
        try:
            return self._client.service._binding.get(operation).process_reply(envelope)
        except Exception:
            # zeep lets its own errors and those of what it stands on through.
            raise foreign from None

    def _session(self) -> requests.Session:
        # One for each thread, and anew after a fork: the parent's connections carry the parent's answers.
        if getattr(self._of_thread, "process", None) != os.getpid():
            session = requests.Session()
            if self._client_cert is not None:
                _check_certificate(self._client_cert)
                # Twice the same: named as a key, too, one with a password is refused instead of asking the terminal.
                session.cert = (self._client_cert, self._client_cert)
            self._of_thread.session = session
            self._of_thread.process = os.getpid()
        ready: requests.Session = self._of_thread.session
        return ready

    def _reason(self, error: Exception, address: str) -> str:
        """Why a server could not be asked, and what to do."""
        timeout = f"{self._timeout:g} s"
        tls = _first(ssl.SSLError, error)
        if isinstance(error, requests.ConnectTimeout):
            return "no connection in time"
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
            return f"no answer within {timeout}"
        if isinstance(tls, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not accepted: {tls.verify_message}{_remedy(tls)}"
        if tls is not None and tls.reason in _NOT_TLS:
            return "it does not speak TLS: is its address one with http://?"
        # Of a connection that was made and ended before the answer began.
        closed = isinstance(error, requests.ConnectionError) and _first((ssl.SSLError, *_CLOSED), error) is not None
        if closed and address.startswith("https:"):
            if self._client_cert is None:
                return "it ended the TLS connection: if it asks for a certificate, name yours in CDB_CLIENT_CERT"
            return (
                "it ended the TLS connection: perhaps it does not accept the certificate in CDB_CLIENT_CERT, "
                f"{self._client_cert}"
            )
        if tls is not None or isinstance(error, urllib3.exceptions.ProtocolError):
            return "its answer was cut off"
        if closed:
            return "it ended the connection without an answer: is its address one with https://?"
        if isinstance(error, requests.ConnectionError):
            return "no connection: is it running, and is this its address? (CDB_SERVER)"
        if isinstance(error, OSError) and "TLS CA certificate bundle" in str(error):
            return "the file of certificates that REQUESTS_CA_BUNDLE names is not there"
        return f"it could not be asked ({type(error).__name__})"


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


def _check_status(reply: _Reply, address: str, server: str) -> None:
    """Make errors of HTTP's own answers; what remains is SOAP."""
    status = reply.status
    if status == 200 or (status == 500 and reply.content_type.startswith("text/xml")):
        return
    said = reply.content[:300].decode("utf-8", "replace").strip().partition("\n")[0]
    if status in (401, 403):
        raise errors.NotAuthorised(f"{server}: {said} (HTTP {status}; user and token are CDB_USER and CDB_TOKEN)")
    if status == 413:
        raise errors.TooLarge(f"{server}: {said} (HTTP 413)")
    if status in (408, 429, 502, 503, 504):
        raise errors.Unavailable(f"{server}: {said or 'it cannot answer now'} (HTTP {status})")
    if status == 404 and said.startswith("this is a mirror"):
        raise _TakesNoWrites(f"{server}: {said}")
    if 300 <= status < 400:
        raise errors.ServerUnreachable(f"{server}: it points elsewhere (HTTP {status}), which is not followed")
    if status == 400 and b"SSL certificate" in reply.content:
        # nginx's words, for a certificate that was not sent as for one that it does not accept.
        raise errors.ServerUnreachable(f"{server}: it asks for a certificate for TLS: name yours in CDB_CLIENT_CERT")
    raise errors.ServerUnreachable(f"{address} is not a service of a calibration database (HTTP {status})")


def _typed(fault: etree._Element, server: str) -> errors.CdbError:
    """The error that a fault stands for. One without a detail of ours is taken by the side that its code blames."""
    message = fault.findtext("faultstring") or "a fault without words"
    details = fault.findall("detail/*")
    name = etree.QName(details[0]).localname if details else ""
    if name not in errors.FAULTS:
        blamed = (fault.findtext("faultcode") or "").rpartition(":")[2]
        kind = errors.Unavailable if blamed.startswith("Server") else errors.MalformedRequest
        return kind(f"{server}: {message}")
    said = {etree.QName(field).localname: field.text or "" for field in details[0]}
    # The fields that the error has, and no others, whatever the server says.
    fields: dict[str, Any] = {field: said.get(field) for field in errors.FAULTS[name].__annotations__}
    try:
        for field, text in fields.items():
            if text is not None and field in _INSTANTS:
                fields[field] = instant(field, text)
            elif text is not None and field in _NUMBERS:
                fields[field] = int(text)
    except ValueError:
        return errors.ServerUnreachable(f"{server}: its fault is not one of a calibration database")
    return errors.FAULTS[name](said.get("message", message), **fields)


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )


def _has_doctype(envelope: etree._Element) -> bool:
    return bool(envelope.getroottree().docinfo.doctype)


def _all_failed(failures: Sequence[errors.CdbTemporaryError | _TakesNoWrites]) -> errors.CdbError:
    if not failures:
        return errors.ServerUnreachable("no server is named: set CDB_SERVER, or name one")
    # What a server said is worth more than that another was silent.
    temporary = [failure for failure in failures if isinstance(failure, errors.CdbTemporaryError)] or failures
    telling = next((f for f in temporary if not isinstance(f, errors.ServerUnreachable)), temporary[0])
    return telling.retold("no server could answer: " + "; ".join(failure.message for failure in failures))


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "; if a private authority signed it, name that authority's certificate in REQUESTS_CA_BUNDLE"
    return "; ask its operator"


def _first(kind: type[Failure] | tuple[type[Failure], ...], error: object) -> Failure | None:
    """The first error of a kind, of those that an error of requests or urllib3 wraps in its arguments."""
    wrapped = [error]
    while wrapped:
        looked_at = wrapped.pop(0)
        if isinstance(looked_at, kind):
            return looked_at
        if isinstance(looked_at, BaseException):
            wrapped += [*looked_at.args, getattr(looked_at, "reason", None)]
    return None
