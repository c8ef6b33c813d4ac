"""The commands that need another server: to mirror it, and to compare with it."""

import logging.config
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial

import click

from cdb_server.cli import shared
from cdb_server.cli.serving import listening, max_payload, serve_from
from cdb_server.errors import DatabaseExists, DatabaseRefused
from cdb_server.logs import LOGGING
from cdb_server.mirror import Follower, compare, journal_of, kept_running, own_journal
from cdb_server.repository import Database, Following
from cdb_server.settings import Settings, public_address


@click.command("mirror")
@click.option(
    "--of",
    "master",
    required=True,
    type=shared.Parsed("URL", public_address),
    help="The base address of the server to follow: the master, or another mirror.",
)
@click.option("--resume", is_flag=True, help="Follow again, after the histories parted and you looked into it.")
@max_payload
@listening
@shared.told
def mirror_command(settings: Settings, master: str, resume: bool, max_payload: int) -> None:
    """Keep a copy of another server's journal in step, and serve it: questions from anywhere, no writes.

    The database is made when there is none. Each entry and payload is verified before it is stored. Where the two
    histories part, the mirror goes on serving what it has, after a restart too, and follows again only with --resume.
    """
    # Before anything reads it: whoever was killed in the middle of a write left that to be undone here.
    with _open_or_create(settings.database) as opened:
        if opened.kind == "standby":
            raise DatabaseRefused("PostgreSQL keeps this hot standby in step: serve it with 'cdb-server serve'")
        stopped = Following(opened).begin(master, resume=resume)
    if stopped is not None:
        click.echo(
            f"cdb-server: this mirror serves what it has, and does not follow: {stopped}. Look into it with "
            "'cdb-server compare', then go on with --resume, or begin anew with an empty database",
            err=True,
        )
    with nullcontext() if stopped else kept_running(partial(follow, settings.database, master, max_payload)):
        serve_from(replace(settings, read_only=True), f"mirror of {master}")


def _open_or_create(url: str) -> Database:
    try:
        return Database.open(url, threads=1)
    except DatabaseRefused:
        # Where there is one all the same, to open it says again what is wrong with it.
        with suppress(DatabaseExists):
            Database.create(url)
    return Database.open(url, threads=1)


def follow(database: str, master: str, max_payload: int, ended: threading.Event) -> None:
    """Follow a master until `ended` is set or the histories part: what the following process does."""
    logging.config.dictConfig(LOGGING)
    with Database.open(database) as opened, shared.progress("catching up") as progress:
        Follower(master, Following(opened), progress=progress, max_payload=max_payload).follow(ended)


@click.command("compare")
@click.argument("url", type=shared.Parsed("URL", public_address))
@click.argument("other", metavar="[URL]", required=False, type=shared.Parsed("URL", public_address))
@shared.database
@shared.told
def compare_command(url: str, other: str | None, database: str) -> None:
    """Show where the journals of two servers part: of URL and the database here, or of two URLs.

    Exit status 0: one is as long as the other or merely behind; 1: they part.
    """
    if other is not None:
        found = compare(journal_of(url), journal_of(other))
    else:
        with Database.open(database) as opened:
            found = compare(own_journal(database, opened), journal_of(url))
    for name, length in zip(found.names, found.lengths, strict=True):
        click.echo(f"{name}: {length} entries")
    click.echo(f"the first {found.common} are the same")
    if found.parted:
        for name, entry in zip(found.names, found.next, strict=True):
            click.echo(f"entry {found.common + 1} of {name}: {entry}")
        sys.exit(1)
    if found.lengths[0] != found.lengths[1]:
        behind = found.names[found.lengths.index(min(found.lengths))]
        click.echo(f"{behind} is {max(found.lengths) - min(found.lengths)} entries behind")
