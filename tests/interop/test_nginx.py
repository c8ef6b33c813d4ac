"""docs/nginx.conf in a real nginx before a real server: what passes, whom it names, and who is refused."""

import http.client
import random
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

import cdb
from cdb_server.http.serve import KEEP_ALIVE_SECONDS
from cdb_server.settings import Settings
from tests import certificates, servers
from tests.certificates import Certificates
from tests.fuzz import wire
from tests.server.test_serve import master_address
from tests.server.test_write_access import ADD_RUN
from tests.servers import Master

DOCS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCS / "nginx.conf").read_text()
EARLIER = (DOCS / "nginx-earlier.conf").read_text()
NAME = "cdb.example.org"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Nginx:
    """A running nginx: the URL of the service behind it, and what it logs."""

    url: str
    log: Path
    context: ssl.SSLContext

    def post(self, path: str, body: bytes, source: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
        """Ask from an address of this machine; the status and the body of the answer."""
        port = int(self.url.rpartition(":")[2])
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=60, source_address=(source, 0), context=self.context
        )
        try:
            # Whoever is refused while sending finds the answer there all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", path, body, {"Content-Type": "text/xml", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def nginx(master: Master, folder: Path, ours: Certificates, change: Callable[[str], str] = str) -> Iterator[Nginx]:
    """nginx with the configuration of the guide, before a master; `change` may write it otherwise."""
    port = free_port()
    text = CONFIGURATION.replace("127.0.0.1:8080", master.url.removeprefix("http://"))
    text = text.replace("listen [::]:443", f"listen 127.0.0.1:{free_port()}").replace(
        "listen 443", f"listen 127.0.0.1:{port}"
    )
    text = text.replace("/etc/cdb/tls/client-ca.pem", ours.ca).replace("/etc/cdb/tls", str(ours.folder))
    log = folder / "nginx.log"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {log} info;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{change(text)}\n}}\n"
    )
    with subprocess.Popen(["/usr/sbin/nginx", "-c", f"{folder}/nginx.conf", "-e", str(log)]) as process:
        try:
            listens = False
            while not listens:
                assert process.poll() is None, log.read_text()
                with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    listens = True
            yield Nginx(f"https://127.0.0.1:{port}", log, ours.context())
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate for nginx."""
    return certificates.make(tmp_path_factory.mktemp("certificates"), "127.0.0.1", NAME)


@pytest.fixture(autouse=True)
def believed(monkeypatch: pytest.MonkeyPatch, ours: Certificates) -> None:
    """The Python client believes the authority."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ours.ca)


@pytest.fixture(scope="module")
def settings() -> tuple[str, ...]:
    """The settings that the first lines of the configuration name, as flags."""
    found = re.findall(r"CDB_(PUBLIC_URL|TRUSTED_PROXIES)=(\S+[^.\s])", CONFIGURATION.partition("upstream")[0])
    assert len(found) == 2
    return tuple(text for name, value in found for text in (f"--{name.lower().replace('_', '-')}", value))


@pytest.fixture(scope="module")
def master(settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master to which only 127.0.0.1 may write, where it listens: it announces nginx."""
    folder = tmp_path_factory.mktemp("master")
    options = ("--write-networks", "127.0.0.1/32", *settings, "--workers", "1")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *options) as running:
        assert running.url == f"https://{NAME}"
        yield replace(running, url=master_address(running))


@pytest.fixture(scope="module")
def proxy(master: Master, ours: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx before that master, as the guide has it."""
    with nginx(master, tmp_path_factory.mktemp("nginx"), ours) as running:
        yield running


def writer(proxy: Nginx, master: Master, client_cert: str | None = None) -> cdb.CalibrationSuperMouse:
    """The Python client of one who may write."""
    return cdb.CalibrationSuperMouse(proxy.url, user=master.user, token=master.token, client_cert=client_cert)


def test_the_largest_payload_goes_through_and_back(proxy: Nginx, master: Master) -> None:
    """32 MiB, byte for byte."""
    data = random.Random(1).randbytes(32 * MEBIBYTE)
    stored = writer(proxy, master).add_calibration("NGINX", "large", "2016-03-01", data)
    assert cdb.Calibration(proxy.url).get_calibration_for_id(stored.id).data == data


def test_a_payload_a_little_too_large_is_told_so_by_the_server(proxy: Nginx, master: Master) -> None:
    """nginx lets through what the server itself would look at, and the fault is typed."""
    size = re.search(r"client_max_body_size (\d+)m;", CONFIGURATION)
    assert size
    assert int(size[1]) * MEBIBYTE > Settings("").max_body > (int(size[1]) - 1) * MEBIBYTE
    with pytest.raises(cdb.TooLarge) as refused:
        writer(proxy, master).add_calibration("NGINX", "large", "2016-03-01", bytes(33 * MEBIBYTE))
    assert refused.value.limit == 32 * MEBIBYTE


def test_nginx_without_a_size_refuses_larger_uploads(master: Master, ours: Certificates, tmp_path: Path) -> None:
    """The trap that the guide names: 413, by nginx."""
    without = re.compile(r"client_max_body_size .*;")
    with (
        nginx(master, tmp_path, ours, lambda text: without.sub("", text)) as proxy,
        pytest.raises(cdb.TooLarge, match="HTTP 413"),
    ):
        writer(proxy, master).add_calibration("NGINX", "large", "2016-03-01", bytes(2 * MEBIBYTE))


def test_the_published_address_is_the_configured_one(proxy: Nginx) -> None:
    """Whatever name nginx was asked under."""
    published = requests.get(f"{proxy.url}{wire.READING}?wsdl", headers={"Host": "evil.example"}, timeout=10)
    assert f'location="https://{NAME}{wire.READING}"' in published.text


@pytest.mark.parametrize("header", ["$remote_addr", "$proxy_add_x_forwarded_for"])
def test_whom_nginx_names_is_judged_and_logged(header: str, master: Master, ours: Certificates, tmp_path: Path) -> None:
    """A caller outside the networks gets 403, whatever it claims; one inside may write."""
    token = {"Authorization": wire.basic(master.user, master.token)}
    with nginx(master, tmp_path, ours, lambda text: text.replace("$remote_addr", header)) as proxy:
        assert proxy.post(wire.WRITING, ADD_RUN, **token)[0] == 200
        before = master.log.read_text()
        for claimed in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": ""}):
            assert proxy.post(wire.WRITING, ADD_RUN, "127.0.0.5", **token, **claimed)[0] == 403
        assert proxy.post(wire.READING, b"", "127.0.0.5")[0] != 403
    logged = master.log.read_text().removeprefix(before)
    assert logged.count("refused to write: 127.0.0.5 is outside the allowed networks, as user 'alice'") == 3


def test_without_trusted_proxies_everybody_is_taken_for_nginx(ours: Certificates, tmp_path: Path) -> None:
    """The trap that the guide names: with the default settings, a caller from anywhere writes as from 127.0.0.1."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, "--workers", "1") as master:
        token = {"Authorization": wire.basic(master.user, master.token)}
        with nginx(master, tmp_path, ours) as proxy:
            assert proxy.post(wire.WRITING, ADD_RUN, "127.0.0.5", **token)[0] == 200


def test_who_may_not_write_reads_why_with_a_large_upload(proxy: Nginx) -> None:
    """401 and its sentence, while or after 32 MiB are sent."""
    for _ in range(5):
        status, body = proxy.post(wire.WRITING, b" " * (32 * MEBIBYTE))
        assert (status, body.count(b"\n")) == (401, 1)


def test_connections_to_the_server_are_kept(proxy: Nginx, master: Master) -> None:
    """Many questions, few connections; and nginx gives an idle one up before the server does."""
    client = cdb.Calibration(proxy.url)
    for _ in range(50):
        assert client.get_status().status == "OK"
    port = f":{int(master.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Established, or waiting for stray packets after its end.
    assert 1 <= sum(row[2].endswith(port) and row[3] in ("01", "06") for row in rows) < 20
    idle = re.search(r"keepalive_timeout (\d+)s;", CONFIGURATION)
    assert idle
    assert int(idle[1]) < KEEP_ALIVE_SECONDS


def test_the_pages_pass_and_the_counts_do_not(proxy: Nginx, master: Master) -> None:
    """A person finds the overview, signs in and stores a file; Prometheus asks the server itself."""
    _walk(proxy.url, master)
    assert requests.get(f"{proxy.url}/metrics", timeout=10).status_code == 404
    assert requests.get(f"{master.url}/metrics", timeout=10).status_code == 200


def test_all_of_it_may_stand_below_a_path(ours: Certificates, tmp_path: Path) -> None:
    """As the guide says: two locations, one slash, and the public URL."""

    def below(text: str) -> str:
        for before, after in (("location / {", "/mice/ {"), ("location = /metrics", "= /mice/metrics")):
            assert before in text
            text = text.replace(before, f"location {after}")
        assert text.count("proxy_pass http://cdb;") == 1
        return text.replace("proxy_pass http://cdb;", "proxy_pass http://cdb/;")

    options = ("--public-url", f"https://{NAME}/mice", "--trusted-proxies", "127.0.0.1/32", "--workers", "1")
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, *options) as running:
        master = replace(running, url=master_address(running))
        with nginx(master, tmp_path, ours, below) as proxy:
            _walk(f"{proxy.url}/mice", master)
            assert requests.get(f"{proxy.url}/mice/metrics", timeout=10).status_code == 404
            published = requests.get(f"{proxy.url}/mice{wire.READING}?wsdl", timeout=10).text
            assert f'location="https://{NAME}/mice{wire.READING}"' in published
            client = cdb.Calibration(f"{proxy.url}/mice")
            assert client.get_current_calibration("PAGES", "t0").data == b"1 2\n"


def _walk(url: str, master: Master) -> None:
    """What a person does in a browser: each address comes from the page before."""
    browser = requests.Session()
    overview = browser.get(f"{url}/", timeout=10)
    assert "MICE calibrations" in overview.text
    for address in re.findall(r'(?:href|src)="([^"#]+)"', overview.text):
        assert browser.get(urljoin(f"{url}/", address), timeout=10).status_code == 200, address
    own = {"Origin": f"https://{NAME}", "Host": NAME, "Sec-Fetch-Site": "same-origin"}
    # As a browser keeps them that was told by https.
    signed = browser.post(
        f"{url}/sign-in",
        {"user": master.user, "token": master.token},
        headers=own,
        timeout=10,
        allow_redirects=False,
    )
    assert signed.status_code == 303
    cookie = {"Cookie": signed.headers["Set-Cookie"].partition(";")[0]}
    form = {"device_name": "PAGES", "calibration_type": "t0", "valid_from": "2016-03-01"}
    file = {"file": ("a.dat", b"1 2\n")}
    previewed = browser.post(f"{url}/upload", {**form, "step": "preview"}, files=file, headers=own | cookie, timeout=10)
    assert "Store it" in previewed.text
    kept = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', previewed.text))
    stored = browser.post(
        f"{url}/upload",
        files={**{name: (None, value) for name, value in kept.items()}, "step": (None, "store")},
        headers=own | cookie,
        timeout=10,
        allow_redirects=False,
    )
    assert stored.status_code == 303
    page = browser.get(urljoin(f"{url}/upload", stored.headers["Location"]), timeout=10)
    assert "In force now" in page.text


@contextmanager
def earlier_server() -> Iterator[str]:
    """A stand-in for the earlier server: it says what it was asked, under which name, and with what."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = f"earlier: {self.command} {self.path} at {self.headers['Host']} ".encode() + body
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_GET  # noqa: N815  # as the base class calls it

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_earlier_services_stay_where_they_were(master: Master, ours: Certificates, tmp_path: Path) -> None:
    """Behind one address: calibration and cabling are this server's, all else the earlier one's, as it was asked."""
    port = free_port()
    with earlier_server() as earlier:
        beside = EARLIER.replace("listen 80;", f"listen 127.0.0.1:{port};")
        beside = beside.replace("cdb-earlier.example.org:80", earlier)
        with nginx(master, tmp_path, ours, lambda text: f"{text}\n{beside}"):
            host = {"Host": NAME}
            for path in (
                "beamline",
                "geometry",
                "coolingchannel",
                "beamlineSuperMouse",
                "calibrations",
                "a/calibration",
            ):
                asked = requests.get(f"http://127.0.0.1:{port}/cdb/{path}?wsdl", headers=host, timeout=10)
                assert asked.text == f"earlier: GET /cdb/{path}?wsdl at {NAME} "
            called = requests.post(f"http://127.0.0.1:{port}/cdb/geometry", b"<call/>", headers=host, timeout=10)
            assert called.text == f"earlier: POST /cdb/geometry at {NAME} <call/>"
            for path in ("calibration", "calibrationSuperMouse", "cabling", "cablingSuperMouse"):
                asked = requests.get(f"http://127.0.0.1:{port}/cdb/{path}?wsdl", headers=host, timeout=10)
                assert f'location="https://{NAME}/cdb/{path}"' in asked.text
                called = requests.post(
                    f"http://127.0.0.1:{port}/cdb/{path}",
                    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><getStatus/></s:Body>'
                    b"</s:Envelope>",
                    headers={**host, "Content-Type": "text/xml"},
                    timeout=10,
                )
                assert "&lt;ok>OK" in called.text or "&lt;ok&gt;OK" in called.text
            assert cdb.Calibration(f"http://127.0.0.1:{port}").get_status().status == "OK"


def test_certificates_of_callers_can_be_asked_for(master: Master, ours: Certificates, tmp_path: Path) -> None:
    """With the two lines that are commented out; who shows none, or a foreign one, is told what to do."""

    def asking(text: str) -> str:
        changed, lines = re.subn(r"# (ssl_client_certificate|ssl_verify_client)", r"\1", text)
        assert lines == 2
        return changed

    with nginx(master, tmp_path, ours, asking) as proxy:
        assert writer(proxy, master, client_cert=ours.client).get_status().status == "OK"
        for shown in (None, certificates.make(tmp_path / "foreign").client):
            with pytest.raises(cdb.ServerUnreachable, match="CDB_CLIENT_CERT"):
                cdb.Calibration(proxy.url, client_cert=shown).get_status()
