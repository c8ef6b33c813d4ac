"""Compare two payloads line by line, and find signs of a wrong or truncated file: `cdb diff`."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, TypeVar

import click

from cdb._instants import display_instant
from cdb.calibration import Calibration
from cdb.cli import options, printing
from cdb.cli.printing import escaped
from cdb.cli.read import get_applying
from cdb.records import CalibrationText

Asked = TypeVar("Asked")


@click.command(short_help="Compare the contents of two calibrations.")
@click.argument("first", metavar="{ID|DEVICE}", shell_complete=options.complete_devices)
@click.argument("second", metavar="{ID|TYPE}", shell_complete=options.complete_types)
@click.option("--run", type=int, metavar="N", multiple=True, help="Compare what applies to two runs: give it twice.")
@click.option("--date", type=options.Time(), multiple=True, help="Compare what applies at two times: give it twice.")
@click.option(
    "--as-of",
    type=options.AsOf(),
    multiple=True,
    help="Ask the database as it stood then; twice: compare the answers as of two times.",
)
@options.as_json
@options.with_reader
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
    # Digits are an id: a calibration type begins with a letter.
    if second.isdecimal():
        old, new = _by_ids(client, first, second, run or date, as_of)
        names = _named(old), _named(new)
    else:
        old, new, names = _by_questions(client, (first, second), run, date, as_of)
    same = old.data == new.data
    why_not, lines = None, []
    if not same:
        try:
            lines = unified_diff(old.data, new.data, names)
        except NoLineDiff as reason:
            why_not = str(reason)
    if as_json:
        printing.print_json(
            {"old": old.record, "new": new.record, "same": same, "not_compared": why_not, "diff": lines}
        )
        return
    if len(lines) > 1:
        printing.print_diff(lines)
        return
    printing.print_line(f"--- {names[0]}\n+++ {names[1]}")
    if same:
        printing.print_line(f"the same: {_size_and_hash(old)}")
        return
    for line in (why_not, *lines):
        if line is not None:
            printing.print_line(line)
    printing.print_line(f"-{_size_and_hash(old)}\n+{_size_and_hash(new)}")


def _by_ids(
    client: Calibration, first: str, second: str, asked: Sequence[Any], as_of: Sequence[Any]
) -> tuple[CalibrationText, CalibrationText]:
    if not first.isdecimal():
        raise click.UsageError(f"{second} is no calibration type: name two ids, or DEVICE and TYPE")
    if asked or len(as_of) > 1:
        raise click.UsageError("two ids exclude --run, --date and a second --as-of")
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
        texts.append(get_applying(client, key, run, date, known))
        asked = f", at {display_instant(date)}" if date is not None else ""
        asked = f", for run {run}" if run is not None else asked
        then = f", as of {display_instant(known) if isinstance(known, datetime) else known}" if known else ""
        names.append(f"{_named(texts[-1])}{asked}{then}")
    return texts[0], texts[1], (names[0], names[1])


def _twice(given: Sequence[Asked]) -> Sequence[Asked | None]:
    """Return the values for both sides; a single value counts for both."""
    return given if len(given) == 2 else [given[0] if given else None] * 2


def _named(text: CalibrationText) -> str:
    return f"{text.id} {text.device_name} {text.calibration_type}, valid from {display_instant(text.valid_from)}"


def _size_and_hash(text: CalibrationText) -> str:
    return f"{describe_size(text.data)}, sha256 {text.sha256}"


# Lines in both files together; comparing more takes too long.
MAX_DIFF_LINES = 40_000
# Pairs of lines that can be compared in a few seconds; repeated lines, or many changes, make many pairs.
MAX_COMPARED_PAIRS = 10_000_000
# Longer lines are split: some files are a single line, such as a JSON list of all channels.
MAX_LINE_CHARACTERS = 200

# Bytes; the fields of larger files are not inspected, because it would take too long.
MAX_INSPECTED_BYTES = 4 * 2**20


class NoLineDiff(Exception):
    """The reason why two contents are not compared line by line."""


def summary(old: bytes, new: bytes, names: tuple[str, str], *, line_by_line: bool, most: int) -> list[str]:
    """Describe the difference in lines, with at most `most` lines of the diff. `names` are those of old and new."""
    if old == new:
        return [f"content: the same as {names[0]}"]
    lines = [
        f"content: {describe_size(new)}; {names[0]} has {describe_size(old)}",
        *(f"! {doubt}" for doubt in suspicions(new, old, names[0])),
    ]
    if old and new.startswith(old):
        lines.append(f"it is {names[0]} with {len(new) - len(old)} bytes more at its end")
    if line_by_line:
        try:
            compared = unified_diff(old, new, names)
        except NoLineDiff as reason:
            if _text(old) is not None and _text(new) is not None:
                lines.append(str(reason))
        else:
            left = len(compared) - most
            cut = [f"… and {left} lines more"] if left > 0 else []
            return lines + compared[:most] + cut
    named = zip(names, (old, new), strict=True)
    return lines + [f"sha256 {hashlib.sha256(content).hexdigest()} {name}" for name, content in named]


def unified_diff(old: bytes, new: bytes, names: tuple[str, str]) -> list[str]:
    """Return all lines of a unified diff, escaped for printing. Raises NoLineDiff."""
    texts = _text(old), _text(new)
    if texts[0] is None or texts[1] is None:
        raise NoLineDiff("not both are text")
    # Count before splitting: millions of lines would take seconds and much memory.
    if sum(max(text.count("\n"), len(text) // MAX_LINE_CHARACTERS) for text in texts if text) > MAX_DIFF_LINES:
        raise NoLineDiff("too many lines to compare here")
    lines = _lines(texts[0]), _lines(texts[1])
    if len(lines[0]) + len(lines[1]) > MAX_DIFF_LINES:
        raise NoLineDiff("too many lines to compare here")
    compared = [escaped(line) for line in _unified(*lines, names)]
    return compared or ["no line differs but in white space at its end"]


def suspicions(new: bytes, old: bytes | None = None, name: str = "") -> list[str]:
    """List signs that a file is cut off or the wrong one, by itself and compared with the old one, called `name`."""
    if not new:
        return ["it is empty"]
    if old is not None and old != new and old.startswith(new):
        return [f"it is {name} without the last {len(old) - len(new)} bytes: cut off?"]
    found = []
    if old is not None and old.endswith(b"\n") and not new.endswith(b"\n"):
        found.append(f"its last line does not end, as that of {name} does: cut off?")
    if max(len(new), len(old or b"")) > MAX_INSPECTED_BYTES:
        return found
    if old is not None and _is_json(old) and not _is_json(new):
        found.append(f"it is not JSON, as {name} is: cut off, or another file?")
    *others, last = [len(line.split()) for line in new.splitlines()]
    if len(others) > 1 and 0 < last < min(others) == max(others):
        found.append(f"its last line has {last} of {others[0]} fields: cut off?")
    return found if old is None else found + _shape_suspicions(new, old, name)


def _shape_suspicions(new: bytes, old: bytes, name: str) -> list[str]:
    """Compare the first words and the widths of two tables: they may belong to different devices."""
    rows = [[line.split() for line in content.splitlines() if line.split()] for content in (new, old)]
    if min(map(len, rows)) < 2:
        return []
    first_words = [{row[0] for row in table} for table in rows]
    if len(first_words[0]) == len(first_words[1]) == 1 and first_words[0] != first_words[1]:
        spelled = [words.pop().decode("utf-8", "replace")[:40] for words in first_words]
        return [f"its lines begin with {spelled[0]!r}, those of {name} with {spelled[1]!r}: is it the right file?"]
    widths = [{len(row) for row in table} for table in rows]
    if len(widths[0]) == len(widths[1]) == 1 and widths[0] != widths[1]:
        return [f"its lines have {widths[0].pop()} fields, those of {name} {widths[1].pop()}: is it the right file?"]
    return []


def describe_size(content: bytes) -> str:
    """Describe the length of a content, in lines too when it is text."""
    if _text(content) is None:
        return f"{len(content)} bytes"
    return f"{len(content)} bytes in {_count(content)} lines"


def _count(content: bytes) -> int:
    return content.count(b"\n") + (bool(content) and not content.endswith(b"\n"))


def _is_json(content: bytes) -> bool:
    if content.lstrip()[:1] not in (b"[", b"{"):
        return False
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


class _BoundedMatcher(difflib.SequenceMatcher[str]):
    """A matcher that gives up when it would take too long: its work grows with the square of the lines."""

    def __init__(self, old: list[str], new: list[str]) -> None:
        super().__init__(None, old, new)
        places = self.b2j  # type: ignore[attr-defined]  # documented, and not in the stubs
        self._pairs = [0, *accumulate(1 + len(places.get(line, ())) for line in old)]
        self._left = MAX_COMPARED_PAIRS

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        self._left -= self._pairs[-1 if ahi is None else ahi] - self._pairs[alo]
        if self._left < 0:
            raise NoLineDiff("too much differs to compare it here line by line")
        return super().find_longest_match(alo, ahi, blo, bhi)


def _unified(old: list[str], new: list[str], names: tuple[str, str]) -> Iterator[str]:
    # Does what difflib.unified_diff does, which accepts no matcher.
    headings = [f"--- {names[0]}", f"+++ {names[1]}"]
    for group in _BoundedMatcher(old, new).get_grouped_opcodes(2):
        yield from headings
        headings = []
        yield f"@@ -{_range(group[0][1], group[-1][2])} +{_range(group[0][3], group[-1][4])} @@"
        for tag, first, last, new_first, new_last in group:
            if tag == "equal":
                yield from (f" {line}" for line in old[first:last])
            else:
                yield from (f"-{line}" for line in old[first:last])
                yield from (f"+{line}" for line in new[new_first:new_last])


def _range(first: int, last: int) -> str:
    """Format lines as a unified diff does: from 1; an empty range by the line before it."""
    if last - first == 1:
        return str(first + 1)
    return f"{first + (last > first)},{last - first}"


def _text(content: bytes) -> str | None:
    """Decode a text; None for bytes that are no text, or could move the cursor of a terminal."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if re.search("[^\t\n\r\x20-\x7e\xa0-\U0010ffff]", text):
        return None
    return text


def _lines(text: str) -> list[str]:
    return [piece for line in text.replace("\r", "").split("\n") for piece in _split_long_line(line)]


def _split_long_line(line: str) -> list[str]:
    if len(line) <= MAX_LINE_CHARACTERS:
        return [line]
    parts = re.split(r"(?<=[}\]],)\s*", line)
    return [
        part[at : at + MAX_LINE_CHARACTERS] for part in parts for at in range(0, len(part) or 1, MAX_LINE_CHARACTERS)
    ]
