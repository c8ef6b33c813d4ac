"""Compares two payloads: line by line, and channel by channel where both are tables.

To find what belongs together grows with the square of the lines. Past MOST_PAIRS it is given up, and line n stands
beside line n: a page comes at once, whatever is compared.
"""

import difflib
import heapq
import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Literal

from cdb_server.pages.payload import plot
from cdb_server.pages.payload.detect import Column, Content, Table

MAX_COMPARED_LINES, MAX_COMPARED_PAIRS = 10_000, 300_000

MAX_SHOWN_ROWS = 400

MAX_LARGEST_CHANGES = 20

# Words of a line: where more differ, the line is another.
MAX_MARKED_WORDS = 20

CONTEXT = 3

MAX_COMPARED_LINE_CHARACTERS, MAX_NUMBER_CHARACTERS = 400, 40

# Of what was almost nought, any change is a large multiple: beyond this it tells nothing, and is none in percent.
MAX_RELATIVE_CHANGE = 1e300

Kind = Literal["equal", "changed", "removed", "added", "gap"]

# Characters of a line, and whether they are what changed.
Piece = tuple[str, bool]

_WORDS = re.compile(r"\s+|[^\s,;:\[\]{}]+|.")


@dataclass(frozen=True, slots=True)
class Row:
    """Two lines that stand side by side, each with its number.

    Of a gap, `left_number` is how many equal lines are left out.
    """

    kind: Kind
    left_number: int | None
    left: Sequence[Piece]
    right_number: int | None
    right: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The rows to be shown, how many lines differ at all, and whether `rows` are all that there are.

    `cut` says that only the first MOST_LINES are compared, `by_number` that line n stands beside line n.
    """

    rows: Sequence[Row]
    removed: int
    added: int
    changed: int
    complete: bool
    truncated: bool
    by_number: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A channel's value in the left and in the right table, either as it is written."""

    channel: str
    old: str
    new: str
    difference: float
    # None where it tells nothing.
    relative: float | None


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """A column of two tables: all differences, in order; how many are not nought; the largest of those first."""

    name: str
    left: Sequence[float | None]
    right: Sequence[float | None]
    differences: Sequence[float | None]
    changed: int
    largest: Sequence[Change]

    @property
    def mean(self) -> float:
        """The mean of all differences, zero ones too."""
        return plot.mean([by for by in self.differences if by is not None])


@dataclass(frozen=True, slots=True)
class TableChange:
    """Two tables channel by channel: those in both, in the right one's order, and those in one alone."""

    columns: Sequence[ColumnChange]
    labels: Sequence[str]
    only_left: Sequence[str]
    only_right: Sequence[str]
    by_number: bool


def side_by_side(left: Content, right: Content) -> SideBySide:
    """Two texts."""
    old, new = list(left.lines[:MAX_COMPARED_LINES]), list(right.lines[:MAX_COMPARED_LINES])
    operations, by_number = _operations(old, new)
    counts = Counter[str]()
    rows: list[Row] = []
    for kind, one, other in _paired(operations):
        counts[kind] += 1
        if len(rows) < MAX_SHOWN_ROWS:
            rows.append(_row(kind, one, old, other, new))
    cut = max(len(left.lines), len(right.lines)) > MAX_COMPARED_LINES
    whole = counts.total() <= MAX_SHOWN_ROWS
    return SideBySide(rows, counts["removed"], counts["added"], counts["changed"], whole, cut, by_number)


def compare_tables(left: Table, right: Table) -> TableChange | None:
    """Two tables; None where their columns are not the same ones."""
    names = [column.name for column in left.columns]
    if sorted(names) != sorted(column.name for column in right.columns):
        return None
    # What tells the rows of one apart may not do so in the other: a shorter list needs less.
    keys = {column.name for table in (left, right) for column in table.keys}
    left, right = _keyed(left, names, keys), _keyed(right, names, keys)
    old, new = left.channels(), right.channels()
    by_number = len(set(old)) < len(old) or len(set(new)) < len(new)
    if by_number:
        old, new = [(str(row),) for row in range(left.rows)], [(str(row),) for row in range(right.rows)]
    labels = right.labels()
    place = {channel: row for row, channel in enumerate(old)}
    both = [(place[channel], row) for row, channel in enumerate(new) if channel in place]
    known = set(new)
    columns = [_column(one, other, both, labels) for one, other in zip(left.values, right.values, strict=True)]
    left_labels = left.labels()
    return TableChange(
        [column for column in columns if column is not None],
        [labels[row] for _, row in both],
        [left_labels[row] for row, channel in enumerate(old) if channel not in known],
        [labels[row] for row, channel in enumerate(new) if channel not in place],
        by_number,
    )


def _keyed(table: Table, names: Sequence[str], keys: Collection[str]) -> Table:
    """The same with its columns in the order of the names, and with these keys."""
    by_name = {column.name: column for column in table.columns}
    ordered = [by_name[name] for name in names]
    return Table(
        [column for column in ordered if column.name in keys],
        [column for column in ordered if column.name not in keys],
        table.rows,
    )


def _column(left: Column, right: Column, both: Sequence[tuple[int, int]], labels: Sequence[str]) -> ColumnChange | None:
    if left.numbers is None or right.numbers is None:
        return None
    olds = [left.numbers[row] for row, _ in both]
    news = [right.numbers[row] for _, row in both]
    by = [None if old is None or new is None else new - old for old, new in zip(olds, news, strict=True)]
    if any(difference is not None and math.isinf(difference) for difference in by):
        by = [None if difference is None else _clamped(difference) for difference in by]
    changed = [place for place, difference in enumerate(by) if difference]
    largest = []
    for place in heapq.nlargest(MAX_LARGEST_CHANGES, changed, key=lambda place: abs(by[place] or 0.0)):
        was, now = both[place]
        old, difference = olds[place], by[place] or 0.0
        relative = difference / abs(old) if old else math.inf
        largest.append(
            Change(
                labels[now],
                left.values[was][:MAX_NUMBER_CHARACTERS],
                right.values[now][:MAX_NUMBER_CHARACTERS],
                difference,
                relative if abs(relative) < MAX_RELATIVE_CHANGE else None,
            )
        )
    return ColumnChange(right.name, olds, news, by, len(changed), largest)


def _clamped(difference: float) -> float:
    """The greatest float where a difference is more than that."""
    return max(-sys.float_info.max, min(difference, sys.float_info.max))


class _TooManyPairs(Exception):
    """More pairs of lines than are looked at."""


class _BoundedMatcher(difflib.SequenceMatcher[str]):
    """A matcher that gives up."""

    def __init__(self, old: Sequence[str], new: Sequence[str]) -> None:
        super().__init__(None, old, new, autojunk=False)
        places = self.b2j  # type: ignore[attr-defined]  # documented, and not in the stubs
        self._pairs = [0, *accumulate(1 + len(places.get(line, ())) for line in old)]
        self._left = MAX_COMPARED_PAIRS

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> difflib.Match:
        self._left -= self._pairs[-1 if ahi is None else ahi] - self._pairs[alo]
        if self._left < 0:
            raise _TooManyPairs
        return super().find_longest_match(alo, ahi, blo, bhi)


_Operation = tuple[str, int, int, int, int]


def _operations(old: Sequence[str], new: Sequence[str]) -> tuple[list[_Operation], bool]:
    """What difflib finds; or, past what is looked at, the lines by their numbers."""
    try:
        return list(_BoundedMatcher(old, new).get_opcodes()), False
    except _TooManyPairs:
        return _by_number(old, new), True


def _by_number(old: Sequence[str], new: Sequence[str]) -> list[_Operation]:
    both = min(len(old), len(new))
    found: list[_Operation] = [
        ("equal" if old[at] == new[at] else "replace", at, at + 1, at, at + 1) for at in range(both)
    ]
    if len(old) > both:
        found.append(("delete", both, len(old), both, both))
    if len(new) > both:
        found.append(("insert", both, both, both, len(new)))
    return found


def _paired(operations: Sequence[_Operation]) -> Iterator[tuple[Kind, int | None, int | None]]:
    """The pairs of lines that differ, with some equal ones around them and gaps for the others."""
    last = len(operations) - 1
    for at, (tag, old, old_end, new, new_end) in enumerate(operations):
        if tag != "equal":
            pairs = zip_longest(range(old, old_end), range(new, new_end))
            yield from (("removed" if b is None else "added" if a is None else "changed", a, b) for a, b in pairs)
            continue
        head, tail = CONTEXT if at > 0 else 0, CONTEXT if at < last else 0
        length = old_end - old
        if length <= head + tail + 1:
            head, tail = length, 0
        yield from (("equal", old + n, new + n) for n in range(head))
        if length > head + tail:
            yield "gap", length - head - tail, None
        yield from (("equal", old + n, new + n) for n in range(length - tail, length))


def _row(kind: Kind, one: int | None, old: Sequence[str], other: int | None, new: Sequence[str]) -> Row:
    if kind == "gap":
        return Row(kind, one, (), None, ())
    left = "" if one is None else _shortened(old[one])
    right = "" if other is None else _shortened(new[other])
    pieces = _marked(left, right) if kind == "changed" else ([(left, False)], [(right, False)])
    return Row(kind, None if one is None else one + 1, pieces[0], None if other is None else other + 1, pieces[1])


def _marked(left: str, right: str) -> tuple[list[Piece], list[Piece]]:
    """Two lines, with the words marked that differ where they have as many, and not too many differ."""
    one, other = _WORDS.findall(left), _WORDS.findall(right)
    ones, others = [word for word in one if not word.isspace()], [word for word in other if not word.isspace()]
    if len(ones) != len(others):
        return [(left, False)], [(right, False)]
    differ = [a != b for a, b in zip(ones, others, strict=True)]
    if sum(differ) > MAX_MARKED_WORDS:
        return [(left, False)], [(right, False)]
    return _pieces(one, differ), _pieces(other, differ)


def _pieces(words: Sequence[str], differ: Sequence[bool]) -> list[Piece]:
    marks = iter(differ)
    pieces: list[Piece] = []
    for word in words:
        mark = not word.isspace() and next(marks)
        if pieces and pieces[-1][1] == mark:
            word = pieces.pop()[0] + word
        pieces.append((word, mark))
    return pieces


def _shortened(line: str) -> str:
    return line if len(line) <= MAX_COMPARED_LINE_CHARACTERS else f"{line[:MAX_COMPARED_LINE_CHARACTERS]}…"
