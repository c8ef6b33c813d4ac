"""Where an answer comes from: the lock file, the cache, the servers, in this order; and what is kept of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cdb._answers import answer_of, content_of, payload_of, record_of
from cdb._cache import Cache
from cdb._exceptions import (
    CalibrationNotFound,
    CdbError,
    Integrity,
    RunNotFound,
    ServerUnreachable,
    TooLarge,
)
from cdb._instants import instant, spell
from cdb._job import as_of_job, check_online, is_offline
from cdb._lockfile import LockFile
from cdb._questions import Question
from cdb.records import CalibrationRecord, CalibrationText, Status

if TYPE_CHECKING:
    from cdb._soap import Service

# Of a call's time, how much is spent waiting for another process that fetches the same.
PATIENCE = 2 / 3
# Seconds, for what there may be nothing to share of.
FIRST_PATIENCE = 2.0

# Bytes of the answer to get_status, at most: it may tell why a mirror stopped.
LONGEST_STATUS = 2**16
# Bytes around what is answered.
ENVELOPE = 2**14

Answered = TypeVar("Answered")


class Asking:
    """The read service as a client asks it.

    `CDB_AS_OF`, `CDB_LOCK` and `CDB_OFFLINE` are looked at with every question, so that they hold for a whole job, with
    the processes that it starts.
    """

    def __init__(self, servers: Sequence[str], timeout: float, service: Callable[[], Service], *, direct: bool) -> None:
        """`service` makes the service when it is first needed; `timeout` bounds each call, in seconds.

        `direct`, only the servers are asked: cache, lock file and the settings of a job do not count.
        """
        self.servers = servers
        self.timeout = timeout
        self.service = service
        self.direct = direct
        self._cache: Cache | None = None
        self._lock: LockFile | None = None

    @property
    def cache(self) -> Cache:
        """The cache that CDB_CACHE names."""
        if self._cache is None:
            self._cache = Cache()
        return self._cache

    @property
    def lock_file(self) -> LockFile | None:
        """The lock file that CDB_LOCK names."""
        named = os.environ.get("CDB_LOCK")
        if not named:
            return None
        path = Path(named).absolute()
        # For the whole job, wherever it goes.
        os.environ["CDB_LOCK"] = str(path)
        if self._lock is None or self._lock.path != path:
            self._lock = LockFile(path)
        return self._lock

    def records(self, question: Question) -> Any:
        """The answer to a question, without content."""
        return _Call(self).noted(question)

    def text(self, question: Question) -> CalibrationText:
        """The answer to a question of content."""
        call = _Call(self)
        answer = call.noted(question)
        return answer if isinstance(answer, CalibrationText) else call.with_content(answer)

    def payload(self, sha256: str, size: int | None = None) -> bytes:
        """The bytes of a payload, of which no more are read than `size`, where that is known."""
        return _Call(self).payload(sha256, size)

    def served(self, operation: str, longest: int, **arguments: Any) -> Any:
        """What the servers answer in `longest` bytes to what is neither noted nor kept, as zeep reads it."""
        return _Call(self).served(as_it_is, operation, longest=longest, **arguments)


class _Call:
    """One call of a client: all that it asks and waits for has one deadline."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._cache = asking.cache
        self._servers = asking.servers
        self._end = time.monotonic() + asking.timeout
        self._patient_until = time.monotonic() + PATIENCE * asking.timeout
        self._alone_already = False

    def noted(self, question: Question) -> Any:
        """The answer that the lock file has; else one from elsewhere, which is noted there."""
        if self._asking.direct:
            return self._served(self._at_instant(question), ())
        if question.as_of is None:
            question = question.at(as_of_job())
        lock = self._asking.lock_file
        if lock is None:
            return self._found(question)
        noted = lock.find(question)
        if noted is None and is_offline():
            raise ServerUnreachable(
                f"CDB_OFFLINE is set, and {question} is not in the lock file {lock.path}: ask it with a network first"
            )
        if noted is None:
            noted = self._found_for(lock, question)
        if isinstance(noted, CdbError):
            raise noted
        return noted

    def with_content(self, record: CalibrationRecord) -> CalibrationText:
        """A calibration with its bytes. Raises Integrity where they are not so many."""
        data = self.payload(record.sha256)
        if len(data) != record.size:
            raise Integrity(
                f"calibration {record.id} has {record.size} bytes by its record, and {len(data)} by its payload",
                sha256=record.sha256,
            )
        return CalibrationText(record, data)

    def payload(self, sha256: str, size: int | None = None) -> bytes:
        """The bytes of a payload: from the cache, or fetched once for all who wait for them."""
        if self._asking.direct:
            return self._fetched(sha256, size)
        if (data := self._cache.payload(sha256)) is not None:
            return data
        if is_offline():
            raise self._offline(f"the payload {sha256}", "fetch it with 'cdb prefetch' or 'cdb lock fetch'")
        with self._alone(sha256):
            if (data := self._cache.payload(sha256)) is not None:
                return data
            data = self._fetched(sha256, size)
            self._cache.keep_payload(data)
        return data

    def served(
        self,
        made: Callable[[Any], Answered],
        operation: str,
        held: Sequence[str] = (),
        longest: int | None = None,
        **arguments: Any,
    ) -> Answered:
        """What is made of the servers' answer, of `longest` bytes; payloads that are `held` need not be in it."""
        if not self._asking.direct:
            check_online(operation)
        begun = time.monotonic()
        service = self._asking.service()
        # To import zeep takes a while, once, on a loaded machine a long one: it is not the servers' time.
        self._end += time.monotonic() - begun
        bound = () if longest is None else (longest,)
        return service.call(operation, made, held, self._left(), *bound, **arguments)

    def _found_for(self, lock: LockFile, question: Question) -> Any:
        try:
            found = self._found(question)
        except (CalibrationNotFound, RunNotFound) as fault:
            return lock.note(question, fault, self._left())
        if not isinstance(found, CalibrationText):
            return lock.note(question, found, self._left())
        noted = lock.note(question, found.record, self._left())
        # Another process may have been first, with another answer.
        return found if noted == found.record else noted

    def _found(self, question: Question) -> Any:
        """The answer of the cache or the servers."""
        if question.as_of in (None, "now") and is_offline():
            return self._prefetched(question)
        question = self._at_instant(question)
        return self._pinned(question) if question.as_of else self._asked(question)

    def _at_instant(self, question: Question) -> Question:
        """The question with an instant for `now`."""
        if question.as_of != "now":
            return question
        status = self.served(lambda answered: record_of(Status, answered), "get_status", longest=LONGEST_STATUS)
        return question.at(spell(status.complete_until))

    def _prefetched(self, question: Question) -> Any:
        """The newest answer of those that were prefetched."""
        for as_of in self._cache.prefetched(self._servers):
            with suppress(ServerUnreachable):
                return self._pinned(question.at(as_of))
        raise self._offline(f"the answer to {question}", _remedy(question))

    def _pinned(self, question: Question) -> Any:
        """The answer to a question with as_of; by run and by date, from the one about all devices and types."""
        of_all = question.of_all()
        if of_all is None:
            return self._lasting(question)
        asked = dict(question.arguments)
        names = asked["device_name"], asked["calibration_type"]
        # Too many devices for one answer: this one is asked for alone.
        with suppress(TooLarge):
            for record in self._lasting(of_all):
                if (record.device_name, record.calibration_type) == names:
                    return record
            if is_offline():
                raise CalibrationNotFound(f"no calibration applies: {question}", **_as_fault(question))
        # There is none, and the server says why in its words.
        return self._lasting(question)

    def _lasting(self, question: Question) -> Any:
        """The answer that the cache has; else the servers', which is kept, for as_of makes it one for ever."""
        if (answer := self._cache.answer(self._servers, question)) is not None:
            return answer
        if is_offline():
            raise self._offline(f"the answer to {question}", _remedy(question))
        with self._alone(question.key()):
            if (answer := self._cache.answer(self._servers, question)) is not None:
                return answer
            asked = self._asked(question)
            kept = asked.record if isinstance(asked, CalibrationText) else asked
            self._cache.keep_answer(self._servers[0], question, kept)
        return asked

    def _asked(self, question: Question) -> Any:
        """The servers' answer; a payload that is kept is not sent again."""
        if not question.is_of_content:
            return self._served(question, ())
        if held := self._cache.held(self._servers, question):
            return self._asked_holding(question, held)
        # The first of many that begin together fetches a payload, which the others then have.
        with self._alone(question.topic(), FIRST_PATIENCE):
            held = self._cache.held(self._servers, question)
            if not held:
                return self._asked_holding(question, held)
        return self._asked_holding(question, held)

    def _asked_holding(self, question: Question, held: Sequence[str]) -> CalibrationText:
        answer = self._served(question, held)
        if not isinstance(answer, CalibrationText):
            return self.with_content(answer)
        if answer.sha256 not in held:
            self._cache.keep_payload(answer.data)
            self._cache.keep_held(self._servers[0], question, answer.sha256)
        return answer

    def _served(self, question: Question, held: Sequence[str]) -> Any:
        """The servers' answer, with its content unless that is one of those that are `held`."""
        if not question.is_of_content:
            return self.served(lambda answered: answer_of(question, answered), question.operation, **question.sent)
        record, data = self.served(
            lambda answered: content_of(question, answered, held), question.operation, held, **question.sent
        )
        return record if data is None else CalibrationText(record, data)

    def _fetched(self, sha256: str, size: int | None) -> bytes:
        # Base64 takes a third more, and may have line breaks.
        longest = None if size is None else size * 3 // 2 + ENVELOPE
        return self.served(lambda answered: payload_of(answered, sha256), "get_payload", longest=longest, sha256=sha256)

    @contextmanager
    def _alone(self, name: str, patience: float = float("inf")) -> Iterator[None]:
        """Fetch what is named so while others wait. One name at a time: two calls shall not wait for each other."""
        if self._alone_already:
            yield
            return
        self._alone_already = True
        try:
            with self._cache.alone(name, min(patience, self._patient_until - time.monotonic())):
                yield
        finally:
            self._alone_already = False

    def _left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def _offline(self, what: str, remedy: str) -> ServerUnreachable:
        folder = self._cache.store.folder
        return ServerUnreachable(
            f"CDB_OFFLINE is set, and {what} is not in the cache {folder}: {remedy}, while there is a network"
        )


def as_it_is(answered: Any) -> Any:
    """What zeep read, of which nothing is made."""
    return answered


def _remedy(question: Question) -> str:
    asked = dict(question.arguments)
    as_of = f" --as-of {question.as_of}" if question.as_of else ""
    if "run_number" in asked:
        return f"fetch it with 'cdb prefetch --run {asked['run_number']}{as_of}'"
    if "date" in asked:
        return f"fetch it with 'cdb prefetch --date {asked['date']}{as_of}'"
    return "ask it with an as_of, and with the same one now, or use a lock file"


def _as_fault(question: Question) -> dict[str, Any]:
    """What was asked, as the fields of CalibrationNotFound."""
    sent = question.sent
    return {name: instant(name, value) if name in ("date", "as_of") else value for name, value in sent.items()}
