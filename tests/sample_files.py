"""The files that tests load: the project's own samples, and real ones where REAL_DATA names a folder of them."""

import csv
import os
from pathlib import Path

from demo import samples

REAL = os.environ.get("REAL_DATA")


def folders(made: Path) -> list[Path]:
    """The folders to load, each with uploads.csv and runs.csv."""
    samples.write(made)
    return [made, *([Path(REAL)] if REAL else [])]


def rows(table: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def is_good_run(row: dict[str, str]) -> bool:
    """Whether a run has a start and does not stop before it, in a notation that sorts."""
    return bool(row["start_time"]) and not (row["stop_time"] and row["stop_time"] < row["start_time"])
