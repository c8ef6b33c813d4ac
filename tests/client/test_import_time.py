"""What it costs a new process to begin: little to import, little to be answered from the cache and a lock file."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cdb
from tests.servers import Master

ROUNDS = 9
QUESTION = "import cdb; print(cdb.Calibration().get_current_calibration('STARTED', 't0'))"
HEAVY = "import sys; assert not {'zeep', 'requests', 'lxml', 'urllib3', 'rich', 'click'} & set(sys.modules)"


@pytest.fixture
def replayed(shared_master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that is noted in a lock file, its payload in the cache."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    writer.add_calibration("STARTED", "t0", "2016-01-01", "a" * 100_000)
    monkeypatch.setenv("CDB_SERVER", shared_master.url)
    monkeypatch.setenv("CDB_LOCK", str(tmp_path / "run.lock"))
    cdb.Calibration().get_current_calibration("STARTED", "t0")
    monkeypatch.setenv("CDB_OFFLINE", "1")


def seconds(program: str) -> float:
    """How long a program takes in a process of its own."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


@pytest.mark.parametrize("program", ["import cdb", QUESTION])
def test_heavy_libraries_are_imported_only_to_ask_a_server(replayed: None, program: str) -> None:
    """They are, where a server is asked."""
    subprocess.run([sys.executable, "-c", f"{program}\n{HEAVY}"], check=True, stdout=subprocess.DEVNULL)
    asking = {**os.environ, "CDB_LOCK": "", "CDB_OFFLINE": ""}
    assert subprocess.run([sys.executable, "-c", f"{QUESTION}\n{HEAVY}"], env=asking, capture_output=True).returncode


def test_import_and_a_replayed_query_are_fast(replayed: None) -> None:
    """`import cdb` at most 2.5 times Python's own start, a cached and locked question at most 8 times; medians."""
    programs = ("pass", "import cdb", QUESTION)
    rounds = [[seconds(program) for program in programs] for _ in range(ROUNDS)]
    nothing, imported, answered = (statistics.median(times) for times in zip(*rounds, strict=True))
    assert imported <= 2.5 * nothing
    assert answered <= 8 * nothing


def test_every_public_name_is_there() -> None:
    """Names are found when they are first used, and no others."""
    assert {name: getattr(cdb, name) for name in cdb.__all__}.keys() <= set(dir(cdb))
    with pytest.raises(AttributeError, match="no attribute 'Kalibration'"):
        cdb.Kalibration  # noqa: B018  # the look alone
