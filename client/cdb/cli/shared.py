"""What all commands share: options that name the service, how answers are printed, how errors end the program."""

import errno
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from cdb._exceptions import CdbError, InvalidArgument, ServerUnreachable
from cdb._instants import instant, spell
from cdb.calibration import DEFAULT_SERVER

Command = TypeVar("Command", bound=Callable[..., Any])


class Cdb(click.Group):
    """A group whose commands' errors are printed here, once, and become the exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CdbError as error:
            click.echo(f"cdb: {error.message}", err=True)
            sys.exit(3 if isinstance(error, ServerUnreachable) else 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Who read the output has gone; click ends quietly then.
                raise
            click.echo(f"cdb: {error.strerror or error}", err=True)
            sys.exit(1)


class Time(click.ParamType[Any]):
    """An instant as people write it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, datetime):
            return value
        try:
            return instant(param.human_readable_name if param else "time", value)
        except InvalidArgument as error:
            self.fail(error.message, param, ctx)


class AsOf(Time):
    """An instant, or `now`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "now" else super().convert(value, param, ctx)


as_of = click.option(
    "--as-of", type=AsOf(), help="Ask the database as it stood then; 'now': the latest that can be asked."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def server(command: Command) -> Command:
    """The options of every command: which service, and how to be let in by it."""
    for option in (
        click.option(
            "--client-cert",
            envvar="CDB_CLIENT_CERT",
            show_envvar=True,
            metavar="FILE",
            help="Your certificate and its key in one PEM file, for a server that asks for it.",
        ),
        click.option(
            "--server",
            envvar="CDB_SERVER",
            show_envvar=True,
            default=DEFAULT_SERVER,
            show_default=True,
            metavar="URL",
            help="One base URL or more, in order of preference.",
        ),
    ):
        command = option(command)
    return command


def writer(command: Command) -> Command:
    """The options of a command that writes."""
    for option in (
        click.option("--token", envvar="CDB_TOKEN", show_envvar=True, help="Your token."),
        click.option("--user", envvar="CDB_USER", show_envvar=True, help="Your name."),
        server,
    ):
        command = option(command)
    return command


def print_json(value: Any) -> None:
    """Print an answer as JSON: instants as text, dataclasses as objects."""
    click.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on a terminal; in a pipe, a line for each row with tabs between its columns, without heading."""
    texts = [[_text(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(*columns)
        for row in texts:
            table.add_row(*row)
        Console().print(table)
    else:
        for row in texts:
            click.echo("\t".join(text.replace("\t", " ").replace("\n", " ") for text in row))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return spell(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return spell(value) if isinstance(value, datetime) else str(value)
