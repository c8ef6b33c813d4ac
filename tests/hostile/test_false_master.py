"""Whatever a master says: a mirror serves only what the true one accepted, says what is wrong, and goes on after it."""

import random
from pathlib import Path

from cdb_server import maintenance
from cdb_server.database.transactions import Database
from tests.hostile import false_answers
from tests.hostile.mirror_trial import MOST_KB, trial


def test_a_mirror_survives_every_lie(tmp_path: Path) -> None:
    """Lie after lie, to one following process; those that take as long as an answer may, too."""
    with trial(tmp_path) as made:
        for lie in (*false_answers.LIES, *false_answers.slow(made.false.ended.wait)):
            made.lied_to(lie)
    with Database.open(f"sqlite:///{tmp_path}/mirror.sqlite") as database:
        assert not maintenance.verify(database).problems


def test_large_payloads_stay_within_bounds(tmp_path: Path) -> None:
    """Six of the largest that are taken, which come together: all of them arrive, in bounded memory."""
    with trial(tmp_path, answer_seconds=60) as made:
        for seed in range(6):
            made.store(random.Random(seed).randbytes(2**25))
        made.goes_on(180)
        assert made.peak() < MOST_KB
