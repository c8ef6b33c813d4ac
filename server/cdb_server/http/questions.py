"""The reading service's answers: ready ones, then those found on the event loop at once, then those of a thread."""

import asyncio
import re

from starlette.requests import Request

from cdb_server.errors import LargePayload, Unavailable
from cdb_server.http import media
from cdb_server.http.heads import Head, KnownHeads
from cdb_server.http.knowledge import Watch
from cdb_server.http.ready import HAVE, Question, Ready, ReadyAnswers
from cdb_server.http.refusals import Refused
from cdb_server.http.room import OF_ANSWER, Room
from cdb_server.http.threads import Threads
from cdb_server.model import Knowledge
from cdb_server.soap import Answer, Endpoint

SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
# Bytes of a question that is read on the event loop.
LONGEST = 64 * 2**10
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
        threads: Threads,
        ready: ReadyAnswers,
        room: Room,
    ) -> None:
        self._endpoint = endpoint
        self._watch = watch
        self._threads = threads
        self._ready = ready
        self._room = room
        self._heads = KnownHeads()
        self._under_way: dict[Question, asyncio.Task[Ready]] = {}

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
            under_way = self._under_way.get(question)
            if under_way is None:
                under_way = self._under_way[question] = asyncio.ensure_future(self._resolve(question, known))
            elif waited:
                known = came_with
            else:
                await asyncio.wait([under_way])
                waited, came_with = True, known
                continue
            # Whoever goes does not take it away from the others.
            return await asyncio.shield(under_way), known

    def unavailable(self, error: Unavailable) -> Ready:
        """The fault that says so."""
        return Ready.of(self._endpoint.fault(error), None)

    def at_once(self, received: bytes) -> tuple[Ready, Knowledge, bool] | None:
        """The answer to what a connection received, where it can be given without waiting.

        With it what the server knew before it, and whether the connection is to be closed then.
        """
        asked = self._heads.of(received)
        known = self._watch.at_once() if asked else None
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
        answer = self._endpoint.answer_at_once(question.body, question.soap_action, _held(question))
        if answer is None:
            return None
        ready = Ready.of(answer, known)
        self._ready.keep(question, ready)
        return ready

    async def _resolve(self, question: Question, known: Knowledge | None) -> Ready:
        try:
            ready = await self._found(question, known)
            self._ready.keep(question, ready)
            return ready
        finally:
            del self._under_way[question]

    async def _found(self, question: Question, known: Knowledge | None) -> Ready:
        try:
            return await self._threads.do(lambda: Ready.of(self._answer(question, sparing=True), known))
        except LargePayload as large:
            wanted = large.size * OF_ANSWER
        try:
            ready = await self._room.holding(
                wanted, lambda: self._threads.do(lambda: Ready.of(self._answer(question), known))
            )
        except Unavailable as error:
            return self.unavailable(error)
        # Until the last who is sent it has it, all others who ask for it get the same.
        self._ready.lend(question, ready)
        return ready

    def _answer(self, question: Question, *, sparing: bool = False) -> Answer:
        return self._endpoint.answer(question.body, question.soap_action, held=_held(question), sparing=sparing)


def _held(question: Question) -> frozenset[str]:
    return frozenset(SHA256.findall(question.have))
