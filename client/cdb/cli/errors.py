"""Print errors and warnings with a hint at the next command, and map them to exit statuses."""

import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import click

from cdb import _exceptions as errors
from cdb._exceptions import CdbError, ServerUnreachable
from cdb._instants import display_instant
from cdb.cli.options import SETTINGS
from cdb.cli.printing import escaped, print_note


class CdbGroup(click.Group):
    """A group that prints the errors of its commands and turns them into exit statuses."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _escaping_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        _warn_misspelt_settings()
        try:
            with _printing_warnings(), _escaping_usage_errors():
                return super().invoke(ctx)
        except CdbError as error:
            print_note(f"cdb: {error.message}")
            if (told := hint(error, ctx.invoked_subcommand)) is not None:
                print_note(f"cdb: {told}")
            sys.exit(3 if isinstance(error, ServerUnreachable) else 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # The reader of the output has gone: click ends quietly then.
                raise
            print_note(f"cdb: {error.strerror or error}")
            sys.exit(1)


class _WarningPrinter(logging.Handler):
    """Prints warnings of the client, but not twice in a row where they differ only in numbers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if (same := re.sub(r"[0-9.]+", "", said)) != self._last:
            self._last = same
            print_note(f"cdb: {said}")


@contextmanager
def _printing_warnings() -> Iterator[None]:
    """Print the warnings of the client during the block, so that the user sees what it waits for."""
    log, told = logging.getLogger("cdb"), _WarningPrinter()
    log.addHandler(told)
    try:
        yield
    finally:
        log.removeHandler(told)


def _warn_misspelt_settings() -> None:
    """Warn of each variable of the environment that is nearly a setting: it would have no effect.

    Other variables that begin with CDB_ belong to the server, or to other programs.
    """
    for name in sorted(os.environ):
        if name.startswith("CDB_") and name not in SETTINGS and (near := get_close_matches(name, SETTINGS, 1, 0.81)):
            print_note(f"cdb: no setting is called {name}, which is left out: is {near[0]} meant?")


@contextmanager
def _escaping_usage_errors() -> Iterator[None]:
    """Escape the errors of click, which repeat arguments and file names, before click prints them."""
    try:
        yield
    except click.ClickException as error:
        said = error.format_message()
        if escaped(said) == said:
            raise
        if isinstance(error, click.UsageError):
            raise click.UsageError(escaped(said), error.ctx) from None
        raise click.ClickException(escaped(said)) from None


def hint(error: errors.CdbError, command: str | None) -> str | None:
    """Advise the next command after an error; None where its message says enough."""
    if isinstance(error, errors.CalibrationNotFound):
        return _not_found_hint(error, command)
    if isinstance(error, errors.RunNotFound):
        return (
            f"by date: --date in place of --run; to register it: cdb run add {error.run_number} --start TIME; "
            "which there are: cdb log"
        )
    if getattr(error, "argument", None) == "run_number" and error.message.startswith("run_number 0 "):
        return "by date: --date in place of --run; the current one: neither of them"
    if isinstance(error, errors.AsOfNotReached):
        return f"the latest that can be asked now, {display_instant(error.complete_until)}: --as-of now"
    # The messages of servers and of TLS have advice of their own.
    if isinstance(error, errors.NotAuthorised) and error.message.startswith("writing needs user and token"):
        return "give them by --user and --token, too; the server's operator issues tokens"
    if command == "copy" and "?wsdl is not a service" in error.message:
        return (
            "--from takes the address of one service, too: http://…/cdb/calibration?wsdl or http://…/cdb/cabling?wsdl"
        )
    if "is not a service of a calibration database" in error.message or getattr(error, "argument", None) == "servers":
        return "--server, or CDB_SERVER, names the server by its base URL alone, like http://localhost:8080"
    if isinstance(error, errors.TooLarge):
        return "a list is made shorter by a shorter period; the largest file that is taken is the operator's to set"
    return None


def _not_found_hint(error: errors.CalibrationNotFound, command: str | None) -> str:
    if error.id is not None:
        return "which ids there are: cdb log, or those in force at a time: cdb ids TIME"
    if command == "why":
        return "what there is: cdb devices"
    asked = ""
    if error.run_number is not None:
        asked = f" --run {error.run_number}"
    elif error.date is not None:
        asked = f" --date '{display_instant(error.date)}'"
    device = f"'{error.device_name}'" if " " in str(error.device_name) else error.device_name
    kind = f"'{error.calibration_type}'" if " " in str(error.calibration_type) else error.calibration_type
    return f"what there is: cdb devices; what would apply when: cdb why {device} {kind}{asked}"
