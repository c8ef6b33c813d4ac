"""Varnish and Squid before a real server, as docs/varnish.vcl and docs/squid.conf have them."""

import hashlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import requests
import suds.client

import cdb
from cdb_server.instants import format_instant
from tests import servers
from tests.fuzz import wire
from tests.interop.test_nginx import free_port
from tests.server.test_write_access import ADD_RUN
from tests.servers import Master

DOCS = Path(__file__).parents[2] / "docs"
LARGE = random.Random(1).randbytes(3 * 2**20)


@dataclass(frozen=True)
class Cache:
    """A running cache."""

    kind: str
    url: str

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=10)


def varnish(master: Master, folder: Path, port: int) -> Sequence[str]:
    """What starts Varnish, of which all is made ready."""
    text = (DOCS / "varnish.vcl").read_text().replace('"8080"', f'"{master.url.rpartition(":")[2]}"')
    (folder / "varnish.vcl").write_text(text)
    command = ("/usr/sbin/varnishd", "-F", "-j", "none", "-n", f"{folder}/varnish", "-f", f"{folder}/varnish.vcl")
    return (*command, "-a", f"127.0.0.1:{port}")


def squid(master: Master, folder: Path, port: int) -> Sequence[str]:
    """What starts Squid, of which all is made ready."""
    text = (DOCS / "squid.conf").read_text().replace("parent 8080", f"parent {master.url.rpartition(':')[2]}")
    text = text.replace("http_port 3128", f"http_port 127.0.0.1:{port}").replace("/var/spool/squid", f"{folder}/spool")
    lines = ("pid_filename none", "access_log none", f"cache_log {folder}/squid.log", f"coredump_dir {folder}")
    own = ("visible_hostname here", "shutdown_lifetime 1 seconds", "pinger_enable off", "icp_port 0")
    command = ("/usr/sbin/squid", "-N", "-f", f"{folder}/squid.conf")
    (folder / "squid.conf").write_text("\n".join((text, *lines, *own, "")))
    shutil.chown(folder, "proxy")
    subprocess.run([*command, "-z"], check=True, capture_output=True, timeout=60)
    return command


KINDS = {"varnish": varnish, "squid": squid}


@contextmanager
def cache(kind: str, master: Master) -> Iterator[Cache]:
    """A cache before a master, with the configuration of the guide."""
    # Not below pytest's own folder: the caches run as users of their own, who are locked out there.
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        command = KINDS[kind](master, folder, port)
        log = folder / "output.log"
        with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
            try:

                def listens() -> bool:
                    assert process.poll() is None, log.read_text()
                    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                        return True
                    return False

                servers.until(listens, 30)
                yield Cache(kind, f"http://127.0.0.1:{port}")
            finally:
                process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master to which 127.0.0.1 and 127.0.0.9 may write, and which trusts no proxy."""
    folder = tmp_path_factory.mktemp("master")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--workers", "1") as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def ours(request: pytest.FixtureRequest, master: Master) -> Iterator[Cache]:
    """Each cache before that master."""
    with cache(request.param, master) as running:
        yield running


def writer(cache: Cache, master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(cache.url, user=master.user, token=master.token)


def came_from_the_cache(answer: requests.Response) -> bool:
    """By what both say: Squid in X-Cache, Varnish by two numbers of requests in X-Varnish."""
    said = answer.headers.get("X-Cache", "")
    return said.startswith("HIT") or len(answer.headers.get("X-Varnish", "").split()) == 2


def complete(master: Master, stored: cdb.CalibrationRecord) -> str:
    """The instant after a calibration was stored, once it can be asked as of it."""
    as_of = stored.created + timedelta(microseconds=1)
    servers.until(lambda: cdb.Calibration(master.url).get_status().complete_until >= as_of, 20)
    return format_instant(as_of)


def test_a_payload_comes_from_the_cache(ours: Cache, master: Master) -> None:
    """The second time, whole and in parts, the small as the large; whoever has it is told so."""
    for data in (b"small", LARGE):
        writer(ours, master).add_calibration("PAYLOAD", "t0", "2016-03-01", data)
        path = f"/cdb/v2/payload/{hashlib.sha256(data).hexdigest()}"
        first, second = ours.get(path), ours.get(path)
        assert first.content == second.content == data
        assert not came_from_the_cache(first) or first.headers.get("Age") != "0"
        assert came_from_the_cache(second)
        part = ours.get(path, Range="bytes=1-3")
        assert (part.status_code, part.content, came_from_the_cache(part)) == (206, data[1:4], True)
        known = ours.get(path, **{"If-None-Match": first.headers["ETag"]})
        assert (known.status_code, known.content, came_from_the_cache(known)) == (304, b"", True)
        head = requests.head(ours.url + path, timeout=10)
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))


def test_an_answer_with_as_of_comes_from_the_cache(ours: Cache, master: Master) -> None:
    """The second time; and it stays what it was when something is stored."""
    stored = writer(ours, master).add_calibration("FIXED", "t0", "2016-03-01", b"1")
    path = f"/cdb/v2/calibration/FIXED/t0?as_of={complete(master, stored)}"
    first = ours.get(path)
    writer(ours, master).add_calibration("FIXED", "t0", "2016-03-01", b"2")
    second = ours.get(path)
    assert (first.content, second.content, came_from_the_cache(second)) == (b"1", b"1", True)
    assert second.headers["CDB-Id"] == str(stored.id)
    assert second.headers["CDB-Serial"] == first.headers["CDB-Serial"]


def test_what_may_change_is_never_stale(ours: Cache, master: Master) -> None:
    """After each acknowledged upload and withdrawal, the next question through the cache gets what is so now."""
    client, name = writer(ours, master), f"CHANGING {ours.kind}"
    path = f"/cdb/v2/calibration/{name}/t0"
    ours.get(path)
    for turn in range(20):
        stored = client.add_calibration(name, "t0", "2016-03-01", b"%d" % turn)
        answer = ours.get(path)
        assert (answer.content, answer.headers["CDB-Id"]) == (b"%d" % turn, str(stored.id))
        # Whoever asks with what it had.
        known = ours.get(path, **{"If-None-Match": answer.headers["ETag"]})
        # Squid may send it again.
        assert (known.status_code, known.content) in ((304, b""), (200, answer.content))
        assert ours.get(path, **{"If-None-Match": '"another"'}).content == answer.content
        # The same bytes again: another calibration, of which the headers tell.
        again = client.add_calibration(name, "t0", "2016-03-01T00:00:01", b"%d" % turn)
        answer = ours.get(path, **{"If-None-Match": answer.headers["ETag"]})
        assert (answer.status_code, answer.headers["CDB-Id"]) == (200, str(again.id))
        serial = cdb.Calibration(master.url).get_status().serial
        assert ours.get(path).headers["CDB-Serial"] == str(serial)
        client.withdraw_calibration(again.id, reason="a mistake")
        answer = ours.get(path)
        assert answer.headers["CDB-Id"] == str(stored.id)
        assert "CDB-Valid-Until" not in answer.headers


def test_an_error_is_never_kept(ours: Cache, master: Master) -> None:
    """What was not there, or not reached, is there as soon as it is."""
    client = writer(ours, master)
    data = f"new through {ours.url}".encode()
    name = hashlib.sha256(data).hexdigest()[:10]
    paths = [f"/cdb/v2/calibration/N{name}/t0", f"/cdb/v2/payload/{hashlib.sha256(data).hexdigest()}"]
    for path in paths:
        assert [ours.get(path).status_code for _ in range(2)] == [404, 404]
    stored = client.add_calibration(f"N{name}", "t0", "2016-03-01", data)
    assert [ours.get(path).content for path in paths] == [data, data]
    as_of = format_instant(stored.created + timedelta(microseconds=1))
    run = int(name[:8], 16) + 1
    later = f"{paths[0]}?run={run}&as_of={as_of}"
    assert ours.get(later).status_code == 503
    complete(master, stored)
    assert ours.get(later).status_code == 404
    client.add_run(run, "2016-03-02")
    assert ours.get(later).content == data
    # Corrected, the run applies to another time; what was answered as of then stands.
    client.add_run(run, "2015-03-02")
    assert (ours.get(later).content, came_from_the_cache(ours.get(later))) == (data, True)


def test_soap_passes_through(ours: Cache, master: Master) -> None:
    """Reading and writing, by zeep and by suds, 3 MiB and all; each answer is new."""
    client = writer(ours, master)
    name = f"SOAP{ours.url.rpartition(':')[2]}"
    with pytest.raises(cdb.CalibrationNotFound):
        client.get_current_calibration(name, "t0")
    for data in (b"1", LARGE):
        client.add_calibration(name, "t0", "2016-03-01", data)
        assert client.get_current_calibration(name, "t0").data == data
    other = suds.client.Client(f"{ours.url}{wire.READING}?wsdl", cache=None, location=f"{ours.url}{wire.READING}")
    assert other.service.get_history(name, "t0")[1].size == len(LARGE)
    wrong = cdb.CalibrationSuperMouse(ours.url, user=master.user, token="wrong")
    with pytest.raises(cdb.NotAuthorised, match="HTTP 401"):
        wrong.add_calibration(name, "t0", "2016-03-01", LARGE)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_answered_from_the_cache_that_must_be_asked_for(kind: str, tmp_path: Path) -> None:
    """When the server is away, no old answer stands in for it; what never changes is still given."""
    database = f"sqlite:///{tmp_path}/cdb.sqlite"
    with servers.master(database, tmp_path, "--workers", "1") as master, cache(kind, master) as before:
        stored = writer(before, master).add_calibration("AWAY", "t0", "2016-03-01", b"1")
        current = "/cdb/v2/calibration/AWAY/t0"
        fixed = [f"/cdb/v2/payload/{stored.sha256}", f"{current}?as_of={complete(master, stored)}"]
        for path in (current, *fixed):
            assert before.get(path).content == b"1"
        master.process.send_signal(signal.SIGTERM)
        master.process.wait(20)
        assert before.get(current).status_code in (502, 503, 504)
        assert [before.get(path).content for path in fixed] == [b"1", b"1"]


@pytest.mark.parametrize("kind", KINDS)
def test_who_writes_through_a_cache_is_judged(kind: str, tmp_path: Path) -> None:
    """Not trusted, the cache itself is judged, whoever asked it; trusted, whoever asked it, whatever that claims."""
    for trusted, refused in (((), "127.0.0.1"), (("--trusted-proxies", "127.0.0.1/32"), "127.0.0.5")):
        options = ("--workers", "1", "--write-networks", "127.0.0.9/32", *trusted)
        folder = tmp_path / str(len(trusted))
        folder.mkdir()
        with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *options) as master, cache(kind, master) as ours:

            def ask(source: str, path: str, cache: Cache = ours, master: Master = master, /, **headers: str) -> int:
                request = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\n"
                token = wire.basic(master.user, master.token)
                request += f"Authorization: {token}\r\nContent-Length: {len(ADD_RUN)}\r\n"
                request += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
                address = ("127.0.0.1", int(cache.url.rpartition(":")[2]))
                with socket.create_connection(address, 10, (source, 0)) as peer:
                    peer.sendall(f"{request}\r\n".encode() + ADD_RUN)
                    return int(peer.recv(100).split()[1])

            for claimed in ({}, {"X_Forwarded_For": "127.0.0.9"}):
                assert ask("127.0.0.5", wire.WRITING, **claimed) == 403
            assert f"refused to write: {refused} is outside" in master.log.read_text()
            assert ask("127.0.0.9", wire.WRITING) == (200 if trusted else 403)
            # Anybody may read: this is no question of the reading service, and it says so.
            assert ask("127.0.0.5", wire.READING) == 500
