"""The commands that prove a database, back it up and put it back in place."""

import sys
from pathlib import Path

import click

from cdb_server.cli import shared
from cdb_server.maintenance import Verification, back_up, restore, verify
from cdb_server.repository import Database


@click.command("verify")
@shared.database
@shared.told
def verify_command(database: str) -> None:
    """Prove a database: every payload's hash, the chain of digests, and the database's own check.

    What is wrong is named by id, a line each. Exit status 0: clean, 1: damaged. It may be served meanwhile; on SQLite
    writers wait while its own check runs.
    """
    with Database.open(database) as opened, shared.progress("verifying") as progress:
        verification = verify(opened, progress)
    for problem in verification.problems:
        click.echo(problem)
    if verification.unchecked:
        click.echo(f"not checked: {verification.unchecked}", err=True)
    click.echo(_told_of(verification))
    if verification.problems:
        sys.exit(1)


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@shared.database
@shared.told
def backup_command(file: Path, database: str) -> None:
    """Back a database up to the new FILE, while it is served or not.

    SQLite: a copy of the database. PostgreSQL: pg_dump's custom format. Tokens are in it, as hashes.
    """
    with shared.progress("copying") as progress:
        back_up(database, file, progress)
    click.echo(f"{file}: {file.stat().st_size} bytes", err=True)


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@shared.database
@shared.told
def restore_command(file: Path, database: str) -> None:
    """Put the backup FILE in the place of a database, once all of it is verified. Stop the server first.

    The database that stood there is kept under another name.
    """
    with shared.progress("verifying") as progress:
        restored = restore(database, file, progress)
    click.echo(_told_of(restored.verification))
    if restored.kept:
        click.echo(f"what was there is kept as {restored.kept}", err=True)
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
