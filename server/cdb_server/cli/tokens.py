"""The commands that keep the tokens of those who may write."""

import json
import sys

import click
from rich.console import Console
from rich.table import Table

from cdb_server.cli import shared
from cdb_server.instants import spell
from cdb_server.repository import Database, Tokens


@click.group()
def token() -> None:
    """Make, show and revoke the tokens of those who may write."""


@token.command("add", short_help="Make a token for the user NAME and print it, once.")
@shared.database
@click.argument("name")
@shared.told
def token_add(database: str, name: str) -> None:
    """Make a token for the user NAME and print it, this once: only its hash is kept."""
    with Database.open(database) as opened:
        click.echo(Tokens(opened).add(name))
    if sys.stdout.isatty():
        click.echo(f"this is {name}'s CDB_TOKEN, with CDB_USER={name}; it cannot be shown again", err=True)


@token.command("list")
@shared.database
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@shared.told
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
@shared.database
@click.argument("name")
@shared.told
def token_revoke(database: str, name: str) -> None:
    """End the token of the user NAME. A running server refuses it from then on."""
    with Database.open(database) as opened:
        Tokens(opened).revoke(name)
    click.echo(f"{name} can no longer write, from now on", err=True)
