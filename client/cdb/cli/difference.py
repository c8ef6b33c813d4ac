"""How two contents differ, for people: line by line where both are text, else by size and hash."""

import difflib
import hashlib
import re

import click

# Above so many lines in both together, to find what belongs together takes longer than anybody waits.
MOST_LINES = 200_000
# A line longer than this is shown in pieces: files of one single line exist, a JSON list of all channels.
LONGEST_LINE = 200

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def told(old: bytes, new: bytes, names: tuple[str, str], *, line_by_line: bool, most: int) -> list[str]:
    """The lines to print, at most `most` of a comparison line by line. `names` are those of old and new."""
    if old == new:
        return [f"content: the same as {names[0]}"]
    lines = [f"content: {_size(new)}; {names[0]} has {_size(old)}"]
    if new and old.startswith(new):
        lines.append(f"  ! it is {names[0]} without the last {len(old) - len(new)} bytes: cut off?")
    if old and new.startswith(old):
        lines.append(f"  it is {names[0]} with {len(new) - len(old)} bytes more at its end")
    texts = _lines(old), _lines(new)
    if new and old.endswith(b"\n") and not new.endswith(b"\n"):
        lines.append(f"  ! its last line does not end, as that of {names[0]} does: cut off?")
    if line_by_line and texts[0] is not None and texts[1] is not None:
        if len(texts[0]) + len(texts[1]) <= MOST_LINES:
            return lines + _compared(texts[0], texts[1], names, most)
        lines.append("  too many lines to compare here")
    named = zip(names, (old, new), strict=True)
    return lines + [f"  sha256 {hashlib.sha256(content).hexdigest()} {name}" for name, content in named]


def _size(content: bytes) -> str:
    return f"{len(content)} bytes" if _lines(content) is None else f"{len(content)} bytes in {_count(content)} lines"


def _count(content: bytes) -> int:
    return content.count(b"\n") + (not content.endswith(b"\n"))


def _compared(old: list[str], new: list[str], names: tuple[str, str], most: int) -> list[str]:
    compared = list(difflib.unified_diff(old, new, *names, lineterm="", n=2))
    shown = [click.style(line, fg=_COLOURS[line[0]]) if line[:1] in _COLOURS else line for line in compared[:most]]
    left = len(compared) - len(shown)
    return [*shown, f"… and {left} lines more"] if left else shown


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
