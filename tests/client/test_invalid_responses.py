"""What a client meets where a server should be: it ends in a typed error within the deadline, never in wrong data."""

import contextlib
import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import cdb

DATA = b"TOFChannelKey 1 1 0 0 tof1 -60624.8 3"


def answer(data: str, sha256: str, size: int) -> bytes:
    """An answer to get_calibration_for_id."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        '<get_calibration_for_idResponse xmlns="urn:mice:cdb:2"><calibration><id>1</id><device_name>TOF1</device_name>'
        "<calibration_type>t0</calibration_type><valid_from>2016-03-01T00:00:00.000000Z</valid_from>"
        "<created>2016-03-01T00:00:00.000000Z</created><author>a</author><withdrawn>false</withdrawn>"
        f"<size>{size}</size><sha256>{sha256}</sha256><data>{data}</data></calibration>"
        "</get_calibration_for_idResponse></s:Body></s:Envelope>"
    ).encode()


GOOD = answer("VE9GQ2hhbm5lbEtleSAxIDEgMCAwIHRvZjEgLTYwNjI0LjggMw==", hashlib.sha256(DATA).hexdigest(), len(DATA))
CREATED = b"<created>2016-03-01T00:00:00.000000Z"
STATUS = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><get_statusResponse '
    'xmlns="urn:mice:cdb:2"><status><status>OK</status><role>mirror</role><serial>1</serial><digest>'
    f"{'0' * 64}</digest><complete_until>2016-03-01T00:00:00Z</complete_until><version>1</version>"
    "<lag_entries>0</lag_entries><lag_seconds>1.5</lag_seconds></status></get_statusResponse></s:Body></s:Envelope>"
).encode()
EMPTY_BODY = b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body/></s:Envelope>'
FOREIGN = EMPTY_BODY.replace(b"<s:Body/>", b'<s:Body><hello xmlns="urn:other"/></s:Body>')
FOREIGN_FAULT = EMPTY_BODY.replace(
    b"<s:Body/>",
    b"<s:Body><s:Fault><faultcode>s:Server</faultcode><faultstring>out of order</faultstring></s:Fault></s:Body>",
)

TYPED_FAULT = EMPTY_BODY.replace(
    b"<s:Body/>",
    b"<s:Body><s:Fault><faultcode>s:Client.RunNotFound</faultcode><faultstring>no</faultstring><detail>"
    b'<RunNotFound xmlns="urn:mice:cdb:2">%s</RunNotFound></detail></s:Fault></s:Body>',
)


def http(body: bytes, status: str = "200 OK", content_type: str = "text/xml", *headers: str) -> bytes:
    """An HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


BOMB = http(gzip.compress(bytes(2**26)), "200 OK", "text/xml", "Content-Encoding: gzip")


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that does as told with each connection once the request has come."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                received = b""
                while b"</" not in received or b":Envelope>" not in received[-40:]:
                    part = connection.recv(65536)
                    if not part:
                        break
                    received += part
                with contextlib.suppress(OSError):
                    behave(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(15)


def test_a_good_answer_is_taken() -> None:
    """The stand-in is understood: what follows fails for what it changes."""
    with server(lambda connection: connection.sendall(http(GOOD))) as url:
        assert cdb.Calibration(url).get_calibration_for_id(1).data == DATA


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", cdb.ServerUnreachable),
        (b"SSH-2.0-OpenSSH_9.2\r\n", cdb.ServerUnreachable),
        (http(b"<html><body>Welcome</body></html>", content_type="text/html"), cdb.ServerUnreachable),
        (http(b"", "302 Found", "text/xml", "Location: http://127.0.0.1:1/"), cdb.ServerUnreachable),
        (http(b"<h1>not here</h1>", "404 Not Found", "text/html"), cdb.ServerUnreachable),
        (http(b"busy", "503 Service Unavailable", "text/plain"), cdb.Unavailable),
        (http(b"bad gateway", "502 Bad Gateway", "text/html"), cdb.Unavailable),
        (http(b""), cdb.ServerUnreachable),
        (http(b"<"), cdb.ServerUnreachable),
        (http(EMPTY_BODY), cdb.ServerUnreachable),
        (http(FOREIGN), cdb.ServerUnreachable),
        (http(FOREIGN, "500 Internal Server Error"), cdb.ServerUnreachable),
        (http(FOREIGN_FAULT, "500 Internal Server Error"), cdb.Unavailable),
        (http(GOOD)[:-20], cdb.ServerUnreachable),
        (http(gzip.compress(GOOD), "200 OK", "text/xml", "Content-Encoding: gzip"), cdb.ServerUnreachable),
        pytest.param(BOMB, cdb.ServerUnreachable, id="gzip bomb"),
        pytest.param(http(EMPTY_BODY.replace(b"<s:Body/>", b"x" * 12_000_000)), cdb.ServerUnreachable, id="12 MB"),
        (http(GOOD.replace(b"<size>37", b"<size>36")), cdb.Integrity),
        (http(GOOD.replace(b"VE9G", b"VE9H")), cdb.Integrity),
        (http(GOOD.replace(b"VE9G", b"")), cdb.Integrity),
        (http(GOOD.replace(b"<id>1</id>", b"<id>2</id>")), cdb.ServerUnreachable),
        (http(GOOD.replace(b"</s:Body>", b"<x/></s:Body>")), cdb.ServerUnreachable),
        (http(TYPED_FAULT % b"<run_number>x</run_number>", "500 Internal Server Error"), cdb.ServerUnreachable),
        (http(TYPED_FAULT % b"<self>1</self><args>2</args>", "500 Internal Server Error"), cdb.RunNotFound),
        (http(TYPED_FAULT % b"", "500 Internal Server Error"), cdb.RunNotFound),
        (http(GOOD.replace(b"<withdrawn>false</withdrawn>", b"")), cdb.ServerUnreachable),
        (http(GOOD.replace(b"2016-03-01T00", b"2016-13-01T00")), cdb.ServerUnreachable),
        (http(GOOD.replace(CREATED, b"<created>0001-01-01T00:00:00+14:00")), cdb.ServerUnreachable),
        (http(GOOD.replace(CREATED, b"<created>9999-12-31T23:59:59-14:00")), cdb.ServerUnreachable),
        (http(GOOD.replace(b"<size>37", b"<size>9223372036854775808")), cdb.ServerUnreachable),
        (http(b"<!DOCTYPE x [<!ENTITY e 'TOF1'>]>" + GOOD.replace(b"TOF1", b"&e;")), cdb.ServerUnreachable),
    ],
)
def test_what_is_not_an_answer_is_a_typed_error(response: bytes, error: type[cdb.CdbError]) -> None:
    """Never wrong, short or empty data."""
    with server(lambda connection: connection.sendall(response)) as url, pytest.raises(error):
        cdb.Calibration(url, timeout=5, direct=True).get_calibration_for_id(1)


@pytest.mark.parametrize(
    ("true", "said"),
    [
        (b">1.5<", b">NaN<"),
        (b">1.5<", b">INF<"),
        (b">1.5<", b">1e999<"),
        (b"<serial>1<", b"<serial>9223372036854775808<"),
        (b"<lag_entries>0<", b"<lag_entries>-9223372036854775809<"),
        (b"2016-03-01T00:00:00Z", b"0001-01-01T00:00:00+14:00"),
        (b"2016-03-01T00:00:00Z", b"9999-12-31T23:59:59-14:00"),
        (b"<version>1<", b"<version>" + b"1" * 100_000 + b"<"),
    ],
)
def test_a_status_that_cannot_be_is_a_typed_error(true: bytes, said: bytes) -> None:
    """Numbers and times that the contract does not admit, and more than a status ever says."""
    with server(lambda connection: connection.sendall(http(STATUS))) as url:
        assert cdb.Calibration(url, timeout=5, direct=True).get_status().lag_seconds == 1.5
    lie = http(STATUS.replace(true, said))
    with server(lambda connection: connection.sendall(lie)) as url, pytest.raises(cdb.ServerUnreachable):
        cdb.Calibration(url, timeout=5, direct=True).get_status()


def test_a_payload_is_read_no_further_than_its_size() -> None:
    """Where the caller knows it: what is longer cannot be the payload."""
    sent = []

    def send(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 999999999\r\n\r\n")
        for _ in range(1_000):
            connection.sendall(b" " * 2**18)
            sent.append(2**18)

    with server(send) as url, pytest.raises(cdb.ServerUnreachable):
        cdb.Calibration(url, timeout=10, direct=True).get_payload("0" * 64, 2)
    assert sum(sent) < 2**25


def test_an_answer_cut_at_any_byte_is_never_taken() -> None:
    """Cut off with and without its length announced."""
    for whole in (http(GOOD), b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n" + GOOD):
        lengths = iter(range(0, len(whole), 7))
        # The server cuts each connection a little later than the one before, and ends with its turn of the loop.
        with server(lambda connection: connection.sendall(whole[: next(lengths)])) as url:  # noqa: B023  # called within the loop
            client = cdb.Calibration(url, timeout=5, direct=True)
            for _ in range(0, len(whole), 7):
                with pytest.raises(cdb.ServerUnreachable):
                    client.get_calibration_for_id(1)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", http(GOOD)[:300]])
def test_a_silent_server_is_given_up_at_the_deadline(sent: bytes) -> None:
    """Whenever it falls silent."""
    released = threading.Event()

    def fall_silent(connection: socket.socket) -> None:
        connection.sendall(sent)
        released.wait(10)

    with server(fall_silent) as url:
        before = time.monotonic()
        with pytest.raises(cdb.ServerUnreachable):
            cdb.Calibration(url, timeout=1).get_calibration_for_id(1)
        took = time.monotonic() - before
        released.set()
    assert took < 3


def test_a_trickling_server_is_given_up_at_the_deadline() -> None:
    """A byte of the body now and then does not renew the time."""

    def trickle(connection: socket.socket) -> None:
        headers, _, body = http(GOOD).partition(b"\r\n\r\n")
        connection.sendall(headers + b"\r\n\r\n")
        for byte in body:
            connection.sendall(bytes([byte]))
            # The pace is what is tested: nothing to wait for.
            time.sleep(0.05)

    with server(trickle) as url:
        before = time.monotonic()
        with pytest.raises(cdb.ServerUnreachable):
            cdb.Calibration(url, timeout=1).get_calibration_for_id(1)
        assert time.monotonic() - before < 3


def test_the_next_server_answers_for_a_silent_one() -> None:
    """A server that hangs leaves the next one its share of the time."""
    released = threading.Event()
    with (
        server(lambda connection: released.wait(10)) as silent,
        server(lambda connection: connection.sendall(http(GOOD))) as good,
    ):
        assert cdb.Calibration([silent, good], timeout=2).get_calibration_for_id(1).data == DATA
        released.set()


def test_the_next_server_answers_for_a_bad_one() -> None:
    """A foreign answer counts as no answer."""
    with (
        server(lambda connection: connection.sendall(http(FOREIGN))) as bad,
        server(lambda connection: connection.sendall(http(GOOD))) as good,
    ):
        assert cdb.Calibration([bad, good]).get_calibration_for_id(1).data == DATA
