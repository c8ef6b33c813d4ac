"""No byte of what a mirror is sent can be changed and applied: neither of the journal nor of a payload, nor of HTTP.

Rule 12: "The journal proves itself". Rule 13: "Bytes in are bytes out."
"""

import http.client
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import cdb
from cdb_server.database.transactions import Database
from cdb_server.errors import CdbError, Diverged
from cdb_server.instants import parse
from cdb_server.mirror import Follower
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests import servers
from tests.fuzz.schema import NAMESPACE
from tests.fuzz.structure import SOAP


class Deaf(MirrorWriter):
    """Following, but for what the master says of itself: that is no part of the journal, and takes the disk's time."""

    def record_contact(self, *_: object) -> None:
        """Nothing is noted."""


class Canned:
    """A server that gives one answer, to the byte, to each operation."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def serve(self) -> None:
        """Until the socket is closed."""
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection, suppress(OSError), connection.makefile("rb") as sent:
                headers = http.client.parse_headers(sent) if sent.readline() else None
                if headers is not None:
                    sent.read(int(headers["content-length"]))
                    connection.sendall(self.answers[headers["soapaction"].strip('"').rpartition("#")[2]])


@contextmanager
def canned() -> Iterator[Canned]:
    """Such a server, until the block ends."""
    server = Canned()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.listening.shutdown(socket.SHUT_RDWR)
    server.listening.close()
    thread.join()


def raw(url: str, operation: str, arguments: str) -> bytes:
    """The answer of a real server, with its HTTP; said to be the last on its connection."""
    body = f'<s:Envelope xmlns:s="{SOAP}"><s:Body><c:{operation} xmlns:c="{NAMESPACE}">{arguments}</c:{operation}>'
    server = urlsplit(url)
    connection = http.client.HTTPConnection(str(server.hostname), server.port, timeout=10)
    headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"{NAMESPACE}#{operation}"'}
    connection.request("POST", "/cdb/v2/calibration", f"{body}</s:Body></s:Envelope>", headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    assert response.status == 200
    lines = [f"{name}: {value}" for name, value in response.getheaders()]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "connection: close", "", ""]).encode() + answer


@pytest.mark.parametrize("operation", ["get_journal", "get_payload"])
def test_no_flipped_byte_is_applied(tmp_path: Path, operation: str) -> None:
    """At each position of the whole answer one bit by chance: an error, or exactly the entry that was sent."""
    urls = f"sqlite:///{tmp_path}/master.sqlite", f"sqlite:///{tmp_path}/mirror.sqlite"
    data = random.Random(1).randbytes(300)
    for url in urls:
        Database.create(url)
    with Database.open(urls[0]) as database:
        writer = Writer(database)
        writer.add_run(1, parse("2016-03-01T00:00:00Z"), None, "daq")
        comment = "after the March survey, with the second crate's cables as they were " * 10
        args = "TOF1", "t0", parse("2016-03-01T00:00:00Z"), data, None, comment.strip()
        sha256 = writer.add_calibration(Upload.validated(*args, max_payload=1_000), "alice").sha256
        expected = Reader(database).journal(0, 10)
    with servers.serving(urls[0], tmp_path, "") as master, canned() as server:
        asked = {
            "get_journal": "<c:after_serial>0</c:after_serial><c:limit>3</c:limit>",
            "get_payload": f"<c:sha256>{sha256}</c:sha256>",
        }
        right = {name: raw(master.url, name, arguments) for name, arguments in asked.items()}
        # No digest covers it, and to ask for it takes a third of the time.
        status = cdb.Calibration(master.url).get_status()
        url, copy = urls[1], tmp_path / "copy.sqlite"
        with Database.open(url) as database:
            MirrorWriter(database).start_following(server.url)
            MirrorWriter(database).append_entries([(*expected[0], None)])
        before = (tmp_path / "mirror.sqlite").read_bytes()
        chance = random.Random(2)
        harmless = []
        # Each beginning anew with an answer that is right: it must be applied, or the rest proves nothing.
        whole = right[operation]
        flips = [None, *range(len(whole))]
        opened: Database | None = None
        for position in flips:
            if opened is None:
                copy.write_bytes(before)
                opened = Database.open(f"sqlite:///{copy}")
                follower = Follower(server.url, Deaf(opened))
                follower._client.get_status = lambda: status  # type: ignore[method-assign]  # it is not asked
            altered = bytearray(whole)
            if position is not None:
                altered[position] ^= 1 << chance.randrange(8)
            server.answers = right | {operation: bytes(altered)}
            with suppress(cdb.CdbError, CdbError, Diverged):
                follower.catch_up(threading.Event())
            if MirrorWriter(opened).last_entry().serial != 1:
                assert Reader(opened).journal(0, 10) == expected, position
                assert Reader(opened).calibration_for_id(2).data == data
                harmless.append(position)
                opened.close()
                copy.unlink()
                opened = None
        if opened is not None:
            assert Reader(opened).journal(0, 10) == expected[:1]
            opened.close()
        assert harmless[0] is None
        # Letter case, other names of headers, white space; in the envelope hardly anything.
        beginning = whole.index(b"\r\n\r\n")
        assert len([position for position in harmless[1:] if position > beginning + 4]) < len(whole) / 20
