"""Prepares a payload or a comparison for a page: pages of rows, plots, JSON tree, hex dump."""

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdb_server.pages.payload import detect, diff, plot
from cdb_server.pages.payload.detect import Content
from cdb_server.pages.payload.diff import ColumnChange, SideBySide, TableChange
from cdb_server.pages.payload.plot import Plot, Series

MAX_JSON_NODES = 1_500

# Of one list or object: the first tell of what form the others are.
MAX_CHILDREN = 100

# A browser goes no deeper than people do.
MAX_DEPTH = 20

MAX_VALUE_CHARACTERS = 300


@dataclass(slots=True)
class JsonNode:
    """A value under its name. A list or object has parts, of which `left_out` are not among them; `text` says what the
    value is, or how many parts it has."""

    name: str
    text: str
    children: "list[JsonNode]" = field(default_factory=list)
    left_out: int = 0


def json_tree(value: Any) -> JsonNode:
    """A value of JSON."""
    top = JsonNode("", _text(value))
    waiting = deque([(top, value, 0)])
    made = 0
    while waiting:
        fold, within, depth = waiting.popleft()
        for name, part in _children(within):
            if len(fold.children) == MAX_CHILDREN or made == MAX_JSON_NODES or depth == MAX_DEPTH:
                break
            made += 1
            fold.children.append(JsonNode(name, _text(part)))
            waiting.append((fold.children[-1], part, depth + 1))
        if isinstance(within, list | dict):
            fold.left_out = len(within) - len(fold.children)
    return top


def _children(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((detect.escape_unprintable(name[:MAX_VALUE_CHARACTERS]), part) for name, part in value.items())
    if isinstance(value, list):
        return ((str(place), part) for place, part in enumerate(value))
    return ()


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{len(value):,} {'field' if len(value) == 1 else 'fields'}"
    if isinstance(value, list):
        return f"{len(value):,} {'entry' if len(value) == 1 else 'entries'}"
    text = json.dumps(value, ensure_ascii=False)
    return detect.escape_unprintable(text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}…")


ROWS_PER_PAGE = 200

MAX_PLOTS = 6

MAX_SHOWN_LINE_CHARACTERS, MAX_CELL_CHARACTERS = 2_000, 200


@dataclass(frozen=True, slots=True)
class RowsPart:
    """What stands at once of rows or lines: from `first`, counted from 0, and where to go on; `count` are known."""

    first: int
    rows: Sequence[Sequence[str]]
    count: int

    @property
    def last(self) -> int:
        """The number of the last one, counted from 1."""
        return self.first + len(self.rows)

    @property
    def earlier(self) -> int | None:
        """Where the part before begins; None at the beginning."""
        return max(0, self.first - ROWS_PER_PAGE) if self.first else None

    @property
    def later(self) -> int | None:
        """Where the part after begins; None at the end."""
        return self.last if self.last < self.count else None


@dataclass(frozen=True, slots=True)
class DisplayedPayload:
    """A payload as shown. `constant` are the columns that say the same in every row, with what they say."""

    content: Content
    plots: Sequence[tuple[str, Plot]]
    plots_left_out: int
    constant: Sequence[tuple[str, str]]
    rows: RowsPart | None
    lines: RowsPart | None
    fold: JsonNode | None
    hex: Sequence[str]


@dataclass(frozen=True, slots=True)
class DisplayedColumn:
    """How a column changed, and that drawn."""

    change: ColumnChange
    plot: Plot | None


@dataclass(frozen=True, slots=True)
class DisplayedDifferences:
    """How two payloads differ, as shown. `columns` are those that changed, `unchanged` the names of the others."""

    same: bool
    table: TableChange | None
    columns: Sequence[DisplayedColumn]
    unchanged: Sequence[str]
    lines: SideBySide | None
    cut: bool


def display_payload(content: Content, first: int, before: Content | None, names: tuple[str, str]) -> DisplayedPayload:
    """A payload, its rows or lines from `first`; its numbers drawn beside those of `before`. Names are of it, and of
    that."""
    plots, plots_left_out, constant = _plots(content, before, names)
    table = content.table
    rows = None
    if table is not None:
        cells = [
            [value[:MAX_CELL_CHARACTERS] for value in column.values[first : first + ROWS_PER_PAGE]]
            for column in table.columns
        ]
        rows = RowsPart(min(first, table.rows), list(zip(*cells, strict=True)), table.rows)
    lines = None
    if content.kind in ("text", "table"):
        start = min(first, len(content.lines))
        told = [(line[:MAX_SHOWN_LINE_CHARACTERS],) for line in content.lines[start : start + ROWS_PER_PAGE]]
        lines = RowsPart(start, told, len(content.lines))
    return DisplayedPayload(
        content,
        plots,
        plots_left_out,
        constant,
        rows,
        lines,
        json_tree(content.value) if content.kind == "json" else None,
        _hex_dump(content.head) if content.kind == "binary" else [],
    )


def display_differences(left: Content, right: Content, same: bool, names: tuple[str, str]) -> DisplayedDifferences:
    """How two payloads differ; `same` says that their bytes do not."""
    table = None
    if not same and left.table is not None and right.table is not None:
        table = diff.compare_tables(left.table, right.table)
    texts = {left.kind, right.kind} <= {"text", "table", "json", "empty"}
    lines = diff.side_by_side(left, right) if texts and not same else None
    changed = [column for column in table.columns if column.changed] if table is not None else []
    columns = [
        DisplayedColumn(
            change,
            plot.by_channel(
                f"{change.name}: {names[1]} less {names[0]}",
                "channel",
                table.labels,
                [Series("", change.differences)],
                signed=True,
            ),
        )
        for change in changed[:MAX_PLOTS]
        if table is not None
    ]
    unchanged = [column.name for column in table.columns if not column.changed] if table is not None else []
    return DisplayedDifferences(same, table, columns, unchanged, lines, left.truncated or right.truncated)


def _plots(
    content: Content, before: Content | None, names: tuple[str, str]
) -> tuple[list[tuple[str, Plot]], int, list[tuple[str, str]]]:
    """The first columns drawn, each under its name; how many are not; and those that are the same in every row."""
    table = content.table
    if table is None:
        return [], 0, []
    beside = None
    if before is not None and before.table is not None:
        beside = diff.compare_tables(before.table, table)
    drawn: list[tuple[str, Plot]] = []
    left_out = 0
    constant = []
    labels = table.labels()
    for column in table.values:
        if column.numbers is None:
            continue
        earlier = next((one for one in beside.columns if one.name == column.name), None) if beside else None
        # Side by side only where the channels are the same ones: else a mark would stand at another's place.
        both = earlier is not None and beside is not None and len(beside.labels) == table.rows
        if len(set(column.values)) == 1 and not (both and earlier is not None and earlier.changed):
            constant.append((column.name, column.values[0][:MAX_CELL_CHARACTERS]))
            continue
        if len(drawn) == MAX_PLOTS:
            left_out += 1
            continue
        series = [Series(names[0], column.numbers)]
        if both and earlier is not None:
            series.insert(0, Series(names[1], earlier.left))
        made = plot.by_channel(column.name, "channel", labels, series)
        if made is not None:
            drawn.append((column.name, made))
    return drawn, left_out, constant


def _hex_dump(head: bytes) -> list[str]:
    rows = []
    for at in range(0, len(head), 16):
        some = head[at : at + 16]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in some)
        rows.append(f"{at:08x}  {some[:8].hex(' '):23}  {some[8:].hex(' '):23}  {letters}")
    return rows
