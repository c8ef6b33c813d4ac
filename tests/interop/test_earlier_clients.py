"""The earlier CDB's clients, from the served WSDLs alone: suds 0.4 on a real Python 2.7, and suds-community.

`tests/interop/install` brings Python 2.7 and suds 0.4; where it was told to build elsewhere than beside it,
INTEROP_BUILD names the folder.
"""

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdb
from tests import mirrors, servers
from tests.interop.test_interop import BUILD, HERE
from tests.mirrors import Mirror
from tests.servers import Master, until

PROGRAM = str(HERE / "suds04" / "client.py")
CLIENTS = {"suds 0.4": [str(BUILD / "suds04" / "python"), PROGRAM], "suds-community": [sys.executable, PROGRAM]}
FILES = {
    "text": "".join(f"{number} 0.125 -3.5e-09\r\n" for number in range(60_000)).encode()[:904_000],
    "binary": random.Random(7).randbytes(904_000),
    "empty": b"",
}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master that takes uploads of the earlier clients."""
    folder = tmp_path_factory.mktemp("master")
    allowed = ("--legacy-write-networks", "127.0.0.0/8")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *allowed) as running:
        yield running


@pytest.fixture(scope="module")
def mirror(master: Master, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """Its mirror, with a calibration of TOF1."""
    stored = writer(master).add_calibration("TOF1", "binary", "2016-03-01", FILES["binary"])
    folder = tmp_path_factory.mktemp("mirror")
    with mirrors.mirror(master.url, f"sqlite:///{folder}/mirror.sqlite", folder) as running:
        until(lambda: running.status().serial >= stored.id)
        yield running


def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_earlier_client_goes_on(
    client: str, master: Master, mirror: Mirror, shared_master: Master, tmp_path: Path
) -> None:
    """It uploads, reads byte for byte, finds ids and devices, and meets each error in-band: every step is ok."""
    device, run = f"Ckov {'AB'[list(CLIENTS).index(client)]}", 7662
    writer(master).add_run(run, "2016-03-02")
    # Which only the present services can store.
    writer(master).add_calibration(device, "empty", "2016-03-01 08:00:00", b"")
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    environment = {
        **os.environ,
        "TZ": "Asia/Kolkata",  # a client that slips into local time must not pass by luck
        "CDB_SERVER": master.url,
        "INTEROP_CLOSED": shared_master.url,
        "INTEROP_MIRROR": mirror.url,
        "INTEROP_DEVICE": device,
        "INTEROP_RUN": str(run),
        "INTEROP_PAYLOADS": str(tmp_path),
    }
    ended = subprocess.run(CLIENTS[client], env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, ended.stderr
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert len(lines) > 40
    [stored] = cdb.Calibration(master.url).get_history(device, "binary")
    assert stored.author == "127.0.0.1"


def test_the_interpreter_is_the_old_one() -> None:
    """CPython 2.7, with suds 0.4."""
    [python, _] = CLIENTS["suds 0.4"]
    program = (
        "import platform, suds; print platform.python_implementation(), platform.python_version(), suds.__version__"
    )
    told = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"CPython 2\.7\.\d+ 0\.4\n", told)
