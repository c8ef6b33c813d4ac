"""Whatever a master says: a mirror serves only what the true one accepted, says what is wrong, and goes on after it."""

from pathlib import Path

from cdb_server import maintenance
from cdb_server.database.transactions import Database
from tests.hostile import false_answers
from tests.hostile.mirror_trial import trial


def test_a_mirror_survives_every_kind_of_lie(tmp_path: Path) -> None:
    """Every fourth lie, one after the other, to one following process; `make hostile` tells all of them."""
    assert len(false_answers.LIES) > 200
    with trial(tmp_path) as made:
        for lie in false_answers.LIES[::4]:
            made.lied_to(lie)
    with Database.open(f"sqlite:///{tmp_path}/mirror.sqlite") as database:
        assert not maintenance.verify(database).problems
