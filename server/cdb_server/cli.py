"""`cdb-server`: makes a database, serves it, keeps it safe, and keeps the tokens of those who may write."""

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cdb_server import __version__
from cdb_server.errors import CdbError, DatabaseRefused, TlsRefused
from cdb_server.http import listen, serve
from cdb_server.instants import spell
from cdb_server.maintenance import Verification, back_up, restore, verify
from cdb_server.repository import Database, Reader, Tokens
from cdb_server.settings import (
    MAX_PAYLOAD,
    THIS_MACHINE,
    Settings,
    bind_address,
    is_this_machine,
    networks,
    public_address,
    tls_files,
)

Command = Callable[..., None]


class _Parsed(click.ParamType[Any]):
    """An option whose value a function of `settings` reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_database = click.option(
    "--database",
    envvar="CDB_DATABASE",
    show_envvar=True,
    default="sqlite:///cdb.sqlite",
    show_default=True,
    metavar="URL",
    help="The database: sqlite:///FILE or postgresql://USER@HOST/NAME.",
)


def _told(command: Command) -> Command:
    """Print what an operator must know on standard error, and end with status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (CdbError, DatabaseRefused, TlsRefused) as error:
            click.echo(f"cdb-server: {error}", err=True)
            sys.exit(1)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cdb-server")
def main() -> None:
    """The server of the MICE calibration database.

    \b
    cdb-server init                      make the database
    cdb-server token add alice           print alice's token, once
    cdb-server serve                     take questions and writes
    cdb-server verify                    prove that nothing is damaged
    cdb-server backup FILE               while serving
    """


@main.command()
@_database
@_told
def init(database: str) -> None:
    """Make a new, empty database. One that exists is left untouched, with exit status 1."""
    Database.create(database)
    click.echo(f"made {database}; next: cdb-server token add NAME, then cdb-server serve", err=True)


@main.command("serve")
@_database
@click.option(
    "--bind",
    envvar="CDB_BIND",
    show_envvar=True,
    default="127.0.0.1:8080",
    show_default=True,
    type=_Parsed("HOST:PORT", bind_address),
    help="The address to listen at; port 0 takes a free one.",
)
@click.option(
    "--public-url",
    envvar="CDB_PUBLIC_URL",
    show_envvar=True,
    type=_Parsed("URL", public_address),
    help="The base address that the published WSDL names. Needed when bound to more than this machine.",
)
@click.option(
    "--workers",
    envvar="CDB_WORKERS",
    show_envvar=True,
    default=2,
    show_default=True,
    type=click.IntRange(1, 256),
    help="How many processes answer.",
)
@click.option(
    "--max-payload",
    envvar="CDB_MAX_PAYLOAD",
    show_envvar=True,
    default=MAX_PAYLOAD,
    show_default=True,
    type=click.IntRange(1, 2**28),
    metavar="BYTES",
    help="The largest payload that is taken.",
)
@click.option(
    "--write-networks",
    envvar="CDB_WRITE_NETWORKS",
    show_envvar=True,
    default=" ".join(map(str, THIS_MACHINE)),
    show_default=True,
    type=_Parsed("NETWORKS", networks),
    help="The networks from which writes are taken, such as 10.1.0.0/16; by default this machine.",
)
@click.option(
    "--trusted-proxies",
    envvar="CDB_TRUSTED_PROXIES",
    show_envvar=True,
    default="",
    type=_Parsed("NETWORKS", networks),
    help="The networks of proxies whose X-Forwarded-For is believed, such as 127.0.0.1/32; by default none.",
)
@click.option(
    "--tls-cert",
    envvar="CDB_TLS_CERT",
    show_envvar=True,
    metavar="FILE",
    help="Serve https with this certificate, and those between it and its authority, in PEM.",
)
@click.option(
    "--tls-key",
    envvar="CDB_TLS_KEY",
    show_envvar=True,
    metavar="FILE",
    help="The certificate's key, in PEM, without a password.",
)
@click.option(
    "--tls-client-ca",
    envvar="CDB_TLS_CLIENT_CA",
    show_envvar=True,
    metavar="FILE",
    help="Take only callers that show a certificate of this authority, in PEM; by default anyone.",
)
@_told
def serve_command(
    database: str,
    bind: tuple[str, int],
    public_url: str | None,
    workers: int,
    max_payload: int,
    write_networks: Any,
    trusted_proxies: Any,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
) -> None:
    """Serve an existing database as a master: questions from anywhere, writes from the write networks."""
    host, port = bind
    try:
        tls = tls_files(tls_cert, tls_key, tls_client_ca)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if public_url is None:
        if not is_this_machine(host):
            raise click.UsageError(
                f"{host} can be reached from other machines: say with --public-url (CDB_PUBLIC_URL) under which address"
            )
        public_url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    with Database.open(database, threads=1) as opened:
        restored = Reader(opened).status().restored
    if restored is not None:
        click.echo(
            f"cdb-server: this database was restored from a backup at {spell(restored)}: what was written before, and "
            "after the backup, is missing here and may be on mirrors",
            err=True,
        )
    settings = Settings(database, host, port, public_url, workers, max_payload, write_networks, trusted_proxies, tls)
    try:
        listening, settings = listen(settings)
    except OSError as error:
        raise DatabaseRefused(f"cannot listen at {host}:{port}: {error.strerror}") from error
    click.echo(f"cdb-server: master of {database} at {settings.public_url}")
    serve(listening, settings)


@main.command("verify")
@_database
@_told
def verify_command(database: str) -> None:
    """Prove a database: every payload's hash, the chain of digests, and the database's own check.

    What is wrong is named by id, a line each. Exit status 0: clean, 1: damaged. It may be served meanwhile; on SQLite
    writers wait while its own check runs.
    """
    with Database.open(database) as opened, _progress("verifying") as progress:
        verification = verify(opened, progress)
    for problem in verification.problems:
        click.echo(problem)
    if verification.unchecked:
        click.echo(f"not checked: {verification.unchecked}", err=True)
    click.echo(_told_of(verification))
    if verification.problems:
        sys.exit(1)


@main.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@_database
@_told
def backup_command(file: Path, database: str) -> None:
    """Back a database up to the new FILE, while it is served or not.

    SQLite: a copy of the database. PostgreSQL: pg_dump's custom format. Tokens are in it, as hashes.
    """
    with _progress("copying") as progress:
        back_up(database, file, progress)
    click.echo(f"{file}: {file.stat().st_size} bytes", err=True)


@main.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_database
@_told
def restore_command(file: Path, database: str) -> None:
    """Put the backup FILE in the place of a database, once all of it is verified. Stop the server first.

    The database that stood there is kept under another name.
    """
    with _progress("verifying") as progress:
        kept = restore(database, file, progress, lambda verification: click.echo(_told_of(verification)))
    if kept:
        click.echo(f"what was there is kept as {kept}", err=True)
    click.echo(
        f"{file} is in place as {database}. What was written after the backup is missing, and may be on mirrors. "
        "Tokens are those of the backup: see 'cdb-server token list'. Next: cdb-server serve",
        err=True,
    )


def _told_of(verification: Verification) -> str:
    """One line on what was looked at and found."""
    count = len(verification.problems)
    found = f"damaged: {count} problem{'s' if count > 1 else ''} in" if count else "clean:"
    return (
        f"{found} {verification.entries} entries, {verification.payloads} payloads of {verification.payload_bytes} "
        f"bytes; serial {verification.entries}, digest {verification.digest}"
    )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, on standard error; nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@main.group()
def token() -> None:
    """Make, show and revoke the tokens of those who may write."""


@token.command("add", short_help="Make a token for the user NAME and print it, once.")
@_database
@click.argument("name")
@_told
def token_add(database: str, name: str) -> None:
    """Make a token for the user NAME and print it, this once: only its hash is kept."""
    with Database.open(database) as opened:
        click.echo(Tokens(opened).add(name))
    if sys.stdout.isatty():
        click.echo(f"this is {name}'s CDB_TOKEN, with CDB_USER={name}; it cannot be shown again", err=True)


@token.command("list")
@_database
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_told
def token_list(database: str, as_json: bool) -> None:
    """Show who has a token, since when, and until when: the valid ones first."""
    with Database.open(database) as opened:
        tokens = sorted(Tokens(opened).list(), key=lambda known: known.revoked is not None)
    rows = [(known.name, spell(known.created), spell(known.revoked) if known.revoked else None) for known in tokens]
    if as_json:
        click.echo(json.dumps([dict(zip(("user", "since", "revoked"), row, strict=True)) for row in rows], indent=2))
    elif not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(value or "" for value in row))
    elif not rows:
        click.echo("nobody has a token: cdb-server token add NAME", err=True)
    else:
        table = Table("user", "since (UTC)", "revoked (UTC)")
        for user, *times in rows:
            # To the second, which fits on a terminal.
            table.add_row(user, *(time[:19].replace("T", " ") if time else "" for time in times))
        Console().print(table)


@token.command("revoke")
@_database
@click.argument("name")
@_told
def token_revoke(database: str, name: str) -> None:
    """End the token of the user NAME. A running server refuses it from then on."""
    with Database.open(database) as opened:
        Tokens(opened).revoke(name)
    click.echo(f"{name} can no longer write, from now on", err=True)
