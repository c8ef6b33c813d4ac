"""From what a payload is to what a page shows of it: alone, beside the one before it, and in its differences."""

from collections.abc import Sequence
from dataclasses import dataclass

from cdb_server.pages import comparison, plot
from cdb_server.pages.comparison import ColumnChange, SideBySide, TableChange
from cdb_server.pages.content import Content
from cdb_server.pages.folding import Fold, folded
from cdb_server.pages.plot import Plot, Series

AT_ONCE = 200
MOST_PLOTS = 6
LONGEST_LINE, LONGEST_CELL = 2_000, 200


@dataclass(frozen=True, slots=True)
class Part:
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
        return max(0, self.first - AT_ONCE) if self.first else None

    @property
    def later(self) -> int | None:
        """Where the part after begins; None at the end."""
        return self.last if self.last < self.count else None


@dataclass(frozen=True, slots=True)
class Shown:
    """A payload as shown. `constant` are the columns that say the same in every row, with what they say."""

    content: Content
    plots: Sequence[tuple[str, Plot]]
    plots_left_out: int
    constant: Sequence[tuple[str, str]]
    rows: Part | None
    lines: Part | None
    fold: Fold | None
    hex: Sequence[str]


@dataclass(frozen=True, slots=True)
class ColumnShown:
    """How a column changed, and that drawn."""

    change: ColumnChange
    plot: Plot | None


@dataclass(frozen=True, slots=True)
class Differences:
    """How two payloads differ, as shown. `columns` are those that changed, `unchanged` the names of the others."""

    same: bool
    table: TableChange | None
    columns: Sequence[ColumnShown]
    unchanged: Sequence[str]
    lines: SideBySide | None
    cut: bool


def alone(content: Content, first: int, before: Content | None, names: tuple[str, str]) -> Shown:
    """A payload, its rows or lines from `first`; its numbers drawn beside those of `before`. Names are of it, and of
    that."""
    plots, plots_left_out, constant = _plots(content, before, names)
    table = content.table
    rows = None
    if table is not None:
        cells = [[value[:LONGEST_CELL] for value in column.values[first : first + AT_ONCE]] for column in table.columns]
        rows = Part(min(first, table.rows), list(zip(*cells, strict=True)), table.rows)
    lines = None
    if content.kind in ("text", "table"):
        start = min(first, len(content.lines))
        told = [(line[:LONGEST_LINE],) for line in content.lines[start : start + AT_ONCE]]
        lines = Part(start, told, len(content.lines))
    return Shown(
        content,
        plots,
        plots_left_out,
        constant,
        rows,
        lines,
        folded(content.value) if content.kind == "json" else None,
        _hex(content.head) if content.kind == "binary" else [],
    )


def differences(left: Content, right: Content, same: bool, names: tuple[str, str]) -> Differences:
    """How two payloads differ; `same` says that their bytes do not."""
    table = None
    if not same and left.table is not None and right.table is not None:
        table = comparison.tables(left.table, right.table)
    texts = {left.kind, right.kind} <= {"text", "table", "json", "empty"}
    lines = comparison.side_by_side(left, right) if texts and not same else None
    changed = [column for column in table.columns if column.changed] if table is not None else []
    columns = [
        ColumnShown(
            change,
            plot.by_channel(
                f"{change.name}: {names[1]} less {names[0]}",
                "channel",
                table.labels,
                [Series("", change.by)],
                signed=True,
            ),
        )
        for change in changed[:MOST_PLOTS]
        if table is not None
    ]
    unchanged = [column.name for column in table.columns if not column.changed] if table is not None else []
    return Differences(same, table, columns, unchanged, lines, left.cut or right.cut)


def _plots(
    content: Content, before: Content | None, names: tuple[str, str]
) -> tuple[list[tuple[str, Plot]], int, list[tuple[str, str]]]:
    """The first columns drawn, each under its name; how many are not; and those that are the same in every row."""
    table = content.table
    if table is None:
        return [], 0, []
    beside = None
    if before is not None and before.table is not None:
        beside = comparison.tables(before.table, table)
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
            constant.append((column.name, column.values[0][:LONGEST_CELL]))
            continue
        if len(drawn) == MOST_PLOTS:
            left_out += 1
            continue
        series = [Series(names[0], column.numbers)]
        if both and earlier is not None:
            series.insert(0, Series(names[1], earlier.left))
        made = plot.by_channel(column.name, "channel", labels, series)
        if made is not None:
            drawn.append((column.name, made))
    return drawn, left_out, constant


def _hex(head: bytes) -> list[str]:
    rows = []
    for at in range(0, len(head), 16):
        some = head[at : at + 16]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in some)
        rows.append(f"{at:08x}  {some[:8].hex(' '):23}  {some[8:].hex(' '):23}  {letters}")
    return rows
