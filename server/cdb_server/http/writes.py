"""The writing service's answers: only to users whose token is valid, and who ask from the networks that may write."""

import asyncio
from contextlib import suppress

from starlette.requests import Request

from cdb_server.errors import Unavailable
from cdb_server.http import access
from cdb_server.http.attempts import Attempts
from cdb_server.http.knowledge import Watch
from cdb_server.http.peer import peer_of
from cdb_server.http.ready import Ready
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import Threads
from cdb_server.model import Knowledge
from cdb_server.repository import Admission, Busy
from cdb_server.settings import Settings
from cdb_server.soap import Endpoint

# How often a token is looked for at once, and the seconds between, before a thread does.
LOOKS = 20
PAUSE = 0.0003


class Writes:
    """One for each worker. Who is turned away is told of to `attempts`."""

    def __init__(
        self,
        endpoint: Endpoint,
        admission: Admission,
        admission_at_once: Admission | None,
        watch: Watch,
        attempts: Attempts,
        threads: Threads,
        settings: Settings,
    ) -> None:
        """`admission_at_once` never waits, where there is one."""
        self._endpoint = endpoint
        self._admission = admission
        self._admission_at_once = admission_at_once
        self._watch = watch
        self._attempts = attempts
        self._threads = threads
        self._settings = settings

    async def admit(self, request: Request) -> str:
        """The user whose token is shown. Raises Refused (403, 401), and Unavailable."""
        peer = peer_of(request, self._settings.trusted_proxies)
        name, token = access.credentials(request)
        try:
            access.check_network(peer, self._settings.write_networks)
            await self._check_token(name, token)
        except Refused as refused:
            self._attempts.refused(refused.status, peer, name)
            raise
        return name

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer to a write, and what the server knows after it."""
        soap_action = request.headers.get("soapaction", "")
        answer = await self._threads.do(lambda: self._endpoint.answer(body, soap_action, author))
        known = answer.known or await self._watch.now()
        return Ready.of(answer, known), known

    def unavailable(self, error: Unavailable) -> Ready:
        """The fault that says so."""
        return Ready.of(self._endpoint.fault(error), None)

    async def _check_token(self, name: str, token: str) -> None:
        if self._admission_at_once:
            # Who commits does so for a moment, in which nobody reads; to wait for its end in a thread takes longer.
            for _ in range(LOOKS):
                with suppress(Busy):
                    access.check_token(name, token, self._admission_at_once)
                    return
                await asyncio.sleep(PAUSE)
        await self._threads.do(lambda: access.check_token(name, token, self._admission))
