"""The writing service's answers: only to users whose token is valid, and who ask from the networks that may write."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from cdb_server.errors import NotAdmitted, Unavailable
from cdb_server.http import access, attempts
from cdb_server.http.knowledge import Watch
from cdb_server.http.peer import peer_of
from cdb_server.http.ready import Ready
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import Threads
from cdb_server.model import Knowledge
from cdb_server.repository import Admission, Credentials
from cdb_server.settings import Settings
from cdb_server.soap import Endpoint


class Writes:
    """One for each worker."""

    def __init__(
        self,
        endpoint: Endpoint,
        admission: Admission,
        watch: Watch,
        threads: Threads,
        settings: Settings,
    ) -> None:
        self._endpoint = endpoint
        self._admission = admission
        self._watch = watch
        self._threads = threads
        self._settings = settings
        # Those that were valid when they were last seen.
        self._known: set[Credentials] = set()

    async def admit(self, request: Request) -> str:
        """The user whose token is shown, and was valid before. Raises Refused (403, 401), and Unavailable."""
        name, token = access.credentials(request)
        shown = Credentials.of(name, token)
        with self._turning_away(request, shown):
            access.check_network(self._peer(request), self._settings.write_networks)
            if not token:
                raise access.nothing_shown()
            # What was valid before is looked at again by what writes, and need not wait for those who have it here.
            if shown not in self._known:
                await self._judge(shown)
                self._known.add(shown)
        return name

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer to a write, and what the server knows after it. Raises Refused (401)."""
        soap_action = request.headers.get("soapaction", "")
        shown = Credentials.of(*access.credentials(request))
        with self._turning_away(request, shown):
            try:
                answer = await self._threads.do(lambda: self._endpoint.answer(body, soap_action, author, shown=shown))
            except Unavailable as error:
                return self.failed(error), None
            if answer.fault:
                # It may have come to nothing before anybody judged the token.
                try:
                    await self._judge(shown)
                except Unavailable as error:
                    return self.failed(error), None
        known = answer.known or await self._watch.now()
        return Ready.of(answer, known), known

    def failed(self, error: Exception) -> Ready:
        """The fault that says so."""
        return Ready.of(self._endpoint.fault(error), None)

    async def _judge(self, shown: Credentials) -> None:
        if not await self._threads.do(lambda: self._admission.admits(shown)):
            raise NotAdmitted

    @contextmanager
    def _turning_away(self, request: Request, shown: Credentials) -> Iterator[None]:
        """Whoever is refused in the block is told of, and no longer known; NotAdmitted becomes Refused (401)."""
        try:
            yield
        except (NotAdmitted, Refused) as error:
            self._known.discard(shown)
            refused = error if isinstance(error, Refused) else access.not_together(shown.name)
            attempts.refused(refused.status, self._peer(request), shown.name)
            raise refused from None

    def _peer(self, request: Request) -> str:
        return peer_of(request, self._settings.trusted_proxies)
