"""Load on a server, by wrk: how many requests a second it answers, and how long each waits."""

import itertools
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cdb_server.instants import MICROSECOND, to_microseconds
from tests.benchmarks.dataset import Stock
from tests.benchmarks.processes import Processes

SCRIPT = Path(__file__).with_name("load.lua")
# Seconds. An answer that takes longer is a failure.
PATIENCE = 10

# Each load asks other questions by chance, but the same in every run.
_seeds = itertools.count(1)


class Failure(Exception):
    """What was asked was not answered, or not rightly: nothing is measured then."""


@dataclass(frozen=True)
class Question:
    """A request, or many of one kind: `{device}` and the other names of load.lua in path and body are filled in."""

    path: str
    body: str | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """A running server, ours or another: its base URL, what it was given to answer from, and its processes."""

    url: str
    stock: Stock
    processes: Processes


@dataclass(frozen=True)
class Load:
    """What came of it. Times are seconds; `processor` is the server's, user and system, for one request."""

    requests: int
    rate: float
    p50: float
    p99: float
    processor: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, p99 {self.p99 * 1e3:.3g} ms"


def ask(server: Server, question: Question, *, connections: int, seconds: int) -> Load:
    """Ask for some seconds, on so many connections at once. Raises Failure."""
    threads = min(2, connections)
    begin, end = server.stock.covered
    with tempfile.NamedTemporaryFile("w") as body:
        body.write(question.body or "")
        body.flush()
        command = [
            *("wrk", "--latency", "--threads", str(threads), "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{PATIENCE}s", "--script", str(SCRIPT), server.url, "--"),
            *(question.method, question.path, "-" if question.body is None else body.name, str(next(_seeds))),
            *(str(to_microseconds(begin)), str(to_microseconds(end)), str(server.stock.step // MICROSECOND)),
            str(server.stock.runs),
            str(server.stock.answers),
            *(f"{name}: {value}" for name, value in question.headers.items()),
        ]
        before = server.processes.processor()
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        used = server.processes.processor() - before
    if done.returncode:
        raise Failure(f"wrk: {done.stdout}{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    if told["refused"] or told["broken"] or not told["requests"]:
        raise Failure(
            f"of {told['requests']:,} requests to {server.url}{question.path}, {told['refused']:,} were refused, "
            f"{told['broken']:,} were not answered"
        )
    requests = told["requests"]
    return Load(requests, requests / told["seconds"], told["p50"], told["p99"], used / requests)


def ask_often(server: Server, question: Question, times: int, *, connections: int) -> None:
    """Ask so many times at least. Raises Failure."""
    while times > 0:
        times -= ask(server, question, connections=connections, seconds=1).requests
