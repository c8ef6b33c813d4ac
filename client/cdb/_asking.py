"""Where an answer comes from: the lock file, the cache, the servers, in this order; and what is kept of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdb._answers import answer_of, record_of
from cdb._cache import Cache
from cdb._exceptions import CalibrationNotFound, CdbError, Integrity, RunNotFound, ServerUnreachable, TooLarge
from cdb._instants import instant, spell
from cdb._lockfile import LockFile
from cdb._questions import Question
from cdb.records import CalibrationText, Status

if TYPE_CHECKING:
    from cdb._soap import Service

# Of a call's time, how much is spent waiting for another process that fetches the same.
PATIENCE = 2 / 3


class Asking:
    """The read service as a client asks it.

    `CDB_AS_OF`, `CDB_LOCK` and `CDB_OFFLINE` are looked at with every question, so that they hold for a whole job, with
    the processes that it starts.
    """

    def __init__(self, servers: Sequence[str], timeout: float, service: Callable[[], Service]) -> None:
        """`service` makes the service when it is first needed."""
        self._servers = servers
        self._timeout = timeout
        self._service = service
        self._cache: Cache | None = None
        self._lock: LockFile | None = None

    @property
    def cache(self) -> Cache:
        """The cache that CDB_CACHE names."""
        if self._cache is None:
            self._cache = Cache()
        return self._cache

    def records(self, question: Question) -> Any:
        """The answer to a question, without content."""
        return self._noted(question)

    def text(self, question: Question) -> CalibrationText:
        """The answer to a question of content."""
        answer = self._noted(question)
        if isinstance(answer, CalibrationText):
            return answer
        return CalibrationText(answer, self.payload(answer.sha256))

    def payload(self, sha256: str) -> bytes:
        """The bytes of a payload: from the cache, or fetched once for all who wait for them."""
        if (data := self.cache.payload(sha256)) is not None:
            return data
        if is_offline():
            raise _offline(f"the payload {sha256}", self.cache, "fetch it with 'cdb prefetch' or 'cdb lock fetch'")
        with self.cache.alone(sha256, PATIENCE * self._timeout):
            if (data := self.cache.payload(sha256)) is not None:
                return data
            data = self.served("get_payload", sha256=sha256) or b""
            if hashlib.sha256(data).hexdigest() != sha256.lower():
                raise Integrity(
                    f"the payload {sha256} arrived damaged, in {len(data)} bytes: ask again, or ask another server",
                    sha256=sha256,
                )
            self.cache.keep_payload(data)
        return data

    def served(self, operation: str, **arguments: Any) -> Any:
        """What the servers answer, as zeep reads it."""
        check_online(operation)
        return self._service().call(operation, **arguments)

    def latest(self) -> str:
        """The latest as_of that the servers can answer."""
        complete_until: datetime = record_of(Status, self.served("get_status")).complete_until
        return spell(complete_until)

    def _noted(self, question: Question) -> Any:
        """The answer that the lock file has; else one from elsewhere, which is noted there."""
        if question.as_of is None:
            question = question.at(as_of_job())
        lock = self._lock_file()
        if lock is None:
            return self._found(question)
        noted = lock.find(question)
        if noted is None:
            noted = self._found_for(lock, question)
        if isinstance(noted, CdbError):
            raise noted
        return noted

    def _found_for(self, lock: LockFile, question: Question) -> Any:
        try:
            found = self._found(question)
        except (CalibrationNotFound, RunNotFound) as fault:
            return lock.note(question, fault)
        except ServerUnreachable as error:
            if is_offline():
                raise error.retold(f"{error.message}; it is not in the lock file {lock.path} either") from None
            raise
        if not isinstance(found, CalibrationText):
            return lock.note(question, found)
        noted = lock.note(question, found.record)
        # Another process may have been first, with another answer.
        return found if noted == found.record else noted

    def _found(self, question: Question) -> Any:
        """The answer of the cache or the servers."""
        if question.as_of in (None, "now") and is_offline():
            return self._prefetched(question)
        if question.as_of == "now":
            question = question.at(self.latest())
        return self._resolved(question)

    def _prefetched(self, question: Question) -> Any:
        """The newest answer of those that were prefetched."""
        for as_of in self.cache.prefetched(self._servers):
            with suppress(ServerUnreachable):
                return self._resolved(question.at(as_of))
        raise _offline(f"the answer to {question}", self.cache, _remedy(question))

    def _resolved(self, question: Question) -> Any:
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
        """From the cache if as_of makes the answer one for ever; else from the servers."""
        if question.as_of is None:
            return self._asked(question)
        if (answer := self.cache.answer(self._servers, question)) is not None:
            return answer
        if is_offline():
            raise _offline(f"the answer to {question}", self.cache, _remedy(question))
        with self.cache.alone(question.key(), PATIENCE * self._timeout):
            if (answer := self.cache.answer(self._servers, question)) is not None:
                return answer
            asked = self._asked(question)
            kept = asked.record if isinstance(asked, CalibrationText) else asked
            self.cache.keep_answer(self._servers[0], question, kept)
        return asked

    def _asked(self, question: Question) -> Any:
        answered = self.served(question.operation, **question.sent)
        answer = answer_of(question, answered)
        if not question.is_of_content:
            return answer
        text = _checked(answer, answered.data or b"")
        self.cache.keep_payload(text.data)
        return text

    def _lock_file(self) -> LockFile | None:
        named = os.environ.get("CDB_LOCK")
        if not named:
            return None
        path = Path(named).absolute()
        if self._lock is None or self._lock.path != path:
            self._lock = LockFile(path)
        return self._lock


def is_offline() -> bool:
    """Whether CDB_OFFLINE says that no server may be asked."""
    return os.environ.get("CDB_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def check_online(operation: str) -> None:
    """Raise ServerUnreachable where CDB_OFFLINE says that no server may be asked."""
    if is_offline():
        raise ServerUnreachable(f"CDB_OFFLINE is set, and {operation} needs a server: unset it")


def as_of_job() -> str | None:
    """The as_of of the whole job, from CDB_AS_OF, in the contract's spelling. Raises InvalidArgument."""
    named = os.environ.get("CDB_AS_OF") or None
    return named if named in (None, "now") else spell(instant("CDB_AS_OF", named))


def _checked(record: Any, data: bytes) -> CalibrationText:
    # "The sha256 travels with every calibration and is checked […] by the client. On mismatch: an error, never the
    # data."
    if len(data) != record.size or hashlib.sha256(data).hexdigest() != record.sha256:
        raise Integrity(
            f"calibration {record.id} arrived damaged: {len(data)} bytes received, {record.size} of sha256 "
            f"{record.sha256} expected; ask again, or ask another server",
            sha256=record.sha256,
        )
    return CalibrationText(record, data)


def _offline(what: str, cache: Cache, remedy: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"CDB_OFFLINE is set, and {what} is not in the cache {cache.store.folder}: {remedy}, while there is a network"
    )


def _remedy(question: Question) -> str:
    asked = dict(question.arguments)
    as_of = f" --as-of {question.as_of}" if question.as_of else ""
    if "run_number" in asked:
        return f"fetch it with 'cdb prefetch --run {asked['run_number']}{as_of}'"
    if "date" in asked:
        return f"fetch it with 'cdb prefetch --date {asked['date']}{as_of}'"
    return "ask it with as_of, or with a lock file"


def _as_fault(question: Question) -> dict[str, Any]:
    """What was asked, as the fields of CalibrationNotFound."""
    sent = question.sent
    return {name: instant(name, value) if name in ("date", "as_of") else value for name, value in sent.items()}
