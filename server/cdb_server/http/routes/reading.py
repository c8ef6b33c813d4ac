"""Answers reading operations: cached, on the event loop, in a thread or in the background; journal position."""

import asyncio
import math
import re
import time
from contextlib import suppress

from starlette.requests import Request

from cdb_server.database.nonblocking import NonblockingConnection, WouldBlock
from cdb_server.errors import LargePayload, LongList, Unavailable
from cdb_server.http.admission import (
    ANSWER_MEMORY_FACTOR,
    LIST_MEMORY_BYTES,
    MemoryBudget,
    MemoryReservation,
    ThreadPool,
    ThreadPools,
)
from cdb_server.http.background import BackgroundLists
from cdb_server.http.protocol import request_rules
from cdb_server.http.protocol.limits import RECEIVED_REQUEST
from cdb_server.http.protocol.request_rules import HttpError
from cdb_server.http.request_templates import RequestHead, RequestHeadCache
from cdb_server.http.response_cache import HAVE_HEADER, CacheKey, EncodedResponse, ResponseCache
from cdb_server.http.single_flight import NextFlight, SingleFlight
from cdb_server.model import JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.soap.endpoint import Endpoint, SoapResult

# Seconds after which the rest of a turn of the event loop gets another transaction: a commit waits for the end of the
# one under way.
MAX_SNAPSHOT_SECONDS = 0.001


def read_position(reader: Reader) -> JournalPosition | None:
    """The journal position; None when the database cannot be read. Blocks."""
    try:
        return reader.journal_position()
    except Unavailable:
        return None


class NonblockingPosition:
    """The journal position without waiting, from a `reader` on a nonblocking connection; read again after each write.

    All questions of one turn of the event loop share one transaction: to begin and end one takes longer than to find a
    calibration. Meanwhile nobody can commit, so that the position stays right.
    """

    def __init__(self, connection: NonblockingConnection, reader: Reader) -> None:
        self._connection = connection
        self._reader = reader
        self._version = -1
        self._position = JournalPosition(0, "", None)
        self._fresh_until = -math.inf

    def current_position(self) -> JournalPosition:
        """The journal position. Raises WouldBlock."""
        if not self._connection.in_snapshot:
            asyncio.get_running_loop().call_soon(self._end_snapshot)
        elif time.monotonic() < self._fresh_until:
            return self._position
        # An error below leaves the position unknown.
        self._fresh_until = -math.inf
        version = self._connection.begin_snapshot()
        if version != self._version:
            self._position = self._reader.journal_position()
            self._version = version
        self._fresh_until = time.monotonic() + MAX_SNAPSHOT_SECONDS
        return self._position

    def _end_snapshot(self) -> None:
        with suppress(WouldBlock):
            self._connection.end_snapshot()


class PositionSource:
    """The present journal position: without waiting where that is possible, else read in a thread."""

    def __init__(self, reader: Reader, nonblocking: NonblockingPosition | None, threads: ThreadPool) -> None:
        self._reader = reader
        self._nonblocking = nonblocking
        self._threads = threads
        self._shared_reads = NextFlight(self._read_in_thread)

    def position_without_waiting(self) -> JournalPosition | None:
        """The journal position; None where it cannot be read without waiting."""
        if self._nonblocking is None:
            return None
        try:
            return self._nonblocking.current_position()
        except WouldBlock:
            return None

    async def latest_position(self) -> JournalPosition | None:
        """The journal position, of now or later; None when the database cannot be read."""
        return self.position_without_waiting() or await self._shared_reads.next_result()

    async def _read_in_thread(self) -> JournalPosition | None:
        try:
            return await self._threads.run(lambda: read_position(self._reader))
        except Unavailable:
            return None


SHA256_IN_TEXT = re.compile(r"\b[0-9a-f]{64}\b")

# Bytes of the longest question that is parsed on the event loop.
MAX_LOOP_QUESTION_BYTES = 64 * 2**10

READING_PATH = "/cdb/v2/calibration"

# Seconds: a question given up after SLOW_SECONDS was a long list; none is then tried on the event loop for the pause.
SLOW_SECONDS, LIST_PAUSE_SECONDS = 0.003, 1.0

# The key of the handler in the state of the application's lifespan, where connections find it.
READING_HANDLER = "cdb.questions"


class ReadingHandler:
    """Answers the reading service's questions; one for each worker."""

    def __init__(
        self,
        endpoint: Endpoint,
        positions: PositionSource,
        pools: ThreadPools,
        cache: ResponseCache,
        answer_memory: MemoryBudget,
        background_lists: BackgroundLists | None = None,
    ) -> None:
        """Long lists are made by `background_lists`; without these, in this process."""
        self._endpoint = endpoint
        self._positions = positions
        self._pools = pools
        self._background_lists = background_lists
        self._cache = cache
        self._memory = answer_memory
        self._head_cache = RequestHeadCache()
        self._no_lists_until = -math.inf
        self._flights: SingleFlight[CacheKey, EncodedResponse] = SingleFlight()

    async def authenticate(self, request: Request) -> str:
        """Everybody may read."""
        return ""

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a request, and the journal position before it."""
        key = CacheKey(request.headers.get("soapaction", ""), request.headers.get(HAVE_HEADER, ""), body)
        received = request.scope.get("extensions", {}).get(RECEIVED_REQUEST)
        if received:
            head = RequestHead(key.soap_action, key.have, len(body), received["closes"])
            self._head_cache.learn(received["request"], head)
        if len(body) > MAX_LOOP_QUESTION_BYTES:
            # To parse it here would hold up all other connections.
            position = await self._positions.latest_position()
            return await self._answer_in_thread(key, position), position
        earlier: JournalPosition | None = None
        waited = False
        while True:
            # Before the answer, which is then at least as new as this position.
            position = await self._positions.latest_position()
            if position and (found := self._cache.find(key, position) or self._answer_nonblocking(key, position)):
                return found, position
            # Equal questions at once cost one resolution. The one under way may have begun before a write that preceded
            # this question: so this question waits for its end, looks again, and shares the next.
            flight = self._flights.find(key)
            if flight is None:
                flight = self._flights.start(key, self._answer_and_cache(key, position))
            elif waited:
                position = earlier
            else:
                await flight.wait_until_done()
                waited, earlier = True, position
                continue
            return await flight.result(), position

    def failure_response(self, error: Exception) -> EncodedResponse:
        """The fault for an error."""
        return EncodedResponse.from_result(self._endpoint.fault(error), None)

    def answer_immediately(self, received: bytes) -> tuple[EncodedResponse, JournalPosition, bool] | None:
        """The answer to the bytes that a connection received, where it can be given without waiting.

        With it the journal position before it, and whether the connection is to be closed then.
        """
        found_head = self._head_cache.lookup(received)
        try:
            position = self._positions.position_without_waiting() if found_head else None
        except Exception:
            # Whatever it is, `answer` meets it too, and reports it.
            return None
        if not found_head or not position:
            return None
        head, body = found_head
        key = CacheKey(head.soap_action, head.have, body)
        found = self._cache.find(key, position)
        if found is None:
            try:
                request_rules.check_encoding(body)
            except HttpError:
                return None
            found = self._answer_nonblocking(key, position)
        return None if found is None else (found, position, head.closes)

    def _answer_nonblocking(self, key: CacheKey, position: JournalPosition) -> EncodedResponse | None:
        # No list is tried after one that was given up late, or while one is made: hundreds of long ones would hold up
        # all other questions.
        began = time.monotonic()
        tries_lists = began > self._no_lists_until and not (self._background_lists or self._pools.lists).is_busy
        answer = self._endpoint.answer_nonblocking(key.body, key.soap_action, _held_hashes(key), lists=tries_lists)
        if answer is None:
            if time.monotonic() - began > SLOW_SECONDS:
                self._no_lists_until = time.monotonic() + LIST_PAUSE_SECONDS
            return None
        response = EncodedResponse.from_result(answer, position)
        self._cache.put(key, response)
        return response

    async def _answer_and_cache(self, key: CacheKey, position: JournalPosition | None) -> EncodedResponse:
        response = await self._answer_in_thread(key, position)
        self._cache.put(key, response)
        return response

    async def _answer_in_thread(self, key: CacheKey, position: JournalPosition | None) -> EncodedResponse:
        try:
            try:
                return await self._pools.questions.run(
                    lambda: EncodedResponse.from_result(self._answer(key, size_limited=True), position)
                )
            except LargePayload as large:
                reservation = await self._memory.reserve(large.size * ANSWER_MEMORY_FACTOR)
                response = await self._pools.large.run(lambda: self._large(key, position, reservation))
            except LongList:
                response = await self._long_list(key, position)
        except Unavailable as error:
            return self.failure_response(error)
        # While it is being sent to anybody, everybody who asks for it gets the same copy.
        self._cache.put_weak(key, response)
        return response

    async def _long_list(self, key: CacheKey, position: JournalPosition | None) -> EncodedResponse:
        if self._background_lists is None:
            reservation = await self._memory.reserve(LIST_MEMORY_BYTES)
            return await self._pools.lists.run(lambda: self._large(key, position, reservation))
        question = (key.body, key.soap_action, _held_hashes(key), position)
        return await self._background_lists.request_list(self._memory, READING_PATH, *question)

    def _large(
        self, key: CacheKey, position: JournalPosition | None, reservation: MemoryReservation
    ) -> EncodedResponse:
        return EncodedResponse.from_result(self._answer(key), position).with_reservation(reservation)

    def _answer(self, key: CacheKey, *, size_limited: bool = False) -> SoapResult:
        return self._endpoint.answer(
            key.body, key.soap_action, held_hashes=_held_hashes(key), size_limited=size_limited
        )


def _held_hashes(key: CacheKey) -> frozenset[str]:
    return frozenset(SHA256_IN_TEXT.findall(key.have))
