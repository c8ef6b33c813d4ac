"""Names that the shell completes while one types: devices and calibration types, asked from the server."""

# click's CompletionItem is generic only in its later versions.
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from cdb._exceptions import CdbError
from cdb.calibration import Calibration
from cdb.records import Device

# Who waits for a name has typed it before.
SECONDS = 2.0

# Rule 2, for both. A shell is not handed anything else.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}")


def devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The devices whose names begin so."""
    return _beginning(incomplete.upper(), [device.device_name for device in _known(ctx)])


def calibration_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The calibration types whose names begin so: of the device that is named, or of all."""
    named = next((ctx.params[name] for name in ("device_name", "first", "device") if ctx.params.get(name)), None)
    known = [device for device in _known(ctx) if named is None or device.device_name == named.upper()]
    return _beginning(incomplete.lower(), sorted({name for device in known for name in device.calibration_type}))


def _known(ctx: click.Context) -> Sequence[Device]:
    """All devices; none where the server cannot be asked: an error in the midst of a line helps nobody."""
    # A job's lock file notes what the job asks, not what somebody types.
    os.environ.pop("CDB_LOCK", None)
    try:
        client = Calibration(ctx.params.get("server"), client_cert=ctx.params.get("client_cert"), timeout=SECONDS)
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
