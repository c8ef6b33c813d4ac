"""`python -m tests.benchmarks.farm [--processes N]`: many jobs begin together, with one empty cache and one server.

Counts, at the server's door, how often each operation was asked, and holds every answer against what was stored. Fails
where a job failed, or got other bytes. With --restart the server is killed while the first answers are under way, and
started again; with --not-pinned jobs ask without as_of.
"""

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

import cdb
from tests import servers
from tests.client.as_of import as_of_after
from tests.client.counting_proxy import CountingProxy

DEVICES, TYPES, SIZE, RUN = 5, 4, 100_000, 7662

JOB = """
import hashlib, random, sys, cdb
keys = [(f"DEVICE{{device}}", f"type{{number}}") for device in range({devices}) for number in range({types})]
random.shuffle(keys)
client = cdb.Calibration()
# All jobs begin when the pipe that they share is closed.
sys.stdin.read()
for device, kind in keys:
    print(device, kind, hashlib.sha256(client.get_calibration_for_run(device, kind, {run}).data).hexdigest())
"""


@dataclass(frozen=True)
class Outcome:
    """How a farm fared: jobs, those that failed, answers that were wrong, requests by operation, seconds.

    `sent` is how often each payload was sent, at most, by the bytes of all answers.
    """

    jobs: int
    failed: list[str]
    wrong: int
    asked: Counter[str]
    sent: float
    seconds: float


def store(master: servers.Master) -> tuple[set[str], str]:
    """Store what the jobs ask: the lines that each must print, and an as_of for them."""
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    last = writer.add_run(RUN, "2016-03-01 08:00:00").created
    lines = set()
    for device in range(DEVICES):
        for number in range(TYPES):
            data = hashlib.sha256(f"{device} {number}".encode()).hexdigest() * (SIZE // 64)
            stored = writer.add_calibration(f"DEVICE{device}", f"type{number}", "2016-01-01", data)
            lines.add(f"{stored.device_name} {stored.calibration_type} {stored.sha256}")
            last = stored.created
    return lines, as_of_after(writer, last)


def run(folder: Path, processes: int, *, restart: bool = False, pinned: bool = True) -> Outcome:
    """Start a master, store what the jobs ask, and let them all ask at once."""
    database = f"sqlite:///{folder}/cdb.sqlite"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--bind", f"127.0.0.1:{port}")
    with ExitStack() as running:
        master = running.enter_context(servers.master(database, folder, *address))
        expected, as_of = store(master)
        door = running.enter_context(CountingProxy(port))
        environment = {
            **os.environ,
            "CDB_SERVER": f"http://127.0.0.1:{door.port}",
            "CDB_CACHE": str(folder / "cache"),
            "CDB_AS_OF": as_of if pinned else "",
        }
        jobs, go = _begin(processes, environment)
        begun = time.monotonic()
        os.close(go)
        if restart:
            while door.asked.total() < 3:
                # Until the first answers are under way.
                time.sleep(0.001)
            servers.kill(master.process)
            running.enter_context(servers.serving(database, folder, master.token, *address))
        failed, wrong = [], 0
        for process in jobs:
            output, error = process.communicate()
            if process.returncode:
                failed.append(error.strip().splitlines()[-1])
            else:
                wrong += set(output.splitlines()) != expected
        sent = door.given / (DEVICES * TYPES * SIZE * 4 / 3)
        return Outcome(processes, failed, wrong, door.asked, sent, time.monotonic() - begun)


def _begin(processes: int, environment: Mapping[str, str]) -> tuple[list[subprocess.Popen[str]], int]:
    """The jobs, all waiting for the end of a pipe; and that end."""
    barrier, go = os.pipe()
    job = JOB.format(devices=DEVICES, types=TYPES, run=RUN)
    jobs = []
    with click.progressbar(range(processes), label="jobs that begin", file=sys.stderr) as bar:
        for _ in bar:
            jobs.append(
                subprocess.Popen(
                    [sys.executable, "-c", job],
                    env=environment,
                    stdin=barrier,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
    os.close(barrier)
    # Those that were started last get to the barrier, too.
    time.sleep(2)
    return jobs, go


@click.command()
@click.option("--processes", type=click.IntRange(1), default=1000, show_default=True, help="How many jobs.")
@click.option("--restart", is_flag=True, help="Kill the server in the middle, and start it again.")
@click.option("--not-pinned", is_flag=True, help="Ask without as_of.")
def main(processes: int, restart: bool, not_pinned: bool) -> None:
    """Many jobs at once, with one empty cache: each asks for 20 calibrations of 100 kB, in an order of its own."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), processes, restart=restart, pinned=not not_pinned)
    click.echo(
        f"jobs {outcome.jobs:,}, failed {len(outcome.failed)}, wrong {outcome.wrong}, "
        f"payloads {DEVICES * TYPES}, each sent {outcome.sent:.1f} times at most, {outcome.seconds:.0f} s"
    )
    for operation, times in sorted(outcome.asked.items()):
        click.echo(f"{operation:28} asked {times:,} times")
    for error, times in Counter(outcome.failed).most_common(5):
        click.echo(f"{times} jobs: {error}")
    sys.exit(bool(outcome.failed or outcome.wrong))


if __name__ == "__main__":
    main()
