"""The earlier CDB's services over HTTP: who calls shows no token, and an error is an answer like any other."""

from starlette.requests import Request
from starlette.routing import Route

from cdb_server.errors import LargePayload, LongList, MalformedRequest, Unavailable
from cdb_server.http import attempts
from cdb_server.http.budget import OF_ANSWER, OF_LIST, Budget, Reservation
from cdb_server.http.offload import Lists
from cdb_server.http.peer import peer_of
from cdb_server.http.ready import Ready
from cdb_server.http.refusals import Refused
from cdb_server.http.service import Service
from cdb_server.http.threads import RETRY_SECONDS, Pools
from cdb_server.model import Knowledge
from cdb_server.repository import Reader, Writer
from cdb_server.settings import Settings, is_known_host
from cdb_server.soap import LEGACY, NOT_ALLOWED, Legacy


def legacy_routes(
    reader: Reader,
    sparing: Reader,
    writer: Writer | None,
    pools: Pools,
    settings: Settings,
    room: Budget,
    room_of_questions: Budget,
    room_of_answers: Budget,
    lists: Lists | None = None,
) -> list[Route]:
    """The routes, on a `sparing` reader as soap.Legacy has it, and on a writer where there is one."""
    routes = []
    for path in LEGACY:
        legacy = Legacy(path, settings, reader, sparing, writer)

        # Who may not store takes no room from those who may.
        def room_of(peer: str, legacy: Legacy = legacy) -> Budget:
            return room if legacy.takes_uploads_from(peer) else room_of_questions

        calls = LegacyCalls(legacy, pools, settings, room_of_answers, lists)
        routes.append(Route(path, Service(legacy.contract, calls, settings, room_of, fault_status=200)))
    return routes


class LegacyCalls:
    """The calls of one service; `room` is for large answers."""

    def __init__(
        self, legacy: Legacy, pools: Pools, settings: Settings, room: Budget, lists: Lists | None = None
    ) -> None:
        """Long lists are made by `lists`, or here where there are none."""
        self._legacy = legacy
        self._pools = pools
        self._settings = settings
        self._room = room
        self._lists = lists

    async def admit(self, request: Request) -> str:
        """The address of who calls. Everybody may; who may store is judged by it."""
        return peer_of(request, self._settings.trusted_proxies)

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer to a call. Raises Refused for what is none."""
        host = request.headers.get("host", "")
        stores = self._legacy.takes_uploads_from(author)
        threads = self._pools.writes if stores else self._pools.questions
        try:
            try:
                ready = await threads.do(lambda: self._ready(body, author, host, sparing=True))
            except LongList:
                ready = await self._long_list(body, author, host)
            except LargePayload as large:
                reservation = await self._room.reserve(large.size * OF_ANSWER)
                ready = await self._pools.large.do(lambda: self._large(body, author, host, reservation))
        except Unavailable as error:
            return self.failed(error), None
        except MalformedRequest as error:
            raise Refused(400, " ".join(error.message.split())) from None
        if ready.fault == NOT_ALLOWED:
            if is_known_host(host, self._settings):
                attempts.refused(int(NOT_ALLOWED), author, "")
            else:
                attempts.by_another_name(author, host)
        return ready, None

    def failed(self, error: Exception) -> Ready:
        """No answer, for it is not known what was called. Raises Refused."""
        if isinstance(error, Unavailable):
            raise Refused(503, error.message, {"Retry-After": RETRY_SECONDS})
        raise error

    async def _long_list(self, body: bytes, peer: str, host: str) -> Ready:
        if self._lists is None:
            reservation = await self._room.reserve(OF_LIST)
            return await self._pools.lists.do(lambda: self._large(body, peer, host, reservation))
        return await self._lists.made(self._room, self._legacy.path, body, (peer, host), frozenset(), None)

    def _large(self, body: bytes, peer: str, host: str, reservation: Reservation) -> Ready:
        return self._ready(body, peer, host).holding(reservation)

    def _ready(self, body: bytes, peer: str, host: str, *, sparing: bool = False) -> Ready:
        return Ready.of(self._legacy.answer(body, peer, host, sparing=sparing), None)
