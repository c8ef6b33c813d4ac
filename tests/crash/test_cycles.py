"""A few of the cycles that `make crash-test` runs by the thousand."""

import pytest

from tests.crash.cycles import Plan, run


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_again_and_again(backend: str) -> None:
    """Killed during start and under load, PostgreSQL with it or not: lost 0, partial 0, gaps 0."""
    # By this seed, of three kills one is during start, and one of PostgreSQL, which the server must find again.
    report = run(Plan(cycles=3, lanes=(backend,), seed=833))
    assert not report.findings, report.findings
    assert report.cycles == 3
    assert report.acknowledged > 5
    assert report.kills["during start"]
    assert report.kills["under load"]
    assert backend == "sqlite" or any(kill.startswith("PostgreSQL") for kill in report.kills)
