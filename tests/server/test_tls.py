"""TLS by the server itself: who is let in, what the operator is told, and slow peers, as without TLS."""

import base64
import os
import random
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

import cdb
from cdb_server.database.transactions import Database
from cdb_server.errors import TlsUnusable
from cdb_server.http import serve
from cdb_server.settings import Tls
from tests import certificates, servers
from tests.certificates import Certificates
from tests.fuzz import wire
from tests.server.test_cli import cdb_server
from tests.server.test_slow_peers import (
    ADD,
    DEADLINE,
    GET,
    GRACE,
    LARGE,
    MEMORY,
    STATUS,
    USER,
    Impatient,
    impatient_master,
)
from tests.servers import Master


@pytest.fixture(scope="module")
def impatient(ours: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Impatient]:
    """A master over TLS with short deadlines, that holds a large calibration."""
    with impatient_master(tmp_path_factory.mktemp("impatient"), LARGE, ours) as running:
        data = base64.b64encode(random.Random(1).randbytes(LARGE))
        with running.peer() as peer:
            assert peer.ask(wire.request(wire.WRITING, ADD % data, credentials=(USER, running.token))).status == 200
        yield running


def test_questions_and_writes_go_over_tls(closed: Master, ours: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is announced and published is https, and a caller with a certificate reads and writes."""
    assert closed.url.startswith("https://127.0.0.1:")
    wsdl = requests.get(f"{closed.url}/cdb/v2/calibration?wsdl", verify=ours.ca, cert=ours.client, timeout=10).text
    assert f'location="{closed.url}/cdb/v2/calibration"' in wsdl
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ours.ca)
    writer = cdb.CalibrationSuperMouse(closed.url, user=closed.user, token=closed.token, client_cert=ours.client)
    stored = writer.add_calibration("TLS", "t0", "2016-03-01", b"over TLS")
    assert writer.get_calibration_for_id(stored.id).data == b"over TLS"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_only_a_certificate_of_the_authority_is_let_in(
    version: ssl.TLSVersion, closed: Master, ours: Certificates, tmp_path: Path
) -> None:
    """No byte of HTTP is answered to none, to a foreign one, nor to the server's own authority's name without a key."""

    def answer(certificate: str | None) -> bytes:
        context = ours.context()
        context.minimum_version = context.maximum_version = version
        if certificate is not None:
            context.load_cert_chain(certificate)
        with suppress(OSError), wire.Peer(closed.url, tls=context) as peer:
            peer.socket.sendall(wire.request(wire.READING, STATUS))
            return peer.socket.recv(100)
        return b""

    assert answer(ours.client).startswith(b"HTTP/1.1 200 ")
    assert answer(None) == b""
    assert answer(certificates.make(tmp_path).client) == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_tls_before_1_2_is_refused(closed: Master, ours: Certificates) -> None:
    """Even where OpenSSL itself would take it."""
    context = ours.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), wire.Peer(closed.url, tls=context):
        pass


def test_what_is_no_tls_is_not_answered_and_not_logged(closed: Master) -> None:
    """Plain HTTP, noise and callers that go at once leave nothing in the log, and the others are served."""
    for sent in (wire.request(wire.READING, STATUS), b"\0" * 1000, b"\x16\x03\x01", b""):
        with wire.Peer(closed.url.replace("https", "http")) as peer:
            peer.socket.sendall(sent)
            peer.socket.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert b"HTTP" not in peer.socket.recv(1000)
    assert closed.log.read_text() == ""


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "said"),
    [
        ("missing.pem", "key.pem", None, "CDB_TLS_CERT .* cannot be read: No such file"),
        ("cert.pem", "missing.pem", None, "CDB_TLS_KEY .* cannot be read: No such file"),
        ("cert.pem", "key.pem", "missing.pem", "CDB_TLS_CLIENT_CA .* cannot be read: No such file"),
        ("cert.pem", ".", None, "CDB_TLS_KEY .* cannot be read: Is a directory"),
        ("key.pem", "key.pem", None, "are not a certificate and its key"),
        ("cert.pem", "other.pem", None, "are not a certificate and its key"),
        ("cert.pem", "encrypted.pem", None, "encrypted"),
        ("cert.pem", "key.pem", "key.pem", "CDB_TLS_CLIENT_CA .* holds no certificate"),
        ("cert.pem", "key.pem", "empty.pem", "CDB_TLS_CLIENT_CA .* holds no certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    cert: str, key: str, client_ca: str | None, said: str, ours: Certificates, tmp_path: Path
) -> None:
    """In one sentence, and without asking the terminal for a password."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes((ours.folder / name).read_bytes())
    (tmp_path / "other.pem").write_bytes((certificates.make(tmp_path / "other").folder / "key.pem").read_bytes())
    (tmp_path / "empty.pem").touch()
    (tmp_path / "encrypted.pem").write_bytes(ours.encrypted_key())
    named = Tls(str(tmp_path / cert), str(tmp_path / key), client_ca and str(tmp_path / client_ca))
    with pytest.raises(TlsUnusable, match=said) as refused:
        serve.check_tls_files(named)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"CDB_TLS_CERT": "cert.pem"}, 2, "CDB_TLS_KEY"),
        ({"CDB_TLS_KEY": "key.pem"}, 2, "CDB_TLS_CERT"),
        ({"CDB_TLS_CLIENT_CA": "ca.pem"}, 2, "CDB_TLS_CERT"),
        ({"CDB_TLS_CERT": "missing.pem", "CDB_TLS_KEY": "key.pem"}, 1, "CDB_TLS_CERT"),
    ],
)
def test_tls_that_cannot_be_is_said_at_the_start(
    given: dict[str, str], status: int, said: str, ours: Certificates, tmp_path: Path
) -> None:
    """Exit status 2 where the settings do not fit together, 1 and one line where a file is to blame."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    environment = {name: str(ours.folder / file) for name, file in given.items()}
    refused = cdb_server("serve", "--database", url, "--bind", "127.0.0.1:0", **environment)
    assert (refused.returncode, refused.stdout) == (status, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert status == 2 or refused.stderr.count("\n") == 1


def serial_shown(master: Master, authority: Certificates) -> int:
    """The serial number of the certificate that a server shows."""
    with wire.Peer(master.url, tls=authority.context()) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        return int(str(dict(peer.socket.getpeercert() or {})["serialNumber"]), 16)


def test_a_renewed_certificate_is_taken_at_sighup_and_a_bad_one_is_not(tmp_path: Path) -> None:
    """SIGHUP: workers with the new files replace the old ones, or, where they cannot start, do not.

    Where none can start again after one died, the server ends with exit status 1 and a sentence: no loop of workers.
    """
    first = certificates.make(tmp_path / "pem")
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, *first.flags) as master:
        serial = serial_shown(master, first)
        first_workers = master.workers()
        second = certificates.make(tmp_path / "pem")
        master.process.send_signal(signal.SIGHUP)
        while master.workers() & first_workers:
            # One of the two authorities fits.
            for authority in (first, second):
                with suppress(ssl.SSLError):
                    serial_shown(master, authority)
        assert serial_shown(master, second) != serial
        Path(second.tls.cert).write_text("no certificate\n")
        second_workers = master.workers()
        master.process.send_signal(signal.SIGHUP)
        while "a worker cannot start: CDB_TLS_CERT" not in master.log.read_text():
            serial_shown(master, second)
        while master.workers() != second_workers:
            serial_shown(master, second)
        os.kill(second_workers.pop(), signal.SIGKILL)
        assert master.process.wait(20) == 1
        assert master.log.read_text().count("a worker cannot start: CDB_TLS_CERT") == 2


def connections(impatient: Impatient) -> int:
    """How many connections the server's side holds, until both sides are done with them."""
    port = f":{impatient.settings.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Established, or ended by the peer alone.
    return sum(row[1].endswith(port) and row[3] in ("01", "08") for row in rows)


def test_slow_peers_are_cut_off_as_without_tls(impatient: Impatient, ours: Certificates) -> None:
    """Silent before, during and after the handshake, in headers, in a body, and at the farewell."""
    plain = impatient.url.replace("https", "http")
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ours.context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
    part = hello.read()[:50]
    while connections(impatient):
        pass
    with ExitStack() as entered:
        before, during = (entered.enter_context(wire.Peer(plain)) for _ in range(2))
        during.socket.sendall(part)
        after, headers, body, reader = (entered.enter_context(impatient.peer()) for _ in range(4))
        headers.socket.sendall(wire.request(wire.READING, STATUS)[:40])
        body.socket.sendall(wire.request(wire.READING, STATUS[:-1], headers=[("Content-Length", str(len(STATUS)))]))
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # More than the kernel takes off the server's hands.
        reader.socket.sendall(wire.request(wire.READING, GET) * 5)
        start = time.monotonic()
        assert body.reply().status == 408
        for peer in (before, during, after, headers, body):
            assert peer.ended()
            assert DEADLINE - GRACE < time.monotonic() - start < DEADLINE + GRACE
        # None of them says farewell, and the reader has read nothing: the server does not wait for long.
        while connections(impatient):
            assert time.monotonic() - start < 2 * DEADLINE + GRACE
            # The kernel tells nobody when a connection is gone: it is asked again.
            time.sleep(0.02)
        assert impatient.ask(STATUS).status == 200


@pytest.mark.parametrize(
    ("start", "repeated"),
    [
        (b"POST /cdb/v2/calibration HTTP/1.1\r\nX-Header: ", b"a"),
        (b"", wire.request(f"{wire.READING}?wsdl", method="GET")),
    ],
    ids=["one header", "requests"],
)
def test_a_flood_over_tls_does_not_fill_the_memory(start: bytes, repeated: bytes, impatient: Impatient) -> None:
    """Whoever sends the same without end and reads nothing is stopped, or made to wait."""
    before = impatient.memory
    block = repeated * (2**18 // len(repeated))
    with impatient.peer(patience=0.5) as peer, suppress(OSError):
        peer.socket.sendall(start)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            peer.socket.sendall(block)
    assert impatient.memory - before < MEMORY
    assert impatient.ask(STATUS).status == 200


@pytest.mark.parametrize("length", [2**23, 2**25])
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize(("path", "status"), [(wire.READING, 413), (wire.WRITING, 401)])
def test_a_usual_client_reads_why_its_upload_is_refused(
    length: int, announced: bool, path: str, status: int, impatient: Impatient, ours: Certificates
) -> None:
    """A client that sends everything before it reads gets the answer, over TLS too."""
    body = b" " * length if announced else iter([b" " * 2**16] * (length // 2**16))
    answer = requests.post(
        f"{impatient.url}{path}", data=body, headers={"Content-Type": "text/xml"}, timeout=wire.PATIENCE, verify=ours.ca
    )
    assert answer.status_code == status
    assert answer.text.count("\n") == 1
