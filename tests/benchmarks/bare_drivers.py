"""The reference for what the databases alone take: their drivers, with nothing of ours between.

Each process has a connection, and does one thing again and again: insert a payload, durably; find which calibration
applies and read its payload; or say what the service says to SQLite for a look-up or a list.
"""

import itertools
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import psycopg
from sqlalchemy.dialects.sqlite import pysqlite

from cdb_server.database.statements import CompiledStatement
from cdb_server.instants import to_microseconds
from cdb_server.repository import lookups
from tests.benchmarks.dataset import KEYS, Stock
from tests.benchmarks.load import Failure, Load

# Seconds in which all processes have started and are connected.
START = 3
BUSY = 30
# Calibrations that are asked for, more than SQLite's memory holds.
PREPARED = 50_000

# Rule 3, and the payload.
LOOK_UP = """
SELECT calibration.id, payload.* FROM calibration JOIN payload ON payload.sha256 = calibration.sha256
WHERE calibration.id = (
    SELECT id FROM calibration WHERE device_name = ? AND calibration_type = ? AND valid_from <= ?
    ORDER BY valid_from DESC, id DESC LIMIT 1
)
"""

# Does one thing each time it is called.
Work = Callable[[], None]


def inserts(url: str, size: int, processes: int, seconds: float) -> Load:
    """Insert payloads of `size` bytes, each in a transaction that is on disk when it ends."""
    with _connected(url) as say:
        say(f"CREATE TABLE IF NOT EXISTS bare (id TEXT PRIMARY KEY, data {_bytes(url)} NOT NULL)")
    return _measured(_inserting, (url, size), processes, seconds)


def look_ups(url: str, stock: Stock, processes: int, seconds: float) -> Load:
    """Look dates by chance up, and read the payloads."""
    return _measured(_looking_up, (url, stock), processes, seconds)


def alone(url: str, stock: Stock, listing: bool, processes: int, seconds: float) -> Load:
    """Say what the service itself says to SQLite for a look-up or for a list of 100, in one transaction for all."""
    return _measured(_asking, (url, stock, listing), processes, seconds)


def parameters(statement: CompiledStatement, **values: object) -> tuple[str, list[object]]:
    """What a statement of the service is to SQLite's driver: its text, and the values in their places."""
    compiled = statement._compiled.get("sqlite") or statement._compile(pysqlite.dialect())
    given = compiled.constants.copy()
    for place, name, converted in compiled.given:
        given[place] = values[name] if converted is None else converted(values[name])
    return compiled.text, given


def _measured(
    work: Callable[..., Iterator[Work]], arguments: tuple[object, ...], processes: int, seconds: float
) -> Load:
    start = time.time() + START
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = [
            pool.submit(_repeat, work, arguments, number + int(start * 1e3), start, seconds)
            for number in range(processes)
        ]
        done = [process.result() for process in running]
    times = sorted(took for each, _ in done for took in each)
    used = sum(used for _, used in done)
    percentiles = statistics.quantiles(times, n=100)
    return Load(len(times), len(times) / seconds, percentiles[49], percentiles[98], used / len(times))


def _repeat(
    work: Callable[..., Iterator[Work]], arguments: tuple[object, ...], seed: int, start: float, seconds: float
) -> tuple[list[float], float]:
    """How long each took, in seconds, and the processor time of all."""
    with contextmanager(work)(*arguments, seed) as once:
        if time.time() > start:
            raise Failure("the processes of the reference did not start in time")
        # All begin at one instant.
        time.sleep(start - time.time())
        times = []
        used, end = time.process_time(), time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            once()
            times.append(time.perf_counter() - begun)
        return times, time.process_time() - used


def _inserting(url: str, size: int, seed: int) -> Iterator[Work]:
    chance = random.Random(seed)
    rest = chance.randbytes(size - 16)
    with _connected(url) as say:

        def insert() -> None:
            # Other bytes each time.
            own = chance.randbytes(16)
            say("INSERT INTO bare VALUES (?, ?)", (f"{seed}{own.hex()}", own + rest))

        yield insert


def _looking_up(url: str, stock: Stock, seed: int) -> Iterator[Work]:
    chance = random.Random(seed)
    with _connected(url) as say:

        def look_up() -> None:
            device_name, calibration_type, date = stock.question(chance)
            [(id, *_)] = say(LOOK_UP, (device_name, calibration_type, to_microseconds(date))).fetchall()
            if id != stock.in_force(device_name, calibration_type, date):
                raise Failure(f"the bare query finds {id} for {device_name}, {calibration_type}, {date}")

        yield look_up


def _asking(url: str, stock: Stock, listing: bool, seed: int) -> Iterator[Work]:
    chance = random.Random(seed)
    upto, most = None, 2**20
    # Made before, as the service's are.
    asked: list[tuple[tuple[str, list[object]], int]] = []
    for _ in range(PREPARED // len(KEYS) if listing else PREPARED):
        device_name, calibration_type, date = stock.question(chance)
        if listing:
            start = min(date, stock.covered[1] - stock.step * (len(KEYS) + 1))
            period = {"start": start, "stop": start + stock.step * len(KEYS)}
            first = min(stock.in_force(*key, start) for key in KEYS)
            asked.append((parameters(lookups.IN_FORCE_DURING[1](upto), limit=most, **period), first))
        else:
            key = {"device_name": device_name, "calibration_type": calibration_type}
            id = stock.in_force(device_name, calibration_type, date)
            asked.append((parameters(lookups.IN_FORCE[1](upto), most=most, instant=date, **key), id))
    turns = itertools.cycle(asked)
    with _connected(url) as say:
        say("BEGIN")

        def ask() -> None:
            said, id = next(turns)
            found = say(*said).fetchall()
            if len(found) != (2 * len(KEYS) if listing else 1) or found[0][0] != id:
                raise Failure(f"the query finds {len(found)} calibrations, or not {id} first")

        yield ask


@contextmanager
def _connected(url: str) -> Iterator[Callable[..., Any]]:
    """What says a statement to a database, durably; placeholders are question marks."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=BUSY, isolation_level=None)
        for setting in ("journal_mode=TRUNCATE", "synchronous=EXTRA"):
            connection.execute(f"PRAGMA {setting}")
        yield connection.execute
        connection.close()
        return
    with psycopg.connect(url, autocommit=True) as connected:
        connected.execute("SET synchronous_commit = on")
        if connected.execute("SHOW fsync").fetchone() != ("on",):
            raise Failure("this cluster does not write to disk")

        def say(statement: str, values: tuple[object, ...] = ()) -> Any:
            return connected.execute(statement.replace("?", "%s").encode(), values, prepare=True, binary=True)

        yield say


def _bytes(url: str) -> str:
    return "BLOB" if url.startswith("sqlite") else "BYTEA"
