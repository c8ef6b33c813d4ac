"""Declare what commands share: options, their environment variables, time arguments, completion of names."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from cdb._exceptions import CdbError, InvalidArgument
from cdb._instants import instant
from cdb._resolver.job import clear_job
from cdb.calibration import DEFAULT_SERVER, DEFAULT_TIMEOUT, Calibration
from cdb.records import Device
from cdb.supermouse import CalibrationSuperMouse

Command = TypeVar("Command", bound=Callable[..., Any])

SETTINGS = tuple(
    f"CDB_{name}" for name in ("SERVER", "USER", "TOKEN", "AS_OF", "CACHE", "LOCK", "OFFLINE", "CLIENT_CERT")
)


class Time(click.ParamType[Any]):
    """Accepts an instant as people write it."""

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
    """Accepts an instant, or `now`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "now" else super().convert(value, param, ctx)


def _export_setting(_ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Set the variable of an option, so that the client and all that it starts read it."""
    if value is not None:
        os.environ[str(param.envvar)] = str(int(value) if isinstance(value, bool) else value)


def device_and_type(*, required: bool) -> Callable[[Command], Command]:
    """Make the arguments DEVICE and TYPE, with completion."""

    def add(command: Command) -> Command:
        for name, metavar, complete in (
            ("calibration_type", "TYPE", complete_types),
            ("device_name", "DEVICE", complete_devices),
        ):
            shown = metavar if required else f"[{metavar}]"
            command = click.argument(name, metavar=shown, required=required, shell_complete=complete)(command)
        return command

    return add


def table(help: str) -> Callable[[Command], Command]:
    """Make the option --from, which names a CSV table."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--from", "table", type=file, metavar="CSV", help=help)


# An option that a variable of the environment sets, too.
_setting = functools.partial(click.option, show_envvar=True)
# A setting of the job, which reaches the client by the environment.
_job_setting = functools.partial(_setting, expose_value=False, callback=_export_setting)

run = click.option("--run", type=int, metavar="N", help="Ask for the calibration that applies to this run.")
date = click.option("--date", type=Time(), help="Ask for the calibration that applies at this time.")
as_of = _setting(
    "--as-of",
    type=AsOf(),
    envvar="CDB_AS_OF",
    help="Ask the database as it stood then; 'now': the latest that can be asked.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
cache_folder = _job_setting(
    "--cache",
    envvar="CDB_CACHE",
    metavar="FOLDER",
    help="Keep payloads and answers in this folder; else in one of yours.",
)

_JOB_OPTIONS = (
    _job_setting(
        "--offline",
        envvar="CDB_OFFLINE",
        is_flag=True,
        help="Ask no server: answer from the lock file and the cache.",
    ),
    _job_setting(
        "--lock",
        envvar="CDB_LOCK",
        metavar="FILE",
        help="Answer from this file what it has; record there all other queries and their answers.",
    ),
    cache_folder,
)

_SERVER_OPTIONS = (
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="Retry for at most this long, then give up.",
    ),
    _setting(
        "--client-cert",
        envvar="CDB_CLIENT_CERT",
        metavar="FILE",
        help="Your certificate and its key in one PEM file, for a server that asks for it.",
    ),
    _setting(
        "--server",
        envvar="CDB_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        metavar="URL",
        help="One base URL or more, in order of preference.",
    ),
)
_CREDENTIAL_OPTIONS = (
    _setting("--token", envvar="CDB_TOKEN", help="Your token."),
    _setting("--user", envvar="CDB_USER", help="Your name."),
)


def with_reader(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that reads a `client`, and the options that name the servers and set the job."""
    return _with_client(command, Calibration, (*_JOB_OPTIONS, *_SERVER_OPTIONS))


def with_writer(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that writes a `client`, and the options that name the servers and the user."""
    return _with_client(command, CalibrationSuperMouse, (*_CREDENTIAL_OPTIONS, *_SERVER_OPTIONS))


def _with_client(
    command: Callable[..., Any], made: Callable[..., Any], options: Sequence[Callable[..., Any]]
) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**given: Any) -> Any:
        if made is CalibrationSuperMouse:
            # A write depends on the present state, not on the one that a job is pinned to.
            clear_job()
        named = {name: given.pop(name) for name in ("client_cert", "timeout", "user", "token") if name in given}
        return command(client=made(given.pop("server"), **named), **given)

    for option in options:
        run = option(run)
    return run


# A user who waits longer has typed the name already.
COMPLETION_SECONDS = 2.0

# Rule 2, for devices and types. Anything else could act on the shell.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}")


def complete_devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """List the devices whose names begin with what is typed."""
    return _beginning(incomplete.upper(), [device.device_name for device in _known(ctx)])


def complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """List the calibration types whose names begin with what is typed: of the named device, else of all."""
    named = next((ctx.params[name] for name in ("device_name", "first", "device") if ctx.params.get(name)), None)
    known = [device for device in _known(ctx) if named is None or device.device_name == named.upper()]
    return _beginning(incomplete.lower(), sorted({name for device in known for name in device.calibration_type}))


def _known(ctx: click.Context) -> Sequence[Device]:
    """List all devices; none where no server answers, for an error message would break the line being typed."""
    # A lock file records the queries of a job, not those of a completion.
    os.environ.pop("CDB_LOCK", None)
    try:
        client = Calibration(
            ctx.params.get("server"), client_cert=ctx.params.get("client_cert"), timeout=COMPLETION_SECONDS
        )
        return client.list_devices(with_cabling=True)
    except CdbError:
        return ()


def _beginning(start: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(start) and _NAME.fullmatch(name)]


@add_completion_class
class Bash(BashComplete):
    """Escapes spaces in names, which click does not: bash inserts a completion as if it were typed."""

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Format a line for click's script, whose `read` removes one of two backslashes."""
        line = super().format_completion(item)
        words = os.environ.get("COMP_WORDS", "").split("\n")
        typed = words[min(int(os.environ.get("COMP_CWORD", "0")), len(words) - 1)]
        return line if typed.startswith(("'", '"')) else line.replace(" ", r"\\ ")
