"""Real servers for tests: `cdb-server serve` in processes of its own, on a free port; and how to wait for them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import cdb
from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens

USER = "alice"
# Seconds after which what should have happened will not.
PATIENCE = 30.0

Reached = TypeVar("Reached")


@dataclass(frozen=True)
class Server:
    """A running server: its base URL, its database, where its log goes, and its first process."""

    url: str
    database: str
    log: Path
    process: subprocess.Popen[bytes]

    def workers(self) -> set[int]:
        """The processes that answer: begun by the first thread of the server."""
        return {number for number in self._processes() if self._nice(number) == self._nice(self.process.pid)}

    def background(self) -> set[int]:
        """The processes that make lists and pages, at a lower priority."""
        return self._processes() - self.workers()

    def _processes(self) -> set[int]:
        return spawned(Path(f"/proc/{self.process.pid}/task/{self.process.pid}"))

    def _nice(self, process: int) -> int | None:
        try:
            return os.getpriority(os.PRIO_PROCESS, process)
        except ProcessLookupError:
            return None


@dataclass(frozen=True)
class Master(Server):
    """A running master, and a user who may write."""

    user: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """What the client's shell needs to know of it."""
        return {**os.environ, "CDB_SERVER": self.url, "CDB_USER": self.user, "CDB_TOKEN": self.token}


@contextmanager
def master(
    database_url: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Master]:
    """Make a database and serve it until the block ends. `options` are flags of `cdb-server serve`."""
    Database.create(database_url)
    with Database.open(database_url) as database:
        token = Tokens(database).add(USER)
    with serving(database_url, folder, token, *options, environment=environment) as running:
        yield running


def command(name: str, database_url: str, *options: str) -> tuple[str, ...]:
    """`cdb-server serve` or `mirror` at a free port."""
    program = (sys.executable, "-m", "cdb_server", name, "--database", database_url, "--bind", "127.0.0.1:0")
    return (*program, *options)


@contextmanager
def serving(
    database_url: str, folder: Path, token: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Master]:
    """Serve an existing database until the block ends."""
    serve = command("serve", database_url, *options)
    with running(serve, database_url, folder / "server.log", environment) as started:
        yield Master(**vars(started), user=USER, token=token)


@contextmanager
def running(
    command: Sequence[str], database_url: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a command that serves, and says so, until the block ends."""
    process = spawn(command, log, environment)
    try:
        url = announced(process)
        if url is None:
            raise RuntimeError(f"the server ended with status {process.wait()}: {log.read_text()}")
        yield Server(url, database_url, log, process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        # Longer than it lets questions under way take, and a mirror its following process.
        process.wait(25)
    finally:
        kill(process)


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server, as a process group of its own; it may not listen yet."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=out,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )


def announced(process: subprocess.Popen[bytes]) -> str | None:
    """The address that a server listens at, once it does; None when it ends before."""
    assert process.stdout is not None
    # What a server says once it listens ends in its address.
    words = process.stdout.readline().decode().split()
    return words[-1] if words else None


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a server and all its processes at once, without a word, as a power cut would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def spawned(thread: Path) -> set[int]:
    """The processes that a thread has begun to run our code, and not Python's own; `thread` is its folder in /proc."""
    found = set()
    for number in (thread / "children").read_text().split():
        # A child may end while it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"resource_tracker" not in Path(f"/proc/{number}/cmdline").read_bytes():
                found.add(int(number))
    return found


def until(reached: Callable[[], Reached | Literal[False] | None], patience: float = PATIENCE) -> Reached:
    """Ask until the answer is true, and give it. A temporary error is none."""
    deadline = time.monotonic() + patience
    answer: object = None
    while time.monotonic() < deadline:
        with suppress(cdb.CdbTemporaryError, OSError):
            if answer := reached():
                return answer
        # What other processes do is no event here.
        time.sleep(0.02)
    raise AssertionError(f"not reached within {patience:g} s; last was {answer!r}")
