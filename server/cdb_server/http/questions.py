"""The reading service's answers: ready ones, then those found on the event loop at once, then those of a thread."""

import math
import re
import time

from starlette.requests import Request

from cdb_server.errors import LargePayload, LongList, Unavailable
from cdb_server.http import media
from cdb_server.http.budget import OF_ANSWER, OF_LIST, Budget, Reservation
from cdb_server.http.heads import Head, KnownHeads
from cdb_server.http.knowledge import Watch
from cdb_server.http.offload import Lists
from cdb_server.http.ready import HAVE, Question, Ready, ReadyAnswers
from cdb_server.http.refusals import Refused
from cdb_server.http.single_flight import SingleFlight
from cdb_server.http.threads import Pools
from cdb_server.model import Knowledge
from cdb_server.soap import Answer, Endpoint

SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
# Bytes of a question that is read on the event loop.
LONGEST = 64 * 2**10
READING_PATH = "/cdb/v2/calibration"
# Seconds: what is given up after so long was a long list, and for how long none is tried on the event loop then.
LATE, PAUSE = 0.003, 1.0
# Where the connections find the questions in the state of the application's lifespan.
QUESTIONS = "cdb.questions"
# Among the extensions of a request's scope: the bytes of one that a connection received whole, and whether it closes.
RECEIVED = "cdb.received"


class Questions:
    """One for each worker."""

    def __init__(
        self,
        endpoint: Endpoint,
        watch: Watch,
        pools: Pools,
        ready: ReadyAnswers,
        room: Budget,
        lists: Lists | None = None,
    ) -> None:
        """Long lists are made by `lists`, or here where there are none."""
        self._endpoint = endpoint
        self._watch = watch
        self._pools = pools
        self._lists = lists
        self._ready = ready
        self._room = room
        self._heads = KnownHeads()
        self._no_lists_until = -math.inf
        self._under_way: SingleFlight[Question, Ready] = SingleFlight()

    async def admit(self, request: Request) -> str:
        """Everybody may read."""
        return ""

    async def answer(self, request: Request, body: bytes, author: str) -> tuple[Ready, Knowledge | None]:
        """The answer to a request, and what the server knew before it."""
        question = Question(request.headers.get("soapaction", ""), request.headers.get(HAVE, ""), body)
        received = request.scope.get("extensions", {}).get(RECEIVED)
        if received:
            head = Head(question.soap_action, question.have, len(body), received["closes"])
            self._heads.learn(received["request"], head)
        if len(body) > LONGEST:
            # To read it would hold up everybody else.
            known = await self._watch.now()
            return await self._found(question, known), known
        came_with: Knowledge | None = None
        waited = False
        while True:
            # Before the answer, which then knows at least as much as it says.
            known = await self._watch.now()
            if known and (found := self._ready.find(question, known) or self._at_once(question, known)):
                return found, known
            # Equal questions at once cost one resolution. One under way may have begun before this question came, and
            # a write after it: who finds one waits for its end, looks again, and shares the next.
            under_way = self._under_way.find(question)
            if under_way is None:
                under_way = self._under_way.begin(question, self._resolve(question, known))
            elif waited:
                known = came_with
            else:
                await under_way.ended()
                waited, came_with = True, known
                continue
            return await under_way.result(), known

    def failed(self, error: Exception) -> Ready:
        """The fault that says so."""
        return Ready.of(self._endpoint.fault(error), None)

    def at_once(self, received: bytes) -> tuple[Ready, Knowledge, bool] | None:
        """The answer to what a connection received, where it can be given without waiting.

        With it what the server knew before it, and whether the connection is to be closed then.
        """
        asked = self._heads.of(received)
        try:
            known = self._watch.at_once() if asked else None
        except Exception:
            # Whatever it is, `answer` meets it too, and tells.
            return None
        if not asked or not known:
            return None
        head, body = asked
        question = Question(head.soap_action, head.have, body)
        found = self._ready.find(question, known)
        if found is None:
            try:
                media.check_body(body)
            except Refused:
                return None
            found = self._at_once(question, known)
        return None if found is None else (found, known, head.closes)

    def _at_once(self, question: Question, known: Knowledge) -> Ready | None:
        # After one that was given up late, or while a list is made, none is tried: hundreds of long ones would hold up
        # everybody else.
        began = time.monotonic()
        lists = began > self._no_lists_until and not (self._lists or self._pools.lists).busy
        answer = self._endpoint.answer_at_once(question.body, question.soap_action, _held(question), lists=lists)
        if answer is None:
            if time.monotonic() - began > LATE:
                self._no_lists_until = time.monotonic() + PAUSE
            return None
        ready = Ready.of(answer, known)
        self._ready.keep(question, ready)
        return ready

    async def _resolve(self, question: Question, known: Knowledge | None) -> Ready:
        ready = await self._found(question, known)
        self._ready.keep(question, ready)
        return ready

    async def _found(self, question: Question, known: Knowledge | None) -> Ready:
        try:
            try:
                return await self._pools.questions.do(lambda: Ready.of(self._answer(question, sparing=True), known))
            except LargePayload as large:
                reservation = await self._room.reserve(large.size * OF_ANSWER)
                ready = await self._pools.large.do(lambda: self._large(question, known, reservation))
            except LongList:
                ready = await self._long_list(question, known)
        except Unavailable as error:
            return self.failed(error)
        # Until the last who is sent it has it, all others who ask for it get the same.
        self._ready.lend(question, ready)
        return ready

    async def _long_list(self, question: Question, known: Knowledge | None) -> Ready:
        if self._lists is None:
            reservation = await self._room.reserve(OF_LIST)
            return await self._pools.lists.do(lambda: self._large(question, known, reservation))
        asked = (question.body, question.soap_action, _held(question), known)
        return await self._lists.made(self._room, READING_PATH, *asked)

    def _large(self, question: Question, known: Knowledge | None, reservation: Reservation) -> Ready:
        return Ready.of(self._answer(question), known).holding(reservation)

    def _answer(self, question: Question, *, sparing: bool = False) -> Answer:
        return self._endpoint.answer(question.body, question.soap_action, held=_held(question), sparing=sparing)


def _held(question: Question) -> frozenset[str]:
    return frozenset(SHA256.findall(question.have))
