"""Answers kept ready are right at every moment: no acknowledged write is missed, and no equal question costs twice."""

import asyncio
import base64
import itertools
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from cdb_server import instants
from cdb_server.database.nonblocking import NonblockingConnection
from cdb_server.database.transactions import Database
from cdb_server.http.admission import MemoryBudget, ThreadPools
from cdb_server.http.request_templates import MAX_HEAD_BYTES, MAX_HEADS, RequestHead, RequestHeadCache
from cdb_server.http.response_cache import MAX_REMEMBERED_KEYS, MIN_FILE_BYTES, CacheKey, EncodedResponse, ResponseCache
from cdb_server.http.routes.reading import MAX_LOOP_QUESTION_BYTES as LONGEST_AT_ONCE
from cdb_server.http.routes.reading import NonblockingPosition, PositionSource, ReadingHandler
from cdb_server.http.single_flight import NextFlight
from cdb_server.instants import MICROSECOND
from cdb_server.model import JournalPosition
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.soap.endpoint import Endpoint, SoapResult, reading_endpoint
from cdb_server.soap.operations import VALID_FOREVER, VALID_UNTIL_WRITE, Cacheability
from tests import mirrors, servers
from tests.fuzz import wire
from tests.in_process_server import envelope, raw_reply, watched
from tests.server.oracle import Clock
from tests.servers import Master

MARCH = instants.parse("2016-03-01T08:00:00Z")
SECOND = timedelta(seconds=1)
KEY = "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
CURRENT = envelope("get_current_calibration", KEY)
HISTORY = envelope("get_history", KEY)
RUN = envelope("get_run", "<run_number>1</run_number>")
STATE = JournalPosition(1, "a" * 64, None)
NEXT = JournalPosition(2, "b" * 64, None)


def upload(start: datetime, data: bytes = b"data") -> Upload:
    return Upload.validated("TOF1", "t0", start, data, None, None, max_payload=2**20)


def number(reply: bytes) -> int:
    """The greatest id, or the seconds of a run's start, that an answer holds."""
    found = re.findall(rb"<tns:id>(\d+)<|<tns:start_time>[^<]*:(\d\d)\.", reply)
    return max(int(id or second) for id, second in found)


# What is kept, and how long.


def ready(lasting: Cacheability | None, known: JournalPosition | None = STATE, size: int = 10) -> EncodedResponse:
    return EncodedResponse.from_result(SoapResult("", (b"x" * size, b"", b""), lasting), known)


def question(text: str) -> CacheKey:
    return CacheKey("", "", text.encode())


def test_a_response_is_cached_as_long_as_it_is_valid() -> None:
    """For ever; until the journal has grown; or never, as a fault, or where the database did not tell how it stands."""
    answers = ResponseCache(10**6)
    for text, lasting in (("ever", VALID_FOREVER), ("written", VALID_UNTIL_WRITE), ("never", None)):
        answers.put(question(text), ready(lasting))
    answers.put(question("unknown"), ready(VALID_FOREVER, None))
    assert [bool(answers.find(question(text), STATE)) for text in ("ever", "written", "never", "unknown")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [bool(answers.find(question(text), NEXT)) for text in ("ever", "written")] == [True, False]
    for other in (CacheKey("a", "", b"ever"), CacheKey("", "a", b"ever"), CacheKey("", "", b"Ever")):
        assert answers.find(other, STATE) is None


def test_a_current_answer_is_cached_within_its_interval() -> None:
    """From its valid_from to its valid_until, half-open; a clock that is set back leads out of it as well."""
    clock = Clock(MARCH)
    answers = ResponseCache(10**6, clock)
    answers.put(question("both"), ready(Cacheability(False, MARCH, MARCH + SECOND)))
    answers.put(question("open"), ready(Cacheability(False, MARCH, None)))
    for moment, expected in (
        (MARCH - MICROSECOND, [False, False]),
        (MARCH, [True, True]),
        (MARCH + SECOND - MICROSECOND, [True, True]),
        (MARCH + SECOND, [False, True]),
        (MARCH, [True, True]),
    ):
        clock.now = moment
        assert [bool(answers.find(question(text), STATE)) for text in ("both", "open")] == expected
        assert answers.find(question("both"), NEXT) is None


def test_least_recently_used_responses_are_evicted_first() -> None:
    """All answers and questions together stay within their bytes; to be asked again keeps an answer longer."""
    answers = ResponseCache(16 * 2_100)
    for text in "abcdefghijklmnop":
        answers.put(question(text), ready(VALID_FOREVER, size=1_099))
    assert answers.find(question("a"), STATE)
    answers.put(question("q"), ready(VALID_FOREVER, size=1_099))
    found = [text for text in "abcdefghijklmnopq" if answers.find(question(text), STATE)]
    assert found == list("acdefghijklmnopq")
    # Replaced, not added.
    for _ in range(100):
        answers.put(question("q"), ready(VALID_FOREVER, size=1_099))
    assert [text for text in "acdefghijklmnopq" if answers.find(question(text), STATE)] == list("acdefghijklmnopq")


@pytest.mark.parametrize("long", [CacheKey("", "", b"x" * 5_000), CacheKey("", "x" * 5_000, b"")])
def test_one_long_answer_does_not_displace_all_others(long: CacheKey) -> None:
    """More than an eighth is not kept, be it the answer that is long, or the question."""
    answers = ResponseCache(16_000)
    answers.put(question("short"), ready(VALID_FOREVER))
    answers.put(question("long"), ready(VALID_FOREVER, size=2_000))
    answers.put(long, ready(VALID_FOREVER))
    assert answers.find(question("short"), STATE)
    assert answers.find(question("long"), STATE) is None
    assert answers.find(long, STATE) is None


def test_a_long_answer_is_kept_when_its_question_comes_again() -> None:
    """A short one at once. What never comes again displaces nothing, and of very many is forgotten to have come."""
    answers = ResponseCache(40 * MIN_FILE_BYTES)
    for text in "abcdefgh":
        answers.put(question(text), ready(VALID_FOREVER, size=MIN_FILE_BYTES - 1))
        assert answers.find(question(text), STATE)
    for number in range(MAX_REMEMBERED_KEYS - 1):
        answers.put(question(str(number)), ready(VALID_FOREVER, size=MIN_FILE_BYTES))
    assert not any(answers.find(question(str(number)), STATE) for number in range(MAX_REMEMBERED_KEYS - 1))
    assert all(answers.find(question(text), STATE) for text in "abcdefgh")
    for number in (0, MAX_REMEMBERED_KEYS - 2):
        answers.put(question(str(number)), ready(VALID_FOREVER, size=MIN_FILE_BYTES))
        assert answers.find(question(str(number)), STATE)
    for number in range(MAX_REMEMBERED_KEYS, 3 * MAX_REMEMBERED_KEYS):
        answers.put(question(str(number)), ready(VALID_FOREVER, size=MIN_FILE_BYTES))
    answers.put(question("1"), ready(VALID_FOREVER, size=MIN_FILE_BYTES))
    assert answers.find(question("1"), STATE) is None


def test_the_head_cache_is_bounded_and_keeps_whole_heads() -> None:
    """The oldest goes first; to learn one again displaces none; what is no head, or a long one, is not learned."""
    heads = RequestHeadCache()
    for name in range(MAX_HEADS):
        heads.learn(b"%d\r\n\r\nbody" % name, RequestHead("", "", 4, False))
    for _ in range(3):
        heads.learn(b"5\r\n\r\nbody", RequestHead("", "", 4, False))
    assert heads.lookup(b"0\r\n\r\nBODY") == (RequestHead("", "", 4, False), b"BODY")
    heads.learn(b"new\r\n\r\nbody", RequestHead("", "", 4, False))
    assert heads.lookup(b"0\r\n\r\nbody") is None
    for other in (b"1\r\n\r\n", b"1\r\n\r\nbod", b"1\r\n\r\nbody.", b"1\r\n", b"", b"x1\r\n\r\nbody"):
        assert heads.lookup(other) is None
    for no_head in (
        b"y\r\nbody",
        b"y\r\n\r\n4\r\nbody",
        b"x" * MAX_HEAD_BYTES + b"\r\n\r\nbody",
        b"y\r\n\r\nGET\r\n\r\nbody",
    ):
        heads.learn(no_head, RequestHead("", "", 4, False))
        assert heads.lookup(no_head) is None


# One resolution for many.


@dataclass
class Asked:
    """Questions in this process, and what their endpoint was asked, one by one."""

    questions: ReadingHandler
    writer: Writer
    endpoint: Endpoint
    resolved: list[bytes]

    async def ask(self, body: bytes) -> tuple[EncodedResponse, JournalPosition | None]:
        """An answer, and what was known before it."""
        return await self.questions.answer(Request({"type": "http", "headers": []}), body, "")


@pytest.fixture(params=["at once", "threads"])
def asked(request: pytest.FixtureRequest, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Both ways to an answer, on both databases; on PostgreSQL there is the one of threads only."""
    Database.create(database_url)
    with Database.open(database_url) as database, closing(ThreadPools.with_threads(8)) as pools:
        glance = (
            NonblockingConnection(database) if request.param == "at once" and database.supports_nonblocking else None
        )
        glancing = Reader(glance, max_rows=200, max_payload_bytes=1_000) if glance else None
        reader = Reader(database)
        endpoint = reading_endpoint(reader, glancing, reader)
        resolved: list[bytes] = []
        for name in ("answer", "answer_nonblocking"):
            monkeypatch.setattr(endpoint, name, _told(resolved, getattr(endpoint, name)))
        known = NonblockingPosition(glance, glancing) if glance and glancing else None
        yield Asked(
            ReadingHandler(
                endpoint,
                PositionSource(reader, known, pools.questions),
                pools,
                ResponseCache(10**6),
                MemoryBudget(10**9),
            ),
            Writer(database),
            endpoint,
            resolved,
        )
        if glance:
            glance.close()


def _told(resolved: list[bytes], answer: Callable[..., SoapResult | None]) -> Callable[..., SoapResult | None]:
    def telling(body: bytes, *arguments: Any, **named: Any) -> SoapResult | None:
        answered = answer(body, *arguments, **named)
        if answered is not None:
            resolved.append(body)
        return answered

    return telling


async def together(asking: list[Coroutine[Any, Any, tuple[EncodedResponse, JournalPosition | None]]]) -> list[bytes]:
    return [b"".join(answer.parts) for answer, _ in await asyncio.gather(*asking)]


def test_many_equal_questions_at_once_cost_one_resolution(asked: Asked) -> None:
    """And after each write one more."""

    async def scenario() -> None:
        for day in range(3):
            stored = asked.writer.add_calibration(upload(MARCH + day * SECOND), "alice")
            asked.resolved.clear()
            answers = await together([asked.ask(CURRENT) for _ in range(50)])
            assert {number(answer) for answer in answers} == {stored.id}
            assert len(asked.resolved) == 1
            assert await together([asked.ask(CURRENT)]) == answers[:1]
            assert len(asked.resolved) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [RUN, envelope("get_status"), envelope("get_run"), b"<"])
def test_uncached_responses_are_shared_too(body: bytes, asked: Asked) -> None:
    """Faults, get_status and what is malformed: one answer that may be too old for who came after, and one for them."""
    answers = asyncio.run(together([asked.ask(body) for _ in range(50)]))
    assert len(set(answers)) <= 2
    assert len(asked.resolved) <= 2


def test_a_payload_too_long_for_the_event_loop_is_found_once(asked: Asked) -> None:
    """By a thread, and then given at once."""
    asked.writer.add_calibration(upload(MARCH, b"x" * 20_000), "alice")
    answers = asyncio.run(together([asked.ask(CURRENT) for _ in range(50)]))
    assert len(set(answers)) == 1
    assert len(asked.resolved) == 1


def test_a_long_question_is_read_by_a_thread(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of megabytes would hold up all others while it is parsed; its answer is the same."""
    stored = asked.writer.add_calibration(upload(MARCH), "alice")
    readers = []
    answer_at_once = asked.endpoint.answer_nonblocking

    def noted(body: bytes, *rest: Any) -> Any:
        readers.append(len(body))
        return answer_at_once(body, *rest)

    monkeypatch.setattr(asked.endpoint, "answer_nonblocking", noted)
    [answer] = asyncio.run(together([asked.ask(CURRENT + b" " * LONGEST_AT_ONCE)]))
    assert number(answer) == stored.id
    assert readers == []


def test_no_answer_is_older_than_what_was_acknowledged_before_the_question(asked: Asked) -> None:
    """Rule 11, while a writer writes without a pause and many ask the same, each as soon as it is answered."""
    acknowledged = asked.writer.add_calibration(upload(MARCH), "alice").id
    over = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        for number in itertools.count():
            acknowledged = asked.writer.add_calibration(upload(MARCH + number * SECOND, b"%d" % number), "alice").id
            # Without it, SQLite's readers would come through by luck alone.
            if over.wait(0.001):
                break

    async def ask(body: bytes) -> None:
        for _ in range(30):
            before = acknowledged
            answer, known = await asked.ask(body)
            assert known is not None
            # What is said to be known is known to the answer, and was known to whoever wrote it.
            assert before <= known.serial <= number(b"".join(answer.parts)) <= acknowledged + 1

    async def all_ask() -> None:
        end = time.monotonic() + servers.PATIENCE
        # On a busy machine all may be answered before there was time to write.
        while acknowledged <= 3 and time.monotonic() < end:
            await asyncio.gather(*(ask(body) for body in (CURRENT, HISTORY) * 8))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        asyncio.run(all_ask())
    finally:
        over.set()
        writing.join()
    assert acknowledged > 3


def test_single_flight_does_not_join_a_resolution_begun_earlier(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer may miss a write that was acknowledged meanwhile: who comes then shares the next one."""
    found, go_on = threading.Event(), threading.Event()
    answer = asked.endpoint.answer

    def answer_slowly(*arguments: Any, **named: Any) -> SoapResult:
        answered = answer(*arguments, **named)
        found.set()
        assert go_on.wait(servers.PATIENCE)
        return answered

    monkeypatch.setattr(asked.endpoint, "answer", answer_slowly)

    async def scenario() -> None:
        # Longer than what is found on the event loop.
        asked.writer.add_calibration(upload(MARCH, b"x" * 2_000), "alice")
        early = [asyncio.ensure_future(asked.ask(CURRENT)) for _ in range(3)]
        await asyncio.get_running_loop().run_in_executor(None, found.wait, servers.PATIENCE)
        asked.writer.add_calibration(upload(MARCH, b"y" * 2_000), "alice")
        late = [asyncio.ensure_future(asked.ask(CURRENT)) for _ in range(10)]
        # Whoever gives up takes nothing along.
        early.pop(0).cancel()
        # The next look is theirs; then they wait.
        await asked.questions._positions.latest_position()
        go_on.set()
        for ready, known in await asyncio.gather(*late):
            assert number(b"".join(ready.parts)) == 2
            assert known is not None
            assert known.serial == 2
        await asyncio.gather(*early)
        assert len(asked.resolved) == 2

    try:
        asyncio.run(scenario())
    finally:
        go_on.set()


def test_single_flight_does_not_join_a_look_up_begun_earlier() -> None:
    """Whoever comes during a look shares the next one with all who come until that begins."""

    async def scenario() -> None:
        looks = 0
        gates = [asyncio.Event() for _ in range(3)]
        begun = [asyncio.Event() for _ in range(3)]

        async def look() -> int:
            nonlocal looks
            looks += 1
            mine = looks
            begun[mine - 1].set()
            await gates[mine - 1].wait()
            return mine

        shared = NextFlight(look)
        first = [asyncio.ensure_future(shared.next_result()) for _ in range(3)]
        await begun[0].wait()
        second = [asyncio.ensure_future(shared.next_result()) for _ in range(3)]
        await asyncio.sleep(0)
        # Whoever goes away takes nothing along.
        first.pop().cancel()
        second.pop().cancel()
        gates[0].set()
        assert await asyncio.gather(*first) == [1, 1]
        await begun[1].wait()
        third = asyncio.ensure_future(shared.next_result())
        await asyncio.sleep(0)
        gates[1].set()
        gates[2].set()
        assert await asyncio.gather(*second, third) == [2, 2, 3]
        assert looks == 3

    asyncio.run(scenario())


# Real servers.


def test_every_connection_sees_every_acknowledged_write(master: Master) -> None:
    """Whoever wrote: a worker of the server, or another process; on all workers, on connections that ask the same."""
    questions = [CURRENT, HISTORY, RUN]
    with Database.open(master.database) as database, wire.Peer(master.url) as writing:
        direct = Writer(database)

        def ask_to_write(operation: str, arguments: str) -> None:
            body = envelope(operation, arguments)
            asked = wire.request(wire.WRITING, body, credentials=(master.user, master.token))
            assert writing.ask(asked).status == 200

        peers = [(wire.Peer(master.url), question) for question in questions for _ in range(6)]
        serial = 0
        for day in range(1, 13):
            data = base64.b64encode(b"%d" % day).decode()
            if day % 2:
                direct.add_calibration(upload(MARCH + day * SECOND, b"%d" % day), "alice")
                direct.add_run(1, MARCH + day * SECOND, None, "daq")
            else:
                start = f"<valid_from>2016-03-01T08:00:{day:02}Z</valid_from><data>{data}</data>"
                ask_to_write("add_calibration", KEY + start)
                start = f"<run_number>1</run_number><start_time>2016-03-01T08:00:{day:02}Z</start_time>"
                ask_to_write("add_run", start)
            serial += 2
            for _ in range(2):
                for peer, asked in peers:
                    peer.socket.sendall(wire.request(wire.READING, asked))
                for peer, asked in peers:
                    reply = peer.reply()
                    assert number(reply.body) == (day if asked is RUN else serial - 1), (day, asked)
                    assert reply.headers["cdb-serial"] == str(serial)
        latest = serial - 1
        direct.withdraw_calibration(latest, "wrong", "bob")
        for peer, asked in peers:
            reply = peer.ask(wire.request(wire.READING, asked))
            withdrawn = b"<tns:withdrawn>true</tns:withdrawn>" in reply.body
            assert (number(reply.body), withdrawn) == {CURRENT: (latest - 2, False), HISTORY: (latest, True)}.get(
                asked, (12, False)
            )
            peer.socket.close()


def test_a_mirror_gives_the_new_answer_as_soon_as_it_says_that_it_has_it(shared_master: Master, tmp_path: Path) -> None:
    """The serial that one of its workers tells is a promise of all of them; each answer says how old its news is."""
    key = "<device_name>MIRRORED</device_name><calibration_type>t0</calibration_type>"
    history = wire.request(wire.READING, envelope("get_history", key))
    with (
        Database.open(shared_master.database) as database,
        mirrors.mirror(shared_master.url, f"sqlite:///{tmp_path}/mirror.sqlite", tmp_path) as mirror,
    ):

        def has(serial: int) -> bool:
            return mirror.status().serial >= serial

        peers = [wire.Peer(mirror.url) for _ in range(8)]
        for day in range(1, 4):
            new = Upload.validated("MIRRORED", "t0", MARCH + day * SECOND, b"%d" % day, None, None, max_payload=10)
            stored = Writer(database).add_calibration(new, "alice").id
            servers.until(partial(has, stored))
            for peer in peers * 2:
                reply = peer.ask(history)
                assert number(reply.body) == stored
                assert int(reply.headers["cdb-serial"]) >= stored
                assert int(reply.headers["cdb-age"]) < 30
        for peer in peers:
            peer.socket.close()


def test_what_is_current_changes_when_a_later_one_begins(tmp_path: Path) -> None:
    """Nothing is written then: a ready answer ends by the clock, on the connection that gave it a moment before."""
    with watched(f"sqlite:///{tmp_path}/cdb.sqlite") as running, Database.open(running.settings.database) as database:
        Writer(database).add_calibration(upload(MARCH), "alice")
        begins = instants.now() + 1.2 * SECOND
        Writer(database).add_calibration(upload(begins, b"later"), "alice")
        asked = wire.request(wire.READING, CURRENT)
        found: list[tuple[datetime, int, datetime]] = []
        with running.peer() as peer:
            while not found or (found[-1][1] != 2 and instants.now() < begins + 10 * SECOND):
                before = instants.now()
                peer.socket.sendall(asked)
                id = number(raw_reply(peer))
                found.append((before, id, instants.now()))
        assert all(before < begins for before, id, _ in found if id == 1)
        assert all(after >= begins for _, id, after in found if id == 2)
        assert len(found) > 10
        at_once = [running.took_fast_path() for _ in found]
        # TCP may cut a request in two, now and then.
        assert at_once.count(True) > 0.9 * len(found)
