"""People who look at pages of large tables again and again, and what look-ups take beside them."""

import multiprocessing
import multiprocessing.synchronize
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import cdb
from tests.benchmarks.dataset import BEGIN
from tests.fuzz import wire
from tests.in_process_server import envelope
from tests.servers import Master

CHANNELS = 5_000


def store_table(master: Master) -> int:
    """Store two tables of thousands of channels; the id of the second, whose page draws both."""
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    stored = [
        writer.add_calibration(
            "TABLE",
            "t0",
            f"2016-03-0{day}",
            "".join(f"{channel} {channel % 97 * day / 7:.6f} {channel % 31 + day}\n" for channel in range(CHANNELS)),
        )
        for day in (1, 2)
    ]
    return stored[-1].id


@contextmanager
def viewers(url: str, id: int, count: int) -> Iterator[None]:
    """So many who open the page of a table as soon as they have it, in a process of their own."""
    context = multiprocessing.get_context("spawn")
    all_saw = context.Event()
    process = context.Process(target=_view, args=(url, id, count, all_saw), daemon=True)
    process.start()
    try:
        assert all_saw.wait(60)
        yield
    finally:
        process.kill()
        process.join()


def _view(url: str, id: int, count: int, all_saw: "multiprocessing.synchronize.Event") -> None:
    request = wire.request(f"/calibrations/{id}", method="GET", headers=[("Accept", "text/html")])
    begun = threading.Barrier(count, all_saw.set)

    def look() -> None:
        with wire.Peer(url, 60) as peer:
            assert peer.ask(request).status == 200
            begun.wait()
            while peer.ask(request).status == 200:
                pass

    threads = [threading.Thread(target=look) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True)
class Taken:
    """What look-ups took, in milliseconds."""

    median: float
    worst_of_hundred: float


def look_ups(url: str, seconds: float, first: int = 0) -> Taken:
    """Ask for other dates one after another, for so long; those from `first` on were asked by nobody."""
    took: list[float] = []
    key = "<device_name>TABLE</device_name><calibration_type>t0</calibration_type>"
    end = time.monotonic() + seconds
    with wire.Peer(url) as peer:
        while time.monotonic() < end:
            date = BEGIN + timedelta(days=3_000, seconds=first + len(took))
            body = envelope("get_calibration_for_date", f"{key}<date>{date.isoformat()}</date>")
            asked = wire.request(wire.READING, body)
            began = time.perf_counter()
            assert peer.ask(asked).status == 200
            took.append((time.perf_counter() - began) * 1_000)
    return Taken(statistics.median(took), statistics.quantiles(took, n=100)[98])
