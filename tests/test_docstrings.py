"""The errors that docstrings of server and client name exist: a rename that forgets one is found here."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ERROR = r"[A-Z][A-Za-z]*[a-z]"
RAISES = re.compile(rf"Raises ({ERROR}(?:(?:,| and|, and) {ERROR})*)")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Each module of the two packages, parsed."""
    for package in ("server", "client"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, with the lines where their owners begin."""
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), " ".join(text.split())


def test_each_error_that_a_docstring_names_exists() -> None:
    """Every name that follows "Raises" is a class of the packages, an imported name, or a builtin."""
    known = set(dir(builtins))
    found: list[tuple[str, int, str]] = []
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                known.add(node.name)
            elif isinstance(node, ast.ImportFrom | ast.Import):
                known.update((alias.asname or alias.name).rpartition(".")[2] for alias in node.names)
        for line, text in docstrings(module):
            for match in RAISES.finditer(text):
                names = re.findall(ERROR, match[1])
                found += [(str(path.relative_to(ROOT)), line, name) for name in names]
    assert len(found) > 100
    assert [one for one in found if one[2] not in known] == []
