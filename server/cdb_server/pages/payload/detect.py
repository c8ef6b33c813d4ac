"""Detects what a payload is: empty, text, table of channels, JSON or binary.

Only the first LOOKED_AT bytes are looked at, and so many lines, rows and cells: a page about a large file comes as fast
as any other. JSON is whole or none, so a little more of it is. What was left out is for the page to say.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MAX_INSPECTED_BYTES, MAX_JSON_BYTES = 2**20, 3 * 2**19

# Lists and objects in JSON: it takes longer to make one than to read a thousand bytes.
MAX_JSON_CONTAINERS = 100_000

MAX_INSPECTED_LINES = 50_000

MAX_ROWS, MAX_COLUMNS, MAX_CELLS = 10_000, 40, 60_000

# Of characters: longer names of columns are none, and longer ones of channels are cut.
MAX_NAME_CHARACTERS, MAX_LABEL_CHARACTERS = 64, 60

HEX_BYTES = 512

Kind = Literal["empty", "table", "json", "text", "binary"]

_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\xa0-\U0010ffff]")

_DIGITS = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its values as they are written; as numbers where all of them are.

    A value that is written as a number and is none to calculate with, as `nan`, is None in `numbers`.
    """

    name: str
    values: Sequence[str]
    numbers: Sequence[float | None] | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a like form. The `keys` tell which channel a row is about, the `values` what is said of it."""

    keys: Sequence[Column]
    values: Sequence[Column]
    rows: int

    @property
    def columns(self) -> Sequence[Column]:
        """All of them."""
        return [*self.keys, *self.values]

    def channels(self) -> list[tuple[str, ...]]:
        """What tells the rows apart: the values of their keys, or their number where there are none."""
        if not self.keys:
            return [(str(number),) for number in range(1, self.rows + 1)]
        return list(zip(*(column.values for column in self.keys), strict=True))

    def labels(self) -> list[str]:
        """A short name for each row: its channel without what is the same in all rows."""
        telling = [column.values for column in self.keys if len(set(column.values)) > 1]
        if not telling:
            return [str(number) for number in range(1, self.rows + 1)]
        labels = map(" ".join, zip(*telling, strict=True))
        return [label if len(label) <= MAX_LABEL_CHARACTERS else f"{label[:MAX_LABEL_CHARACTERS]}…" for label in labels]


@dataclass(frozen=True, slots=True)
class Content:
    """A payload as looked at. `cut` says that there is more of it than that."""

    size: int
    kind: Kind
    truncated: bool
    lines: Sequence[str] = ()
    table: Table | None = None
    value: Any = None
    head: bytes = b""


def detect(data: bytes) -> Content:
    """What a payload is."""
    head = data[:HEX_BYTES]
    if not data:
        return Content(0, "empty", False)
    text = _text(data)
    if text is None:
        return Content(len(data), "binary", len(data) > HEX_BYTES, head=head)
    value = _json(data) if len(data) <= MAX_JSON_BYTES else None
    if value is not None:
        table = _table_of_objects(value)
        cut = table is not None and table.rows < len(value)
        return Content(len(data), "json", cut, _pieces(data.decode("utf-8").removesuffix("\n")), table, value, head)
    lines = text.replace("\r\n", "\n").split("\n", MAX_INSPECTED_LINES)
    whole = len(data) <= MAX_INSPECTED_BYTES and (len(lines) <= MAX_INSPECTED_LINES or not lines[-1])
    if not lines[-1] or (not whole and len(lines) > 1):
        # What follows the last line break, or what the cut left of a line.
        lines.pop()
    table = _table_of_lines(lines)
    cut = not whole or (table is not None and table.rows < sum(map(_is_row, lines)))
    return Content(len(data), "table" if table else "text", cut, lines, table, head=head)


def _text(data: bytes) -> str | None:
    """The first characters of a text, None of anything else."""
    looked_at = data[:MAX_INSPECTED_BYTES]
    try:
        # A character may be cut in two at the end, and is left out then.
        text = looked_at.decode("utf-8") if len(data) <= MAX_INSPECTED_BYTES else _utf8(looked_at)
    except UnicodeDecodeError:
        text = looked_at.decode("latin-1")
    return None if _NOT_TEXT.search(text) else text


def _utf8(cut: bytes) -> str:
    try:
        return cut.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(cut) - 3:
            raise
        return cut[: error.start].decode("utf-8")


def _json(data: bytes) -> Any:
    """A list or an object in JSON; None of anything else, and where there is too much in it."""
    if data.lstrip()[:1] not in (b"[", b"{") or data.count(b"[") + data.count(b"{") > MAX_JSON_CONTAINERS:
        return None
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _pieces(text: str) -> list[str]:
    """The lines of JSON to be read and compared: one that holds all is taken apart after each of its parts."""
    pieces: list[str] = []
    for line in text.split("\n", MAX_INSPECTED_LINES):
        if len(pieces) >= MAX_INSPECTED_LINES:
            break
        pieces += re.split(r"(?<=[}\]],)\s*", line, maxsplit=MAX_INSPECTED_LINES) if len(line) > 200 else [line]
    # What comes after so many was not taken apart.
    return pieces[:MAX_INSPECTED_LINES]


def _table_of_objects(value: Any) -> Table | None:
    """The table that a list of objects is, when they have the same fields, and these are numbers and texts."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return None
    names = list(value[0])
    if not 0 < len(names) <= MAX_COLUMNS or max(map(len, names)) > MAX_NAME_CHARACTERS:
        return None
    spelled = list(map(escape_unprintable, names))
    if len(set(spelled)) < len(names):
        return None
    rows = value[: _max_rows(len(names))]
    if any(row.keys() != value[0].keys() for row in rows):
        return None
    columns = []
    keys = []
    for name, heading in zip(names, spelled, strict=True):
        cells = [row[name] for row in rows]
        kinds = set(map(type, cells))
        if not kinds <= {str, int, float, bool}:
            return None
        columns.append(_column(heading, list(map(_cell_text, cells))))
        keys.append(float not in kinds and len(set(cells)) > 1)
    chosen = [column for column, is_key in zip(columns, keys, strict=True) if is_key]
    if not _tell_apart(chosen, len(rows)):
        chosen = [column for column in chosen if column.numbers is None]
    return Table(chosen, [column for column in columns if column not in chosen], len(rows))


def _cell_text(cell: str | float) -> str:
    """A value of JSON in a cell."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return escape_unprintable(cell) if isinstance(cell, str) else repr(cell)


def _max_rows(columns: int) -> int:
    """Rows of a table with so many columns that are looked at."""
    return min(MAX_ROWS, MAX_CELLS // columns)


def _table_of_lines(lines: Sequence[str]) -> Table | None:
    """The table that lines are which have as many fields each; a heading, and comments, may stand before and between.

    The fields up to the last text tell of what channel a row is (`TOFChannelKey 1 1 0 0 tof1 -60624.8 3`), or where
    there is none, as few leading whole numbers as tell the rows apart.
    """
    rows: list[list[str]] = []
    heading: list[str] = []
    separator = "," if lines and "," in next(filter(_is_row, lines), "") else None
    for line in lines:
        if not _is_row(line):
            heading = heading or line.lstrip("# \t").split()
            continue
        fields = [field.strip() for field in line.split(separator, MAX_COLUMNS)]
        if (rows and len(fields) != len(rows[0])) or len(fields) > MAX_COLUMNS:
            return None
        rows.append(fields)
        if len(rows) > _max_rows(len(fields)):
            rows.pop()
            break
    if len(rows) > 2 and not any(map(_is_number, rows[0])) and any(map(_is_number, rows[1])):
        heading = rows.pop(0)
    if len(rows) < 2:
        return None
    fits = len(heading) == len(rows[0]) == len(set(heading)) and max(map(len, heading)) <= MAX_NAME_CHARACTERS
    named = heading if fits else None
    columns = [
        _column(named[at] if named else f"column {at + 1}", values) for at, values in enumerate(zip(*rows, strict=True))
    ]
    if all(column.numbers is None for column in columns):
        return None
    first = _first_value(columns, len(rows))
    return Table(columns[:first], columns[first:], len(rows))


def _first_value(columns: Sequence[Column], rows: int) -> int:
    texts = [at for at, column in enumerate(columns) if column.numbers is None]
    if texts:
        return texts[-1] + 1
    # Rows that are the same in all columns so far have the same number.
    numbers = [0] * rows
    for end, column in enumerate(columns, 1):
        if not all(map(_DIGITS.fullmatch, column.values)):
            break
        known: dict[tuple[int, str], int] = {}
        numbers = [known.setdefault(each, len(known)) for each in zip(numbers, column.values, strict=True)]
        if len(known) == rows:
            return end
    return 0


def _tell_apart(columns: Sequence[Column], rows: int) -> bool:
    return bool(columns) and len(set(zip(*(column.values for column in columns), strict=True))) == rows


def _column(name: str, values: Sequence[str]) -> Column:
    return Column(name, values, _numbers(values))


def _numbers(values: Iterable[str]) -> Sequence[float | None] | None:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    # Python reads digits with underscores between them, as nobody else does.
    if any("_" in value for value in values):
        return None
    if all(map(math.isfinite, numbers)):
        return numbers
    return [number if math.isfinite(number) else None for number in numbers]


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _is_number(text: str) -> bool:
    return _numbers([text]) is not None


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


def escape_unprintable(text: str) -> str:
    """A text out of JSON as it may stand on a page: control characters and halves of characters spelled as in JSON."""
    return _UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)
