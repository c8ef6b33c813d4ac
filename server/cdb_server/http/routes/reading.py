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

# Seconds after which what is still to be looked for in a turn of the event loop gets another transaction: who commits
# waits for the end of the one that is under way.
MAX_SNAPSHOT_SECONDS = 0.001


def read_position(reader: Reader) -> JournalPosition | None:
    """What the server knows; None when the database cannot be read. Blocks."""
    try:
        return reader.journal_position()
    except Unavailable:
        return None


class NonblockingPosition:
    """The same, at once, from a `reader` on a glance; remembered for as long as nothing is written.

    What comes in one turn of the event loop is looked for in one transaction of the glance: beginning and ending one
    takes longer than to find a calibration. Meanwhile nobody can commit, so that nothing known becomes untrue.
    """

    def __init__(self, glance: NonblockingConnection, reader: Reader) -> None:
        self._connection = glance
        self._reader = reader
        self._version = -1
        self._position = JournalPosition(0, "", None)
        self._fresh_until = -math.inf

    def current_position(self) -> JournalPosition:
        """What the server knows. Raises Busy."""
        if not self._connection.in_snapshot:
            asyncio.get_running_loop().call_soon(self._end_snapshot)
        elif time.monotonic() < self._fresh_until:
            return self._position
        # Nothing is known until all of it is.
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
    """What the server knows now, for whoever answers: at once where that is possible, else by a look in a thread."""

    def __init__(self, reader: Reader, glancing: NonblockingPosition | None, threads: ThreadPool) -> None:
        self._reader = reader
        self._nonblocking = glancing
        self._threads = threads
        self._shared_reads = NextFlight(self._read_in_thread)

    def position_without_waiting(self) -> JournalPosition | None:
        """What the server knows; None where that cannot be said at once."""
        if self._nonblocking is None:
            return None
        try:
            return self._nonblocking.current_position()
        except WouldBlock:
            return None

    async def latest_position(self) -> JournalPosition | None:
        """What the server knows now or later; None when the database cannot be read."""
        return self.position_without_waiting() or await self._shared_reads.next_result()

    async def _read_in_thread(self) -> JournalPosition | None:
        try:
            return await self._threads.run(lambda: read_position(self._reader))
        except Unavailable:
            return None


SHA256_IN_TEXT = re.compile(r"\b[0-9a-f]{64}\b")

# Bytes of a question that is read on the event loop.
MAX_LOOP_QUESTION_BYTES = 64 * 2**10

READING_PATH = "/cdb/v2/calibration"

# Seconds: what is given up after so long was a long list, and for how long none is tried on the event loop then.
SLOW_SECONDS, LIST_PAUSE_SECONDS = 0.003, 1.0

# Where the connections find the questions in the state of the application's lifespan.
READING_HANDLER = "cdb.questions"


class ReadingHandler:
    """One for each worker."""

    def __init__(
        self,
        endpoint: Endpoint,
        watch: PositionSource,
        pools: ThreadPools,
        ready: ResponseCache,
        room: MemoryBudget,
        lists: BackgroundLists | None = None,
    ) -> None:
        """Long lists are made by `lists`, or here where there are none."""
        self._endpoint = endpoint
        self._positions = watch
        self._pools = pools
        self._background_lists = lists
        self._cache = ready
        self._memory = room
        self._head_cache = RequestHeadCache()
        self._no_lists_until = -math.inf
        self._flights: SingleFlight[CacheKey, EncodedResponse] = SingleFlight()

    async def authenticate(self, request: Request) -> str:
        """Everybody may read."""
        return ""

    async def answer(
        self, request: Request, body: bytes, author: str
    ) -> tuple[EncodedResponse, JournalPosition | None]:
        """The answer to a request, and what the server knew before it."""
        question = CacheKey(request.headers.get("soapaction", ""), request.headers.get(HAVE_HEADER, ""), body)
        received = request.scope.get("extensions", {}).get(RECEIVED_REQUEST)
        if received:
            head = RequestHead(question.soap_action, question.have, len(body), received["closes"])
            self._head_cache.learn(received["request"], head)
        if len(body) > MAX_LOOP_QUESTION_BYTES:
            # To read it would hold up everybody else.
            known = await self._positions.latest_position()
            return await self._answer_in_thread(question, known), known
        came_with: JournalPosition | None = None
        waited = False
        while True:
            # Before the answer, which then knows at least as much as it says.
            known = await self._positions.latest_position()
            if known and (found := self._cache.find(question, known) or self._answer_nonblocking(question, known)):
                return found, known
            # Equal questions at once cost one resolution. One under way may have begun before this question came, and
            # a write after it: who finds one waits for its end, looks again, and shares the next.
            under_way = self._flights.find(question)
            if under_way is None:
                under_way = self._flights.start(question, self._answer_and_cache(question, known))
            elif waited:
                known = came_with
            else:
                await under_way.wait_until_done()
                waited, came_with = True, known
                continue
            return await under_way.result(), known

    def failure_response(self, error: Exception) -> EncodedResponse:
        """The fault that says so."""
        return EncodedResponse.from_result(self._endpoint.fault(error), None)

    def answer_immediately(self, received: bytes) -> tuple[EncodedResponse, JournalPosition, bool] | None:
        """The answer to what a connection received, where it can be given without waiting.

        With it what the server knew before it, and whether the connection is to be closed then.
        """
        asked = self._head_cache.lookup(received)
        try:
            known = self._positions.position_without_waiting() if asked else None
        except Exception:
            # Whatever it is, `answer` meets it too, and tells.
            return None
        if not asked or not known:
            return None
        head, body = asked
        question = CacheKey(head.soap_action, head.have, body)
        found = self._cache.find(question, known)
        if found is None:
            try:
                request_rules.check_encoding(body)
            except HttpError:
                return None
            found = self._answer_nonblocking(question, known)
        return None if found is None else (found, known, head.closes)

    def _answer_nonblocking(self, question: CacheKey, known: JournalPosition) -> EncodedResponse | None:
        # After one that was given up late, or while a list is made, none is tried: hundreds of long ones would hold up
        # everybody else.
        began = time.monotonic()
        lists = began > self._no_lists_until and not (self._background_lists or self._pools.lists).is_busy
        answer = self._endpoint.answer_nonblocking(
            question.body, question.soap_action, _held_hashes(question), lists=lists
        )
        if answer is None:
            if time.monotonic() - began > SLOW_SECONDS:
                self._no_lists_until = time.monotonic() + LIST_PAUSE_SECONDS
            return None
        ready = EncodedResponse.from_result(answer, known)
        self._cache.put(question, ready)
        return ready

    async def _answer_and_cache(self, question: CacheKey, known: JournalPosition | None) -> EncodedResponse:
        ready = await self._answer_in_thread(question, known)
        self._cache.put(question, ready)
        return ready

    async def _answer_in_thread(self, question: CacheKey, known: JournalPosition | None) -> EncodedResponse:
        try:
            try:
                return await self._pools.questions.run(
                    lambda: EncodedResponse.from_result(self._answer(question, sparing=True), known)
                )
            except LargePayload as large:
                reservation = await self._memory.reserve(large.size * ANSWER_MEMORY_FACTOR)
                ready = await self._pools.large.run(lambda: self._large(question, known, reservation))
            except LongList:
                ready = await self._long_list(question, known)
        except Unavailable as error:
            return self.failure_response(error)
        # Until the last who is sent it has it, all others who ask for it get the same.
        self._cache.put_weak(question, ready)
        return ready

    async def _long_list(self, question: CacheKey, known: JournalPosition | None) -> EncodedResponse:
        if self._background_lists is None:
            reservation = await self._memory.reserve(LIST_MEMORY_BYTES)
            return await self._pools.lists.run(lambda: self._large(question, known, reservation))
        asked = (question.body, question.soap_action, _held_hashes(question), known)
        return await self._background_lists.request_list(self._memory, READING_PATH, *asked)

    def _large(
        self, question: CacheKey, known: JournalPosition | None, reservation: MemoryReservation
    ) -> EncodedResponse:
        return EncodedResponse.from_result(self._answer(question), known).with_reservation(reservation)

    def _answer(self, question: CacheKey, *, sparing: bool = False) -> SoapResult:
        return self._endpoint.answer(
            question.body, question.soap_action, held_hashes=_held_hashes(question), size_limited=sparing
        )


def _held_hashes(question: CacheKey) -> frozenset[str]:
    return frozenset(SHA256_IN_TEXT.findall(question.have))
