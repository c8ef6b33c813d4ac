"""A SOAP service over HTTP: its WSDL by GET, its operations by POST."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cdb_server.errors import Unavailable
from cdb_server.http import access, knowledge, media
from cdb_server.http.attempts import Attempts
from cdb_server.http.body import Disconnected, Incoming, announces_body, answer_and_linger, receive_body
from cdb_server.http.peer import peer_of
from cdb_server.http.refusals import Refused
from cdb_server.repository import Reader, Tokens
from cdb_server.settings import Settings
from cdb_server.soap import Answer, Endpoint

XML = "text/xml; charset=utf-8"
# The sha256s of payloads that the caller has: an answer need not bring them.
HAVE = "CDB-Have"
SHA256 = re.compile(r"\b[0-9a-f]{64}\b")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Writers:
    """By what those who may write are known, and where those who may not are told of."""

    tokens: Tokens
    attempts: Attempts


class Service:
    """One service.

    A service with `writers` takes only requests from the networks that may write, by users whose token is valid.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        reader: Reader,
        settings: Settings,
        threads: ThreadPoolExecutor,
        writers: Writers | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._reader = reader
        self._settings = settings
        self._threads = threads
        self._writers = writers
        self._wsdl = endpoint.contract.published(settings.public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(receive)
        request = Request(scope, incoming)
        may_be_sending = announces_body(request)
        closing = False
        try:
            response = await self._respond(request)
        except Refused as refused:
            response = refused.response()
            closing = may_be_sending
        except (Disconnected, ClientDisconnect):
            # Whoever is gone reads no answer; whoever is too slow is cut off with this one.
            response = Response(status_code=408)
            closing, may_be_sending = True, False
        unread = may_be_sending and not incoming.whole
        if closing or unread:
            response.headers["connection"] = "close"
        if unread:
            await answer_and_linger(response, incoming, send, self._settings.stall_deadline)
        else:
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD") and request.url.query.lower().rstrip("=") == "wsdl":
            return Response(self._wsdl, media_type=XML, headers={"Cache-Control": "no-cache"})
        if request.method != "POST":
            text = "use POST for the operations of this service, GET with ?wsdl for their description"
            raise Refused(405, text, {"Allow": "GET, HEAD, POST"})
        try:
            author = await self._checked_author(request)
        except Unavailable as error:
            return _soap(self._endpoint.fault(error), {})
        media.check_headers(request.headers)
        body = await receive_body(request, self._settings)
        media.check_body(body)
        held = frozenset(SHA256.findall(request.headers.get(HAVE, "")))
        return await self._in_thread(lambda: self._answered(body, request.headers.get("soapaction", ""), author, held))

    def _answered(self, body: bytes, soap_action: str, author: str, held: frozenset[str]) -> Response:
        # An answer knows the journal at least as far as it says: looked at before a question, after a write.
        known = {} if self._writers else knowledge.headers(self._reader)
        answer = self._endpoint.answer(body, soap_action, author, held)
        return _soap(answer, known or knowledge.headers(self._reader))

    async def _checked_author(self, request: Request) -> str:
        writers = self._writers
        if writers is None:
            return ""
        peer = peer_of(request, self._settings.trusted_proxies)
        name, token = access.credentials(request)
        try:
            access.check_network(peer, self._settings.write_networks)
            await self._in_thread(lambda: access.check_token(name, token, writers.tokens))
        except Refused as refused:
            writers.attempts.refused(refused.status, peer, name)
            raise
        return name

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _soap(answer: Answer, known: dict[str, str]) -> Response:
    # A cache that keeps answers to POST must not give one without its payload to who has it not.
    headers = known | {"Content-Digest": _digest(answer.body, known.get("CDB-Serial")), "Vary": HAVE}
    return Response(answer.body, 500 if answer.fault else 200, headers, XML)


def _digest(body: bytes, serial: str | None) -> str:
    """RFC 9530: "the HTTP message content"'s digest. TCP's checksum lets one damage in some thousands through.

    It covers no header, so that the serial is told here again.
    """
    told = base64.b64encode(hashlib.sha256(body).digest()).decode("ascii")
    return f"sha-256=:{told}:" if serial is None else f"sha-256=:{told}:;serial={serial}"
