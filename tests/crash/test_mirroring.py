"""A few of the interruptions that `python -m tests.crash.interrupted_mirror` makes by the hundred."""

from collections.abc import Callable
from pathlib import Path

from tests.crash import interrupted_mirror


def test_whatever_interrupts_it_nothing_is_missing_twice_or_wrong(
    new_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    """Processes killed, the link down, answers cut: one of each; `interrupted_mirror` repeats it."""
    count = len(interrupted_mirror.KINDS)
    urls = new_database_url("sqlite"), new_database_url("postgresql")
    report = interrupted_mirror.Trial(*urls, tmp_path, seed=1, burst=15).run(count)
    assert report.problems == []
    assert report.interruptions.total() == count
    assert report.entries > count * 15
