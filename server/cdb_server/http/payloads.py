"""Large payloads on their way out: one copy of each, whoever is sent it and however slowly.

A peer holds a piece of a payload. While others wait for memory, the payload used least recently is given up, and
read again for the next piece: so slow readers of many cannot keep it from everybody else for as long as they read.
"""

from itertools import count
from weakref import WeakValueDictionary

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cdb_server.errors import CdbError, LargePayload
from cdb_server.http.budget import Budget, Reservation
from cdb_server.http.ready import PIECE
from cdb_server.http.single_flight import SingleFlight
from cdb_server.http.threads import Threads
from cdb_server.repository import Reader

OCTETS = "application/octet-stream"
# Of memory for one byte of a payload: while it is read, the database has it too.
OF_READ = 2
# Of memory for one peer: a piece that waits to be sent, and the next.
OF_PEER = 2 * PIECE


class Payloads:
    """The large payloads of one worker, by their sha256. For the thread of its event loop alone."""

    def __init__(self, reader: Reader, threads: Threads, budget: Budget) -> None:
        self._reader = reader
        self._threads = threads
        self._budget = budget
        self._known: WeakValueDictionary[str, Payload] = WeakValueDictionary()
        self._under_way: SingleFlight[str, bytes] = SingleFlight()
        self._uses = count()
        budget.reclaim_by(self._give_up)

    def of(self, sha256: str, size: int) -> "Payload":
        """A payload that there is, of so many bytes; nothing is read yet."""
        payload = self._known.get(sha256)
        if payload is None:
            payload = self._known[sha256] = Payload(self, sha256, size)
        return payload

    async def reserve(self) -> Reservation:
        """Memory for one peer. Raises Unavailable."""
        return await self._budget.reserve(OF_PEER)

    async def piece(self, payload: "Payload", start: int, stop: int) -> bytes:
        """Some bytes of a payload. Raises DamagedPayload and Unavailable."""
        payload.used = next(self._uses)
        data = payload.data
        if data is None:
            under_way = self._under_way.find(payload.sha256)
            if under_way is None:
                under_way = self._under_way.begin(payload.sha256, self._read(payload))
            data = await under_way.result()
        return data[start:stop]

    async def _read(self, payload: "Payload") -> bytes:
        reservation = await self._budget.reserve(OF_READ * payload.size)
        # What reads it holds the memory, also where nobody waits for it any more.
        data, reservation = await self._threads.do(lambda: (self._reader.payload(payload.sha256), reservation))
        reservation.shrink(payload.size)
        payload.data, payload.reservation = data, reservation
        return data

    def _give_up(self, missing: int) -> None:
        for payload in sorted(self._known.values(), key=lambda payload: payload.used):
            if missing <= 0:
                return
            if payload.data is not None:
                missing -= payload.size
                payload.data = payload.reservation = None


class Payload:
    """A payload that somebody is sent; `data` while it is in memory, for which there is a reservation."""

    def __init__(self, payloads: Payloads, sha256: str, size: int) -> None:
        self.sha256 = sha256
        self.size = size
        self.used = 0
        self.data: bytes | None = None
        self.reservation: Reservation | None = None
        self._payloads = payloads

    async def piece(self, start: int, stop: int) -> bytes:
        """Some bytes of it. Raises DamagedPayload and Unavailable."""
        return await self._payloads.piece(self, start, stop)


class PayloadResponse(Response):
    """The bytes of a payload from `start` to `stop`, read while they are sent: from when it has begun."""

    def __init__(self, large: LargePayload, start: int, stop: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers, media_type=OCTETS)
        self.headers["content-length"] = str(stop - start)
        self._large = large
        self._at, self._stop = start, stop

    async def begin(self, payloads: Payloads) -> None:
        """Have what is sent first. Raises DamagedPayload and Unavailable."""
        self._payload = payloads.of(self._large.sha256, self._large.size)
        # Until nobody has this any more.
        self._reservation = await payloads.reserve()
        self._piece = await self._next()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while self._piece and scope["method"] != "HEAD":
            await send({"type": "http.response.body", "body": self._piece, "more_body": True})
            self._at += len(self._piece)
            try:
                self._piece = await self._next()
            except CdbError:
                # What ends too early is taken for a whole answer by nobody: the connection is closed.
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes:
        return await self._payload.piece(self._at, min(self._at + PIECE, self._stop))
