"""The log is bounded: whatever peers send, some lines of a kind are logged in full, and the others are counted."""

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cdb_server.http import auth
from cdb_server.logs import MAX_LINE_CHARACTERS, MAX_LINES, LineLimit
from tests import servers
from tests.fuzz import wire

MANY = 1000

MULTIPART = [
    ("Content-Type", "multipart/form-data; boundary=x"),
    ("Sec-Fetch-Site", "same-origin"),
]
FLOODS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "no token": (lambda number: wire.request(wire.WRITING), "no valid token of user ''"),
    "names": (
        lambda number: wire.request(wire.WRITING, credentials=(f"mallory\n{number}", "guess")),
        r"no valid token of user 'mallory\\n\d+'",
    ),
    "no HTTP": (lambda number: b"GET / HTTP/1.1\r\nHost: x\r\nX%d\r\n\r\n" % number, "Invalid HTTP request received"),
    "no form": (lambda number: wire.request("/sign-in", b"--y%d\r\n" % number, headers=MULTIPART), "boundary"),
    "other sites": (
        lambda number: wire.request("/sign-in", b"user=%d" % number, headers=[("Sec-Fetch-Site", "cross-site")]),
        "a form not of this site's pages",
    ),
}


@pytest.mark.parametrize(("made", "line"), FLOODS.values(), ids=FLOODS)
def test_thousands_of_requests_leave_a_few_lines_that_count_them(
    made: Callable[[int], bytes], line: str, tmp_path: Path
) -> None:
    """Each of two workers logs its first in full, and how many followed when it ends."""

    def attempt(number: int) -> None:
        with wire.Peer(master.url) as peer:
            assert 400 <= peer.ask(made(number)).status < 500

    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(attempt, range(MANY)))
        assert 0 < len(master.log.read_text().splitlines()) <= 2 * MAX_LINES, "within a minute"
    lines = master.log.read_text().splitlines()
    more = [re.search(rf"WARNING .*: (\d+) more lines within 60 seconds like: .*{line}", text) for text in lines]
    counted = [int(found[1]) for found in more if found]
    in_full = [text for text in lines if re.search(line, text) and " more lines " not in text]
    assert len(in_full) + len(counted) == len(lines)
    assert 0 < len(counted) <= 2
    assert len(in_full) + sum(counted) == MANY


def test_what_was_counted_is_told_though_the_flood_stops() -> None:
    """At the end of the period, without another line; then all begins anew. Other kinds are counted by themselves."""
    told = threading.Event()
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if " more " in lines[-1]:
                told.set()

    handler, log, root = Kept(), logging.getLogger("flooded"), logging.getLogger()
    handler.addFilter(LineLimit(max_lines=2, seconds=0.2))
    root.addHandler(handler)
    try:
        for _ in range(2):
            told.clear()
            for number in range(100):
                log.warning("peer %d", number)
            log.warning("another %s", "one")
            assert told.wait(10)
        log.warning("x" * 10_000 + "\n%s", "y")
    finally:
        root.removeHandler(handler)
    period = ["peer 0", "peer 1", "another one", "98 more lines within 0.2 seconds like: peer 99"]
    assert lines[:-1] == [*period, *period]


def test_a_line_that_stands_for_others_is_short(caplog: pytest.LogCaptureFixture) -> None:
    """The first line of one, and not all of that."""
    bound = LineLimit(max_lines=0)
    bound.filter(logging.LogRecord("x", logging.WARNING, "x.py", 1, "x" * 10_000 + "\n%s", ("y",), None))
    bound.flush()
    [record] = caplog.records
    assert record.getMessage() == f"1 more lines within 60 seconds like: {'x' * MAX_LINE_CHARACTERS}"


@pytest.mark.parametrize("name", ["a\nERROR forged", "a\r\n", "\x1b[2J", "\u2028", "\u202e", "ä" * 1000, "'\"", "\0"])
def test_no_name_can_forge_a_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line of printable ASCII, and not a long one, whatever is sent for a name."""
    auth.log_refused_write(401, "192.0.2.1", name)
    auth.log_refused_write(403, "192.0.2.1", name)
    auth.log_cross_site_form("192.0.2.1", name)
    auth.log_unknown_host("192.0.2.1", name)
    assert len(caplog.records) == 4
    for record in caplog.records:
        text = record.getMessage()
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 500
