"""What nobody expected: every way in says that it is the server's fault, the log says where, and it is counted."""

import asyncio
import base64
import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

import cdb
from cdb_server.logs import MAX_TRACEBACK_CHARACTERS, TRACEBACK_SECONDS, TracebackLimit
from tests import servers
from tests.servers import Master

HTML = {"Accept": "text/html,application/xhtml+xml"}
QUESTION = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    b'<get_calibration_for_id xmlns="urn:mice:cdb:2"><id>1</id></get_calibration_for_id></s:Body></s:Envelope>'
)
EARLIER = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    b"<getDetectorCalibrationForId><id>1</id></getDetectorCalibrationForId></s:Body></s:Envelope>"
)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    """A master with one worker, in whose database a time lies before the year 1, as no server writes it."""
    file = tmp_path / "cdb.sqlite"
    with servers.master(f"sqlite:///{file}", tmp_path, "--workers", "1") as running:
        writer = cdb.CalibrationSuperMouse(running.url, user=running.user, token=running.token)
        writer.add_calibration("TOF1", "t0", "2016-03-01", b"1\n")
        spoil(file, "UPDATE calibration SET valid_from = -(1 << 60)")
        yield running


def spoil(file: Path, statement: str) -> None:
    """Change a database behind the server's back."""
    with closing(sqlite3.connect(file)) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute(statement)


def asked(master: Master, path: str, body: bytes) -> requests.Response:
    return requests.post(f"{master.url}/{path}", body, headers={"Content-Type": "text/xml"}, timeout=10)


def counted(master: Master, operation: str) -> float:
    """How often a request came to nothing for a reason within the server."""
    label = f'cdb_requests_total{{operation="{operation}",outcome="500"}} '
    lines = requests.get(f"{master.url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.removeprefix(label)) for line in lines if line.startswith(label))


@pytest.mark.parametrize("path", ["calibrations/1", "compare?left=1&right=1"])
def test_a_browser_gets_a_page_of_this_site(master: Master, path: str) -> None:
    """With the way to the overview, and nothing of the server's inside."""
    answer = requests.get(f"{master.url}/{path}", headers=HTML, timeout=10)
    assert answer.status_code == 500
    assert "<h1>Something is wrong with this server</h1>" in answer.text
    assert "Overflow" not in answer.text
    assert answer.headers["Content-Security-Policy"]


def test_a_program_gets_one_line(master: Master) -> None:
    """By plain GET, and for a page that it does not ask for as one."""
    for path in ("calibrations/1", "cdb/v2/calibration/TOF1/t0?date=9999-12-31T00:00:00"):
        answer = requests.get(f"{master.url}/{path}", timeout=10)
        assert answer.status_code == 500
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.text.count("\n") == 1
        assert "tell its operator" in answer.text


def test_soap_gets_a_fault_of_the_server(master: Master) -> None:
    """And the earlier CDB's clients a warning, for they read no fault; each is counted."""
    answer = asked(master, "cdb/v2/calibration", QUESTION)
    assert answer.status_code == 500
    assert re.search("<faultcode>[a-z0-9]+:Server.Unavailable<", answer.text)
    answer = asked(master, "cdb/calibration", EARLIER)
    assert answer.status_code == 200
    assert base64.b64decode(re.findall("<return>(.*)</return>", answer.text)[0]).startswith(b"<warning>")
    for operation in ("get_calibration_for_id", "getDetectorCalibrationForId"):
        assert counted(master, operation) == 1


def test_it_is_counted_each_time_and_told_once_a_minute(master: Master) -> None:
    """With its traceback, which shows where; and the log does not grow with what is asked."""
    for _ in range(30):
        requests.get(f"{master.url}/calibrations/1", headers=HTML, timeout=10)
        asked(master, "cdb/v2/calibration", QUESTION)
    assert counted(master, "page_calibration") == 30
    assert counted(master, "get_calibration_for_id") == 30
    logged = master.log.read_text()
    assert 1 <= logged.count("Traceback") <= 2
    assert "OverflowError" in logged
    assert len(logged) < 3 * MAX_TRACEBACK_CHARACTERS


def test_where_even_the_status_cannot_be_read_each_is_told(master: Master, tmp_path: Path) -> None:
    """The page comes without it, and so do the metrics."""
    spoil(tmp_path / "cdb.sqlite", "UPDATE journal SET created = 1 << 60")
    answer = requests.get(f"{master.url}/calibrations/1", headers=HTML, timeout=10)
    assert (answer.status_code, "cannot be read now" in answer.text) == (500, True)
    for _ in range(3):
        assert "Server.Unavailable" in asked(master, "cdb/v2/calibration", QUESTION).text
    assert "cdb_database_up 0.0" in requests.get(f"{master.url}/metrics", timeout=10).text


def test_the_same_place_is_told_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how often it was left out; and another place at once."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    tracebacks = TracebackLimit()

    def told(error: type[Exception] = KeyError) -> str:
        try:
            raise error("x" * 2 * MAX_TRACEBACK_CHARACTERS)
        except Exception as raised:
            record = logging.LogRecord("cdb", logging.ERROR, "", 1, "it %s", ("failed",), (error, raised, None))
        return f"{record.getMessage()}\n{record.exc_text}" if tracebacks.filter(record) else ""

    assert told().partition("\n")[0] == "it failed"
    assert [told(), told()] == ["", ""]
    assert told(ValueError)
    clock[0] += TRACEBACK_SECONDS
    again = told()
    assert again.partition("\n")[0] == "it failed, after 2 more like it"
    assert len(again) < MAX_TRACEBACK_CHARACTERS + 100


def test_what_is_cancelled_at_the_end_of_the_server_is_no_error() -> None:
    """uvicorn says how many requests there were; each with a traceback says no more."""
    error = asyncio.CancelledError()
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "it", (), (type(error), error, None))
    assert not TracebackLimit().filter(record)
