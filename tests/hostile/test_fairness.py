"""Everybody else is answered beside hundreds of long questions and beside viewers of large tables: the long form."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import servers
from tests.hostile import long_queries, page_load
from tests.hostile.long_queries import LEAVE, Leave

ROWS, QUESTIONS = 50_000, 300
# Seconds.
LONGEST_WAIT, LONGEST_END = 1.0, 10.0
# Look-ups beside viewers: how many times as long as alone the median may take, and the 99th percentile in milliseconds.
MEDIAN_TIMES, WORST_OF_HUNDRED = 4.0, 20.0


@pytest.mark.parametrize("leave", LEAVE)
def test_long_questions_keep_nobody_else_waiting(database_url: str, tmp_path: Path, leave: Leave) -> None:
    """Look-up, plain GET, page, metrics, status and write each take less than a second; SIGTERM takes less than ten."""
    with long_queries.large_master(database_url, tmp_path, ROWS) as master:
        with long_queries.asked(master.url, QUESTIONS, leave):
            waits = long_queries.others(master, 20)
            began = time.monotonic()
            master.process.send_signal(signal.SIGTERM)
            assert master.process.wait(60) == 0
            ended = time.monotonic() - began
        print(f"{leave}: {waits.longest}, ended in {ended:.1f} s")
        assert "Traceback" not in master.log.read_text()
    assert waits.wrong == []
    assert max(waits.longest.values()) < LONGEST_WAIT, waits.longest
    assert ended < LONGEST_END


@pytest.mark.parametrize("count", [2, 8])
def test_viewers_of_large_tables_slow_look_ups_down_a_little(
    new_database_url: Callable[[str], str], tmp_path: Path, count: int
) -> None:
    """With eight viewers the median is at most four times as long as alone, and the 99th percentile 20 ms."""
    with servers.master(new_database_url("sqlite"), tmp_path) as master:
        table = page_load.store_table(master)
        alone = page_load.look_ups(master.url, 5)
        with page_load.viewers(master.url, table, count):
            beside = page_load.look_ups(master.url, 10, first=1_000_000)
    print(f"{count} viewers: {alone} alone, {beside} beside them")
    assert beside.median <= MEDIAN_TIMES * alone.median
    assert beside.worst_of_hundred <= WORST_OF_HUNDRED
