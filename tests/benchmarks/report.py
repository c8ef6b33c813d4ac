"""What was measured, as a table for people and as JSON for programs."""

import json
import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.ratios import Figure

PACKAGES = ("mice-cdb", "spyne", "uvicorn", "uvloop", "httptools", "SQLAlchemy", "lxml", "psycopg", "gunicorn")
CLIENTS = ("zeep", "suds-community")


@dataclass(frozen=True)
class Outcome:
    """What came of one line: its figures, or why there are none; and how long it took."""

    line: str
    figures: Sequence[Figure]
    failure: str | None
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether all its targets are held."""
        return self.failure is None and all(figure.holds is not False for figure in self.figures)


def machine() -> dict[str, str]:
    """On what and with what it was measured."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in (*PACKAGES, *CLIENTS)},
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": _postgresql(),
        "nginx": _said("/usr/sbin/nginx", "-v"),
        "Varnish": _said("/usr/sbin/varnishd", "-V"),
        "wrk": _said("wrk", "-v"),
    }


def table(outcomes: Sequence[Outcome]) -> Table:
    """Each figure with its median, its spread, its target, and whether it holds."""
    made = Table(
        "line", "measured", "of", "ratio", "least–most", "target", "holds", title="Ratios: median of all rounds"
    )
    for column in (3, 4):
        made.columns[column].justify = "right"
    for outcome in outcomes:
        made.add_section()
        if outcome.failure is not None:
            made.add_row(outcome.line, f"[red]failed: {outcome.failure}[/red]")
        for figure in outcome.figures:
            least, most = figure.spread
            held = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.holds]
            told = f"{figure.name}\n[dim]{absolute(figure.details)}[/dim]" if figure.details else figure.name
            made.add_row(
                *(outcome.line, told, figure.reference, short(figure.ratio), f"{short(least)}–{short(most)}"),
                *(str(figure.target or ""), held),
            )
    return made


def short(ratio: float) -> str:
    """Three digits that count."""
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"


def absolute(details: Mapping[str, float]) -> str:
    """Absolute values in a line, each in its unit."""
    units = {"rate": ("{:,.0f}/s", 1), "p50": ("p50 {:.3g} ms", 1e3), "p99": ("p99 {:.3g} ms", 1e3)}
    units |= {"processor": ("{:.0f} µs CPU", 1e6), "memory": ("{:.1f} MB", 1e-6), "seconds": ("{:.3g} ms", 1e3)}
    texts: dict[str, list[str]] = {}
    for name, value in details.items():
        side, _, what = name.partition("_")
        form, factor = units.get(what, (what.replace("_", " ") + " {:,.4g}", 1))
        texts.setdefault(side, []).append(form.format(value * factor))
    return "; ".join(f"{side} {', '.join(values)}" for side, values in texts.items())


def as_json(machine: Mapping[str, str], how: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """All of it."""
    lines = [
        {
            "line": outcome.line,
            "failure": outcome.failure,
            "seconds": round(outcome.seconds, 1),
            "figures": [_figure(figure) for figure in outcome.figures],
        }
        for outcome in outcomes
    ]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return json.dumps({"measured": now, "machine": machine, "how": how, "lines": lines}, indent=2, ensure_ascii=False)


def show(machine: Mapping[str, str], outcomes: Sequence[Outcome]) -> None:
    """Print the machine and the table; wide enough to be read when it goes into a file."""
    console = Console() if os.isatty(1) else Console(width=170)
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), highlight=False)
    console.print(table(outcomes))


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "reference": figure.reference,
        "ratio": figure.ratio,
        "ratios": list(figure.ratios),
        "target": str(figure.target) if figure.target else None,
        "holds": figure.holds,
        **figure.details,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _postgresql() -> str:
    from tests.standbys import BIN

    return _said(str(BIN / "postgres"), "--version")


def _said(program: str, *arguments: str) -> str:
    """The number in the first line that a program says of its version."""
    if shutil.which(program) is None:
        return "none"
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    words = (done.stdout + done.stderr).splitlines()[0].replace("/", " ").replace("-", " ").split()
    return next((word.strip("()") for word in words if any(letter.isdigit() for letter in word)), "unknown")
