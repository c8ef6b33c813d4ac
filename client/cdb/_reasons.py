"""Why a server did not answer, in words that say what to do, and whether another try may help."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator

from cdb import _exceptions as errors
from cdb._failures import Again, Failed

# What OpenSSL makes of an answer in plain text.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
# Of OpenSSL's names for what the other side ended the connection with, those that say: not you, or not so.
_TURNED_AWAY = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION")
# OpenSSL's numbers for a chain that ends in no authority that is known.
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_CLOSED = (ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
# Bytes of an answer of HTTP's own, of which the first words are told.
MOST_LOOKED_AT = 2**16


class TakesNoWrites(errors.NotAuthorised):
    """A mirror was asked to write. Another server of the list may take it."""


def reason_of(
    error: BaseException, address: str, client_cert: str | None, *, begun: bool, took: float
) -> tuple[str, Again]:
    """Why no whole answer came, after `took` seconds, from an error that wraps the reason.

    `begun` says whether any of the answer had come.
    """
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    named = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    closed = not begun and any(isinstance(cause, _CLOSED) for cause in causes)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return _too_late(causes, begun, took), Again.LATER
    if named is not None:
        if named.errno == socket.EAI_AGAIN:
            return "its name cannot be looked up now: is the network there?", Again.LATER
        return "its name is not known: is this its address? (CDB_SERVER)", Again.NEVER
    if isinstance(tls, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not accepted: {tls.verify_message}{_remedy(tls)}", Again.NEVER
    if tls is not None and tls.reason == "NO_CERTIFICATE_OR_CRL_FOUND":
        return "the file that REQUESTS_CA_BUNDLE names holds no certificate in PEM", Again.NEVER
    if any(type(cause).__name__ == "ProxyError" for cause in causes):
        return (
            "the proxy on the way to it, which http_proxy or https_proxy names, cannot be reached; NO_PROXY names "
            "hosts that are asked without one",
            Again.LATER,
        )
    if tls is not None and tls.reason in _NOT_TLS:
        return "it does not speak TLS: is its address one with http://?", Again.ONCE
    if closed and address.startswith("https:"):
        turned_away = tls is not None and any(word in (tls.reason or "") for word in _TURNED_AWAY)
        return _ended(client_cert), Again.NEVER if turned_away else Again.AT_ONCE
    if closed:
        return "it ended the connection without an answer: is its address one with https://?", Again.AT_ONCE
    if tls is not None or any(isinstance(cause, http.client.IncompleteRead | ConnectionError) for cause in causes):
        if begun:
            return "its answer was cut off", Again.AT_ONCE
    elif any(isinstance(cause, http.client.HTTPException) for cause in causes):
        return "its answer arrived damaged, or is not HTTP", Again.AT_ONCE
    if any("TLS CA certificate bundle" in str(cause) for cause in causes):
        return "the file of certificates that REQUESTS_CA_BUNDLE names is not there, or is no file", Again.NEVER
    if any(isinstance(cause, OSError) and cause.errno is not None for cause in causes):
        return "no connection: is it running, and is this its address? (CDB_SERVER)", Again.LATER
    tunnel = next((str(cause) for cause in causes if str(cause).startswith("Tunnel connection failed")), None)
    if tunnel is not None:
        # Not in its words, for it may repeat what it was sent.
        refused = re.search(r"failed: ([0-9]{3})\b", tunnel)
        return f"the proxy on the way to it refused (HTTP {refused[1] if refused else 'unknown'})", Again.LATER
    return f"it could not be asked ({type(error).__name__})", Again.NEVER


def check_status(
    status: int,
    content_type: str,
    content: bytes,
    *,
    proven: bool,
    writing: bool,
    address: str,
    server: str,
    hidden: Callable[[str], str],
) -> None:
    """Make errors of HTTP's own answers; what remains is SOAP. Raises Failed and CdbPermanentError.

    What its digest has `proven` is SOAP, whatever became of its other headers on the way. Nobody of ours refuses who
    is not `writing`: something stands between. What of the answer is told is told `hidden`, without the token.
    """
    if status == 200 or (status == 500 and (proven or content_type.startswith("text/xml"))):
        return
    # Hidden before it is cut: of a token cut in two no spelling would be found.
    said = hidden(content[:MOST_LOOKED_AT].decode("utf-8", "replace"))[:300].strip().partition("\n")[0]
    if writing and status in (401, 403):
        raise errors.NotAuthorised(f"{server}: {said} (HTTP {status}; user and token are CDB_USER and CDB_TOKEN)")
    if writing and status == 413:
        raise errors.TooLarge(f"{server}: {said} (HTTP 413)")
    if status in (408, 429) or status >= 500:
        raise Failed(
            errors.Unavailable(f"{server}: {said or 'it cannot answer now'} (HTTP {status})"),
            Again.LATER,
        )
    if status == 404 and said.startswith("this is a mirror"):
        raise Failed(TakesNoWrites(f"{server}: {said}"), Again.NEVER)
    if 300 <= status < 400:
        told = f"{server}: it points elsewhere (HTTP {status}), which is not followed"
    elif status == 400 and b"SSL certificate" in content:
        # nginx's words, for a certificate that was not sent as for one that it does not accept.
        told = f"{server}: it asks for a certificate for TLS: name yours in CDB_CLIENT_CERT"
    else:
        told = f"{address} is not a service of a calibration database (HTTP {status})"
    raise Failed(errors.ServerUnreachable(told), Again.NEVER)


def _too_late(causes: list[BaseException], begun: bool, took: float) -> str:
    if any(type(cause).__name__ == "ConnectTimeoutError" for cause in causes):
        return "no connection in time"
    seconds = f"{took:.1f} s" if took >= 0.1 else "the time that was left"
    return f"no whole answer within {seconds}" if begun else f"no answer within {seconds}"


def _ended(client_cert: str | None) -> str:
    if client_cert is None:
        return "it ended the TLS connection: if it asks for a certificate, name yours in CDB_CLIENT_CERT"
    return f"it ended the TLS connection: perhaps it does not accept the certificate in CDB_CLIENT_CERT, {client_cert}"


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "; if a private authority signed it, name that authority's certificate in REQUESTS_CA_BUNDLE"
    return "; ask its operator"


def _causes(error: object) -> Iterator[BaseException]:
    """An error and all that it wraps: in its arguments, as its reason, or as its cause."""
    wrapped, seen = [error], set()
    while wrapped:
        looked_at = wrapped.pop(0)
        if isinstance(looked_at, BaseException) and id(looked_at) not in seen:
            seen.add(id(looked_at))
            yield looked_at
            wrapped += [*looked_at.args, getattr(looked_at, "reason", None), looked_at.__cause__]
