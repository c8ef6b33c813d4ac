"""Attempts to write that were refused: all are counted, some are told of in full, and no log is filled."""

import asyncio
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cdb_server.http.attempts import IN_FULL, Attempts
from tests import servers
from tests.fuzz import wire

MANY = 2000


def test_thousands_of_attempts_leave_a_few_lines_that_count_them(tmp_path: Path) -> None:
    """Each of two workers tells of its first in full, and of how many followed when it ends."""

    def attempt(number: int) -> None:
        credentials = [None, ("mallory", "guess"), ("mal\nlory", "guess")][number % 3]
        with wire.Peer(master.url) as peer:
            assert peer.ask(wire.request(wire.WRITING, credentials=credentials)).status == 401

    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(attempt, range(MANY)))
        assert len(master.log.read_text().splitlines()) == 2 * IN_FULL, "it takes less than a minute"
    lines = master.log.read_text().splitlines()
    in_full = [
        line for line in lines if re.search(r"WARNING .*: no valid token of user '.*', from 127\.0\.0\.1$", line)
    ]
    more = [
        re.search(r": (\d+) more attempts within 60 seconds, (\d+) outside .*, (\d+) without", line) for line in lines
    ]
    counted = [[int(number) for number in found.groups()] for found in more if found]
    assert len(lines) == len(in_full) + len(counted) == 2 * IN_FULL + 2
    assert sum(total for total, _, _ in counted) == MANY - len(in_full)
    assert all(networks == 0 and tokens == total for total, networks, tokens in counted)
    assert any(r"'mal\nlory'" in line for line in in_full)


def test_what_was_counted_is_told_though_the_attempts_stop(caplog: pytest.LogCaptureFixture) -> None:
    """At the end of the period, without another attempt; then all begins anew."""
    told = asyncio.Event()

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if " more attempts " in record.getMessage():
                told.set()

    watching = Watching()

    async def twice() -> None:
        attempts = Attempts(in_full=2, seconds=0.1)
        for _ in range(2):
            told.clear()
            for number in range(100):
                attempts.refused(403 if number % 10 else 401, "192.0.2.1", "mallory")
            await asyncio.wait_for(told.wait(), 10)
        attempts.refused(403, "192.0.2.1", "mallory")
        attempts.tell()
        attempts.tell()

    logging.getLogger("cdb_server.http.attempts").addHandler(watching)
    try:
        asyncio.run(twice())
    finally:
        logging.getLogger("cdb_server.http.attempts").removeHandler(watching)
    period = [
        "refused to write: no valid token of user 'mallory', from 192.0.2.1",
        "refused to write: 192.0.2.1 is outside the allowed networks, as user 'mallory'",
        "refused to write: 98 more attempts within 0.1 seconds, 89 outside the allowed networks, "
        "9 without a valid token",
    ]
    assert [record.getMessage() for record in caplog.records] == [*period, *period, period[1]]


@pytest.mark.parametrize("name", ["a\nERROR forged", "a\r\n", "\x1b[2J", "\u2028", "\u202e", "ä" * 1000, "'\"", "\0"])
def test_no_name_can_forge_a_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line of printable ASCII, and not a long one, whatever is sent for a name."""

    async def refused() -> None:
        attempts = Attempts()
        attempts.refused(401, "192.0.2.1", name)
        attempts.refused(403, "192.0.2.1", name)
        attempts.tell()

    asyncio.run(refused())
    assert len(caplog.records) == 2
    for record in caplog.records:
        text = record.getMessage()
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 500
