"""The memory budget: whatever becomes of who asks for some of it, all is free again in the end."""

import asyncio
import gc
import itertools
import threading
import time
from contextlib import suppress

import pytest

from cdb_server.errors import Unavailable
from cdb_server.http.admission import MemoryBudget, MemoryReservation

SIZE = 100
PATIENCE = 0.01
EVENTS = ("granted", "timed out", "cancelled")


async def all_free(budget: MemoryBudget) -> bool:
    """Whether all is free once what is due has been done."""
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    return budget.free_bytes == SIZE


@pytest.mark.parametrize("order", [*itertools.permutations(EVENTS), *itertools.permutations(EVENTS, 2)], ids=", ".join)
def test_nothing_is_lost_where_all_happens_in_one_turn_of_the_loop(order: tuple[str, ...]) -> None:
    """Who waits is granted the bytes, gives up, and is cancelled, in every order."""

    async def scenario() -> None:
        budget = MemoryBudget(SIZE, PATIENCE if "timed out" in order else 60)
        loop = asyncio.get_running_loop()
        held = await budget.reserve(SIZE)
        waiting = asyncio.ensure_future(budget.reserve(1))
        await asyncio.sleep(0)
        end = order.index("timed out") if "timed out" in order else 0
        for at, event in enumerate(order):
            if event != "timed out":
                happen = held.release if event == "granted" else waiting.cancel
                loop.call_later(PATIENCE * (1 + (at - end) / 4), happen)
        # The loop is late: all of this is due in its next turn, each in its place.
        time.sleep(2 * PATIENCE)
        with suppress(Unavailable, asyncio.CancelledError):
            await waiting
        held.release()
        del waiting, happen
        assert await all_free(budget)

    asyncio.run(scenario())


def test_what_is_granted_is_given_back_where_its_owner_fails() -> None:
    """Between the grant and the use, and in the use."""

    async def scenario() -> None:
        budget = MemoryBudget(SIZE, PATIENCE)

        async def fail() -> None:
            reservation = await budget.reserve(SIZE)
            raise ValueError(reservation)

        with pytest.raises(ValueError, match="Reservation"):
            await fail()
        with pytest.raises(ValueError, match="in the use"), await budget.reserve(SIZE):
            raise ValueError("in the use")
        assert await all_free(budget)

    asyncio.run(scenario())


def test_those_behind_one_that_gives_up_do_not_wait_for_it() -> None:
    """Who wants much and is cancelled, or gives up, holds up nobody who wants little."""

    async def scenario() -> None:
        budget = MemoryBudget(SIZE, PATIENCE)
        held = await budget.reserve(SIZE - 1)
        much, little = (asyncio.ensure_future(budget.reserve(size)) for size in (SIZE, 1))
        await asyncio.sleep(0)
        much.cancel()
        assert isinstance(await little, MemoryReservation)
        little = asyncio.ensure_future(budget.reserve(1))
        with pytest.raises(Unavailable):
            await budget.reserve(SIZE)
        with suppress(Unavailable):
            await little
        del held, little
        assert await all_free(budget)

    asyncio.run(scenario())


def test_bytes_given_back_by_another_thread_are_granted_at_once() -> None:
    """Who waits is woken, though its loop has nothing else to do."""

    async def scenario() -> None:
        budget = MemoryBudget(SIZE, max_wait_seconds=10)
        held = [await budget.reserve(SIZE)]
        waiting = asyncio.ensure_future(budget.reserve(SIZE))
        await asyncio.sleep(0)
        thread = threading.Thread(target=held.clear)
        thread.start()
        assert isinstance(await asyncio.wait_for(waiting, 5), MemoryReservation)
        thread.join()

    asyncio.run(scenario())


def test_cached_responses_are_evicted_for_waiting_reservations() -> None:
    """What fills the budget without being needed is given up, no more than is missing."""

    async def scenario() -> None:
        budget = MemoryBudget(SIZE, PATIENCE)
        kept = [await budget.reserve(SIZE // 4) for _ in range(4)]
        budget.add_reclaimer(lambda missing: kept.__delitem__(slice(0, -(-missing // (SIZE // 4)))))
        assert budget.try_reserve(1) is None
        with await budget.reserve(SIZE // 2):
            assert len(kept) == 2

    asyncio.run(scenario())


def test_a_reservation_shrinks_to_what_is_needed() -> None:
    """The rest is free for others; and all of it, once, when it is released."""

    async def scenario() -> None:
        budget = MemoryBudget(SIZE, PATIENCE)
        reservation = await budget.reserve(2 * SIZE)
        reservation.shrink(SIZE // 4)
        assert budget.free_bytes == SIZE - SIZE // 4
        reservation.release()
        reservation.release()
        assert budget.free_bytes == SIZE

    asyncio.run(scenario())
