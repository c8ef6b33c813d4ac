"""The server as processes: workers, signals, what is published."""

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

import cdb
from tests import servers
from tests.crash.processes import peers
from tests.fuzz import wire
from tests.servers import Master

STATUS = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><get_status xmlns="urn:mice:cdb:2"/>'
    "</s:Body></s:Envelope>"
)


@pytest.fixture(scope="module")
def published_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at which a master listens that announces another."""
    folder = tmp_path_factory.mktemp("published")
    options = ("--workers", "1", "--public-url", "https://cdb.example.org/mice/")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *options) as master:
        yield master_address(master)


@pytest.mark.parametrize("query", ["wsdl", "WSDL", "Wsdl", "wsdl="])
@pytest.mark.parametrize("path", ["calibration", "calibrationSuperMouse"])
def test_the_contract_is_published_with_the_configured_address(published_elsewhere: str, query: str, path: str) -> None:
    """Without a token, and whatever the Host header says."""
    published = requests.get(
        f"{published_elsewhere}/cdb/v2/{path}?{query}", headers={"Host": "evil.example"}, timeout=10
    )
    assert published.status_code == 200
    assert published.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert f'location="https://cdb.example.org/mice/cdb/v2/{path}"' in published.text
    assert "evil" not in published.text


def master_address(master: Master) -> str:
    """Where a master listens that announces another address."""
    inode = {os.readlink(fd) for fd in Path(f"/proc/{master.process.pid}/fd").iterdir() if fd.is_symlink()}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inode:
            return f"http://127.0.0.1:{int(fields[1].split(':')[1], 16)}"
    raise AssertionError("it does not listen")


def test_a_worker_that_dies_is_replaced_and_others_answer_meanwhile(master: Master) -> None:
    """kill -9 of one worker: questions go on being answered, and soon there are two again."""
    client = cdb.Calibration(master.url)
    assert client.get_status().status == "OK"
    # uvicorn waits half a minute for the answer of one that is killed while it starts: both have started here.
    with peers(master):
        before = master.workers()
    assert len(before) == 2
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    replaced = False
    while not replaced:
        # A connection that the victim held is lost; the next one is not.
        answer = requests.post(
            f"{master.url}/cdb/v2/calibration", data=STATUS, headers={"Content-Type": "text/xml"}, timeout=20
        )
        assert answer.status_code == 200
        now = master.workers()
        replaced = victim not in now and len(now) == 2


def test_a_server_that_is_told_to_end_answers_what_is_under_way(tmp_path: Path) -> None:
    """SIGTERM: exit status 0, and what was acknowledged is there at the next start."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    with servers.master(url, tmp_path) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        stored = writer.add_calibration("TOF1", "t0", "2016-03-01", b"kept")
        master.process.send_signal(signal.SIGTERM)
        assert master.process.wait(20) == 0
    with servers.serving(url, tmp_path, master.token) as again:
        assert cdb.Calibration(again.url).get_calibration_for_id(stored.id).record == stored


def test_all_processes_may_be_told_to_end_at_once(tmp_path: Path) -> None:
    """As `timeout`, terminals and containers tell them: nothing is begun anew, and nothing is logged."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        assert cdb.Calibration(master.url).get_status().status == "OK"
        os.killpg(master.process.pid, signal.SIGTERM)
        assert master.process.wait(20) == 0
        assert master.log.read_text() == ""


def test_a_server_takes_as_many_connections_as_the_system_lets_it_have(tmp_path: Path) -> None:
    """Shells hand on a low limit that programs may raise: 300 peers are answered where 100 files might be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as running:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        try:
            master = running.enter_context(servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        asked = wire.request(wire.READING, STATUS.encode())
        for peer in [running.enter_context(wire.Peer(master.url)) for _ in range(300)]:
            assert peer.ask(asked).status == 200


def test_what_is_not_a_service_is_a_line_of_plain_text(shared_master: Master) -> None:
    """HTTP's own answers."""
    for path, method, status in (
        ("/nothing", "GET", 404),
        ("/cdb/v2/calibration/", "GET", 404),
        ("/cdb/v2/calibration", "GET", 405),
        ("/cdb/v2/calibration", "PUT", 405),
        ("/cdb/v2/calibrationSuperMouse", "GET", 405),
    ):
        answer = requests.request(method, shared_master.url + path, timeout=10, allow_redirects=False)
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text.count("\n") == 1


def test_an_offer_of_another_protocol_may_come_in_pieces(shared_master: Master) -> None:
    """Java's client adds one to every request; wherever the network cuts it, the body is read."""
    request = (
        "POST /cdb/v2/calibration HTTP/1.1\r\nHost: cdb\r\nContent-Type: text/xml\r\n"
        f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: {len(STATUS)}\r\n\r\n{STATUS}"
    ).encode()
    host, port = shared_master.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(request)):
            connection.sendall(request[:cut])
            connection.sendall(request[cut:])
            answer = connection.recv(65536)
            while b"Envelope>" not in answer:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), cut
