"""What the service is measured against: nginx with static files, spyne under gunicorn, and Varnish before either."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests import servers
from tests.benchmarks.dataset import Stock
from tests.benchmarks.load import Server
from tests.benchmarks.processes import Processes

NGINX = """
daemon off;
# As whoever starts it: its workers read files that are nobody else's.
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
worker_processes 2;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    # With it on, answers of 100 kB wait for up to 40 ms.
    tcp_nopush off;
    keepalive_requests 1000000000;
    default_type text/xml;
    add_header Cache-Control "public, max-age=31536000";
    {temporary}
    server {{ listen 127.0.0.1:{port} backlog=2048; root {folder}/files; }}
}}
"""
VARNISH = (Path(__file__).parents[2] / "docs" / "varnish.vcl").read_text()


@dataclass(frozen=True)
class Varnish(Server):
    """A running Varnish."""

    folder: Path

    def misses(self) -> int:
        """How many requests were not answered from the cache."""
        command = ("varnishstat", "-n", str(self.folder), "-1", "-j")
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["counters"]
        return int(told["MAIN.client_req"]["value"] - told["MAIN.cache_hit"]["value"])


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def nginx(stock: Stock, files: Iterable[tuple[str, bytes]]) -> Iterator[Server]:
    """nginx with two workers, serving these files by their names."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "files").mkdir()
        for file, content in files:
            (folder / "files" / file).write_bytes(content)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, temporary=temporary, user=user))
        command = ("/usr/sbin/nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log")
        with _running(command, stock, port, folder) as running:
            yield running


@contextmanager
def spyne(stock: Stock) -> Iterator[Server]:
    """The bare spyne application under gunicorn with two workers, with a payload as large as the stock's."""
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = (
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--worker-class", "gthread", "--threads", "16"),
            *("--keep-alive", "30", "--no-control-socket", "--backlog", "2048", "--bind", f"127.0.0.1:{port}"),
            "tests.benchmarks.bare_spyne:application",
        )
        with _running(command, stock, port, Path(name), {"CDB_BENCHMARK_SIZE": str(stock.size)}) as running:
            yield running


@contextmanager
def varnish(before: Server) -> Iterator[Varnish]:
    """Varnish with the configuration of the guide, before a server at this machine."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        # It runs as a user of its own.
        folder.chmod(0o755)
        (folder / "cdb.vcl").write_text(VARNISH.replace('"8080"', f'"{before.url.rpartition(":")[2]}"'))
        command = ("/usr/sbin/varnishd", "-F", "-j", "none", "-n", f"{folder}/varnish", "-f", f"{folder}/cdb.vcl")
        with _running((*command, "-a", f"127.0.0.1:{port}"), before.stock, port, folder) as running:
            yield Varnish(**vars(running), folder=folder / "varnish")


@contextmanager
def _running(
    command: Sequence[str], stock: Stock, port: int, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    log = folder / "output.log"
    process = servers.spawn(command, log, environment)
    try:

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with status {process.returncode}: {log.read_text()}")
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        servers.until(listens)
        processes = Processes(process.pid)
        processes.settle()
        yield Server(f"http://127.0.0.1:{port}", stock, processes)
    finally:
        servers.kill(process)
