"""The list of servers: who is asked when, what is repeated until the deadline, and what is not."""

import base64
import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

import cdb
from cdb._transport import timeouts
from tests import mirrors
from tests.client.cdb_process import shell, under_a_terminal
from tests.client.damaging_proxy import faulty
from tests.client.test_invalid_responses import DATA, EMPTY_BODY, FOREIGN, GOOD, TYPED_FAULT, answer, http, server
from tests.servers import Master

UNAVAILABLE = http(b"busy", "503 Service Unavailable", "text/plain")
BAD_SIZE = http(GOOD.replace(b"<size>37", b"<size>36"))
FAULT = "500 Internal Server Error"
SERVER_FAULT = TYPED_FAULT.replace(b"Client.", b"Server.").replace(b"RunNotFound", b"Unavailable") % b""
NOT_REACHED = http(TYPED_FAULT.replace(b"RunNotFound", b"AsOfNotReached") % b"", FAULT)


class Scripted:
    """Servers that answer by a script, each its own, the last line again and again; and how often each was asked."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.asked: Counter[str] = Counter()

    def __call__(self, *script: bytes) -> str:
        lines = iter(script)
        last = b""

        def behave(connection: socket.socket) -> None:
            nonlocal last
            self.asked[url] += 1
            last = next(lines, last)
            connection.sendall(last)

        url = self._stack.enter_context(server(behave))
        return url


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """A maker of servers."""
    with ExitStack() as stack:
        yield Scripted(stack)


@pytest.mark.parametrize(
    "passing",
    [
        b"",
        http(GOOD)[:300],
        UNAVAILABLE,
        http(b"slow down", "429 Too Many Requests", "text/plain"),
        http(b"", "408 Request Timeout", "text/plain"),
        http(b"", "504 Gateway Timeout", "text/html"),
        http(SERVER_FAULT, FAULT),
        http(GOOD[:-9]),
    ],
)
def test_temporary_failures_are_retried(passing: bytes, scripted: Scripted) -> None:
    """Until there is an answer."""
    url = scripted(passing, passing, passing, http(GOOD))
    assert cdb.Calibration(url, timeout=10).get_calibration_for_id(1).data == DATA
    assert scripted.asked[url] == 4


@pytest.mark.parametrize(
    ("lasting", "error"),
    [
        (http(b"", "302 Found", "text/xml", "Location: http://127.0.0.1:1/"), cdb.ServerUnreachable),
        (http(b"<html><body>Welcome</body></html>", content_type="text/html"), cdb.ServerUnreachable),
        (http(b"<h1>not here</h1>", "404 Not Found", "text/html"), cdb.ServerUnreachable),
        (http(EMPTY_BODY), cdb.ServerUnreachable),
        (http(FOREIGN), cdb.ServerUnreachable),
        (http(b"who are you", "401 Unauthorized", "text/plain"), cdb.ServerUnreachable),
        (http(b"not from there", "403 Forbidden", "text/plain"), cdb.ServerUnreachable),
        (http(b"too long", "413 Content Too Large", "text/plain"), cdb.ServerUnreachable),
        (http(b"", "302 Found", "text/xml", "Location: http://["), cdb.ServerUnreachable),
        (http(b"", "302 Found", "text/xml", "Location: \xff\xfe"), cdb.ServerUnreachable),
        (http(TYPED_FAULT % b"", FAULT), cdb.RunNotFound),
        (NOT_REACHED, cdb.AsOfNotReached),
    ],
)
def test_permanent_failures_are_not_retried(lasting: bytes, error: type[cdb.CdbError], scripted: Scripted) -> None:
    """One question, no waiting; and the next server is asked where this one was none."""
    url = scripted(lasting)
    began = time.monotonic()
    with pytest.raises(error):
        cdb.Calibration(url, timeout=10).get_calibration_for_id(1)
    assert time.monotonic() - began < 3
    assert scripted.asked[url] == 1
    first, good = scripted(lasting), scripted(http(GOOD))
    client = cdb.Calibration([first, good], timeout=10)
    if issubclass(error, cdb.CdbTemporaryError):
        assert client.get_calibration_for_id(1).data == DATA
    else:
        with pytest.raises(error):
            client.get_calibration_for_id(1)
        assert scripted.asked[good] == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [("401 Unauthorized", cdb.NotAuthorised), ("403 Forbidden", cdb.NotAuthorised), ("413 Too Large", cdb.TooLarge)],
)
def test_who_writes_is_told_that_it_may_not(status: str, error: type[cdb.CdbError], scripted: Scripted) -> None:
    """Who reads is asked for nothing by servers of ours: to them it is something that stands between."""
    first, second = scripted(http(b"no", status, "text/plain")), scripted(http(GOOD))
    writer = cdb.CalibrationSuperMouse([first, second], user="alice", token="x", timeout=10)
    with pytest.raises(error):
        writer.add_run(1, "2016-03-01")
    assert scripted.asked[second] == 0


def test_a_server_that_did_not_reach_an_as_of_leaves_the_others_another_try(scripted: Scripted) -> None:
    """One that failed in passing is asked again; that nobody has reached it is told soon."""
    behind, passing = scripted(NOT_REACHED), scripted(UNAVAILABLE, http(GOOD))
    assert cdb.Calibration([behind, passing], timeout=10).get_calibration_for_id(1).data == DATA
    began = time.monotonic()
    with pytest.raises(cdb.AsOfNotReached):
        cdb.Calibration([behind, "http://127.0.0.1:1"], timeout=10).get_calibration_for_id(1)
    assert time.monotonic() - began < 3


def test_a_fault_about_something_else_is_no_answer(scripted: Scripted) -> None:
    """A confused cache or connection may give another's."""
    url = scripted(http(TYPED_FAULT % b"<run_number>9</run_number>", FAULT))
    client = cdb.Calibration(url, timeout=10)
    with pytest.raises(cdb.ServerUnreachable, match="asked for run_number 8, the server answered with"):
        client.get_run(8)


@pytest.mark.parametrize(
    "address", ["http://", "http://[::1", "http://127.0.0.1:99999", "http://alice:secret@127.0.0.1:1", "http://:80"]
)
def test_what_is_no_address_is_said_at_once(address: str) -> None:
    """Without the password that it may hold."""
    with pytest.raises(cdb.InvalidArgument) as refused:
        cdb.Calibration(address)
    assert "secret" not in str(refused.value)


def test_a_netrc_is_for_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads shows nobody a password."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    asked: list[bytes] = []

    def answered(request: bytes) -> bytes:
        asked.append(request)
        return http(GOOD)

    with faulty(answered) as proxy:
        cdb.Calibration(proxy.url).get_calibration_for_id(1)
    assert b"authorization" not in asked[0].lower()


def test_a_proxy_that_is_away_is_not_taken_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be well."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(cdb.ServerUnreachable, match=r"the proxy on the way to it.*NO_PROXY"):
        cdb.Calibration("http://cdb.example:8080", timeout=0.5).get_status()


def test_what_the_environment_says_of_the_network_holds_at_once(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For clients that are there already, too: a proxy set, excepted, unset."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client = cdb.Calibration(scripted(http(GOOD)), timeout=0.5)
    for name, value, reached in (
        ("http_proxy", "", True),
        ("http_proxy", "http://127.0.0.1:1", False),
        ("NO_PROXY", "127.0.0.1", True),
        ("NO_PROXY", "", False),
        ("http_proxy", "", True),
    ):
        monkeypatch.setenv(name, value)
        with nullcontext() if reached else pytest.raises(cdb.ServerUnreachable, match="the proxy"):
            assert client.get_calibration_for_id(1).data == DATA


def test_a_proxy_is_told_where_to_and_who(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole address, and the user and password that stand in its own."""
    asked: list[bytes] = []

    def answered(request: bytes) -> bytes:
        asked.append(request)
        return http(GOOD)

    with faulty(answered) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//alice:secret@"))
        client = cdb.Calibration("http://cdb.example:8080")
        assert [client.get_calibration_for_id(1).data for _ in range(2)] == [DATA, DATA]
    for request in asked:
        assert request.startswith(b"POST http://cdb.example:8080/cdb/v2/calibration HTTP/1.1\r\n")
        assert b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"alice:secret") in request
        assert b"\r\nHost: cdb.example:8080\r\n" in request


def test_a_request_is_sent_in_one_write(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its headers with it; what is large is not copied for that."""
    sent: list[int] = []
    send = timeouts.send_all

    def counted(sock: socket.socket, data: bytes, clock: timeouts.Deadline) -> None:
        sent.append(len(data))
        send(sock, data, clock)

    monkeypatch.setattr(timeouts, "send_all", counted)
    writer = cdb.CalibrationSuperMouse(scripted(http(GOOD)), user="alice", token="x", direct=True)
    writer.get_calibration_for_id(1)
    assert len(sent) == 1
    with pytest.raises(cdb.ServerUnreachable):
        # What answers is no answer to this.
        writer.add_calibration("TOF1", "t0", "2016-01-01", bytes(2**20))
    assert len(sent) == 3
    assert sent[1] < 1_000 < 2**20 < sent[2]


def test_a_cookie_of_a_balancer_is_shown_to_it() -> None:
    """By which it leads a caller to the same server again."""
    asked: list[bytes] = []

    def answered(request: bytes) -> bytes:
        asked.append(request)
        return http(GOOD, "200 OK", "text/xml", "Set-Cookie: led_to=2")

    with faulty(answered) as proxy:
        client = cdb.Calibration(proxy.url)
        for _ in range(3):
            client.get_calibration_for_id(1)
    assert [request.count(b"Cookie: led_to=2\r\n") for request in asked] == [0, 1, 1]


def test_a_name_that_nobody_knows_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody will know it in a moment either."""
    real = socket.getaddrinfo

    def unknown(host: str, *rest: Any, **more: Any) -> object:
        if host == "nowhere.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("nowhere.example", f"{'x' * 70}.example"):
        with pytest.raises(cdb.ServerUnreachable, match=f"{name}.*name is not known"):
            cdb.Calibration(f"http://{name}:8080").get_status()


def test_a_name_that_is_looked_up_for_ever_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's look-up has no deadline of its own."""
    released = threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, *rest: Any, **more: Any) -> object:
        if host == "slow.example" and not more.get("flags"):
            released.wait(10)
        return real("127.0.0.1" if host == "slow.example" and not more.get("flags") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    began = time.monotonic()
    with pytest.raises(cdb.ServerUnreachable, match="no connection in time"):
        cdb.Calibration("http://slow.example:1", timeout=1).get_status()
    assert time.monotonic() - began < 2
    released.set()


def test_a_server_that_recovers_is_used(scripted: Scripted) -> None:
    """Refused at first; it listens before the time is up."""
    sleeping = socket.socket()
    sleeping.bind(("127.0.0.1", 0))
    port = sleeping.getsockname()[1]

    def wake() -> None:
        sleeping.listen()
        connection, _ = sleeping.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(http(GOOD))

    waking = threading.Timer(0.5, wake)
    waking.start()
    try:
        assert cdb.Calibration(f"http://127.0.0.1:{port}", timeout=10).get_calibration_for_id(1).data == DATA
    finally:
        waking.join(10)
        sleeping.close()


def test_the_error_names_every_server_and_what_it_said(scripted: Scripted) -> None:
    """And how often it was asked."""
    page = scripted(http(b"<html>Welcome</html>", content_type="text/html"))
    busy = scripted(UNAVAILABLE)
    with pytest.raises(cdb.Unavailable) as refused:
        cdb.Calibration(["http://127.0.0.1:1", page, busy], timeout=1).get_calibration_for_id(1)
    told = refused.value.message
    assert told.startswith("no server could answer: http://127.0.0.1:1: no connection: is it running")
    assert f"{page}: its answer is not one of a calibration database; " in told
    assert f"{busy}: busy (HTTP 503) (asked {scripted.asked[busy]} times within 1 s)" in told
    assert scripted.asked[page] == 1


def test_a_failed_server_is_skipped_during_its_cooldown(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every client of the process; then its turn comes again, and it is the first as before."""
    monkeypatch.setattr("cdb._failover.COOLDOWN_SECONDS", 1.0)
    bad, good = scripted(UNAVAILABLE, http(GOOD)), scripted(http(GOOD))
    assert cdb.Calibration([bad, good]).get_calibration_for_id(1).data == DATA
    for _ in range(3):
        assert cdb.Calibration([bad, good]).get_calibration_for_id(1).data == DATA
    assert scripted.asked == {bad: 1, good: 4}
    # Longer than it rests, here.
    time.sleep(1.6)
    assert cdb.Calibration([bad, good]).get_calibration_for_id(1).data == DATA
    assert scripted.asked == {bad: 2, good: 4}


def test_servers_in_cooldown_are_used_when_all_others_fail(scripted: Scripted) -> None:
    """To rest is better than nothing only."""
    first, second = scripted(UNAVAILABLE, http(GOOD)), scripted(http(GOOD), UNAVAILABLE)
    client = cdb.Calibration([first, second], timeout=10)
    assert client.get_calibration_for_id(1).data == DATA
    assert client.get_calibration_for_id(1).data == DATA
    assert scripted.asked == {first: 2, second: 2}


def test_bytes_of_another_hash_are_asked_for_again(scripted: Scripted) -> None:
    """Once of the same server, then of the next; never taken."""
    url = scripted(BAD_SIZE, http(GOOD))
    assert cdb.Calibration(url).get_calibration_for_id(1).data == DATA
    bad, good = scripted(BAD_SIZE), scripted(http(GOOD))
    assert cdb.Calibration([bad, good]).get_calibration_for_id(1).data == DATA
    assert scripted.asked[bad] == 2
    alone = scripted(BAD_SIZE)
    with pytest.raises(cdb.Integrity):
        cdb.Calibration(alone).get_calibration_for_id(1)
    assert scripted.asked[alone] == 2


def test_a_direct_client_asks_each_server_once(scripted: Scripted) -> None:
    """For programs that have their own way of trying again."""
    first, second = scripted(UNAVAILABLE), scripted(b"")
    with pytest.raises(cdb.Unavailable):
        cdb.Calibration([first, second], direct=True).get_calibration_for_id(1)
    assert scripted.asked == {first: 1, second: 1}


def test_an_answer_below_min_serial_is_rejected(scripted: Scripted) -> None:
    """Neither calibrations nor faults of a server that is behind; it is asked again until it has caught up."""
    behind = http(GOOD, "200 OK", "text/xml", "CDB-Serial: 17")
    fault = http(TYPED_FAULT % b"", FAULT, "text/xml", "CDB-Serial: 19")
    there = http(GOOD, "200 OK", "text/xml", "CDB-Serial: 20")
    url = scripted(behind, fault, there)
    assert cdb.Calibration(url, min_serial=20).get_calibration_for_id(1).data == DATA
    assert scripted.asked[url] == 3
    late, good = scripted(behind), scripted(there)
    assert cdb.Calibration([late, good], min_serial=20).get_calibration_for_id(1).data == DATA
    assert scripted.asked == {url: 3, late: 1, good: 1}
    with pytest.raises(cdb.Unavailable, match=f"{late}: it holds the journal up to 17, and min_serial asks for 20"):
        cdb.Calibration(late, min_serial=20, timeout=0.5).get_calibration_for_id(1)
    with pytest.raises(cdb.Unavailable, match="does not say how far it holds the journal, and min_serial asks for 20"):
        cdb.Calibration(scripted(http(GOOD)), min_serial=20, timeout=0.5).get_calibration_for_id(1)


def test_who_wrote_reads_it_where_a_mirror_stands_first(shared_master: Master, tmp_path: Path) -> None:
    """The mirror is half a second behind; and min_serial is handed to another client."""
    with mirrors.mirror(shared_master.url, f"sqlite:///{tmp_path}/mirror.sqlite", tmp_path) as mirror:
        both = [mirror.url, shared_master.url]
        writer = cdb.CalibrationSuperMouse(both, user=shared_master.user, token=shared_master.token)
        assert writer.min_serial == 0
        for number in range(8):
            stored = writer.add_calibration("own writes", "t0", "2016-03-01", f"{number}")
            assert writer.min_serial >= stored.id
            assert writer.get_current_calibration("own writes", "t0").data == f"{number}".encode()
        writer.withdraw_calibration(stored.id, "to be seen")
        other = cdb.Calibration(both, min_serial=writer.min_serial)
        assert other.get_current_calibration("own writes", "t0").data == b"6"
        alone = cdb.Calibration(mirror.url, min_serial=writer.min_serial)
        assert alone.get_current_calibration("own writes", "t0").data == b"6"


def test_retries_are_reported_once(shared_master: Master) -> None:
    """The server, the reason, and how long; between pipes too."""
    waiting = ("devices", "--server", "http://127.0.0.1:1", "--timeout", "1.5")
    shown = under_a_terminal(shared_master, *waiting, status=3).splitlines()
    assert shown[0].startswith("cdb: http://127.0.0.1:1: no connection: is it running")
    assert shown[0].endswith("retrying for 1.5 s")
    assert len(shown) == 2
    done = shell(shared_master, *waiting)
    assert done.returncode == 3
    assert done.stderr.count(b"\n") == 2


@pytest.mark.parametrize("size", [12_000_000])
def test_a_long_answer_is_taken_whole(size: int, scripted: Scripted) -> None:
    """libxml2 ends texts at 10 MB unless told otherwise."""
    data = b"long" * (size // 4)
    good = answer(base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest(), size)
    assert cdb.Calibration(scripted(http(good))).get_calibration_for_id(1).data == data
