"""Print why a calibration applies, and what changed that: `cdb why`."""

import sys
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import click

from cdb._exceptions import AsOfNotReached, CalibrationNotFound
from cdb._instants import display_instant
from cdb.calibration import Calibration
from cdb.cli import options, printing
from cdb.cli.explanation import ExplainedQuery, Explanation, Step, explain, sentences
from cdb.cli.log import entry_at
from cdb.cli.read import get_applying
from cdb.records import CalibrationRecord, Run


@click.command(short_help="Explain why a calibration applies, and since when.")
@options.device_and_type(required=True)
@options.run
@options.date
@options.as_of
@options.as_json
@options.with_reader
def why(
    device_name: str,
    calibration_type: str,
    run: int | None,
    date: datetime | None,
    as_of: Any,
    as_json: bool,
    client: Calibration,
) -> None:
    """Explain an answer: why this calibration applies to a run, at a time or now, and what changed the answer when."""
    if run is not None and date is not None:
        raise click.UsageError("--run and --date exclude each other")
    if as_of == "now":
        as_of = client.get_status().complete_until
    key = device_name.upper(), calibration_type.lower()
    registrations = () if run is None else _registrations(client, run, as_of)
    history = client.get_history(*key, as_of)
    if registrations:
        question = ExplainedQuery(*key, registrations[-1].start_time, registrations)
    elif date is not None or as_of is not None:
        question = ExplainedQuery(*key, as_of if date is None else date)
    else:
        question = ExplainedQuery(*key, _now(client, history), present=True)
    explained = explain(question, history)
    explained = replace(explained, timeline=tuple(_signed(client, step) for step in explained.timeline))
    if as_json:
        printing.print_json({"as_of": as_of, **asdict(explained), "sentences": sentences(explained)})
    elif history:
        _print(explained)
    if explained.winner is None:
        # Raises the service's own error.
        get_applying(client, key, run, date, as_of)
        sys.exit(1)


def _print(explained: Explanation) -> None:
    for sentence in sentences(explained):
        printing.print_line(sentence)
    named = [("applies", explained.winner), *(("superseded", record) for record in explained.superseded)]
    named += [("before", explained.took_over_from), ("next", explained.next)]
    named += [("withdrawn", record) for record in explained.withdrawn]
    printing.print_rows(
        ("", "id", "valid from", "valid until", "stored", "by", "why"),
        [(name, *_columns(record)) for name, record in named if record is not None],
    )
    if not explained.timeline:
        printing.print_line("nothing ever applied")
        return
    printing.print_line("what changed the answer:")
    rows = []
    for step in explained.timeline:
        answers = ("nothing" if id is None else id for id in (step.before, step.after))
        rows.append((step.at, step.author, _what(explained.question, step), *answers, step.why))
    printing.print_rows(("when", "who", "what", "before", "after", "why"), rows)


def _columns(record: CalibrationRecord) -> tuple[Any, ...]:
    until, noted = record.valid_until, record.comment
    if record.withdrawn_at is not None:
        until, noted = None, f"withdrawn {display_instant(record.withdrawn_at)}: {record.withdrawn_reason}"
    return record.id, record.valid_from, until, record.created, record.author, noted


def _what(question: ExplainedQuery, step: Step) -> str:
    if step.start_time is not None:
        return f"run {question.registrations[-1].run_number} registered with start {display_instant(step.start_time)}"
    return f"{step.id} {'withdrawn' if step.kind == 'withdrawal' else 'stored'}"


def _registrations(client: Calibration, run_number: int, as_of: datetime | None) -> tuple[Run, ...]:
    """Return every entry of a run, the earliest first, by asking for the run just before each.

    Entries of the last seconds, after the latest as_of that the server can answer, are left out, but for the last.
    """
    found = [client.get_run(run_number, as_of)]
    while True:
        try:
            before = client.get_run(run_number, found[0].created - timedelta(microseconds=1))
        except AsOfNotReached as error:
            before = client.get_run(run_number, error.complete_until)
        # Before its first entry the answer is the first entry itself (rule 7).
        if before.created >= found[0].created:
            return tuple(found)
        found.insert(0, before)


def _now(client: Calibration, history: list[CalibrationRecord]) -> datetime:
    """Return the present instant by the server's clock, at least as exactly as this explanation needs."""
    reached = client.get_status().complete_until
    if any(record.valid_from > reached for record in history if not record.withdrawn):
        try:
            # Its answer tells whether one of these applies already.
            text = client.get_current_calibration(history[0].device_name, history[0].calibration_type)
            return max(reached, text.valid_from)
        except CalibrationNotFound:
            pass
    return reached


def _signed(client: Calibration, step: Step) -> Step:
    """Add the author of a withdrawal to its step."""
    return step if step.author is not None else replace(step, author=entry_at(client, step.at).author)
