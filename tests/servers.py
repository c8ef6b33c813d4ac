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


@contextmanager
def serving(
    database_url: str, folder: Path, token: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Master]:
    """Serve an existing database until the block ends."""
    log = folder / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
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
    assert process.stdout is not None
    # What a server says once it listens ends in its address.
    announced = process.stdout.readline().decode().split()
    if not announced:
        raise RuntimeError(f"the server ended with status {process.wait()}: {log.read_text()}")
    try:
        yield Master(announced[-1], USER, token, database_url, log, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
