"""A token is shown to nobody, and travels in clear only where the user says so."""

import base64
import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest

import cdb
from tests.client.cdb_process import shell
from tests.client.damaging_proxy import faulty
from tests.client.test_invalid_responses import http
from tests.servers import Master

TOKEN = "c3cr3t-0f~alice_and+nobody/else="
USER = "alice"
BASIC = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
FAULT = "500 Internal Server Error"
# Whatever of it is shown, one of these is in it.
PARTS = (TOKEN, BASIC, BASIC.rstrip("="), quote(TOKEN, safe=""), TOKEN[:20], BASIC[:20])


def soap(content: str) -> bytes:
    return (
        f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{content}</s:Body></s:Envelope>'
    ).encode()


def fault(message: str, kind: str = "Client.InvalidArgument", fields: str = "") -> bytes:
    name = kind.rpartition(".")[2]
    detail = f'<detail><{name} xmlns="urn:mice:cdb:2"><message>{message}</message>{fields}</{name}></detail>'
    return http(
        soap(f"<s:Fault><faultcode>s:{kind}</faultcode><faultstring>{message}</faultstring>{detail}</s:Fault>"), FAULT
    )


def stored(comment: str) -> bytes:
    return http(
        soap(
            '<withdraw_calibrationResponse xmlns="urn:mice:cdb:2"><calibration><id>1</id>'
            "<device_name>TOF1</device_name><calibration_type>t0</calibration_type><valid_from>2016-03-01T00:00:00.000000Z</valid_from>"
            f"<created>2016-03-01T00:00:00.000000Z</created><author>{comment}</author><comment>{comment}</comment>"
            f"<withdrawn>true</withdrawn><withdrawn_at>2016-03-01T00:00:00.000000Z</withdrawn_at>"
            f"<withdrawn_reason>{comment}</withdrawn_reason>"
            f"<size>3</size><sha256>{'0' * 64}</sha256></calibration></withdraw_calibrationResponse>"
        )
    )


def untyped(message: str) -> bytes:
    return http(soap(f"<s:Fault><faultcode>s:Server</faultcode><faultstring>{message}</faultstring></s:Fault>"), FAULT)


def plainly(status: str) -> Callable[[str], bytes]:
    return lambda said: http(f"you sent {said}\n".encode(), status, "text/plain")


SAID: dict[str, Callable[[str], bytes]] = {
    "a typed fault": fault,
    "a field of a fault": lambda said: fault("no", fields=f"<argument>{said}</argument>"),
    "a fault about another question": lambda said: fault("no", "Client.CalibrationNotFound", f"<id>{said}</id>"),
    "a fault of an as_of": lambda said: fault(
        "no", "Client.AsOfNotReached", f"<complete_until>{said}</complete_until>"
    ),
    "a temporary fault": lambda said: fault(said, "Server.Unavailable"),
    "a fault without a detail": untyped,
    "a mirror": lambda said: http(f"this is a mirror: {said}".encode(), "404 Not Found", "text/plain"),
    "an answer": stored,
    "a header": lambda said: http(b"busy", "503 Service Unavailable", "text/plain", f"X-Echo: {said}"),
    "a damaged head": lambda said: f"HTTP/1.1 {said}\r\n{said}\r\n\r\n".encode(),
    "a status": lambda said: http(b"", f"503 {said}", "text/plain"),
    "a type": lambda said: http(b"", "200 OK", f"text/{said}"),
    "after a long line": lambda said: http(b"x" * 280 + said.encode(), "503 Busy", "text/plain"),
    **{status: plainly(status) for status in ("400 No", "401 No", "403 No", "413 No", "429 No", "503 No", "302 No")},
}
SPELLED: dict[str, Callable[[str], str]] = {
    "as sent": lambda header: header,
    "the token": lambda _: TOKEN,
    "decoded": lambda _: f"{USER}:{TOKEN}",
    "as references": lambda header: "".join(f"&#{ord(character)};" for character in header),
    "in an address": lambda header: quote(header, safe=""),
}


Repeating = Callable[[Callable[[str], bytes], Callable[[str], str]], str]


@pytest.fixture
def repeating() -> Iterator[Repeating]:
    """A maker of servers that repeat the Authorization header."""
    with ExitStack() as stack:

        def start(say: Callable[[str], bytes], spell: Callable[[str], str]) -> str:
            def behave(request: bytes) -> bytes:
                lines = request.partition(b"\r\n\r\n")[0].decode().splitlines()
                (header,) = [line[len("Authorization: ") :] for line in lines if line.startswith("Authorization")]
                return say(spell(header))

            return stack.enter_context(faulty(behave)).url

        yield start


def assert_hidden(*texts: str) -> None:
    for text in texts:
        assert not [part for part in PARTS if part in text], text


@pytest.mark.parametrize("said", SAID)
def test_a_server_that_repeats_the_token_gets_it_shown_nowhere(
    said: str,
    repeating: Repeating,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In whatever spelling and place: not in the error, its fields, its traceback, the log or the answer."""
    caplog.set_level(logging.DEBUG)
    for spelled, spell in SPELLED.items():
        if spelled == "as references" and SAID[said] not in (fault, stored, untyped):
            continue
        url = repeating(SAID[said], spell)
        writer = cdb.CalibrationSuperMouse(url, user=USER, token=TOKEN, timeout=0.3)
        try:
            assert_hidden(repr(writer.withdraw_calibration(1, "wrong")))
        except cdb.CdbError as error:
            assert_hidden(str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error)))
            assert_hidden("".join(traceback.format_exception(error)))
    assert_hidden(*(record.getMessage() for record in caplog.records))


@pytest.mark.parametrize("said", ["a typed fault", "a fault without a detail", "an answer", "401 No", "503 No"])
def test_the_shell_prints_no_token(said: str, repeating: Repeating, shared_master: Master) -> None:
    """Neither the answer nor an error nor what is waited for."""
    url = repeating(SAID[said], SPELLED["as sent"])
    arguments = ("withdraw", "1", "--reason", "wrong", "--timeout", "0.5", "--json")
    done = shell(shared_master, *arguments, CDB_SERVER=url, CDB_USER=USER, CDB_TOKEN=TOKEN)
    assert done.stdout + done.stderr
    assert b"***" in done.stdout + done.stderr
    assert_hidden(done.stdout.decode(), done.stderr.decode())


def test_what_holds_a_token_does_not_show_it() -> None:
    """As tools print the variables of a traceback."""
    writer = cdb.CalibrationSuperMouse("http://127.0.0.1:1", user=USER, token=TOKEN, timeout=0.2)
    with pytest.raises(cdb.ServerUnreachable):
        writer.withdraw_calibration(1, "wrong")
    held = [vars(writer), *map(vars, writer._services.values())]
    held += [vars(service._http) for service in writer._services.values()]
    assert_hidden(repr(writer), str(writer), *map(repr, held))


@pytest.mark.parametrize(
    "address",
    ["https//alice:secret@cdb.example", "alice:secret@cdb.example", "http://alice:secret@[::1", "http://a:secret@"],
)
def test_an_address_with_a_password_is_refused_without_it(address: str) -> None:
    """Wherever it is given."""
    for use in (cdb.Calibration, cdb.CalibrationSuperMouse, cdb.Calibration().set_url):
        with pytest.raises(cdb.InvalidArgument) as caught:
            use(f"{address}?x" if use not in (cdb.Calibration, cdb.CalibrationSuperMouse) else address)
        assert "secret" not in str(caught.value)


class Listening:
    """A server that closes each connection, and keeps what came on it."""

    def __init__(self, host: str) -> None:
        self._listening = socket.create_server((host, 0))
        self.url = f"http://{host}:{self._listening.getsockname()[1]}"
        self.received = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self.received += connection.recv(65536)


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    """A server in clear, at a name that is not this machine's, as far as a client can tell."""
    listening = Listening("127.0.0.1")
    resolve = socket.getaddrinfo

    def resolved(host: str, *given: object, **named: object) -> object:
        return resolve("127.0.0.1" if host == "cdb.example" else host, *given, **named)  # type: ignore[arg-type]  # as it is

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    listening.url = listening.url.replace("127.0.0.1", "cdb.example")
    yield listening
    listening.close()


CLOSED = "https://127.0.0.1:1"


@pytest.mark.parametrize("order", [1, -1])
def test_no_token_goes_in_clear_beside_a_server_over_tls(clear: Listening, order: int) -> None:
    """Whichever is named first, and whatever becomes of the other: the error says so, and what to do."""
    writer = cdb.CalibrationSuperMouse([CLOSED, clear.url][::order], user=USER, token=TOKEN, timeout=1)
    with pytest.raises(cdb.ServerUnreachable, match=f"{clear.url}: not asked to write.*in clear"):
        writer.add_run(1, "2016-03-01")
    assert clear.received == b""
    # Reading sends nothing secret.
    with pytest.raises(cdb.CdbError):
        writer.get_run(1)
    assert b"get_run" in clear.received
    assert b"uthorization" not in clear.received


@pytest.mark.parametrize("beside", [[], ["http://127.0.0.1:1"]])
def test_who_names_servers_in_clear_alone_sends_them_the_token(clear: Listening, beside: list[str]) -> None:
    """That is how the user says so."""
    writer = cdb.CalibrationSuperMouse([*beside, clear.url], user=USER, token=TOKEN, timeout=1)
    with pytest.raises(cdb.ServerUnreachable):
        writer.add_run(1, "2016-03-01")
    assert BASIC.encode() in clear.received


@pytest.mark.parametrize("named", ["127.0.0.1", "localhost"])
def test_this_machine_is_sent_the_token_beside_a_server_over_tls(named: str) -> None:
    """What goes there goes over no line."""
    listening = Listening("127.0.0.1")
    url = listening.url.replace("127.0.0.1", named)
    writer = cdb.CalibrationSuperMouse([CLOSED, url], user=USER, token=TOKEN, timeout=1)
    with pytest.raises(cdb.ServerUnreachable):
        writer.add_run(1, "2016-03-01")
    listening.close()
    assert BASIC.encode() in listening.received
