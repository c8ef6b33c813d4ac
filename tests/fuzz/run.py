"""Many inputs, over processes: in process or over a socket, each judged, the failures kept for replay."""

import contextlib
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timezone
from multiprocessing import get_context
from pathlib import Path

from lxml import etree

from tests import servers
from tests.fuzz import judge, wire
from tests.fuzz.generate import PATHS, Input, generate
from tests.fuzz.judge import Failure, Outcome
from tests.fuzz.schema import NAMESPACE
from tests.fuzz.structure import SOAP

# Inputs to one database: so few that no list grows long, and no answer slow for that.
BATCH = 5_000
SLOWEST = 0.5
# Bytes by which a process may grow. Floods leave some behind in each thread, the first time; leaks go on growing.
GROWTH = 128 * 2**20
# Bytes of log for each input.
LOGGED = 1000
MAX_PAYLOAD = 2**20
MOST_FAILURES = 100
# Where databases are made: in memory where that can be, for speed.
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Plan:
    """What is to be run. Without `url` and not `in_process`, servers are started for it."""

    seed: int
    count: int | None = None
    seconds: float | None = None
    first: int = 0
    in_process: bool = False
    url: str | None = None
    credentials: tuple[str, str] | None = None
    processes: int = 2
    batch: int = BATCH
    save: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "cdb-fuzz")


@dataclass
class Report:
    """What came of it."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0
    # Bytes of each process after each batch, in order.
    memory: dict[int, list[int]] = field(default_factory=dict)

    def add(self, other: "Report") -> None:
        """Take in the report of a batch."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        for process, held in other.memory.items():
            self.memory.setdefault(process, []).extend(held)

    @property
    def growth(self) -> int:
        """By how many bytes a process has grown since it was warm, at most."""
        grown = [max(held[-2:]) - max(held[: len(held) // 4 + 1]) for held in self.memory.values() if len(held) >= 4]
        return max(grown, default=0)


def run(plan: Plan, tell: Callable[[Report], None] = lambda _: None) -> Report:
    """Run a plan. `tell` is called with the report so far, from time to time."""
    report = Report()
    start = time.monotonic()

    def over(first: int) -> bool:
        if len(report.failures) >= MOST_FAILURES:
            return True
        if plan.seconds is not None and time.monotonic() - start >= plan.seconds:
            return True
        return plan.count is not None and first >= plan.first + plan.count

    with _target(plan) as target, ProcessPoolExecutor(plan.processes, get_context("spawn")) as pool:
        first, waiting = plan.first, set[Future[Report]]()
        while waiting or not over(first):
            while len(waiting) < plan.processes and not over(first):
                size = plan.batch if plan.count is None else min(plan.batch, plan.first + plan.count - first)
                waiting.add(pool.submit(run_batch, plan, target, range(first, first + size)))
                first += size
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                report.add(future.result())
            if target is not None and target.process is not None:
                for child in _children(target.process):
                    report.memory.setdefault(child, []).append(_memory(child))
            report.seconds = time.monotonic() - start
            tell(report)
        if target is not None and target.log is not None:
            log = target.log.read_text()
            report.failures += [
                f"logged: {line}" for line in log.splitlines() if " ERROR " in line or "Traceback" in line
            ]
            if len(log) > LOGGED * report.inputs:
                report.failures.append(f"the log holds {len(log)} bytes")
    report.seconds = time.monotonic() - start
    if report.growth > GROWTH:
        report.failures.append(f"a process has grown by {report.growth >> 20} MiB")
    return report


@dataclass(frozen=True)
class Target:
    """A running server, and its process where it is ours."""

    url: str
    credentials: tuple[str, str] | None
    process: int | None
    log: Path | None


@contextlib.contextmanager
def _target(plan: Plan) -> Iterator[Target | None]:
    if plan.in_process:
        yield None
    elif plan.url is not None:
        yield Target(plan.url, plan.credentials, None, None)
    else:
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            limit = "--max-payload", str(MAX_PAYLOAD)
            with servers.master(f"sqlite:///{folder}/cdb.sqlite", Path(folder), *limit) as master:
                log = Path(folder) / "server.log"
                yield Target(master.url, (master.user, master.token), master.process.pid, log)


def run_batch(plan: Plan, target: Target | None, numbers: range) -> Report:
    """Run some inputs, in this process, against a database of their own or a running server."""
    report = Report()
    with _service(target) as service:
        for number in numbers:
            made = generate(plan.seed, number, http=target is not None)
            try:
                outcome, seconds = _timed(service, made)
            except Failure as failure:
                outcome, seconds = Outcome("FAILURE"), 0.0
                report.failures.append(_saved(plan, made, str(failure)))
                if len(report.failures) >= MOST_FAILURES:
                    break
            report.inputs += 1
            report.outcomes[outcome.name] += 1
            report.slowest = max(report.slowest, seconds)
    report.memory[os.getpid()] = [_memory(os.getpid())]
    return report


# From an input to its judged outcome and the seconds that the answer took.
Service = Callable[[Input], tuple[Outcome, float]]


def _timed(service: Service, made: Input) -> tuple[Outcome, float]:
    """A slow answer may be this machine's: the best of three counts."""
    outcome, seconds = service(made)
    for _ in range(2):
        if seconds > SLOWEST:
            seconds = min(seconds, service(made)[1])
    judge.require(seconds <= SLOWEST, f"an answer after {seconds:.2f} s")
    return outcome, seconds


@contextlib.contextmanager
def _service(target: Target | None) -> Iterator[Service]:
    with _in_process() if target is None else _over_a_socket(target) as service:
        yield service


class _Errors(logging.Handler):
    """Remembers what the server logs as an error: an exception that it has caught is one that it did not expect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Remember."""
        self.last = record


@contextlib.contextmanager
def _in_process() -> Iterator[Service]:
    from cdb_server.database.transactions import Database
    from cdb_server.http.protocol import request_rules
    from cdb_server.http.protocol.request_rules import HttpError
    from cdb_server.repository.reader import Reader
    from cdb_server.repository.writer import Writer
    from cdb_server.soap.endpoint import reading_endpoint, writing_endpoint

    errors = _Errors()
    log = logging.getLogger("cdb_server")
    log.addHandler(errors)
    log.propagate = False
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        url = f"sqlite:///{folder}/cdb.sqlite"
        Database.create(url)
        database = Database.open(url)
        endpoints = {
            "reading": reading_endpoint(Reader(database), None, Reader(database)),
            "writing": writing_endpoint(Writer(database), MAX_PAYLOAD),
        }

        def ask(question: str) -> etree._Element:
            answer = endpoints["reading"].answer(_envelope(question), "")
            body = b"".join(answer.parts)
            judge.require(not answer.fault, f"reading back: {body[:500]!r}")
            return etree.fromstring(body)[0][0]

        def service(made: Input) -> tuple[Outcome, float]:
            errors.last = None
            since, start = datetime.now(timezone.utc), time.perf_counter()
            try:
                request_rules.check_encoding(made.body)
                answer = endpoints[made.side].answer(made.body, made.action or "", "fuzz")
            except HttpError as refused:
                return judge.judge_refused(made, refused.status), 0.0
            except Exception as error:
                # Rule 14: what is no answer and no refusal is a finding, whatever it is.
                raise Failure(f"uncaught: {error!r}") from error
            seconds = time.perf_counter() - start
            outcome = judge.judge_soap(made, bool(answer.fault), b"".join(answer.parts), since, ask)
            judge.require(errors.last is None, f"logged: {errors.last and errors.last.getMessage()}")
            return outcome, seconds

        yield service
        database.close()
    log.removeHandler(errors)


@contextlib.contextmanager
def _over_a_socket(target: Target) -> Iterator[Service]:
    peer: wire.Peer | None = None

    def connected() -> wire.Peer:
        nonlocal peer
        if peer is None:
            peer = wire.Peer(target.url, patience=5)
        return peer

    def disconnect() -> None:
        nonlocal peer
        if peer is not None:
            peer.socket.close()
            peer = None

    def ask(question: str) -> etree._Element:
        with wire.Peer(target.url, patience=5) as other:
            reply = other.ask(wire.request(wire.READING, _envelope(question)))
        judge.require(reply.status == 200, f"reading back: {reply.body[:500]!r}")
        return etree.fromstring(reply.body)[0][0]

    def service(made: Input) -> tuple[Outcome, float]:
        request = made.around.request(target.credentials if made.side == "writing" else None)
        since = datetime.now(timezone.utc)
        try:
            connected().socket.sendall(request)
            if not made.around.whole:
                connected().socket.shutdown(1)
            reply = connected().reply(head=made.around.method == "HEAD")
        except (wire.Broken, OSError) as error:
            disconnect()
            judge.require(not made.around.whole, f"no answer: {error!r}")
            return Outcome("ended without an answer"), 0.0
        if made.http is not None or reply.closes:
            disconnect()
        return judge.judge_http(made, reply, since, ask), reply.seconds

    yield service
    disconnect()


def _envelope(question: str) -> bytes:
    return f'<s:Envelope xmlns:s="{SOAP}" xmlns:t="{NAMESPACE}"><s:Body>{question}</s:Body></s:Envelope>'.encode()


def _saved(plan: Plan, made: Input, failure: str) -> str:
    """Keep an input; the line that tells of it."""
    plan.save.mkdir(parents=True, exist_ok=True)
    kept = plan.save / f"{made.seed}-{made.number}.http"
    kept.write_bytes(made.around.request(("alice", "token") if made.side == "writing" else None))
    how = "" if not plan.in_process else " --in-process"
    return f"{failure} [{PATHS[made.side]}, {', '.join(made.mutations) or 'as it was'}; {made.name}{how}; {kept}]"


def _children(process: int) -> list[int]:
    """The worker processes of a server: those that have a thread pool."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children]


def _memory(process: int) -> int:
    """The bytes that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
