"""What the commands share: the database's option, how errors end the program, how long work shows itself."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from cdb_server.errors import CdbError, DatabaseRefused, TlsRefused

Command = Callable[..., None]


class Parsed(click.ParamType[Any]):
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


def told(command: Command) -> Command:
    """Print what an operator must know on standard error, and end with status 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (CdbError, DatabaseRefused, TlsRefused) as error:
            click.echo(f"cdb-server: {error}", err=True)
            sys.exit(1)

    return run


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, on standard error; nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
