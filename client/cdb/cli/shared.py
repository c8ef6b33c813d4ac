"""What all commands share: options that name the service, how answers are printed, how errors end the program."""

import errno
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from cdb._exceptions import CdbError, InvalidArgument, ServerUnreachable
from cdb._instants import instant, say, spell
from cdb.calibration import DEFAULT_SERVER, DEFAULT_TIMEOUT, Calibration
from cdb.cli import advice
from cdb.supermouse import CalibrationSuperMouse

SETTINGS = tuple(
    f"CDB_{name}" for name in ("SERVER", "USER", "TOKEN", "AS_OF", "CACHE", "LOCK", "OFFLINE", "CLIENT_CERT")
)


class Cdb(click.Group):
    """A group whose commands' errors are printed here, once, and become the exit status."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _usage_shown():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        _tell_misspelt_settings()
        try:
            with _waiting_told(), _usage_shown():
                return super().invoke(ctx)
        except CdbError as error:
            tell(f"cdb: {error.message}")
            if (told := advice.after(error, ctx.invoked_subcommand)) is not None:
                tell(f"cdb: {told}")
            sys.exit(3 if isinstance(error, ServerUnreachable) else 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Who read the output has gone; click ends quietly then.
                raise
            tell(f"cdb: {error.strerror or error}")
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
            # click names the option itself.
            self.fail(error.message.partition(": ")[2], param, ctx)


class AsOf(Time):
    """An instant, or `now`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "now" else super().convert(value, param, ctx)


def _set(_ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """A setting of the job, as the client and all that it starts will see it."""
    if value is not None:
        os.environ[str(param.envvar)] = str(int(value) if isinstance(value, bool) else value)


as_of = click.option(
    "--as-of",
    type=AsOf(),
    envvar="CDB_AS_OF",
    show_envvar=True,
    help="Ask the database as it stood then; 'now': the latest that can be asked.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
cache_folder = click.option(
    "--cache",
    envvar="CDB_CACHE",
    show_envvar=True,
    metavar="FOLDER",
    expose_value=False,
    callback=_set,
    help="Where payloads and answers are kept; else one of your folders.",
)

_JOB = (
    click.option(
        "--offline",
        envvar="CDB_OFFLINE",
        show_envvar=True,
        is_flag=True,
        expose_value=False,
        callback=_set,
        help="Ask no server: answer from the lock file and the cache.",
    ),
    click.option(
        "--lock",
        envvar="CDB_LOCK",
        show_envvar=True,
        metavar="FILE",
        expose_value=False,
        callback=_set,
        help="Note what is asked and answered; what is noted already is answered from it.",
    ),
    cache_folder,
)

_SERVICE = (
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="How long to ask, again and again where that may help, before giving up.",
    ),
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
)
_WRITER = (
    click.option("--token", envvar="CDB_TOKEN", show_envvar=True, help="Your token."),
    click.option("--user", envvar="CDB_USER", show_envvar=True, help="Your name."),
)


def reads(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that asks: its options name the service, and it is given a `client`."""
    return _with_client(command, Calibration, (*_JOB, *_SERVICE))


def writes(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that writes: its options name the service and the user, and it is given a `client`."""
    return _with_client(command, CalibrationSuperMouse, (*_WRITER, *_SERVICE))


def _with_client(
    command: Callable[..., Any], made: Callable[..., Any], options: Sequence[Callable[..., Any]]
) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**given: Any) -> Any:
        if made is CalibrationSuperMouse:
            # Who writes looks at what is now, not at what a job is answered.
            leave_job()
        named = {name: given.pop(name) for name in ("client_cert", "timeout", "user", "token") if name in given}
        return command(client=made(given.pop("server"), **named), **given)

    for option in options:
        run = option(run)
    return run


# Lines of a unified diff, by what they begin with.
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class _Told(logging.Handler):
    """Prints what the client waits for, or does without; once as long as it is the same but for its numbers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if (same := re.sub(r"[0-9.]+", "", said)) != self._last:
            self._last = same
            tell(f"cdb: {said}")


@contextmanager
def _waiting_told() -> Iterator[None]:
    """Say why nothing happens."""
    log, told = logging.getLogger("cdb"), _Told()
    log.addHandler(told)
    try:
        yield
    finally:
        log.removeHandler(told)


def _tell_misspelt_settings() -> None:
    """Name each variable of the environment that is nearly a setting: a job that it should pin would not be pinned.

    Others that begin alike belong to the server, or to other programs.
    """
    for name in sorted(os.environ):
        if name.startswith("CDB_") and name not in SETTINGS and (near := get_close_matches(name, SETTINGS, 1, 0.81)):
            click.echo(f"cdb: no setting is called {shown(name)}, which is left out: is {near[0]} meant?", err=True)


def leave_job() -> None:
    """Ask for what is so now, whatever is set for a job."""
    for setting in ("CDB_AS_OF", "CDB_LOCK"):
        os.environ.pop(setting, None)


def shown(text: str) -> str:
    """A text as it may be printed: what others wrote must not act on a terminal, nor turn its words about.

    All that is not printable is spelled as in Python, a C1 control as `\\x9b`; lines and tabs stay.
    """
    return _spelled(text, lambda character: character.encode("unicode_escape").decode("ascii"))


def out(text: str) -> None:
    """Print text on stdout. With `tell` and what stands below, all that commands print: nothing else prints."""
    _echo(shown(text))


def tell(text: str) -> None:
    """Print text on stderr: what the user should know, and no program reads."""
    _echo(shown(text), err=True)


def tell_above(progress: Progress, text: str) -> None:
    """Print text on stderr, above a bar."""
    progress.console.print(shown(text), markup=False, soft_wrap=True)


def print_comparison(lines: Sequence[str], *, err: bool = False) -> None:
    """Print lines, those of a unified diff in colours where there is a terminal."""
    styled = [click.style(shown(line), fg=_COLOURS[line[0]]) if line[:1] in _COLOURS else shown(line) for line in lines]
    _echo("\n".join(styled), err=err)


def print_content(data: bytes) -> None:
    """Print the exact bytes of a calibration, whatever they do to a terminal: they are what was asked for."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def confirmed(question: str) -> bool:
    """Ask on the terminal."""
    return click.confirm(shown(question), err=True)


def print_json(value: Any) -> None:
    """Print an answer as JSON: instants as text, dataclasses as objects; what is not printable as `\\u009b`."""
    text = json.dumps(value, default=_plain, indent=2, ensure_ascii=False)
    _echo(_spelled(text, lambda character: json.dumps(character)[1:-1]))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, err: bool = False) -> None:
    """Print a table on a terminal; in a pipe, a line for each row with tabs between its columns, without heading."""
    if (sys.stderr if err else sys.stdout).isatty():
        # Nothing is left out where the terminal is narrow.
        table = Table(*(Column(escape(shown(column)), overflow="fold") for column in columns))
        for row in rows:
            table.add_row(*(Text(_text(value, say)) for value in row))
        Console(stderr=err).print(table)
    else:
        for row in rows:
            texts = [_text(value, spell) for value in row]
            _echo("\t".join(text.replace("\t", " ").replace("\n", " ") for text in texts), err=err)


def progress(unit: str) -> Progress:
    """A bar on a terminal, on standard error; nothing elsewhere. `unit` is what is counted, in words of ours."""
    console = Console(stderr=True, highlight=False)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn(unit))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def described(text: str) -> str:
    """A text as the description of a bar."""
    return escape(shown(text))


@contextmanager
def _usage_shown() -> Iterator[None]:
    """Have click print its errors, which repeat what was typed and names of files, as all else is printed."""
    try:
        yield
    except click.ClickException as error:
        said = error.format_message()
        if shown(said) == said:
            raise
        if isinstance(error, click.UsageError):
            raise click.UsageError(shown(said), error.ctx) from None
        raise click.ClickException(shown(said)) from None


def _echo(text: str, *, err: bool = False) -> None:
    stream = sys.stderr if err else sys.stdout
    # A terminal or a setting may know few characters: the others are spelled, too.
    known = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding) if stream.encoding else text
    click.echo(known, err=err)


def _spelled(text: str, spell_one: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return re.sub(r"[^\t\n -~]", lambda found: found[0] if found[0].isprintable() else spell_one(found[0]), text)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return spell(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(value)


def _text(value: Any, instant_text: Callable[[datetime], str]) -> str:
    if value is None:
        return ""
    return instant_text(value) if isinstance(value, datetime) else shown(str(value))
