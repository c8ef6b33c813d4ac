"""Real servers for tests: `cdb-server serve` in processes of its own, on a free port."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
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


def spawn(
    database_url: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server on an existing database, as a process group of its own; it may not listen yet."""
    with (folder / "server.log").open("ab") as out:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cdb_server",
                "serve",
                "--database",
                database_url,
                "--bind",
                "127.0.0.1:0",
                *options,
            ],
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


@contextmanager
def serving(
    database_url: str, folder: Path, token: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Master]:
    """Serve an existing database until the block ends."""
    log = folder / "server.log"
    process = spawn(database_url, folder, *options, environment=environment)
    try:
        url = announced(process)
        if url is None:
            raise RuntimeError(f"the server ended with status {process.wait()}: {log.read_text()}")
        yield Master(url, USER, token, database_url, log, process)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        kill(process)
