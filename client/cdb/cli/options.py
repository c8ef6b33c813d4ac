"""Declare what commands share: options, their environment variables, time arguments, completion of names."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from cdb._exceptions import CdbError, InvalidArgument
from cdb._instants import instant
from cdb._resolver.job import clear_job
from cdb.calibration import DEFAULT_SERVER, DEFAULT_TIMEOUT, Calibration
from cdb.records import Device
from cdb.supermouse import CalibrationSuperMouse

SETTINGS = tuple(
    f"CDB_{name}" for name in ("SERVER", "USER", "TOKEN", "AS_OF", "CACHE", "LOCK", "OFFLINE", "CLIENT_CERT")
)


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


def _export_setting(_ctx: click.Context, param: click.Parameter, value: Any) -> None:
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
    callback=_export_setting,
    help="Where payloads and answers are kept; else one of your folders.",
)

_JOB_OPTIONS = (
    click.option(
        "--offline",
        envvar="CDB_OFFLINE",
        show_envvar=True,
        is_flag=True,
        expose_value=False,
        callback=_export_setting,
        help="Ask no server: answer from the lock file and the cache.",
    ),
    click.option(
        "--lock",
        envvar="CDB_LOCK",
        show_envvar=True,
        metavar="FILE",
        expose_value=False,
        callback=_export_setting,
        help="Note what is asked and answered; what is noted already is answered from it.",
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
_CREDENTIAL_OPTIONS = (
    click.option("--token", envvar="CDB_TOKEN", show_envvar=True, help="Your token."),
    click.option("--user", envvar="CDB_USER", show_envvar=True, help="Your name."),
)


def with_reader(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that asks: its options name the service, and it is given a `client`."""
    return _with_client(command, Calibration, (*_JOB_OPTIONS, *_SERVER_OPTIONS))


def with_writer(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that writes: its options name the service and the user, and it is given a `client`."""
    return _with_client(command, CalibrationSuperMouse, (*_CREDENTIAL_OPTIONS, *_SERVER_OPTIONS))


def _with_client(
    command: Callable[..., Any], made: Callable[..., Any], options: Sequence[Callable[..., Any]]
) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(**given: Any) -> Any:
        if made is CalibrationSuperMouse:
            # Who writes looks at what is now, not at what a job is answered.
            clear_job()
        named = {name: given.pop(name) for name in ("client_cert", "timeout", "user", "token") if name in given}
        return command(client=made(given.pop("server"), **named), **given)

    for option in options:
        run = option(run)
    return run


# Who waits for a name has typed it before.
COMPLETION_SECONDS = 2.0

# Rule 2, for both. A shell is not handed anything else.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}")


def complete_devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The devices whose names begin so."""
    return _beginning(incomplete.upper(), [device.device_name for device in _known(ctx)])


def complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The calibration types whose names begin so: of the device that is named, or of all."""
    named = next((ctx.params[name] for name in ("device_name", "first", "device") if ctx.params.get(name)), None)
    known = [device for device in _known(ctx) if named is None or device.device_name == named.upper()]
    return _beginning(incomplete.lower(), sorted({name for device in known for name in device.calibration_type}))


def _known(ctx: click.Context) -> Sequence[Device]:
    """All devices; none where the server cannot be asked: an error in the midst of a line helps nobody."""
    # A job's lock file notes what the job asks, not what somebody types.
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
    """click's, but for names with a space: bash takes what it is given as it would be typed."""

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A line for click's script, whose `read` takes one backslash of two."""
        line = super().format_completion(item)
        words = os.environ.get("COMP_WORDS", "").split("\n")
        typed = words[min(int(os.environ.get("COMP_CWORD", "0")), len(words) - 1)]
        return line if typed.startswith(("'", '"')) else line.replace(" ", r"\\ ")
