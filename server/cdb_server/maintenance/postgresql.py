"""PostgreSQL's own programs: pg_dump, pg_restore, and a database renamed to the place of another."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdb_server.errors import DatabaseRefused
from cdb_server.instants import UTC
from cdb_server.maintenance.verification import Progress
from cdb_server.repository import name_of

if TYPE_CHECKING:
    import psycopg

HEADER = b"PGDMP"
# A line of pg_restore's list of what a backup holds: "2; 3079 16384 EXTENSION - amcheck", and its comment.
_EXTENSION = re.compile(r"\d+; \d+ \d+ (COMMENT - )?EXTENSION ")
# Where one connects to make and rename databases: every cluster has it.
MAINTENANCE = "postgres"


class Cluster:
    """A database in a cluster; `url` is what repository.parse_url gave."""

    def __init__(self, url: Any) -> None:
        self._url = url
        self._unfinished = f"{url.database}_restoring_{os.getpid()}"
        self._made = False

    def back_up(self, file: Path, progress: Progress) -> None:
        self._run("pg_dump", "--format=custom", f"--file={file}", f"--dbname={self._address(None)}")

    def unpack(self, file: Path) -> str:
        try:
            with file.open("rb") as backup:
                if backup.read(len(HEADER)) != HEADER:
                    raise DatabaseRefused(f"{file} is not a backup of a PostgreSQL database")
        except OSError as error:
            raise DatabaseRefused(f"{file} cannot be read: {error.strerror}") from error
        with self._maintaining() as connection:
            connection.execute(_sql("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0", self._unfinished))
            self._made = True
            # As the guide makes it: nobody else connects to it.
            connection.execute(_sql("REVOKE ALL ON DATABASE {} FROM PUBLIC", self._unfinished))
        options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        with tempfile.NamedTemporaryFile("w") as wanted:
            # Extensions are for a superuser to make, and no table needs one.
            listed = self._run("pg_restore", "--list", str(file)).splitlines(keepends=True)
            wanted.writelines(line for line in listed if not _EXTENSION.match(line))
            wanted.flush()
            into = f"--dbname={self._address(self._unfinished)}"
            self._run("pg_restore", *options, f"--use-list={wanted.name}", into, str(file))
        return str(self._url.set(database=self._unfinished).render_as_string(hide_password=False))

    def take_over(self) -> str | None:
        kept = f"{self._url.database}_replaced_{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
        with self._maintaining() as connection:
            there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self._url.database]).fetchone()
            with connection.transaction():
                if there:
                    connection.execute(_sql("ALTER DATABASE {} RENAME TO {}", self._url.database, kept))
                connection.execute(_sql("ALTER DATABASE {} RENAME TO {}", self._unfinished, self._url.database))
        self._made = False
        return kept if there else None

    def discard(self) -> None:
        if self._made:
            with self._maintaining() as connection:
                connection.execute(_sql("DROP DATABASE IF EXISTS {}", self._unfinished))

    def _run(self, program: str, *arguments: str) -> str:
        """What one of PostgreSQL's programs prints."""
        password = {"PGPASSWORD": self._url.password} if self._url.password else {}
        try:
            ended = subprocess.run(  # noqa: S603  # pg_dump or pg_restore, without a shell
                [program, "--no-password", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, **password},
                check=False,
            )
        except FileNotFoundError:
            raise DatabaseRefused(
                f"{program} is not there: install PostgreSQL's client programs, of the server's version or a newer one"
            ) from None
        if ended.returncode:
            said = ended.stderr.decode("utf-8", "replace").strip()
            raise DatabaseRefused(f"{program} failed for {name_of(self._url)}: {said}")
        return ended.stdout.decode("utf-8", "replace")

    def _address(self, database: str | None) -> str:
        """As PostgreSQL's programs take it, without the password: command lines can be read by others."""
        url = self._url.set(drivername="postgresql", password=None)
        return str((url.set(database=database) if database else url).render_as_string(hide_password=False))

    @contextmanager
    def _maintaining(self) -> Iterator["psycopg.Connection[Any]"]:
        import psycopg

        url = self._url.set(drivername="postgresql", database=MAINTENANCE)
        try:
            with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
                yield connection
        except psycopg.errors.ObjectInUse as error:
            raise DatabaseRefused(f"{name_of(self._url)} is in use: stop the server, then restore again") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseRefused(
                f"{name_of(self._url)} cannot be restored: {str(error).strip()}; its role must own this database and "
                "may need to make another, until this is done: ALTER ROLE … CREATEDB, by a superuser"
            ) from error
        except psycopg.Error as error:
            raise DatabaseRefused(f"{name_of(self._url)} cannot be restored: {str(error).strip()}") from error


def _sql(statement: str, *names: str) -> Any:
    from psycopg import sql

    return sql.SQL(statement).format(*map(sql.Identifier, names))
