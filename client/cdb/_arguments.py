"""Validate callers' arguments and server URLs, and put them into the contract's form."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from cdb._exceptions import InvalidArgument
from cdb._instants import Instant, format_instant, instant


def without_none(arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave out the arguments that are None: they are not sent."""
    return {name: value for name, value in arguments.items() if value is not None}


def integer(argument: str, value: int) -> int:
    """Return an int; accept what converts to one without loss, such as NumPy's integers."""
    try:
        if isinstance(value, bool):
            raise TypeError(value)
        return operator.index(value)
    except TypeError:
        raise InvalidArgument(f"{argument} must be an int, not {value!r}", argument=argument) from None


def run(run_number: int) -> int:
    """Check the number of a run."""
    if integer("run_number", run_number) == 0:
        raise InvalidArgument(
            "run_number 0 is no run of the experiment, but stands for Monte Carlo: ask by date for the calibration to "
            "simulate with, get_calibration_for_date, or for the current one, get_current_calibration",
            argument="run_number",
        )
    return integer("run_number", run_number)


def serial(argument: str, value: int) -> int:
    """Check a journal position: 0 or greater."""
    if integer(argument, value) < 0:
        raise InvalidArgument(f"{argument} must not be negative, as {value} is", argument=argument)
    return integer(argument, value)


def seconds(argument: str, value: float) -> float:
    """Check a length of time in seconds."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgument(f"{argument} must be a number of seconds, not {value!r}", argument=argument)
    return value


def text(argument: str, value: str) -> str:
    """Check that a value is a str."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{argument} must be a str, not {value!r}", argument=argument)
    return value


def device_and_type(device_name: str, calibration_type: str) -> dict[str, str]:
    """Check the arguments that name a device and a calibration type."""
    return {
        "device_name": text("device_name", device_name),
        "calibration_type": text("calibration_type", calibration_type),
    }


def upload(
    device_name: str, calibration_type: str, valid_from: Instant, data: bytes | str, comment: str | None
) -> dict[str, Any]:
    """Check the arguments of an upload, and add the payload's sha256."""
    payload = _payload(data)
    return {
        **device_and_type(device_name, calibration_type),
        "valid_from": format_instant(instant("valid_from", valid_from)),
        "data": payload,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "comment": None if comment is None else text("comment", comment),
    }


def _payload(data: bytes | str) -> bytes:
    try:
        payload = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    except UnicodeEncodeError:
        raise InvalidArgument("data has a lone surrogate, which is not text: give bytes", argument="data") from None
    if not isinstance(payload, bytes):
        raise InvalidArgument(f"data must be bytes or str, not {type(data).__name__}", argument="data")
    return payload


def server_urls(servers: str | Sequence[str]) -> list[str]:
    """Check base URLs: a list of them, or one text with spaces or commas between."""
    named = servers.replace(",", " ").split() if isinstance(servers, str) else servers
    try:
        server_urls = [text("servers", server) for server in named]
    except TypeError:
        raise InvalidArgument(f"servers must be a str or a list of them, not {servers!r}", argument="servers") from None
    for address in server_urls:
        # Do not repeat it: a password in it would appear in messages and logs.
        shown = "a server's address with an @" if "@" in address else repr(address)
        if not address.startswith(("http://", "https://")):
            raise InvalidArgument(
                f"{shown} is no server: its URL must start with http:// or https://", argument="servers"
            )
        try:
            parsed = urlsplit(address)
            if not parsed.hostname or parsed.port == 0:
                raise ValueError(address)
        except ValueError:
            raise InvalidArgument(f"{shown} is no address of a server", argument="servers") from None
        if "@" in parsed.netloc:
            raise InvalidArgument(
                "a server's URL must not have a user or password: reading needs none", argument="servers"
            )
    return server_urls
