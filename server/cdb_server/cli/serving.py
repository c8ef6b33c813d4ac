"""The commands that make a database and serve it."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from cdb_server.cli import shared
from cdb_server.errors import DatabaseRefused
from cdb_server.instants import spell
from cdb_server.repository import Database, Reader, occupy
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

_LISTENING = (
    click.option(
        "--tls-client-ca",
        envvar="CDB_TLS_CLIENT_CA",
        show_envvar=True,
        metavar="FILE",
        help="Take only callers that show a certificate of this authority, in PEM; by default anyone.",
    ),
    click.option(
        "--tls-key",
        envvar="CDB_TLS_KEY",
        show_envvar=True,
        metavar="FILE",
        help="The certificate's key, in PEM, without a password.",
    ),
    click.option(
        "--tls-cert",
        envvar="CDB_TLS_CERT",
        show_envvar=True,
        metavar="FILE",
        help="Serve https with this certificate, and those between it and its authority, in PEM.",
    ),
    click.option(
        "--workers",
        envvar="CDB_WORKERS",
        show_envvar=True,
        default=2,
        show_default=True,
        type=click.IntRange(1, 256),
        help="How many processes answer.",
    ),
    click.option(
        "--public-url",
        envvar="CDB_PUBLIC_URL",
        show_envvar=True,
        type=shared.Parsed("URL", public_address),
        help="The base address that the published WSDL names. Needed when bound to more than this machine.",
    ),
    click.option(
        "--bind",
        envvar="CDB_BIND",
        show_envvar=True,
        default="127.0.0.1:8080",
        show_default=True,
        type=shared.Parsed("HOST:PORT", bind_address),
        help="The address to listen at; port 0 takes a free one.",
    ),
    shared.database,
)


def listening(command: Callable[..., None]) -> Callable[..., Any]:
    """A command that serves: its options say which database, where and how, and it is given the `settings`."""

    @functools.wraps(command)
    def run(
        database: str,
        bind: tuple[str, int],
        public_url: str | None,
        workers: int,
        tls_cert: str | None,
        tls_key: str | None,
        tls_client_ca: str | None,
        **given: Any,
    ) -> None:
        host, port = bind
        try:
            tls = tls_files(tls_cert, tls_key, tls_client_ca)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if public_url is None:
            if not is_this_machine(host):
                raise click.UsageError(
                    f"{host} can be reached from other machines: say with --public-url (CDB_PUBLIC_URL) under which "
                    "address"
                )
            public_url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        command(Settings(database, host, port, public_url, workers, tls=tls), **given)

    decorated: Callable[..., Any] = run
    for option in _LISTENING:
        decorated = option(decorated)
    return decorated


def serve_from(settings: Settings, role: str) -> None:
    """Listen, say so on standard output, and serve.

    Raises DatabaseRefused when the address cannot be had, or the database is being replaced.
    """
    # Imported late: it takes half a second, which commands that serve nothing need not wait for.
    from cdb_server.http import listen, serve

    occupy(settings.database)
    try:
        listens, settings = listen(settings)
    except OSError as error:
        raise DatabaseRefused(f"cannot listen at {settings.host}:{settings.port}: {error.strerror}") from error
    click.echo(f"cdb-server: {role} at {settings.public_url}")
    serve(listens, settings)


@click.command()
@shared.database
@shared.told
def init(database: str) -> None:
    """Make a new, empty database. One that exists is left untouched, with exit status 1."""
    Database.create(database)
    click.echo(f"made {database}; next: cdb-server token add NAME, then cdb-server serve", err=True)


max_payload = click.option(
    "--max-payload",
    envvar="CDB_MAX_PAYLOAD",
    show_envvar=True,
    default=MAX_PAYLOAD,
    show_default=True,
    type=click.IntRange(1, 2**28),
    metavar="BYTES",
    help="The largest payload that is taken.",
)


@click.command("serve")
@max_payload
@click.option(
    "--write-networks",
    envvar="CDB_WRITE_NETWORKS",
    show_envvar=True,
    default=" ".join(map(str, THIS_MACHINE)),
    show_default=True,
    type=shared.Parsed("NETWORKS", networks),
    help="The networks from which writes are taken, such as 10.1.0.0/16; by default this machine.",
)
@click.option(
    "--legacy-write-networks",
    envvar="CDB_LEGACY_WRITE_NETWORKS",
    show_envvar=True,
    default="",
    type=shared.Parsed("NETWORKS", networks),
    help="The networks from which clients of the earlier CDB may write, who show no token; by default none.",
)
@click.option(
    "--trusted-proxies",
    envvar="CDB_TRUSTED_PROXIES",
    show_envvar=True,
    default="",
    type=shared.Parsed("NETWORKS", networks),
    help="The networks of proxies whose X-Forwarded-For is believed, such as 127.0.0.1/32; by default none.",
)
@listening
@shared.told
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
        raise DatabaseRefused(
            f"{settings.database} is the database of a mirror: serve it with 'cdb-server mirror --of {status.master}'"
        )
    if status.restored is not None:
        click.echo(
            f"cdb-server: this database was restored from a backup at {spell(status.restored)}: what was written "
            "before, and after the backup, is missing here and may be on mirrors",
            err=True,
        )
    if kind == "standby":
        serve_from(replace(settings, read_only=True), f"mirror, a hot standby, of {settings.database}")
    else:
        serve_from(settings, f"master of {settings.database}")
