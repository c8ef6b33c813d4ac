"""The writing service's answers: only to users whose token is valid, and who ask from the networks that may write."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from cdb_server.http import access, knowledge
from cdb_server.http.attempts import Attempts
from cdb_server.http.peer import peer_of
from cdb_server.http.ready import Ready
from cdb_server.http.refusals import Refused
from cdb_server.model import Knowledge
from cdb_server.repository import Reader, Tokens
from cdb_server.settings import Settings
from cdb_server.soap import Endpoint

Result = TypeVar("Result")


class Writes:
    """One for each worker. Who is turned away is told of to `attempts`."""

    def __init__(
        self,
        endpoint: Endpoint,
        reader: Reader,
        tokens: Tokens,
        attempts: Attempts,
        threads: ThreadPoolExecutor,
        settings: Settings,
    ) -> None:
        self._endpoint = endpoint
        self._reader = reader
        self._tokens = tokens
        self._attempts = attempts
        self._threads = threads
        self._settings = settings

    async def admit(self, request: Request) -> str:
        """The user whose token is shown. Raises Refused (403, 401), and Unavailable."""
        peer = peer_of(request, self._settings.trusted_proxies)
        name, token = access.credentials(request)
        try:
            access.check_network(peer, self._settings.write_networks)
            await self._in_thread(lambda: access.check_token(name, token, self._tokens))
        except Refused as refused:
            self._attempts.refused(refused.status, peer, name)
            raise
        return name

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer to a write, and what the server knows after it."""
        return await self._in_thread(lambda: self._answered(body, request.headers.get("soapaction", ""), author))

    def _answered(self, body: bytes, soap_action: str, author: str) -> tuple[Ready, Knowledge | None]:
        answer = self._endpoint.answer(body, soap_action, author)
        known = knowledge.known(self._reader)
        return Ready.of(answer, known), known

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
