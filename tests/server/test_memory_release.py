"""Memory for large payloads: what an answer holds is free for others once it is sent, whoever keeps the connection."""

import base64
import random
import time
from collections.abc import Iterator

import pytest
import requests

import cdb
from tests import servers
from tests.fuzz import wire
from tests.server.test_bad_input import element, envelope
from tests.servers import Master

# As large as the server takes: one answer and one upload, before either is done, do not both find room.
LARGEST = random.Random(9).randbytes(32 * 2**20)
ASKED = {
    wire.READING: element(
        "get_current_calibration", element("device_name", "LARGE") + element("calibration_type", "t0")
    ),
    "/cdb/calibration": "<getCurrentDetectorCalibration><a>LARGE</a><a>t0</a></getCurrentDetectorCalibration>",
}


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A running master with one worker, of which all connections take their room, and a large payload."""
    folder = tmp_path_factory.mktemp("room")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--workers", "1") as running:
        writer(running).add_calibration("LARGE", "t0", "2016-03-01", LARGEST)
        yield running


def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)


@pytest.mark.parametrize("path", ASKED)
def test_a_sent_response_releases_its_memory(path: str, one_worker: Master) -> None:
    """Over a connection that stays open; who stores next need not wait for it to be closed."""
    headers = {"Content-Type": "text/xml"}
    with requests.Session() as session:
        answer = session.post(f"{one_worker.url}{path}", envelope(ASKED[path]), headers=headers, timeout=30)
        assert base64.b64encode(LARGEST) in answer.content
        began = time.monotonic()
        writer(one_worker).add_calibration("LARGE", "again", "2016-03-01", LARGEST)
        assert time.monotonic() - began < 10
