"""What the commands share: the database's option, how errors end the program, how long work shows itself."""

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

from cdb_server.errors import CdbError, DatabaseRefused, TlsRefused

Command = Callable[..., None]

# Of the client and its shell, which may be used in the same environment.
CLIENT_SETTINGS = frozenset(
    f"CDB_{name}" for name in ("SERVER", "USER", "TOKEN", "AS_OF", "CACHE", "LOCK", "OFFLINE", "CLIENT_CERT")
)


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


def tell_unknown_settings(program: click.Group) -> None:
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
