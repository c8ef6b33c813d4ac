"""How two contents differ, for people: line by line where both are text, else by size and hash."""

import difflib
import hashlib
import json
import re

import click

from cdb.cli.shared import shown

# Above so many lines in both together, to find what belongs together takes longer than anybody waits.
MOST_LINES = 40_000
# A line longer than this is shown in pieces: files of one single line exist, a JSON list of all channels.
LONGEST_LINE = 200

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def told(old: bytes, new: bytes, names: tuple[str, str], *, line_by_line: bool, most: int) -> list[str]:
    """The lines to print, at most `most` of a comparison line by line. `names` are those of old and new."""
    if old == new:
        return [f"content: the same as {names[0]}"]
    lines = [
        f"content: {size(new)}; {names[0]} has {size(old)}",
        *(f"! {doubt}" for doubt in doubts(new, old, names[0])),
    ]
    if old and new.startswith(old):
        lines.append(f"it is {names[0]} with {len(new) - len(old)} bytes more at its end")
    if line_by_line and (texts := (_lines(old), _lines(new))) and texts[0] is not None and texts[1] is not None:
        if len(texts[0]) + len(texts[1]) <= MOST_LINES:
            return lines + _compared(texts[0], texts[1], names, most)
        lines.append("too many lines to compare here")
    named = zip(names, (old, new), strict=True)
    return lines + [f"sha256 {hashlib.sha256(content).hexdigest()} {name}" for name, content in named]


def doubts(new: bytes, old: bytes | None = None, name: str = "") -> list[str]:
    """Signs that a file is not whole, or another than was meant, seen by itself and beside the one of that name."""
    if not new:
        return ["it is empty"]
    if old is not None and old != new and old.startswith(new):
        return [f"it is {name} without the last {len(old) - len(new)} bytes: cut off?"]
    found = []
    if old is not None and old.endswith(b"\n") and not new.endswith(b"\n"):
        found.append(f"its last line does not end, as that of {name} does: cut off?")
    if old is not None and _is_json(old) and not _is_json(new):
        found.append(f"it is not JSON, as {name} is: cut off, or another file?")
    *others, last = [len(line.split()) for line in new.splitlines()]
    if len(others) > 1 and 0 < last < min(others) == max(others):
        found.append(f"its last line has {last} of {others[0]} fields: cut off?")
    return found if old is None else found + _strange(new, old, name)


def _strange(new: bytes, old: bytes, name: str) -> list[str]:
    """How the lines of one table differ from those of the other in kind: perhaps it is the file of another device."""
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


def size(content: bytes) -> str:
    """Its length, in lines too when it is text."""
    if _lines(content) is None:
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


def _compared(old: list[str], new: list[str], names: tuple[str, str], most: int) -> list[str]:
    compared = [shown(line) for line in difflib.unified_diff(old, new, *names, lineterm="", n=2)]
    if not compared:
        return ["no line differs but in white space at its end"]
    lines = [click.style(line, fg=_COLOURS[line[0]]) if line[:1] in _COLOURS else line for line in compared[:most]]
    left = len(compared) - len(lines)
    return [*lines, f"… and {left} lines more"] if left else lines


def _lines(content: bytes) -> list[str] | None:
    """The lines of a text, None of anything else. A terminal is not sent what could move its cursor."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if re.search("[^\t\n\r\x20-\x7e\xa0-\U0010ffff]", text):
        return None
    return [piece for line in text.replace("\r", "").split("\n") for piece in _pieces(line)]


def _pieces(line: str) -> list[str]:
    if len(line) <= LONGEST_LINE:
        return [line]
    parts = re.split(r"(?<=[}\]],)\s*", line)
    return [part[at : at + LONGEST_LINE] for part in parts for at in range(0, len(part) or 1, LONGEST_LINE)]
