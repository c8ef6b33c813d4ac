"""Defines the options that commands share with their CDB_* variables, the error exit, and the progress bar."""

import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from cdb_server.errors import CdbError, DatabaseUnusable, TlsUnusable
from cdb_server.settings import (
    MAX_PAYLOAD_BYTES,
    Settings,
    is_loopback,
    parse_bind_address,
    parse_public_url,
    parse_tls_files,
)

Command = Callable[..., None]

# Of the client and its shell, which may be used in the same environment.
CLIENT_SETTINGS = frozenset(
    f"CDB_{name}" for name in ("SERVER", "USER", "TOKEN", "AS_OF", "CACHE", "LOCK", "OFFLINE", "CLIENT_CERT")
)


class ParsedOption(click.ParamType[Any]):
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


database = click.option(
    "--database",
    envvar="CDB_DATABASE",
    show_envvar=True,
    default="sqlite:///cdb.sqlite",
    show_default=True,
    metavar="URL",
    help="The database: sqlite:///FILE or postgresql://USER@HOST/NAME.",
)


def warn_of_unknown_settings(program: click.Group) -> None:
    """Name each variable of the environment that reads like a setting and is none, on standard error."""
    known = _settings(program) | CLIENT_SETTINGS
    for name in sorted(os.environ):
        if name.startswith("CDB_") and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.8)
            meant = f": is {near[0]} meant?" if near else ""
            click.echo(f"cdb-server: no setting is called {name}, which is left out{meant}", err=True)


def _settings(command: click.Command) -> set[str]:
    """The variables that a command reads, with all that is below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    own = {str(option.envvar) for option in command.params if option.envvar is not None}
    return own.union(*map(_settings, below))


def reports_errors(command: Command) -> Command:
    """Print what an operator must know on standard error, and end with status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (CdbError, DatabaseUnusable, TlsUnusable) as error:
            click.echo(f"cdb-server: {error}", err=True)
            sys.exit(1)

    return run


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, on standard error; nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


_SERVING_OPTIONS = (
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
        type=ParsedOption("URL", parse_public_url),
        help="The base address that the published WSDL names. Needed when bound to more than this machine.",
    ),
    click.option(
        "--bind",
        envvar="CDB_BIND",
        show_envvar=True,
        default="127.0.0.1:8080",
        show_default=True,
        type=ParsedOption("HOST:PORT", parse_bind_address),
        help="The address to listen at; port 0 takes a free one.",
    ),
    database,
)


def serving_options(command: Callable[..., None]) -> Callable[..., Any]:
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
            tls = parse_tls_files(tls_cert, tls_key, tls_client_ca)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if public_url is None:
            if not is_loopback(host):
                raise click.UsageError(
                    f"{host} can be reached from other machines: say with --public-url (CDB_PUBLIC_URL) under which "
                    "address"
                )
            public_url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        command(Settings(database, host, port, public_url, workers, tls=tls), **given)

    decorated: Callable[..., Any] = run
    for option in _SERVING_OPTIONS:
        decorated = option(decorated)
    return decorated


max_payload_option = click.option(
    "--max-payload",
    envvar="CDB_MAX_PAYLOAD",
    show_envvar=True,
    default=MAX_PAYLOAD_BYTES,
    show_default=True,
    type=click.IntRange(1, 2**28),
    metavar="BYTES",
    help="The largest payload that is taken.",
)
