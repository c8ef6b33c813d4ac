"""JSON as folds within folds: so many of them that a page can hold, breadth first, the rest counted."""

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cdb_server.pages import words

MOST_FOLDS = 1_500
# Of one list or object: the first tell of what form the others are.
MOST_OF_ONE = 100
# A browser goes no deeper than people do.
DEEPEST = 20
LONGEST_TEXT = 300


@dataclass(slots=True)
class Fold:
    """A value under its name. A list or object has parts, of which `left_out` are not among them; `text` says what the
    value is, or how many parts it has."""

    name: str
    text: str
    parts: "list[Fold]" = field(default_factory=list)
    left_out: int = 0


def folded(value: Any) -> Fold:
    """A value of JSON."""
    top = Fold("", _text(value))
    waiting = deque([(top, value, 0)])
    made = 0
    while waiting:
        fold, within, depth = waiting.popleft()
        for name, part in _parts(within):
            if len(fold.parts) == MOST_OF_ONE or made == MOST_FOLDS or depth == DEEPEST:
                break
            made += 1
            fold.parts.append(Fold(name, _text(part)))
            waiting.append((fold.parts[-1], part, depth + 1))
        if isinstance(within, list | dict):
            fold.left_out = len(within) - len(fold.parts)
    return top


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((words.printable(name[:LONGEST_TEXT]), part) for name, part in value.items())
    if isinstance(value, list):
        return ((str(place), part) for place, part in enumerate(value))
    return ()


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"{len(value):,} {'field' if len(value) == 1 else 'fields'}"
    if isinstance(value, list):
        return f"{len(value):,} {'entry' if len(value) == 1 else 'entries'}"
    text = json.dumps(value, ensure_ascii=False)
    return words.printable(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…")
