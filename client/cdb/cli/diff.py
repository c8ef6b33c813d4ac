"""`cdb diff`: how the contents of two calibrations differ."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from cdb._instants import say
from cdb.calibration import Calibration
from cdb.cli import completion, difference, shared
from cdb.records import CalibrationText

Asked = TypeVar("Asked")


@click.command(short_help="Compare the contents of two calibrations.")
@click.argument("first", metavar="{ID|DEVICE}", shell_complete=completion.devices)
@click.argument("second", metavar="{ID|TYPE}", shell_complete=completion.calibration_types)
@click.option("--run", type=int, metavar="N", multiple=True, help="Compare what applies to two runs: give it twice.")
@click.option("--date", type=shared.Time(), multiple=True, help="Compare what applies at two times: give it twice.")
@click.option(
    "--as-of",
    type=shared.AsOf(),
    multiple=True,
    help="Ask the database as it stood then; twice: compare the answers as of two times.",
)
@shared.as_json
@shared.reads
def diff(
    first: str,
    second: str,
    run: Sequence[int],
    date: Sequence[datetime],
    as_of: Sequence[Any],
    as_json: bool,
    client: Calibration,
) -> None:
    """Compare the contents of two calibrations, by their ids or as the answers to two questions.

    \b
    cdb diff 12 15
    cdb diff TOF1 t0 --run 7661 --run 7662
    cdb diff TOF1 t0 --run 7662 --as-of 2016-10-01 --as-of now
    """
    # A calibration type begins with a letter.
    if second.isdecimal():
        old, new = _by_ids(client, first, second, run or date, as_of)
        names = _named(old), _named(new)
    else:
        old, new, names = _by_questions(client, (first, second), run, date, as_of)
    same = old.data == new.data
    why_not, lines = None, []
    if not same:
        try:
            lines = difference.unified(old.data, new.data, names)
        except difference.NotLineByLine as reason:
            why_not = str(reason)
    if as_json:
        shared.print_json({"old": old.record, "new": new.record, "same": same, "not_compared": why_not, "diff": lines})
        return
    if len(lines) > 1:
        shared.print_comparison(lines)
        return
    shared.out(f"--- {names[0]}\n+++ {names[1]}")
    if same:
        shared.out(f"the same: {_size_and_hash(old)}")
        return
    for line in (why_not, *lines):
        if line is not None:
            shared.out(line)
    shared.out(f"-{_size_and_hash(old)}\n+{_size_and_hash(new)}")


def _by_ids(
    client: Calibration, first: str, second: str, asked: Sequence[Any], as_of: Sequence[Any]
) -> tuple[CalibrationText, CalibrationText]:
    if not first.isdecimal():
        raise click.UsageError(f"{second} is no calibration type: name two ids, or DEVICE and TYPE")
    if asked or len(as_of) > 1:
        raise click.UsageError("two ids say all: leave --run, --date and a second --as-of out")
    known = as_of[0] if as_of else None
    return client.get_calibration_for_id(int(first), known), client.get_calibration_for_id(int(second), known)


def _by_questions(
    client: Calibration, key: tuple[str, str], runs: Sequence[int], dates: Sequence[datetime], as_of: Sequence[Any]
) -> tuple[CalibrationText, CalibrationText, tuple[str, str]]:
    if runs and dates:
        raise click.UsageError("--run and --date exclude each other")
    given = runs, dates, as_of
    if max(map(len, given)) != 2:
        raise click.UsageError(
            "say what to compare: --run A --run B, --date A --date B or --as-of A --as-of B; or name two ids"
        )
    texts, names = [], []
    for run, date, known in zip(*map(_twice, given), strict=True):
        if run is not None:
            text, asked = client.get_calibration_for_run(*key, run, known), f", for run {run}"
        elif date is not None:
            text, asked = client.get_calibration_for_date(*key, date, known), f", at {say(date)}"
        else:
            text, asked = client.get_current_calibration(*key, known), ""
        texts.append(text)
        then = f", as of {say(known) if isinstance(known, datetime) else known}" if known else ""
        names.append(f"{_named(text)}{asked}{then}")
    return texts[0], texts[1], (names[0], names[1])


def _twice(given: Sequence[Asked]) -> Sequence[Asked | None]:
    """What is given for both sides: once, it holds for both."""
    return given if len(given) == 2 else [given[0] if given else None] * 2


def _named(text: CalibrationText) -> str:
    return f"{text.id} {text.device_name} {text.calibration_type}, valid from {say(text.valid_from)}"


def _size_and_hash(text: CalibrationText) -> str:
    return f"{difference.size(text.data)}, sha256 {text.sha256}"
