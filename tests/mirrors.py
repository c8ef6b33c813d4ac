"""Real mirrors for tests: `cdb-server mirror` in processes of its own, and the way to its master."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cdb

# Seconds after which what should have happened will not.
PATIENCE = 30.0

Reached = TypeVar("Reached")


@dataclass(frozen=True)
class Mirror:
    """A running mirror: its base URL, its database, and where its log goes."""

    url: str
    database: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def client(self) -> cdb.Calibration:
        """A client of it alone."""
        return cdb.Calibration(self.url, retry=False)

    def status(self) -> cdb.Status:
        """What it says of itself."""
        return self.client.get_status()

    def workers(self) -> set[int]:
        """The processes that answer: begun by the first thread of the server."""
        return _spawned(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

    def follower(self) -> int:
        """The process that follows: begun by another thread, which keeps it running."""
        tasks = Path(f"/proc/{self.process.pid}/task")

        def found() -> int:
            others = [task for task in tasks.iterdir() if task.name != str(self.process.pid)]
            return max((number for task in others for number in _spawned(f"{task}/children")), default=0)

        return until(found)


@contextmanager
def mirror(
    of: str, database_url: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Mirror]:
    """Follow and serve until the block ends. `options` are flags of `cdb-server mirror`."""
    log = folder / "mirror.log"
    arguments = ["mirror", "--of", of, "--database", database_url, "--bind", "127.0.0.1:0", *options]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cdb_server", *arguments],
            stdout=subprocess.PIPE,
            stderr=out,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    assert process.stdout is not None
    announced = process.stdout.readline().decode().split()
    if not announced:
        raise RuntimeError(f"the mirror ended with status {process.wait()}: {log.read_text()}")
    try:
        yield Mirror(announced[-1], database_url, log, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(25)
        finally:
            kill(process)
            process.stdout.close()


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a server and all its processes at once, as a power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(reached: Callable[[], Reached], patience: float = PATIENCE) -> Reached:
    """Ask until the answer is true, and give it. A temporary error is none."""
    deadline = time.monotonic() + patience
    answer: object = None
    while time.monotonic() < deadline:
        with suppress(cdb.CdbTemporaryError, OSError):
            if answer := reached():
                return answer
        time.sleep(0.02)
    raise AssertionError(f"not reached within {patience:g} s; last was {answer!r}")


def _spawned(children: str) -> set[int]:
    """Of a list of processes those that run our code, and not Python's own."""
    found = set()
    for number in Path(children).read_text().split():
        # A child may end while it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
                found.add(int(number))
    return found
