"""The writing service's answers: only to users whose token is valid, and who ask from the networks that may write."""

from starlette.requests import Request

from cdb_server.errors import NotAdmitted, Unavailable
from cdb_server.http import access
from cdb_server.http.attempts import Attempts
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
    """One for each worker. Who is turned away is told of to `attempts`."""

    def __init__(
        self,
        endpoint: Endpoint,
        admission: Admission,
        watch: Watch,
        attempts: Attempts,
        threads: Threads,
        settings: Settings,
    ) -> None:
        self._endpoint = endpoint
        self._admission = admission
        self._watch = watch
        self._attempts = attempts
        self._threads = threads
        self._settings = settings
        # Those that were valid when they were last seen.
        self._known: set[Credentials] = set()

    async def admit(self, request: Request) -> str:
        """The user whose token is shown, and was valid before. Raises Refused (403, 401), and Unavailable."""
        peer = peer_of(request, self._settings.trusted_proxies)
        name, token = access.credentials(request)
        try:
            access.check_network(peer, self._settings.write_networks)
            if not token:
                raise access.nothing_shown()
            await self._check(Credentials.of(name, token))
        except Refused as refused:
            self._attempts.refused(refused.status, peer, name)
            raise
        return name

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer to a write, and what the server knows after it. Raises Refused (401)."""
        soap_action = request.headers.get("soapaction", "")
        shown = Credentials.of(*access.credentials(request))
        try:
            answer = await self._threads.do(lambda: self._endpoint.answer(body, soap_action, author, shown=shown))
            if answer.fault:
                # It may have come to nothing before anybody judged the token.
                await self._judge(shown)
        except (NotAdmitted, Refused):
            self._known.discard(shown)
            self._attempts.refused(401, peer_of(request, self._settings.trusted_proxies), author)
            raise access.not_together(author) from None
        except Unavailable as error:
            answer = self._endpoint.fault(error)
        known = answer.known or await self._watch.now()
        return Ready.of(answer, known), known

    def unavailable(self, error: Unavailable) -> Ready:
        """The fault that says so."""
        return Ready.of(self._endpoint.fault(error), None)

    async def _check(self, shown: Credentials) -> None:
        # What was valid before is looked at again by what writes, and need not wait for those who have it here.
        if shown not in self._known:
            await self._judge(shown)
            self._known.add(shown)

    async def _judge(self, shown: Credentials) -> None:
        if not await self._threads.do(lambda: self._admission.admits(shown)):
            raise access.not_together(shown.name)
