"""What is done in a worker's threads comes back to who waits for it, whatever comes of it."""

import asyncio
import gc
import weakref

import pytest

from cdb_server.http.admission import ThreadPool


@pytest.mark.parametrize("raised", [StopIteration(1), KeyError("a"), StopAsyncIteration()])
def test_an_error_in_a_worker_thread_reaches_its_caller(raised: Exception) -> None:
    """A StopIteration too, which no future takes: whoever waits for it would wait for ever."""

    def work() -> None:
        raise raised

    async def waiting() -> BaseException | None:
        with pytest.raises((type(raised), RuntimeError)) as found:
            await asyncio.wait_for(threads.run(work), 10)
        return found.value if type(found.value) is type(raised) else found.value.__cause__

    with ThreadPool(1) as threads:
        assert asyncio.run(waiting()) is raised


def test_an_error_holds_no_reference_to_its_frames() -> None:
    """A large answer that is made after one, with its memory, goes with its last user, and not with the next garbage
    collection."""

    class Answer:
        """Something of which is known whether it is there."""

    def work() -> None:
        raise KeyError

    async def made() -> Answer:
        try:
            await threads.run(work)
        except KeyError:
            answer = Answer()
        return answer

    with ThreadPool(1) as threads:
        gc.collect()
        gc.disable()
        try:
            there = weakref.ref(asyncio.run(made()))
            assert there() is None
        finally:
            gc.enable()
