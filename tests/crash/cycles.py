"""The whole server killed and started again, many times on one database, while clients write."""

import contextlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from tests import servers
from tests.crash.invariants import Findings, Ledger, whole
from tests.crash.killable_postgresql import Cluster, cluster
from tests.crash.traffic import Acknowledged, Traffic

CLIENTS = 4
# Cycles after which everything is looked at again, not only what is new.
EVERY = 100
# Seconds: what a start takes at most, and for how long there is load before a kill.
START = 0.9
LOAD = 0.3


@dataclass(frozen=True)
class Plan:
    """What is to be run: `lanes` names the databases, one backend each, on which the cycles run side by side."""

    cycles: int
    lanes: tuple[str, ...]
    seed: int = 1


@dataclass
class Report:
    """What came of it."""

    cycles: int = 0
    acknowledged: int = 0
    in_doubt: int = 0
    findings: Findings = field(default_factory=Findings)
    # How many kills of which kind there were, and refusals of which name.
    kills: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    # Milliseconds, all cycles together, by what they were spent on.
    milliseconds: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Report") -> None:
        """Take in the report of a cycle or a lane."""
        self.cycles += other.cycles
        self.acknowledged += other.acknowledged
        self.in_doubt += other.in_doubt
        self.kills += other.kills
        self.refused += other.refused
        self.milliseconds += other.milliseconds
        self.findings.add(other.findings)

    def __str__(self) -> str:
        found = self.findings
        return (
            f"cycles {self.cycles:,}, acknowledged {self.acknowledged:,}, in doubt at a kill {self.in_doubt:,}, "
            f"lost {len(found.lost)}, partial {len(found.partial)}, gaps {len(found.gaps)}, other {len(found.other)}"
        )


def run(plan: Plan, tell: Callable[[Report], None] = lambda _: None) -> Report:
    """Run a plan. `tell` is called after each cycle with the report so far. A lane ends at its first finding."""
    report, lock = Report(), threading.Lock()

    def told(cycle: Report) -> None:
        with lock:
            report.add(cycle)
            tell(report)

    def lane(number: int) -> None:
        share = range(number, plan.cycles, len(plan.lanes))
        with _lane(plan.lanes[number], f"{plan.seed} {number}") as running:
            for cycle in share:
                done = running.cycle(cycle)
                told(done)
                if done.findings or report.findings:
                    return
            told(running.end())

    with ThreadPoolExecutor(len(plan.lanes)) as pool:
        for future in [pool.submit(lane, number) for number in range(len(plan.lanes))]:
            future.result()
    return report


@contextlib.contextmanager
def _lane(backend: str, seed: str) -> Iterator["_Lane"]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        postgresql = stack.enter_context(cluster()) if backend == "postgresql" else None
        yield _Lane(postgresql.url if postgresql else f"sqlite:///{folder}/cdb.sqlite", folder, seed, postgresql)


class _Lane:
    """One database, its server that is killed and its clients."""

    def __init__(self, url: str, folder: Path, seed: str, postgresql: Cluster | None) -> None:
        Database.create(url)
        with Database.open(url) as database:
            token = Tokens(database).add(servers.USER)
        self._url = url
        self._folder = folder
        self._seed = seed
        self._postgresql = postgresql
        self._traffic = Traffic(seed, CLIENTS, (servers.USER, token))
        self._ledger = Ledger(url)
        self._acknowledged: list[Acknowledged] = []

    def cycle(self, number: int) -> Report:
        """Start, load, kill; and look at what the cycle before has left, before the start or during it."""
        chance = random.Random(f"{self._seed} {number}")
        report = Report(cycles=1)
        timer = _Timer(report.milliseconds)
        check_first = chance.random() < 0.3
        early, moment = chance.random() < 0.2, chance.random()
        if check_first:
            self._check(report)
            timer.lap("checking")
        process = servers.spawn(servers.command("serve", self._url), self._folder / "server.log")
        if early:
            # Nobody waits for the check here: the server is killed while it starts, at whatever point that is.
            killer = threading.Timer(moment * START, servers.kill, (process,))
            killer.start()
            if not check_first:
                self._check(report)
            killer.join()
            report.kills["during start"] += 1
            timer.lap("killed during start")
            return report
        if not check_first:
            self._check(report)
            timer.lap("checking during start")
        answered, over, threads = threading.Event(), threading.Event(), list[threading.Thread]()
        try:
            url = servers.announced(process)
            if url is None:
                report.findings.other.append(f"no start: {(self._folder / 'server.log').read_text()[-2000:]}")
                return report
            timer.lap("start to listening")
            threads = self._traffic.run(url, number, answered, over)
            if not answered.wait(30):
                log = (self._folder / "server.log").read_text()
                report.findings.other.append(f"{self._url}: no write was acknowledged within 30 s: {log[-3000:]}")
            timer.lap("to the first acknowledgement")
            # A moment by chance is what is tried: there is nothing to wait for.
            time.sleep(moment * LOAD)
            if self._postgresql is not None and chance.random() < 0.1:
                self._kill_both(process, self._postgresql, chance, answered, report)
            else:
                report.kills["under load"] += 1
        finally:
            servers.kill(process)
            over.set()
            for thread in threads:
                thread.join()
        report.in_doubt += len(self._traffic.in_doubt)
        timer.lap("load and kill")
        if number // EVERY != (number + 2) // EVERY:
            self._check(report)
            self._check_whole(report)
            timer.lap("checking everything")
        return report

    def end(self) -> Report:
        """Look at everything."""
        report = Report()
        timer = _Timer(report.milliseconds)
        self._check(report)
        self._check_whole(report)
        log = (self._folder / "server.log").read_text()
        # A worker that starts while PostgreSQL is away ends in one, and is started again.
        if self._postgresql is None and "Traceback" in log:
            report.findings.other.append(f"logged: {log[log.index('Traceback') :][:5000]}")
        report.refused += self._traffic.refused
        timer.lap("checking everything")
        return report

    def _kill_both(
        self,
        server: "subprocess.Popen[bytes]",
        postgresql: Cluster,
        chance: random.Random,
        answered: threading.Event,
        report: Report,
    ) -> None:
        """Kill PostgreSQL under the server, and the server before that, after it, or after it has found back."""
        postmaster = chance.random() < 0.5
        how = "postmaster killed" if postmaster else "stopped at once"
        order = chance.choice(("before", "after", "recovered"))
        if order == "before":
            servers.kill(server)
        postgresql.kill(postmaster=postmaster)
        if order == "after":
            # By chance, as above.
            time.sleep(chance.random() * LOAD)
            servers.kill(server)
        postgresql.start()
        if order == "recovered":
            # The clients go on asking: the server must find its database again by itself.
            answered.clear()
            if not answered.wait(30):
                report.findings.other.append("PostgreSQL is back, and the server does not write")
        report.kills[f"PostgreSQL {how}, server {order}"] += 1

    def _check(self, report: Report) -> None:
        acknowledged, since = self._traffic.taken(), self._ledger.serial
        self._acknowledged += acknowledged
        report.acknowledged += len(acknowledged)
        self._ledger.advance(report.findings)
        self._ledger.check(acknowledged, self._traffic.sent, report.findings, since)
        unexpected, self._traffic.unexpected = self._traffic.unexpected, []
        report.findings.other += unexpected

    def _check_whole(self, report: Report) -> None:
        ledger, findings = whole(self._url, self._acknowledged, self._traffic.sent)
        report.findings.add(findings)
        verify = [sys.executable, "-m", "cdb_server", "verify", "--database", self._url]
        said = subprocess.run(verify, capture_output=True, text=True)
        if said.returncode:
            report.findings.other.append(f"verify: {said.stdout}{said.stderr}")
        if any(ledger.entries.get(serial) != entry for serial, entry in self._ledger.entries.items()):
            report.findings.lost.append("what was there in an earlier cycle is there no longer")


class _Timer:
    """Where the time goes."""

    def __init__(self, milliseconds: Counter[str]) -> None:
        self._milliseconds = milliseconds
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Count what has passed since the last lap."""
        now = time.monotonic()
        self._milliseconds[name] += round((now - self._last) * 1000)
        self._last = now
