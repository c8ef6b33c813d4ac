"""Explain a failed attempt in words, from exceptions and HTTP statuses, and decide whether to retry it."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

from cdb import _exceptions as errors

if TYPE_CHECKING:
    from cdb._transport.http import HttpResponse


class Retry(Enum):
    """When a retry of the same server may succeed, within the call."""

    NEVER = "it fails again"
    ONCE = "it succeeds if the answer was damaged on its way, else it fails again"
    IMMEDIATELY = "it may succeed, at once or later"
    LATER = "it may succeed later"


class AttemptFailed(Exception):
    """An attempt at one server failed with `error`.

    `healthy` means that the server works and its answer arrived whole: it cannot answer this request.
    """

    def __init__(self, error: errors.CdbError, retry: Retry, *, healthy: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry = retry
        self.healthy = healthy


# The reasons that OpenSSL gives for an answer in plain text.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
# Words in OpenSSL's reasons that mean: the server refuses this client.
_REJECTED_BY_PEER = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION")
# OpenSSL's codes for a certificate of an unknown authority.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_CLOSED = (ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
# Bytes of an HTTP error page that are searched for its first line.
MAX_ERROR_BODY_BYTES = 2**16


class ReadOnlyServer(errors.NotAuthorised):
    """A mirror was asked to write. Another server of the list may accept it."""


def explain_failure(
    error: BaseException, address: str, client_cert: str | None, *, has_received: bool, took: float
) -> tuple[str, Retry]:
    """Explain why no whole answer arrived within `took` seconds, and when to retry.

    `has_received` tells whether the answer had begun.
    """
    causes = list(_wrapped_errors(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    named = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    closed = not has_received and any(isinstance(cause, _CLOSED) for cause in causes)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        if any(type(cause).__name__ == "ConnectTimeoutError" for cause in causes):
            return "no connection in time", Retry.LATER
        seconds = f"{took:.1f} s" if took >= 0.1 else "the time that was left"
        return f"no {'whole ' * has_received}answer within {seconds}", Retry.LATER
    if named is not None:
        if named.errno == socket.EAI_AGAIN:
            return "its name cannot be looked up now: is the network there?", Retry.LATER
        return "its name is not known: is this its address? (CDB_SERVER)", Retry.NEVER
    if isinstance(tls, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not accepted: {tls.verify_message}{_certificate_hint(tls)}", Retry.NEVER
    if tls is not None and tls.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
        return "the file that REQUESTS_CA_BUNDLE names holds no certificate in PEM", Retry.NEVER
    if any(type(cause).__name__ == "ProxyError" for cause in causes):
        return (
            "the proxy on the way to it, which http_proxy or https_proxy names, cannot be reached; NO_PROXY names "
            "hosts that are asked without one",
            Retry.LATER,
        )
    if tls is not None and tls.reason in _NOT_TLS:
        return "it does not speak TLS: is its address one with http://?", Retry.ONCE
    if closed and address.startswith("https:"):
        turned_away = tls is not None and any(word in (tls.reason or "") for word in _REJECTED_BY_PEER)
        return _tls_closed_message(client_cert), Retry.NEVER if turned_away else Retry.IMMEDIATELY
    if closed:
        return "it ended the connection without an answer: is its address one with https://?", Retry.IMMEDIATELY
    if tls is not None or any(isinstance(cause, http.client.IncompleteRead | ConnectionError) for cause in causes):
        if has_received:
            return "its answer was cut off", Retry.IMMEDIATELY
    elif any(isinstance(cause, http.client.HTTPException) for cause in causes):
        return "its answer arrived damaged, or is not HTTP", Retry.IMMEDIATELY
    if any("TLS CA certificate bundle" in str(cause) for cause in causes):
        return "the file of certificates that REQUESTS_CA_BUNDLE names is not there, or is no file", Retry.NEVER
    if any(isinstance(cause, OSError) and cause.errno is not None for cause in causes):
        return "no connection: is it running, and is this its address? (CDB_SERVER)", Retry.LATER
    tunnel = next((str(cause) for cause in causes if str(cause).startswith("Tunnel connection failed")), None)
    if tunnel is not None:
        # Do not quote the proxy: it may repeat the token.
        refused = re.search(r"failed: ([0-9]{3})\b", tunnel)
        return f"the proxy on the way to it refused (HTTP {refused[1] if refused else 'unknown'})", Retry.LATER
    return f"it could not be asked ({type(error).__name__})", Retry.NEVER


def check_status(
    response: HttpResponse, server: str, address: str, *, writing: bool, redact: Callable[[str], str]
) -> None:
    """Raise AttemptFailed or a CdbPermanentError for a response that is not SOAP.

    A verified digest proves that it is SOAP, even where other headers were damaged. Only writing requests are refused
    by the service itself: a refusal of any other comes from something between. `redact` removes the token from what
    the message quotes.
    """
    status, content = response.status, response.content
    is_fault = response.digest_verified or response.content_type.startswith("text/xml")
    if status == 200 or (status == 500 and is_fault):
        return
    # Redact before cutting: half a token would not be recognised.
    said = redact(content[:MAX_ERROR_BODY_BYTES].decode("utf-8", "replace"))[:300].strip().partition("\n")[0]
    if writing and status in (401, 403):
        raise errors.NotAuthorised(f"{server}: {said} (HTTP {status}; user and token are CDB_USER and CDB_TOKEN)")
    if writing and status == 413:
        raise errors.TooLarge(f"{server}: {said} (HTTP 413)")
    if status in (408, 429) or status >= 500:
        told = f"{server}: {said or 'it cannot answer now'} (HTTP {status})"
        raise AttemptFailed(errors.Unavailable(told), Retry.LATER)
    if status == 404 and said.startswith("this is a mirror"):
        raise AttemptFailed(ReadOnlyServer(f"{server}: {said}"), Retry.NEVER)
    if 300 <= status < 400:
        told = f"{server}: it redirects (HTTP {status}), and redirects are not followed"
    elif status == 400 and b"SSL certificate" in content:
        # nginx sends this for a missing certificate and for one that it does not accept.
        told = f"{server}: it asks for a certificate for TLS: name yours in CDB_CLIENT_CERT"
    else:
        told = f"{address} is not a service of a calibration database (HTTP {status})"
    raise AttemptFailed(errors.ServerUnreachable(told), Retry.NEVER)


def _tls_closed_message(client_cert: str | None) -> str:
    if client_cert is None:
        return "it ended the TLS connection: if it asks for a certificate, name yours in CDB_CLIENT_CERT"
    return f"it ended the TLS connection: perhaps it does not accept the certificate in CDB_CLIENT_CERT, {client_cert}"


def _certificate_hint(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "; if a private authority signed it, name that authority's certificate in REQUESTS_CA_BUNDLE"
    return "; ask its operator"


def _wrapped_errors(error: object) -> Iterator[BaseException]:
    """Yield an error and all errors that it wraps: in its arguments, as its reason, or as its cause."""
    wrapped, seen = [error], set()
    while wrapped:
        looked_at = wrapped.pop(0)
        if isinstance(looked_at, BaseException) and id(looked_at) not in seen:
            seen.add(id(looked_at))
            yield looked_at
            wrapped += [*looked_at.args, getattr(looked_at, "reason", None), looked_at.__cause__]
