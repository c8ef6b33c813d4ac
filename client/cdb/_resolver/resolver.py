"""Decide where an answer comes from: lock file, cache or servers, in this order, and where it is stored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cdb._exceptions import CalibrationNotFound, CdbError, Integrity, RunNotFound, ServerUnreachable, TooLarge
from cdb._instants import format_instant
from cdb._resolver.answers import error_fields, parse_answer, parse_content, parse_payload, to_record
from cdb._resolver.cache import Cache
from cdb._resolver.job import check_online, is_offline, job_as_of
from cdb._resolver.lock_file import LockFile
from cdb._resolver.query import Query
from cdb.records import CalibrationRecord, CalibrationText, Status

if TYPE_CHECKING:
    from cdb._resolver.soap import SoapService

# The share of a call's time to wait for another process that fetches the same.
WAIT_SHARE = 2 / 3
# Seconds to wait where the other process may fetch another answer.
FIRST_FETCH_WAIT_SECONDS = 2.0

# Most bytes of the answer to get_status, which may tell why a mirror stopped.
MAX_STATUS_BYTES = 2**16
# Most bytes of an answer without its content.
MAX_ENVELOPE_BYTES = 2**14

Answered = TypeVar("Answered")


class Resolver:
    """Answers the queries of a client.

    Reads `CDB_AS_OF`, `CDB_LOCK` and `CDB_OFFLINE` for every query, so that they hold for a whole job and the processes
    that it starts.
    """

    def __init__(
        self, servers: Sequence[str], timeout: float, service: Callable[[], SoapService], *, direct: bool
    ) -> None:
        """`service` makes the service when it is first needed; `timeout` limits each call, in seconds.

        `direct` asks only the servers, and ignores cache, lock file and the settings of a job.
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
        # Absolute, so that it holds where a process of the job changes its folder.
        os.environ["CDB_LOCK"] = str(path)
        if self._lock is None or self._lock.path != path:
            self._lock = LockFile(path)
        return self._lock

    def begin(self) -> Resolution:
        """Begin a call, whose deadline counts from now."""
        return Resolution(self)


class Resolution:
    """One call of a client: all its requests and waits share one deadline."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._cache = resolver.cache
        self._servers = resolver.servers
        self._end = time.monotonic() + resolver.timeout
        self._wait_until = time.monotonic() + WAIT_SHARE * resolver.timeout
        self._in_single_flight = False

    def resolve_content(self, query: Query) -> CalibrationText:
        """Answer a query that returns content."""
        answer = self.resolve(query)
        return answer if isinstance(answer, CalibrationText) else self._with_content(answer)

    def resolve(self, query: Query) -> Any:
        """Answer from the lock file, else from elsewhere, and record that answer. The content may be left out."""
        if self._resolver.direct:
            return self._query_servers(self._with_fixed_now(query), ())
        if query.as_of is None:
            query = query.with_as_of(job_as_of())
        lock = self._resolver.lock_file
        if lock is None:
            return self._from_cache_or_servers(query)
        recorded = lock.find(query)
        if recorded is None and is_offline():
            raise ServerUnreachable(
                f"CDB_OFFLINE is set, and {query} is not in the lock file {lock.path}: ask it with a network first"
            )
        if recorded is None:
            recorded = self._resolve_and_record(lock, query)
        if isinstance(recorded, CdbError):
            raise recorded
        return recorded

    def _with_content(self, record: CalibrationRecord) -> CalibrationText:
        """Add the bytes to a calibration. Raises Integrity where their number differs."""
        data = self.payload(record.sha256)
        if len(data) != record.size:
            raise Integrity(
                f"calibration {record.id} has {record.size} bytes by its record, and {len(data)} by its payload",
                sha256=record.sha256,
            )
        return CalibrationText(record, data)

    def payload(self, sha256: str, size: int | None = None) -> bytes:
        """Return the bytes of a payload from the cache, else from the servers: one fetch for all that wait for it."""
        if self._resolver.direct:
            return self._fetch_payload(sha256, size)
        if (data := self._cache.payload(sha256)) is not None:
            return data
        if is_offline():
            raise self._offline_error(f"the payload {sha256}", "fetch it with 'cdb prefetch' or 'cdb lock fetch'")
        with self._single_flight(sha256):
            if (data := self._cache.payload(sha256)) is not None:
                return data
            data = self._fetch_payload(sha256, size)
            self._cache.store_payload(data)
        return data

    def from_servers(
        self,
        convert: Callable[[Any], Answered],
        operation: str,
        known_digests: Sequence[str] = (),
        max_bytes: int | None = None,
        **arguments: Any,
    ) -> Answered:
        """Return what `convert` makes of the servers' answer, which may leave out payloads with known digests."""
        if not self._resolver.direct:
            check_online(operation)
        begun = time.monotonic()
        service = self._resolver.service()
        # Importing zeep can take long on a loaded machine: it must not use up the servers' time.
        self._end += time.monotonic() - begun
        bound = () if max_bytes is None else (max_bytes,)
        return service.call(operation, convert, known_digests, self._seconds_left(), *bound, **arguments)

    def _resolve_and_record(self, lock: LockFile, query: Query) -> Any:
        try:
            found = self._from_cache_or_servers(query)
        except (CalibrationNotFound, RunNotFound) as fault:
            return lock.record(query, fault, self._seconds_left())
        if not isinstance(found, CalibrationText):
            return lock.record(query, found, self._seconds_left())
        recorded = lock.record(query, found.record, self._seconds_left())
        # Another process may have recorded another answer first.
        return found if recorded == found.record else recorded

    def _from_cache_or_servers(self, query: Query) -> Any:
        """Answer from the cache or the servers."""
        if query.as_of in (None, "now") and is_offline():
            return self._from_prefetched(query)
        query = self._with_fixed_now(query)
        return self._from_cache_by_bulk_query(query) if query.as_of else self._fetch(query)

    def _with_fixed_now(self, query: Query) -> Query:
        """Replace `now` by an instant."""
        if query.as_of != "now":
            return query
        status = self.from_servers(
            lambda answered: to_record(Status, answered), "get_status", max_bytes=MAX_STATUS_BYTES
        )
        return query.with_as_of(format_instant(status.complete_until))

    def _from_prefetched(self, query: Query) -> Any:
        """Answer from the newest prefetch that has the answer."""
        for as_of in self._cache.prefetched(self._servers):
            with suppress(ServerUnreachable):
                return self._from_cache_by_bulk_query(query.with_as_of(as_of))
        raise self._offline_error(f"the answer to {query}", _offline_hint(query))

    def _from_cache_by_bulk_query(self, query: Query) -> Any:
        """Answer a query with as_of; by run and by date, from the answer to the bulk query."""
        bulk_query = query.bulk_query()
        if bulk_query is None:
            return self._from_cache(query)
        asked = dict(query.arguments)
        names = asked["device_name"], asked["calibration_type"]
        # There may be too many devices for one answer: then ask for this one alone.
        with suppress(TooLarge):
            for record in self._from_cache(bulk_query):
                if (record.device_name, record.calibration_type) == names:
                    return record
            if is_offline():
                fields = error_fields(CalibrationNotFound, query.wire_arguments)
                raise CalibrationNotFound(f"no calibration applies: {query}", **fields)
        # None applies: the server's fault tells why.
        return self._from_cache(query)

    def _from_cache(self, query: Query) -> Any:
        """Answer from the cache, else from the servers, and store the answer: as_of makes it valid for ever."""
        if (answer := self._cache.answer(self._servers, query)) is not None:
            return answer
        if is_offline():
            raise self._offline_error(f"the answer to {query}", _offline_hint(query))
        with self._single_flight(query.cache_key()):
            if (answer := self._cache.answer(self._servers, query)) is not None:
                return answer
            asked = self._fetch(query)
            kept = asked.record if isinstance(asked, CalibrationText) else asked
            self._cache.store_answer(self._servers[0], query, kept)
        return asked

    def _fetch(self, query: Query) -> Any:
        """Answer from the servers, which do not send a payload again that the cache has."""
        if not query.returns_content:
            return self._query_servers(query, ())
        if known_digests := self._cache.known_digests(self._servers, query):
            return self._fetch_unless_cached(query, known_digests)
        # Where many jobs start together, the first fetches the payload for all.
        with self._single_flight(query.group_key(), FIRST_FETCH_WAIT_SECONDS):
            known_digests = self._cache.known_digests(self._servers, query)
            if not known_digests:
                return self._fetch_unless_cached(query, known_digests)
        return self._fetch_unless_cached(query, known_digests)

    def _fetch_unless_cached(self, query: Query, known_digests: Sequence[str]) -> CalibrationText:
        answer = self._query_servers(query, known_digests)
        if not isinstance(answer, CalibrationText):
            return self._with_content(answer)
        if answer.sha256 not in known_digests:
            self._cache.store_payload(answer.data)
            self._cache.store_known_digest(self._servers[0], query, answer.sha256)
        return answer

    def _query_servers(self, query: Query, known_digests: Sequence[str]) -> Any:
        """Answer from the servers, without the content where its digest is known."""
        if not query.returns_content:
            return self.from_servers(
                lambda answered: parse_answer(query, answered), query.operation, **query.wire_arguments
            )
        record, data = self.from_servers(
            lambda answered: parse_content(query, answered, known_digests),
            query.operation,
            known_digests,
            **query.wire_arguments,
        )
        return record if data is None else CalibrationText(record, data)

    def _fetch_payload(self, sha256: str, size: int | None) -> bytes:
        # Base64 is a third longer, and may have line breaks.
        max_bytes = None if size is None else size * 3 // 2 + MAX_ENVELOPE_BYTES
        return self.from_servers(
            lambda answered: parse_payload(answered, sha256), "get_payload", max_bytes=max_bytes, sha256=sha256
        )

    @contextmanager
    def _single_flight(self, name: str, max_wait: float = float("inf")) -> Iterator[None]:
        """Fetch under a name while others wait. One name at a time, so that two calls cannot wait for each other."""
        if self._in_single_flight:
            yield
            return
        self._in_single_flight = True
        try:
            with self._cache.store.lock(name, min(max_wait, self._wait_until - time.monotonic())):
                yield
        finally:
            self._in_single_flight = False

    def _seconds_left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def _offline_error(self, what: str, remedy: str) -> ServerUnreachable:
        folder = self._cache.store.folder
        return ServerUnreachable(
            f"CDB_OFFLINE is set, and {what} is not in the cache {folder}: {remedy}, while there is a network"
        )


def unchanged(answered: Any) -> Any:
    """Return what zeep read."""
    return answered


def _offline_hint(query: Query) -> str:
    asked = dict(query.arguments)
    as_of = f" --as-of {query.as_of}" if query.as_of else ""
    if "run_number" in asked:
        return f"fetch it with 'cdb prefetch --run {asked['run_number']}{as_of}'"
    if "date" in asked:
        return f"fetch it with 'cdb prefetch --date {asked['date']}{as_of}'"
    return "ask it with an as_of, and with the same one now, or use a lock file"
