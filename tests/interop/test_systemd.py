"""The units of docs/, as systemd reads them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
UNITS = ("cdb-server.service", "cdb-mirror.service", "cdb-backup.service", "cdb-backup.timer")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, naming the program where it is here."""
    for name in UNITS:
        text = (DOCS / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/cdb/bin/", f"{Path(sys.executable).parent}/"))
    return tmp_path


def analyze(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    """`systemd-analyze verify` is silent about all that the guide hands out."""
    assert sorted(UNITS) == sorted(file.name for file in DOCS.glob("cdb-*"))
    assert analyze("verify", "--man=no", *(f"./{name}" for name in UNITS), folder=units) == ""


def test_a_mistake_in_a_unit_would_be_found(units: Path) -> None:
    """The test above can fail."""
    unit = units / "cdb-server.service"
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=allways"))
    assert "allways" in analyze("verify", "--man=no", "./cdb-server.service", folder=units)


@pytest.mark.parametrize(
    ("name", "most"), [("cdb-server.service", 2.0), ("cdb-mirror.service", 2.0), ("cdb-backup.service", 5.0)]
)
def test_the_units_are_hardened(name: str, most: float, units: Path) -> None:
    """By systemd's own measure, in which 10 is a service that may do everything."""
    said = analyze("security", "--offline=yes", "--no-pager", f"./{name}", folder=units)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+) ", said)
    assert found
    assert float(found[1]) <= most
