"""Defines the subcommands of `cdb-server`: init, serve, mirror, verify, backup, restore, compare and token."""

import json
import logging.config
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cdb_server.cli import options
from cdb_server.cli.options import max_payload_option, serving_options
from cdb_server.database.sqlite import lock_while_serving
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseExists, DatabaseUnusable
from cdb_server.instants import format_instant
from cdb_server.logs import LOGGING
from cdb_server.maintenance import Verification, back_up, compare, local_journal, restore, verify
from cdb_server.mirror import Follower, remote_journal, supervised
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from cdb_server.settings import LOOPBACK_NETWORKS, Settings, parse_networks, parse_public_url


def listen_and_serve(settings: Settings, role: str) -> None:
    """Listen, say so on standard output, and serve.

    Raises DatabaseUnusable when the address cannot be had, or the database is being replaced.
    """
    # Imported late: it takes half a second, which commands that serve nothing need not wait for.
    from cdb_server.http.serve import listen, serve

    lock_while_serving(settings.database)
    try:
        listens, settings = listen(settings)
    except OSError as error:
        raise DatabaseUnusable(f"cannot listen at {settings.host}:{settings.port}: {error.strerror}") from error
    click.echo(f"cdb-server: {role} at {settings.public_url}")
    serve(listens, settings)


@click.command()
@options.database
@options.reports_errors
def init(database: str) -> None:
    """Make a new, empty database. One that exists is left untouched, with exit status 1."""
    Database.create(database)
    click.echo(f"made {database}; next: cdb-server token add NAME, then cdb-server serve", err=True)


@click.command("serve")
@max_payload_option
@click.option(
    "--write-networks",
    envvar="CDB_WRITE_NETWORKS",
    show_envvar=True,
    default=" ".join(map(str, LOOPBACK_NETWORKS)),
    show_default=True,
    type=options.ParsedOption("NETWORKS", parse_networks),
    help="The networks from which writes are taken, such as 10.1.0.0/16; by default this machine.",
)
@click.option(
    "--legacy-write-networks",
    envvar="CDB_LEGACY_WRITE_NETWORKS",
    show_envvar=True,
    default="",
    type=options.ParsedOption("NETWORKS", parse_networks),
    help="The networks from which clients of the earlier CDB may write, who show no token; by default none.",
)
@click.option(
    "--trusted-proxies",
    envvar="CDB_TRUSTED_PROXIES",
    show_envvar=True,
    default="",
    type=options.ParsedOption("NETWORKS", parse_networks),
    help="The networks of proxies whose X-Forwarded-For is believed, such as 127.0.0.1/32; by default none.",
)
@serving_options
@options.reports_errors
def serve_command(
    settings: Settings, max_payload: int, write_networks: Any, legacy_write_networks: Any, trusted_proxies: Any
) -> None:
    """Serve an existing database as a master: questions from anywhere, writes from the write networks.

    On a hot standby of PostgreSQL it serves as a mirror: it takes questions, and no writes.
    """
    settings = replace(
        settings,
        max_payload=max_payload,
        write_networks=write_networks,
        legacy_write_networks=legacy_write_networks,
        trusted_proxies=trusted_proxies,
    )
    with Database.open(settings.database, threads=1) as opened:
        kind, status = opened.kind, Reader(opened).status()
    if kind == "mirror":
        raise DatabaseUnusable(
            f"{settings.database} is the database of a mirror: serve it with 'cdb-server mirror --of {status.master}'"
        )
    if status.restored is not None:
        click.echo(
            f"cdb-server: this database was restored from a backup at {format_instant(status.restored)}: what was "
            "written before, and after the backup, is missing here and may be on mirrors",
            err=True,
        )
    if kind == "standby":
        listen_and_serve(replace(settings, read_only=True), f"mirror, a hot standby, of {settings.database}")
    else:
        listen_and_serve(settings, f"master of {settings.database}")


@click.command("mirror")
@click.option(
    "--of",
    "master",
    required=True,
    type=options.ParsedOption("URL", parse_public_url),
    help="The base address of the server to follow: the master, or another mirror.",
)
@click.option("--resume", is_flag=True, help="Follow again, after the histories parted and you looked into it.")
@max_payload_option
@serving_options
@options.reports_errors
def mirror_command(settings: Settings, master: str, resume: bool, max_payload: int) -> None:
    """Keep a copy of another server's journal in step, and serve it: questions from anywhere, no writes.

    The database is made when there is none. Each entry and payload is verified before it is stored. Where the two
    histories part, the mirror goes on serving what it has, after a restart too, and follows again only with --resume.
    """
    # Before anything reads it: whoever was killed in the middle of a write left that to be undone here.
    with _open_or_create(settings.database) as opened:
        if opened.kind == "standby":
            raise DatabaseUnusable("PostgreSQL keeps this hot standby in step: serve it with 'cdb-server serve'")
        stopped = MirrorWriter(opened).start_following(master, resume=resume)
    if stopped is not None:
        click.echo(
            f"cdb-server: this mirror serves what it has, and does not follow: {stopped}. Look into it with "
            "'cdb-server compare', then go on with --resume, or begin anew with an empty database",
            err=True,
        )
    with nullcontext() if stopped else supervised(partial(follow_master, settings.database, master, max_payload)):
        listen_and_serve(replace(settings, read_only=True), f"mirror of {master}")


def _open_or_create(url: str) -> Database:
    try:
        return Database.open(url, threads=1)
    except DatabaseUnusable:
        # Where there is one all the same, to open it says again what is wrong with it.
        with suppress(DatabaseExists):
            Database.create(url)
    return Database.open(url, threads=1)


def follow_master(database: str, master: str, max_payload: int, ended: threading.Event) -> None:
    """Follow a master until `ended` is set or the histories part: what the following process does."""
    logging.config.dictConfig(LOGGING)
    with Database.open(database) as opened, options.progress_bar("catching up") as progress:
        Follower(master, MirrorWriter(opened), progress=progress, max_payload=max_payload).follow(ended)


@click.command("compare")
@click.argument("url", type=options.ParsedOption("URL", parse_public_url))
@click.argument("other", metavar="[URL]", required=False, type=options.ParsedOption("URL", parse_public_url))
@options.database
@options.reports_errors
def compare_command(url: str, other: str | None, database: str) -> None:
    """Show where the journals of two servers part: of URL and the database here, or of two URLs.

    Exit status 0: one is as long as the other or merely behind; 1: they part.
    """
    if other is not None:
        found = compare(remote_journal(url), remote_journal(other))
    else:
        with Database.open(database) as opened:
            found = compare(local_journal(database, opened), remote_journal(url))
    for name, length in zip(found.names, found.lengths, strict=True):
        click.echo(f"{name}: {length} entries")
    click.echo(f"the first {found.common} are the same")
    if found.diverged:
        for name, entry in zip(found.names, found.next, strict=True):
            click.echo(f"entry {found.common + 1} of {name}: {entry}")
        sys.exit(1)
    if found.lengths[0] != found.lengths[1]:
        behind = found.names[found.lengths.index(min(found.lengths))]
        click.echo(f"{behind} is {max(found.lengths) - min(found.lengths)} entries behind")


@click.command("verify")
@options.database
@options.reports_errors
def verify_command(database: str) -> None:
    """Prove a database: every payload's hash, the chain of digests, and the database's own check.

    What is wrong is named by id, a line each. Exit status 0: clean, 1: damaged. It may be served meanwhile; on SQLite
    writers wait while its own check runs.
    """
    with Database.open(database) as opened, options.progress_bar("verifying") as progress:
        verification = verify(opened, progress)
    for problem in verification.problems:
        click.echo(problem)
    if verification.unchecked:
        click.echo(f"not checked: {verification.unchecked}", err=True)
    click.echo(_summary(verification))
    if verification.problems:
        sys.exit(1)


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@options.database
@options.reports_errors
def backup_command(file: Path, database: str) -> None:
    """Back a database up to the new FILE, while it is served or not.

    SQLite: a copy of the database. PostgreSQL: pg_dump's custom format. Tokens are in it, as hashes.
    """
    with options.progress_bar("copying") as progress:
        back_up(database, file, progress)
    click.echo(f"{file}: {file.stat().st_size} bytes", err=True)


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.database
@options.reports_errors
def restore_command(file: Path, database: str) -> None:
    """Put the backup FILE in the place of a database, once all of it is verified. Stop the server first.

    The database that stood there is kept under another name.
    """
    with options.progress_bar("verifying") as progress:
        restored = restore(database, file, progress)
    click.echo(_summary(restored.verification))
    if restored.replaced_name:
        click.echo(f"what was there is kept as {restored.replaced_name}", err=True)
    click.echo(
        f"{file} is in place as {database}. What was written after the backup is missing, and may be on mirrors. "
        "Tokens are those of the backup: see 'cdb-server token list'. Next: cdb-server serve",
        err=True,
    )


def _summary(verification: Verification) -> str:
    """One line on what was looked at and found."""
    count = len(verification.problems)
    found = f"damaged: {count} problem{'s' if count > 1 else ''} in" if count else "clean:"
    return (
        f"{found} {verification.entries} entries, {verification.payloads} payloads of {verification.payload_bytes} "
        f"bytes; serial {verification.entries}, digest {verification.digest}"
    )


@click.group()
def token() -> None:
    """Make, show and revoke the tokens of those who may write."""


@token.command("add", short_help="Make a token for the user NAME and print it, once.")
@options.database
@click.argument("name")
@options.reports_errors
def token_add(database: str, name: str) -> None:
    """Make a token for the user NAME and print it, this once: only its hash is kept."""
    with Database.open(database) as opened:
        click.echo(Tokens(opened).add(name))
    if sys.stdout.isatty():
        click.echo(f"this is {name}'s CDB_TOKEN, with CDB_USER={name}; it cannot be shown again", err=True)


@token.command("list")
@options.database
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@options.reports_errors
def token_list(database: str, as_json: bool) -> None:
    """Show who has a token, since when, and until when: the valid ones first."""
    with Database.open(database) as opened:
        tokens = sorted(Tokens(opened).list(), key=lambda known: known.revoked is not None)
    rows = [
        (known.name, format_instant(known.created), format_instant(known.revoked) if known.revoked else None)
        for known in tokens
    ]
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
@options.database
@click.argument("name")
@options.reports_errors
def token_revoke(database: str, name: str) -> None:
    """End the token of the user NAME. A running server refuses it from then on."""
    with Database.open(database) as opened:
        Tokens(opened).revoke(name)
    click.echo(f"{name} can no longer write, from now on", err=True)
