"""The memory of a worker while peers ask for large answers of every kind and read nothing, or go at once.

The long form, with 300 peers for each kind, is in `tests/hostile/memory_load.py`.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from cdb_server.http import metrics
from cdb_server.http.admission import MemoryBudget
from cdb_server.http.middleware import AnswerMemory
from cdb_server.http.protocol.limits import CLIENT_PRESENCE, ClientPresence
from cdb_server.http.response_cache import EncodedResponse
from tests import servers
from tests.fuzz import wire
from tests.hostile.memory_load import KINDS, MOST, SERVED, Stock, besiege
from tests.server.test_bad_input import element, envelope
from tests.servers import Master

SIZE, PEERS, SECONDS = 12_000_000, 60, 2.0


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Master, Stock]]:
    """A running master with large payloads and a long list."""
    folder = tmp_path_factory.mktemp("memory")
    url = f"sqlite:///{folder}/cdb.sqlite"
    with servers.master(url, folder) as master:
        yield master, Stock.of(url, payloads=4, size=SIZE, rows=400)


@pytest.mark.parametrize("kinds", [("GET",), KINDS], ids=["plain GET", "all kinds"])
def test_peers_that_read_nothing_cost_little_and_hold_up_nobody(
    kinds: tuple[str, ...], stocked: tuple[Master, Stock]
) -> None:
    """Each worker stays below 400 MB, and small answers of all kinds come meanwhile."""
    seen = besiege(*stocked, kinds, PEERS, SECONDS)
    assert seen.most < MOST
    assert seen.unserved == []
    # A page waits its turn behind those of large payloads.
    assert seen.longest < 3 * SERVED


def test_who_hangs_up_on_large_answers_leaves_nothing_behind(stocked: tuple[Master, Stock]) -> None:
    """After many that went before their answer came, and while it came, one is made at once."""
    master, stock = stocked
    for at in range(PEERS):
        with wire.Peer(master.url) as peer:
            peer.socket.sendall(stock.requests("SOAP" if at % 2 else "GET", at))
            if at % 3 == 0:
                peer.socket.recv(1)
    began = time.monotonic()
    key = element("device_name", "LARGE0") + element("calibration_type", "t0")
    with wire.Peer(master.url) as peer:
        reply = peer.ask(wire.request(wire.READING, envelope(element("get_current_calibration", key))))
    assert reply.status == 200
    assert len(reply.body) > SIZE * 4 // 3
    assert time.monotonic() - began < SERVED


def test_a_large_answer_that_is_read_for_long_makes_way_for_who_waits() -> None:
    """It is cut off where there is no other memory for somebody else, and not before."""

    async def scenario() -> None:
        waited = MemoryBudget(SIZE, max_wait_seconds=5)
        ended = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope[metrics.ANSWER_KEY] = ready = EncodedResponse((bytes(SIZE), b"", b""), "", "", None, "", SIZE, b"")
            ready.reservation = await waited.reserve(SIZE - 1)
            del ready
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            begun.set()
            await ended.wait()
            del scope[metrics.ANSWER_KEY]

        async def ignore(*_: object) -> Any:
            return None

        begun = asyncio.Event()
        metered = AnswerMemory(app, MemoryBudget(SIZE), waited, max_send_seconds=0)
        scope: Scope = {"type": "http", CLIENT_PRESENCE: ClientPresence(ended.set)}
        sent = asyncio.ensure_future(metered(scope, ignore, ignore))
        await begun.wait()
        with await waited.reserve(1):
            assert not ended.is_set()
        with await waited.reserve(2):
            assert ended.is_set()
        await sent

    asyncio.run(scenario())
