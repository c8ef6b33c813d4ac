"""Whatever can be stored can be looked at: its page, its preview, its comparison with any other, its archive.

`make hostile` does so with all payloads, and with many more.
"""

from collections.abc import Iterator

import pytest

from tests import servers
from tests.hostile import odd_payloads
from tests.hostile.payload_viewer import Viewer

SMALL = 2**16
# Beside the small ones: each takes as long as any, or once did.
LARGE = ("many newlines", "many lists in JSON", "signs, every other a", "signs, every other b")


@pytest.fixture
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """On a master of its own, with one worker."""
    folder = tmp_path_factory.mktemp("payloads")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--workers", "1") as master:
        yield Viewer(master)
        assert "Traceback" not in master.log.read_text()


def test_whatever_is_stored_can_be_looked_at(viewer: Viewer) -> None:
    """Payloads that nobody meant: 200 for each, within half a second of the server's time."""
    for name, make in odd_payloads.NAMED.items():
        data = make()
        if len(data) <= SMALL or name in LARGE:
            viewer.view(name, data, comparisons=1)
    assert viewer.findings == []
    assert viewer.answers > 200
