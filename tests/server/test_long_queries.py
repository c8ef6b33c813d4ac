"""Long questions of many, there or gone, keep nobody else waiting; the long form is in `make hostile`."""

import os
import signal
import time
from pathlib import Path

import pytest
import requests

from tests.fuzz import wire
from tests.hostile import long_queries
from tests.hostile.long_queries import LEAVE, Leave
from tests.servers import Master, until

ROWS, QUESTIONS = 10_000, 60
# Seconds that anybody waits at most; on a busy machine, several times as long as without the long questions.
SECONDS, TIMES = 1.0, 4


@pytest.mark.parametrize("leave", LEAVE)
def test_long_questions_keep_nobody_else_waiting(database_url: str, tmp_path: Path, leave: Leave) -> None:
    """Look-ups, plain GET, pages, metrics, the status and writes are answered beside them."""
    with long_queries.large_master(database_url, tmp_path, ROWS) as master:
        before = long_queries.others(master, 0.5)
        with long_queries.asked(master.url, QUESTIONS, leave):
            waits = long_queries.others(master, 3)
    assert waits.wrong == []
    longest = SECONDS + TIMES * max(before.longest.values())
    assert max(waits.longest.values()) < longest, (waits.longest, before.longest)


def test_pages_and_lists_come_back_when_what_makes_them_is_killed(master: Master) -> None:
    """Both processes are begun again, and answer; none of the workers is concerned."""
    killed = until(lambda: len(master.background()) == 2 and master.background())
    workers = until(lambda: len(master.workers()) == 2 and master.workers())
    for process in killed:
        os.kill(process, signal.SIGKILL)
    until(lambda: len(master.background() - killed) == 2)
    assert requests.get(f"{master.url}/journal", timeout=30).status_code == 200
    with wire.Peer(master.url) as peer:
        assert peer.ask(long_queries.long_question(0)).status == 200
    assert master.workers() == workers


def test_a_server_ends_in_time_with_long_questions_under_way(database_url: str, tmp_path: Path) -> None:
    """Within ten seconds, and without a traceback for those that it cancels."""
    with (
        long_queries.large_master(database_url, tmp_path, ROWS) as master,
        long_queries.asked(master.url, 5 * QUESTIONS, "waiting"),
    ):
        # Answered only once the worker has taken in what came before.
        long_queries.others(master, 0.1)
        began = time.monotonic()
        master.process.send_signal(signal.SIGTERM)
        assert master.process.wait(60) == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in master.log.read_text()
