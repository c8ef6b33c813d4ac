"""`python -m tests.changed`: the test files that concern what is being changed, for `make check`; a line each.

Changed is what differs from the last commit, or, where nothing does, what that commit changed. A test file concerns a
module that it imports, and is preferred where it bears the module's name. The whole suite remains for `make test`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# At most so many files besides those that are changed themselves: more take longer than one waits for.
MAX_FILES = 6

# Quick, and about every module.
ALWAYS = ("tests/test_docstrings.py", "tests/test_layers.py")


def changed_files() -> list[str]:
    """The files that differ from the last commit, new ones too; else those of the last commit."""
    different = _git("diff", "--name-only", "HEAD") + _git("ls-files", "--others", "--exclude-standard")
    return different or _git("show", "--name-only", "--format=", "HEAD")


def test_files(changed: list[str], tests: list[Path]) -> list[str]:
    """The files of `tests` that concern the changed files, by their paths below the project."""
    is_test = re.compile(r"tests/(?!interop/|browser/|crash/|benchmarks/)(.*/)?test_[a-z0-9_]+\.py")
    chosen = [name for name in changed if is_test.fullmatch(name) and (ROOT / name).exists()]
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in tests}
    modules = {name for name in changed if name.endswith(".py") and name.startswith(("server/", "client/"))}
    seen: set[str] = set()
    ranked: list[tuple[int, int, int, str]] = []
    # A module that no test names is tested by way of those that import it.
    while modules and not ranked:
        for name, text in texts.items():
            imports = sum(_is_named(module, text) for module in modules)
            names = any(Path(module).stem in name for module in modules)
            if is_test.fullmatch(name) and name not in chosen and (imports or names):
                ranked.append((-names, -imports, len(text), name))
        seen |= modules
        modules = _importers(modules) - seen
    return [*chosen, *(name for *_, name in sorted(ranked)[:MAX_FILES]), *ALWAYS]


def _importers(modules: set[str]) -> set[str]:
    """The modules of the packages that import one of these."""
    sources = {
        str(path.relative_to(ROOT)): path for folder in ("server", "client") for path in (ROOT / folder).rglob("*.py")
    }
    return {
        name for name, path in sources.items() if any(_is_named(module, path.read_text("utf-8")) for module in modules)
    }


def _is_named(module: str, text: str) -> bool:
    package, _, name = _imported_as(module).rpartition(".")
    return bool(re.search(rf"\b{re.escape(package)}(\.{name}\b| import [^#]*\b{name}\b)", text))


def _imported_as(name: str) -> str:
    """A module's dotted name, of its path."""
    return ".".join(Path(name).with_suffix("").parts[1:]).removesuffix(".__init__")


def _git(*arguments: str) -> list[str]:
    ended = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True)
    return ended.stdout.split()


if __name__ == "__main__":
    found = test_files(changed_files(), sorted((ROOT / "tests").rglob("test_*.py")))
    sys.stdout.write("\n".join(dict.fromkeys(found)) + "\n")
