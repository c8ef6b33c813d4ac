"""Hundreds of long questions, each like no other, whose askers leave or stay: everybody else is answered as before."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import requests

from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from tests import servers
from tests.benchmarks.dataset import AUTHOR, BEGIN, END, Stock
from tests.benchmarks.loading import load
from tests.fuzz import wire
from tests.in_process_server import envelope
from tests.servers import Master

# Whether those who asked close their connections, end only their own side of them, or wait.
Leave = Literal["closed", "half-closed", "waiting"]
LEAVE: tuple[Leave, ...] = ("closed", "half-closed", "waiting")


@contextmanager
def large_master(url: str, folder: Path, rows: int, *options: str) -> Iterator[Master]:
    """A running master, on which a question about all times answers so many rows."""
    load(url, Stock(rows, 10, payloads=100, runs=100))
    with Database.open(url) as database:
        token = Tokens(database).add(servers.USER)
    with servers.serving(url, folder, token, *options) as running:
        yield running


def long_question(number: int) -> bytes:
    """A request for everything that was ever in force, unlike those of other numbers by a space more."""
    start, stop = (instant.isoformat() for instant in (BEGIN, END - timedelta(days=1)))
    body = envelope("get_ids", f"<start_time>{start}</start_time><stop_time>{stop}</stop_time>")
    return wire.request(wire.READING, body + b" " * number)


@contextmanager
def asked(url: str, count: int, leave: Leave) -> Iterator[None]:
    """So many long questions, whose askers `leave`; those who did not are there until the block ends."""
    peers = [wire.Peer(url) for _ in range(count)]
    try:
        for number, peer in enumerate(peers):
            peer.socket.sendall(long_question(number))
            if leave == "closed":
                peer.socket.close()
            elif leave == "half-closed":
                peer.socket.shutdown(socket.SHUT_WR)
        yield
    finally:
        for peer in peers:
            peer.socket.close()


@dataclass
class Waits:
    """How long each kind of others waited at most, in seconds, and what was wrong with their answers."""

    longest: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def others(master: Master, seconds: float) -> Waits:
    """Ask what everybody else asks, each on a connection of its own, for so long."""
    found = Waits()
    number = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        for kind, ask in _kinds(master, number).items():
            began = time.monotonic()
            try:
                reply = ask()
                if reply.status_code != 200:
                    found.wrong.append(f"{kind}: {reply.status_code} {reply.text[:100]}")
            except requests.RequestException as error:
                found.wrong.append(f"{kind}: {error!r}")
            found.longest[kind] = max(found.longest.get(kind, 0.0), time.monotonic() - began)
    return found


def _kinds(master: Master, number: int) -> dict[str, Callable[[], requests.Response]]:
    """By kind, a question that nobody asked before."""
    url, patience = master.url, 30
    date = (BEGIN + timedelta(days=365, seconds=number)).isoformat()
    key = "<device_name>DEVICE1</device_name><calibration_type>t0</calibration_type>"

    def soap(path: str, operation: str, arguments: str) -> requests.Response:
        return requests.post(
            f"{url}{path}",
            envelope(operation, arguments),
            headers={"Content-Type": "text/xml"},
            auth=(master.user, master.token),
            timeout=patience,
        )

    def get(path: str) -> requests.Response:
        return requests.get(f"{url}{path}", timeout=patience)

    data = f"<valid_from>{date}</valid_from><data>eA==</data>"
    return {
        "look-up": lambda: soap(wire.READING, "get_calibration_for_date", f"{key}<date>{date}</date>"),
        "plain GET": lambda: get(f"/cdb/v2/calibration/DEVICE1/t0?date={date.replace('+00:00', 'Z')}"),
        "page": lambda: get("/"),
        "metrics": lambda: get("/metrics"),
        "status": lambda: soap(wire.READING, "get_status", ""),
        "write": lambda: soap(wire.WRITING, "add_calibration", key.replace("DEVICE1", AUTHOR.upper()) + data),
    }
