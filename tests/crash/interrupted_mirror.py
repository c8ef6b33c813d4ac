"""`python -m tests.crash.interrupted_mirror [--interruptions N]`: a mirror and its master interrupted at random.

A master takes writes, a mirror follows it over a way that can be cut. Again and again the mirror, the process that
follows, or the master is killed, the link goes down, or answers arrive in half. After each interruption the mirror
must come to have all that was acknowledged so far; what it answers meanwhile must never differ from what the
master said; at the end both journals are compared entry by entry and verified.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

import cdb
from cdb_server import maintenance
from cdb_server.database.transactions import Database
from cdb_server.model import Entry
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from tests import mirrors, servers, soap_proxy

KINDS = ("mirror killed", "follower killed", "worker killed", "master killed", "link down", "answers truncated")
# Entries that the mirror has to apply while it is interrupted.
BURST = 40


@dataclass
class Report:
    """What came of it."""

    interruptions: Counter[str] = field(default_factory=Counter)
    entries: int = 0
    answers: int = 0
    recoveries: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        slowest, middle = max(self.recoveries, default=0), sorted(self.recoveries)[len(self.recoveries) // 2]
        lines = [
            f"{self.interruptions.total()} interruptions: "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(self.interruptions.items())),
            f"{self.entries} entries mirrored, {self.answers} answers compared; caught up again after {middle:.1f} s "
            f"(median), {slowest:.1f} s at most",
            f"gaps, duplicates or wrong answers: {len(self.problems)}",
            *self.problems[:50],
        ]
        return "\n".join(lines)


class Trial:
    """A master and its mirror, on one database each, and the interruptions."""

    def __init__(self, master_url: str, mirror_url: str, folder: Path, seed: int, burst: int = BURST) -> None:
        self.report = Report()
        self._urls = master_url, mirror_url
        self._folder = folder
        self._burst = burst
        self._chance = random.Random(seed)
        self._data: dict[int, bytes] = {}
        Database.create(master_url)
        with Database.open(master_url) as database:
            self._token = Tokens(database).add(servers.USER)

    def run(self, interruptions: int) -> Report:
        """Interrupt so often, and compare."""
        with ExitStack() as master, ExitStack() as mirror:
            self._master, self._mirror = master, mirror
            self._proxy: soap_proxy.SoapProxy | None = None
            self._start_master()
            assert self._proxy is not None
            self._start_mirror()
            for number in range(interruptions):
                kind = KINDS[number % len(KINDS)] if number < len(KINDS) else self._chance.choice(KINDS)
                self.report.interruptions[kind] += 1
                self._write()
                # Interrupted at whatever point it then is.
                time.sleep(self._chance.uniform(0, 0.6))
                self._interrupt(kind)
                begun = time.monotonic()
                self._check()
                self.report.recoveries.append(time.monotonic() - begun)
                click.echo(f"\r{number + 1} of {interruptions}: {kind:20}", nl=False, err=True)
        click.echo(err=True)
        self._compare()
        return self.report

    def _start_master(self) -> None:
        self._running = self._master.enter_context(servers.serving(self._urls[0], self._folder, self._token))
        if self._proxy is None:
            self._proxy = self._master.enter_context(soap_proxy.soap_proxy(self._running.url))
        self._proxy.to = self._running.url

    def _start_mirror(self) -> None:
        assert self._proxy is not None
        self._copy = self._mirror.enter_context(mirrors.mirror(self._proxy.url, self._urls[1], self._folder))

    def _write(self) -> None:
        client = cdb.CalibrationSuperMouse(self._running.url, user=servers.USER, token=self._token, direct=True)
        for _ in range(self._burst):
            data = self._chance.randbytes(self._chance.choice([10, 1_000, 100_000]))
            id = client.add_calibration(f"DEVICE{self._chance.randrange(5)}", "t0", "2016-03-01", data).id
            self._data[id] = data
        client.add_run(self._chance.randrange(1, 1000), "2016-03-01")

    def _interrupt(self, kind: str) -> None:
        assert self._proxy is not None
        if kind == "mirror killed":
            servers.kill(self._copy.process)
            self._start_mirror()
        elif kind in ("follower killed", "worker killed"):
            victim = self._copy.follower() if kind == "follower killed" else min(self._copy.workers())
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        elif kind == "master killed":
            servers.kill(self._running.process)
            self._start_master()
        else:
            setattr(self._proxy, {"link down": "is_cut", "answers truncated": "truncates"}[kind], True)
            # So long it stays: there is nothing to wait for.
            time.sleep(self._chance.uniform(0.1, 1.5))
            self._proxy.is_cut = self._proxy.truncates = False

    def _check(self) -> None:
        """Ask the mirror until it has everything; whatever it answers before is right."""
        client = self._copy.client
        wanted = cdb.Calibration(self._running.url).get_status()
        ids = sorted(self._data)

        def caught_up() -> bool:
            id = self._chance.choice(ids)
            # Before it is asked: it may catch up between two questions.
            had = client.get_status().serial
            try:
                if client.get_calibration_for_id(id).data != self._data[id]:
                    self.report.problems.append(f"calibration {id} is answered with other bytes")
            except cdb.CalibrationNotFound:
                if had >= wanted.serial:
                    self.report.problems.append(f"calibration {id} is missing")
            self.report.answers += 1
            status = client.get_status()
            if status.serial == wanted.serial and status.digest != wanted.digest:
                self.report.problems.append(f"entry {wanted.serial} has another digest")
            return status.serial >= wanted.serial

        try:
            servers.until(caught_up, 120)
        except AssertionError as error:
            self.report.problems.append(f"not caught up: {error}; {self._copy.log.read_text()[-500:]}")

    def _compare(self) -> None:
        journals = []
        for url in self._urls:
            with Database.open(url) as database:
                reader = Reader(database)
                entries: list[tuple[Entry, str]] = []
                while found := reader.journal(len(entries), 1_000):
                    entries += found
                journals.append(entries)
                self.report.problems += [f"{url}: {problem}" for problem in maintenance.verify(database).problems]
        self.report.entries = len(journals[1])
        if journals[0] != journals[1]:
            self.report.problems.append(f"the journals differ: {len(journals[0])} and {len(journals[1])} entries")
        for number, (entry, _) in enumerate(journals[1], start=1):
            if entry.serial != number:
                self.report.problems.append(f"entry {entry.serial} stands where {number} should")


@click.command()
@click.option("--interruptions", type=click.IntRange(1), default=200, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(interruptions: int, seed: int) -> None:
    """Interrupt a mirror on SQLite and its master; exit status 1 when anything is wrong."""
    # Ended from outside, it ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        urls = f"sqlite:///{folder}/master.sqlite", f"sqlite:///{folder}/mirror.sqlite"
        report = Trial(*urls, Path(folder), seed).run(interruptions)
    click.echo(report)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
