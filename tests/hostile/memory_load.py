"""Hundreds of peers that ask for large answers and read nothing: what a worker grows to, and how others are served.

`python -m tests.hostile.memory_load` asks for each kind of answer, and for all kinds at once, by 300 peers on a server
with the default settings; it fails where a worker grows beyond 400 MB, or somebody else is not served.
"""

import hashlib
import random
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import click

from cdb_server.database.transactions import Database
from cdb_server.repository.writer import Upload, Writer
from tests import servers
from tests.fuzz import wire
from tests.server.test_bad_input import element, envelope
from tests.servers import Master

PEERS = 300
SECONDS = 20.0
# Bytes that a worker may have.
MOST = 400 * 10**6
# Seconds in which others are answered, a large answer apart, which may wait for memory; machines are busy.
SERVED = 5.0
LARGEST = 30_000_000
# Rows of the longest list, each with a long comment.
ROWS = 7_000
COMMENT = "why " * 900
_BEGINNING = datetime(2016, 3, 1, tzinfo=timezone.utc)


@dataclass
class Stock:
    """What a server has that large answers are made of."""

    payloads: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, database_url: str, payloads: int, size: int, rows: int) -> "Stock":
        """Store so many payloads of a size, and a history of so many rows of one device."""
        stock = cls()
        with Database.open(database_url) as database:
            writer = Writer(database)
            for number in range(payloads):
                data = random.Random(number).randbytes(size)
                stock.payloads.append(hashlib.sha256(data).hexdigest())
                _store(writer, f"LARGE{number}", _BEGINNING, data, size)
            _store(writer, "SMALL", _BEGINNING, b"small", size)
            for number in range(rows):
                _store(writer, "LONG", _BEGINNING + timedelta(seconds=number), b"", size, COMMENT)
        return stock

    def requests(self, kind: str, at: int) -> bytes:
        """The request of one peer; no two are equal."""
        sha256 = self.payloads[at % len(self.payloads)]
        device = f"LARGE{at % len(self.payloads)}"
        headers = [("X-Number", str(at))]
        key = element("device_name", device) + element("calibration_type", "t0")
        body = {
            "SOAP": element("get_current_calibration", key),
            "list": element("get_history", element("device_name", "LONG") + element("calibration_type", "t0")),
        }
        path = {
            "GET": f"/cdb/v2/payload/{sha256}",
            "range": f"/cdb/v2/payload/{sha256}",
            "page": f"/calibrations/{1 + at % len(self.payloads)}?n={at}",
            "archive": "/applies.zip?date=2016-03-02",
        }
        if kind in UNFINISHED:
            head = wire.request(UNFINISHED[kind], b"", headers=[("Content-Length", str(2**20))])
            return head + b" " * (2**20 - 1)
        if kind == "range":
            headers.append(("Range", f"bytes={at}-"))
        if kind in body:
            # Different by spaces, so that none is answered for another.
            return wire.request(wire.READING, envelope(body[kind]) + b" " * at, headers=headers)
        return wire.request(path[kind], method="GET", headers=headers)


# What is asked meanwhile.
_OTHERS = {
    "GET": wire.request("/cdb/v2/calibration/SMALL/t0", method="GET"),
    "page": wire.request("/journal", method="GET"),
    "metrics": wire.request("/metrics", method="GET"),
    "look-up": wire.request(wire.READING, envelope(element("get_status", ""))),
}
# Requests that lack their last byte, by kind, with the addresses that they go to.
UNFINISHED = {"question": wire.READING, "upload": "/cdb/calibrationSuperMouse"}
KINDS = ("GET", "range", "SOAP", "list", "page", "archive", *UNFINISHED)


def _store(
    writer: Writer, device: str, valid_from: datetime, data: bytes, size: int, comment: str | None = None
) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    writer.add_calibration(
        Upload.validated(device, "t0", valid_from, data, sha256, comment, max_payload=size + 1), "alice"
    )


@dataclass
class Seen:
    """What was seen while peers read nothing: the most that a worker had, and the longest that others waited."""

    most: int = 0
    longest: float = 0.0
    unserved: list[str] = field(default_factory=list)


def besiege(master: Master, stock: Stock, kinds: Sequence[str], peers: int, seconds: float) -> Seen:
    """Have so many peers ask for large answers and read nothing, and be served beside them for so long."""
    seen = Seen()
    with _unread(master.url, (stock.requests(kinds[at % len(kinds)], at) for at in range(peers))):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, request in _OTHERS.items():
                began = time.monotonic()
                try:
                    with wire.Peer(master.url) as peer:
                        reply = peer.ask(request)
                    if reply.status != 200:
                        seen.unserved.append(f"{name}: {reply.status}")
                except (OSError, wire.Broken) as error:
                    seen.unserved.append(f"{name}: {error!r}")
                seen.longest = max(seen.longest, time.monotonic() - began)
            seen.most = max(seen.most, *map(memory_of, master.workers() | master.background()))
            # So often it is looked at: there is no event to wait for.
            time.sleep(0.1)
    return seen


def memory_of(process: int) -> int:
    """The bytes that a process has, in memory or swapped."""
    status = Path(f"/proc/{process}/status").read_text()
    return sum(int(found) for found in re.findall(r"Vm(?:RSS|Swap):\s+(\d+) kB", status)) * 1024


@contextmanager
def _unread(url: str, asked: Iterator[bytes]) -> Iterator[None]:
    address = urlsplit(url)
    with ExitStack() as peers:
        for request in asked:
            peer = peers.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect((address.hostname, address.port))
            # Of a request that lacks its end, the server may not take more.
            peer.settimeout(1)
            with suppress(TimeoutError):
                peer.sendall(request)
        yield


@click.command()
@click.option("--peers", default=PEERS, show_default=True, help="How many read nothing.")
@click.option("--seconds", default=SECONDS, show_default=True, help="How long, of each kind.")
@click.option("--rows", default=ROWS, show_default=True, help="Calibrations in the longest list.")
def main(peers: int, seconds: float, rows: int) -> None:
    """Print what each worker grew to; exit status 1 when that was too much, or others were not served."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/cdb.sqlite"
        with servers.master(url, Path(folder)) as master:
            stock = Stock.of(url, 8, LARGEST, rows)
            for kinds in (*((kind,) for kind in KINDS), KINDS):
                seen = besiege(master, stock, kinds, peers, seconds)
                bad = seen.most > MOST or seen.longest > SERVED or bool(seen.unserved)
                failed = failed or bad
                click.echo(
                    f"{'FAILED ' if bad else ''}{', '.join(kinds)}: {seen.most / 1e6:.0f} MB at most in a worker, "
                    f"others waited {seen.longest:.2f} s at most, {len(seen.unserved)} not served {seen.unserved[:3]}"
                )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
