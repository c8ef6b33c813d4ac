"""Print results: tables, JSON, diffs, progress bars; escape what could act on a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from cdb._instants import display_instant, format_instant
from cdb.records import CalibrationRecord, RunRange

# The colours of a diff's lines, by their first character.
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def escaped(text: str) -> str:
    """Escape a text for printing: what others wrote must not control the terminal, nor reverse its words.

    Writes unprintable characters as Python does, a C1 control as `\\x9b`; keeps line breaks and tabs.
    """
    return _escape(text, lambda character: character.encode("unicode_escape").decode("ascii"))


def print_line(text: str) -> None:
    """Print text on stdout. Commands print only through the functions of this module."""
    _echo(escaped(text))


def print_note(text: str) -> None:
    """Print text on stderr, for the user and not for programs."""
    _echo(escaped(text), err=True)


def print_above_bar(progress: Progress, text: str) -> None:
    """Print text on stderr, above a bar."""
    progress.console.print(escaped(text), markup=False, soft_wrap=True)


def print_diff(lines: Sequence[str], *, err: bool = False) -> None:
    """Print the lines of a diff, in colours on a terminal."""
    styled = [
        click.style(escaped(line), fg=_COLOURS[line[0]]) if line[:1] in _COLOURS else escaped(line) for line in lines
    ]
    _echo("\n".join(styled), err=err)


def print_content(data: bytes) -> None:
    """Print the exact bytes of a calibration, without escaping: the user asked for them."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def confirm(question: str) -> bool:
    """Ask on the terminal."""
    return click.confirm(escaped(question), err=True)


def print_json(value: Any) -> None:
    """Print an answer as JSON: instants as text, dataclasses as objects, unprintable characters as `\\u009b`."""
    text = json.dumps(value, default=_json_default, indent=2, ensure_ascii=False)
    _echo(_escape(text, lambda character: json.dumps(character)[1:-1]))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, err: bool = False) -> None:
    """Print a table on a terminal; elsewhere a line for each row, with tabs between columns, without heading."""
    if (sys.stderr if err else sys.stdout).isatty():
        # Fold, so that a narrow terminal leaves nothing out.
        table = Table(*(Column(escape(escaped(column)), overflow="fold") for column in columns))
        for row in rows:
            table.add_row(*(Text(_cell(value, display_instant)) for value in row))
        Console(stderr=err).print(table)
    else:
        for row in rows:
            texts = [_cell(value, format_instant) for value in row]
            _echo("\t".join(text.replace("\t", " ").replace("\n", " ") for text in texts), err=err)


def print_answer(value: Any, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    """Print an answer as JSON, else as a table."""
    if as_json:
        print_json(value)
    else:
        print_rows(columns, rows)


def progress(unit: str) -> Progress:
    """Make a progress bar on stderr, shown only on a terminal. `unit` names what it counts; it is not escaped."""
    console = Console(stderr=True, highlight=False)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn(unit))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def bar_description(text: str) -> str:
    """Escape a text for the description of a bar."""
    return escape(escaped(text))


def _echo(text: str, *, err: bool = False) -> None:
    stream = sys.stderr if err else sys.stdout
    # Escape characters that the terminal's encoding does not have.
    known = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding) if stream.encoding else text
    click.echo(known, err=err)


def _escape(text: str, spell_one: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return re.sub(r"[^\t\n -~]", lambda found: found[0] if found[0].isprintable() else spell_one(found[0]), text)


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_instant(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(value)


def _cell(value: Any, instant_text: Callable[[datetime], str]) -> str:
    if value is None:
        return ""
    return instant_text(value) if isinstance(value, datetime) else escaped(str(value))


Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

PARALLEL_QUERIES = 8


def in_parallel(
    unit: str, ask: Callable[[Asked], Answered], about: Sequence[Asked], weights: Sequence[int] | None = None
) -> list[Answered]:
    """Call `ask` for each of `about` in parallel; return the answers in order. The bar counts the weights in `unit`.

    After an error starts no more calls, waits for those that run, and raises it.
    """
    weight = weights or [1] * len(about)
    with ThreadPoolExecutor(PARALLEL_QUERIES) as threads, progress(unit) as bar:
        task = bar.add_task("", total=sum(weight))
        under_way = {threads.submit(ask, each): position for position, each in enumerate(about)}
        try:
            for done in as_completed(under_way):
                done.result()
                bar.advance(task, weight[under_way[done]])
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in under_way]


MAX_SHOWN_RANGES = 12


def describe_runs(count: int, ranges: Sequence[RunRange]) -> str:
    """Describe how many runs, and which."""
    if not count:
        return "none"
    spelled = [str(r.first_run) if r.first_run == r.last_run else f"{r.first_run}-{r.last_run}" for r in ranges]
    more = ", …" if len(spelled) > MAX_SHOWN_RANGES else ""
    return f"{count} ({', '.join(spelled[:MAX_SHOWN_RANGES])}{more})"


def describe_origin(record: CalibrationRecord) -> str:
    comment = f", {record.comment!r}" if record.comment else ""
    return f"{record.size} bytes, stored {display_instant(record.created)} by {record.author}{comment}"
