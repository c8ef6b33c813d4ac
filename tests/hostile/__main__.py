"""`python -m tests.hostile`: spoil an answer of 64 kB at every byte, and see that no call is wrong, short or late.

And ask what is written oddly, and see that no answer depends on what was asked before.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

import cdb
from tests import servers
from tests.client.damaging_proxy import Fault, Kind
from tests.hostile import damage_sweep, template_equivalence
from tests.hostile.damage_sweep import Outcome, Recorded
from tests.hostile.request_families import REQUESTS

PAYLOAD = 48_000
# Requests by which who was asked much and who was asked nothing are compared.
IN_PROCESS = 1_000_000
# One in so many is sent over HTTP too. Some come behind one whose answer ends the connection.
PART_OVER_HTTP = 9


@click.command()
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, help="How many ask at the same time.")
@click.option(
    "--requests", default=IN_PROCESS, show_default=True, help="How many odd requests; a ninth as many over HTTP."
)
@click.option("--step", default=1, show_default=True, help="Spoil every so manyth byte of the body.")
def main(processes: int, requests: int, step: int) -> None:
    """Print what came of every fault; exit status 1 when any call was wrong or late."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    # Nothing that was kept shall stand in for what is spoiled.
    os.environ["CDB_CACHE"] = os.devnull
    recorded = _recorded()
    head, size = recorded.head, len(recorded.answer)
    everywhere = [*range(head), *range(head, size, step)]
    some = sorted({*range(0, head, 10), *range(head, size, 1500), size - 1})
    bits = [Fault("flip", at, 1 << bit) for at in range(head) for bit in range(8)]
    plan: list[tuple[str, list[Fault], int, bool]] = [
        ("cut", _at("cut", everywhere), 1, False),
        ("reset", _at("reset", everywhere[::10]), 1, False),
        ("flipped", [Fault("flip", at, 1 << (at * 7 + 3) % 8) for at in everywhere], 1, False),
        ("flipped, each bit of the head", bits, 1, True),
        ("flipped, three times", _at("flip", everywhere[::50]), 3, True),
        ("stalled", _at("stall", some), 1, True),
        ("stalled for ever", _at("stall", some[::3]), 1000, True),
        ("trickled", _at("trickle", some[::3]), 1000, True),
    ]
    table = Table("", "calls", "came", "longest", "seconds")
    findings: list[str] = []
    with (
        ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool,
        Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as progress,
    ):
        for name, faults, times, waits in plan:
            task = progress.add_task(name, total=len(faults))
            began = time.monotonic()
            outcome = Outcome()
            for done, count in _results(pool, recorded, faults, times, waits):
                outcome.add(done)
                progress.advance(task, count)
            came = ", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items()))
            table.add_row(name, str(len(faults)), came, f"{outcome.longest:.2f} s", f"{time.monotonic() - began:.0f}")
            findings += [f"{name}: {finding}" for finding in outcome.findings]
            # What is spoiled for a while only must come right in the end.
            if name not in ("stalled for ever", "trickled") and set(outcome.counts) != {"right"}:
                findings.append(f"{name}: {came}")
    console.print(f"an answer of {size} bytes, {head} of them headers; each call may take {damage_sweep.SECONDS:g} s")
    console.print(table)
    findings += _templates(console, processes, requests)
    for finding in findings[:50]:
        console.print(finding, markup=False)
    sys.exit(1 if findings else 0)


def _templates(console: Console, processes: int, total: int) -> list[str]:
    """Compare answers of who was asked much with those of who was asked nothing; what differs."""
    table = Table("", "requests", "of them", "seconds")
    findings: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        database_url = f"sqlite:///{folder}/cdb.sqlite"
        template_equivalence.fill(database_url)
        with (
            ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool,
            template_equivalence.both(database_url, Path(folder)) as urls,
        ):
            plan: tuple[tuple[str, Callable[..., template_equivalence.Compared], int, int], ...] = (
                ("in process", template_equivalence.in_process, total, 10_000),
                ("over HTTP", partial(template_equivalence.over_http, urls), total // PART_OVER_HTTP, 1_000),
            )
            for name, compare, requests, part in plan:
                began = time.monotonic()
                outcome = template_equivalence.Compared()
                families = requests // REQUESTS
                parts = [range(first, min(first + part, families)) for first in range(0, families, part)]
                for compared in pool.map(compare, [1] * len(parts), parts):
                    outcome.add(compared)
                came = ", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items()))
                table.add_row(name, str(requests), came, f"{time.monotonic() - began:.0f}")
                findings += [f"{name}: {finding}" for finding in outcome.findings]
    console.print("warmed against asked nothing:", f"{len(findings)} differences")
    console.print(table)
    return findings


def _results(
    pool: Executor, recorded: Recorded, faults: list[Fault], times: int, waits: bool
) -> Iterator[tuple[Outcome, int]]:
    parts = damage_sweep.shares(faults, 32 if waits else 500)
    work: Callable[..., Outcome] = damage_sweep.waiting if waits else damage_sweep.spoiled
    futures = {pool.submit(work, recorded, part, times): len(part) for part in parts}
    for future in as_completed(futures):
        yield future.result(), futures[future]


def _at(kind: Kind, places: list[int]) -> list[Fault]:
    return [Fault(kind, at) for at in places]


def _recorded() -> Recorded:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/cdb.sqlite"
        with servers.master(url, Path(folder)) as master:
            writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
            stored = writer.add_calibration("TOF1", "t0", "2016-03-01", os.urandom(PAYLOAD), comment="to be spoiled")
            return damage_sweep.record(master.url, stored.id)


if __name__ == "__main__":
    main()
