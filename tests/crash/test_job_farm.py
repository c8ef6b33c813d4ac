"""Many jobs that begin together: `python -m tests.benchmarks.farm` has a thousand."""

from pathlib import Path

import pytest

from tests.benchmarks import farm


@pytest.mark.parametrize(
    ("restart", "pinned"), [(False, True), (True, True), (False, False)], ids=["pinned", "restarted", "not pinned"]
)
def test_a_farm_that_begins_together_asks_a_bounded_number_of_times(
    tmp_path: Path, restart: bool, pinned: bool
) -> None:
    """All jobs get the right bytes, also over a killed server; a payload is fetched by one of them for all."""
    outcome = farm.run(tmp_path, 30, restart=restart, pinned=pinned)
    assert (outcome.failed, outcome.wrong) == ([], 0)
    assert outcome.sent < 2
    if pinned and not restart:
        assert outcome.asked == {"get_calibrations_for_run": 1, "get_payload": farm.DEVICES * farm.TYPES}
