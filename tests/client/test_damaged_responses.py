"""What happens to answers on their way: a call ends with the right bytes or a typed error, and in time."""

import base64
import gc
import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import cdb
from tests import certificates, servers
from tests.certificates import Certificates
from tests.client.damaging_proxy import Fault, Kind, faulty
from tests.client.test_invalid_responses import DATA, answer, http, server
from tests.hostile import damage_sweep
from tests.hostile.damage_sweep import Recorded
from tests.servers import Master

# What a busy machine may add to a deadline.
SLACK = 1.0


@pytest.fixture(scope="module")
def recorded(shared_master: Master) -> Recorded:
    """A real answer of 64 kB."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    stored = writer.add_calibration("damage", "t0", "2016-03-01", os.urandom(48_000), comment="to be damaged")
    return damage_sweep.record(shared_master.url, stored.id)


@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_an_answer_spoiled_anywhere_is_asked_for_again(recorded: Recorded, kind: Kind) -> None:
    """At every byte of its headers, the ends of its body, and some between; `make hostile` does every byte."""
    outcome = damage_sweep.waiting(recorded, damage_sweep.sample(recorded, kind), seconds=2.2)
    assert set(outcome.counts) == {"right"}, outcome


def test_an_answer_spoiled_thrice_comes_right_at_the_fourth_try(recorded: Recorded) -> None:
    """A bad line is not bad once only."""
    places = [0, 9, 40, recorded.head + 1, 5_000]
    for kind in ("cut", "reset", "flip"):
        faults = [Fault(kind, at) for at in places]
        assert set(damage_sweep.waiting(recorded, faults, times=3).counts) == {"right"}


def test_a_server_that_stalls_once_is_asked_again(recorded: Recorded) -> None:
    """Half of the time is left for that."""
    faults = [Fault("stall", at) for at in (0, 12, recorded.head, 3_000, len(recorded.answer) - 1)]
    assert set(damage_sweep.waiting(recorded, faults).counts) == {"right"}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and its certificates."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def over_tls(ours: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master that speaks TLS."""
    folder = tmp_path_factory.mktemp("tls")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *ours.flags, "--workers", "1") as running:
        yield running
        # The server waits for the ends of connections that clients keep.
        gc.collect()


# Bytes of an answer after which the server stalls or trickles.
PLACES = (0, 1, 3, 10, 100, 180, 300, 700, 1_500, 2_500, 5_000, 20_000, 27_000)


@pytest.mark.parametrize("kind", ["stall", "trickle"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_call_outlasts_its_deadline(
    scheme: str,
    kind: Kind,
    shared_master: Master,
    over_tls: Master,
    ours: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever the server stalls or trickles: in the handshake of TLS, in headers, in the body."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ours.ca)
    master = over_tls if scheme == "https" else shared_master
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    id = writer.add_calibration("deadline", "t0", "2016-03-01", bytes(20_000)).id

    def ask(at: int) -> tuple[float, str]:
        with faulty(master.url) as proxy:
            client = cdb.Calibration(proxy.url, timeout=1)
            proxy.spoil(Fault(kind, at), 1000)
            began = time.monotonic()
            try:
                came = "right" if client.get_calibration_for_id(id).data == bytes(20_000) else "wrong"
            except cdb.ServerUnreachable:
                came = "unreachable"
            return time.monotonic() - began, came

    with ThreadPoolExecutor(8) as threads:
        came = list(threads.map(ask, PLACES))
    for at, place in enumerate(PLACES):
        # On a busy machine a call may wait for a processor: what came late is asked again, alone.
        for _ in range(3):
            if came[at][0] >= 1 + SLACK:
                came[at] = ask(place)
    assert all(took < 1 + SLACK for took, _ in came), came
    assert {what for _, what in came} <= {"unreachable", "right"}
    assert came[0][1] == "unreachable"


def test_a_tls_connection_spoiled_anywhere_is_made_again(
    over_tls: Master, ours: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte 3 is the length of the server's first record: it makes the client wait for more than comes."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ours.ca)
    writer = cdb.CalibrationSuperMouse(over_tls.url, user=over_tls.user, token=over_tls.token)
    id = writer.add_calibration("spoiled tls", "t0", "2016-03-01", b"tls").id

    def ask(fault: Fault) -> bytes:
        with faulty(over_tls.url) as proxy:
            proxy.spoil(fault)
            return cdb.Calibration(proxy.url, timeout=6).get_calibration_for_id(id).data

    faults = [Fault("flip", at, 1 << at % 8) for at in (0, 1, 3, 5, 9, 50, 130, 700, 1_200, 1_800, 2_200)]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(ask, faults)) == {b"tls"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_does_not_read_ends_an_upload_in_time(
    scheme: str, ours: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending has the same deadline."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ours.ca)
    released = threading.Event()
    with faulty(lambda request: b"") as deaf:
        # Not a byte of the request is read.
        monkeypatch.setattr(
            "tests.client.damaging_proxy._request", lambda connection: _deaf(connection, scheme, ours, released)
        )
        writer = cdb.CalibrationSuperMouse(deaf.url.replace("http", scheme), user="alice", token="x", timeout=1)
        began = time.monotonic()
        with pytest.raises(cdb.ServerUnreachable):
            writer.add_calibration("TOF1", "t0", "2016-03-01", bytes(2**23))
        assert time.monotonic() - began < 1 + 2 * SLACK
        released.set()


def _deaf(connection: socket.socket, scheme: str, ours: Certificates, released: threading.Event) -> bytes:
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ours.tls.cert, ours.tls.key)
        connection = context.wrap_socket(connection, server_side=True)
    released.wait(10)
    connection.close()
    return b""


def test_a_write_whose_answer_is_lost_is_repeated_and_stored_once(shared_master: Master) -> None:
    """Rule 9: "Writes repeat safely"."""
    with faulty(shared_master.url) as proxy:
        writer = cdb.CalibrationSuperMouse(proxy.url, user=shared_master.user, token=shared_master.token, timeout=10)
        before = writer.get_status().serial
        kinds: tuple[Kind, ...] = ("cut", "reset", "flip")
        for number, kind in enumerate(kinds, start=1):
            proxy.spoil(Fault(kind, 700), 2)
            stored = writer.add_calibration("lost answers", "t0", "2016-03-01", f"{number}")
            assert stored.id == before + number
        assert writer.get_status().serial == before + 3


def test_many_threads_on_a_bad_line_get_their_own_answers(shared_master: Master) -> None:
    """Nobody reads what was meant for another."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    ids = [writer.add_calibration("bad line", "t0", f"2016-03-0{day}", f"day {day}").id for day in range(1, 9)]
    with faulty(shared_master.url) as proxy:
        client = cdb.Calibration(proxy.url, timeout=20)

        def ask(number: int) -> bool:
            proxy.spoil(Fault(("cut", "flip", "reset")[number % 3], 300 + number * 7 % 900))
            id = ids[number % len(ids)]
            return client.get_calibration_for_id(id).data == f"day {ids.index(id) + 1}".encode()

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(ask, range(96)))


def test_an_answer_without_digest_is_accepted_and_a_wrong_digest_rejected() -> None:
    """Other servers, and proxies that change answers, send no CDB-Digest; a flipped name hides no damage."""
    good = answer(base64.b64encode(DATA).decode(), hashlib.sha256(DATA).hexdigest(), len(DATA))
    digest = base64.b64encode(hashlib.sha256(good).digest()).decode()
    bad = good.replace(b"<author>a<", b"<author>b<")
    for headers in (
        [],
        [f"CDB-Digest: sha-256=:{digest}:"],
        [f"CDB-Digest: sha-512=:x:, sha-256=:{digest}:;serial=7", "CDB-Serial: 7"],
        ["CDB-Digest: sha-512=:x:"],
    ):
        with server(lambda connection: connection.sendall(http(good, "200 OK", "text/xml", *headers))) as url:  # noqa: B023  # called within the loop
            assert cdb.Calibration(url, timeout=5).get_calibration_for_id(1).author == "a"
    for content, status, headers in (
        (bad, "200 OK", [f"CDB-Digest: sha-256=:{digest}:"]),
        (good, "200 OK", [f"CDB-Digest: sha-256=:{digest}:;serial=7", "CDB-Serial: 9"]),
        (good, "300 OK", [f"CDB-Digest: sha-256=:{digest}:"]),
        (good, "500 OK", [f"CDB-Digest: sha-256=:{digest}:"]),
    ):
        with (
            server(lambda connection: connection.sendall(http(content, status, "text/xml", *headers))) as url,  # noqa: B023  # called within the loop
            pytest.raises(cdb.ServerUnreachable),
        ):
            cdb.Calibration(url, timeout=0.3).get_calibration_for_id(1)
