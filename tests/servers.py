"""Real servers for tests: `cdb-server serve` and `mirror` in processes of their own, on a free port."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cdb_server.repository import Database, Tokens

USER = "alice"


@dataclass(frozen=True)
class Master:
    """A running master: its base URL, a user who may write, and where its log goes."""

    url: str
    user: str
    token: str
    database: str
    log: Path
    process: subprocess.Popen[bytes]

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


def serve_command(database_url: str, *options: str) -> tuple[str, ...]:
    """`cdb-server serve` at a free port."""
    command = (sys.executable, "-m", "cdb_server", "serve", "--database", database_url, "--bind", "127.0.0.1:0")
    return (*command, *options)


@contextmanager
def serving(
    database_url: str, folder: Path, token: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Master]:
    """Serve an existing database until the block ends."""
    with running(serve_command(database_url, *options), database_url, folder, token, environment) as started:
        yield started


@contextmanager
def mirror(
    of: str, database_url: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Master]:
    """Mirror a server until the block ends, with one worker unless `options` say otherwise."""
    command = (sys.executable, "-m", "cdb_server", "mirror", "--of", of, "--database", database_url)
    arguments = ("--bind", "127.0.0.1:0", "--workers", "1", *options)
    with running((*command, *arguments), database_url, folder, "", environment, log="mirror.log") as started:
        yield started


@contextmanager
def running(
    command: Sequence[str],
    database_url: str,
    folder: Path,
    token: str,
    environment: Mapping[str, str] | None = None,
    log: str = "server.log",
) -> Iterator[Master]:
    """Run a command that serves, and says so, until the block ends."""
    path = folder / log
    process = spawn(command, path, environment)
    try:
        url = announced(process)
        if url is None:
            raise RuntimeError(f"the server ended with status {process.wait()}: {path.read_text()}")
        yield Master(url, USER, token, database_url, path, process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
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
    """End a server and all its workers at once, without a word."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def poll(reached: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so. Fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.05)
