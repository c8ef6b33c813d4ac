"""Clients that read and store, and no more than that is tried: each is a program that prints what came of five steps.

They have the plain description of a service, the kept one, or none. `tests/interop/install` brings what they need.
"""

import random
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

import cdb
from tests.interop.test_interop import BUILD, HERE, LIMITATIONS
from tests.servers import Master

FILE = bytes(range(256)) + random.Random(11).randbytes(100_000)
AT = datetime(2016, 3, 1, 8, 0, 0, 123456, tzinfo=timezone.utc)


def python(client: str) -> list[str]:
    """A client in Python, with the packages and data classes that `install` made."""
    return [str(BUILD / "python" / "venv" / "bin" / "python"), str(HERE / "short.py"), str(HERE / client / "client.py")]


CLIENTS = {
    "osa": python("osa"),
    "PySimpleSOAP": python("pysimplesoap"),
    "xsdata": python("xsdata"),
    "strong-soap": ["node", str(HERE / "strong-soap" / "client.js")],
    "curl": ["bash", str(HERE / "curl" / "client.sh")],
    "libcurl": [str(BUILD / "libxml2" / "client")],
    "R": ["Rscript", "--vanilla", str(HERE / "r" / "client.R")],
    "Mono": ["bash", str(HERE / "mono" / "run"), "."],
    "KDSoap": ["bash", str(HERE / "kdsoap" / "run"), "."],
}
# How a client says that a write without a token is refused with HTTP 401, where it does not fail at that.
REFUSED = dict.fromkeys(CLIENTS, "401") | {"Mono": "Unauthorized"}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_stores_and_reads(client: str, shared_master: Master, tmp_path: Path) -> None:
    """Bytes and microseconds arrive and come back; a microsecond before is a fault, a list is read, 401 is seen."""
    device = f"SHORT {client.upper()}"
    (tmp_path / "binary").write_bytes(FILE)
    environment = {
        **shared_master.environment,
        "TZ": "Asia/Kolkata",  # a client that slips into local time must not pass by luck
        "INTEROP_DEVICE": device,
        "INTEROP_PAYLOADS": str(tmp_path),
        "NODE_PATH": str(BUILD / "node" / "node_modules"),
        "PYTHONPATH": str(BUILD / "python"),
        "PYTHONWARNINGS": "ignore",
    }
    command = CLIENTS[client]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    told = dict(re.findall(r"^([a-z-]+): (.*)$", ended.stdout, re.MULTILINE))
    limits = {limit.step: limit.evidence for limit in LIMITATIONS if limit.client == client}
    assert set(told) == {"status", "bytes", "before", "devices", "no-token", *limits}, ended.stdout
    assert (told["status"], told["bytes"].lower(), told["devices"].lower()) == ("OK", "true", "true"), ended.stdout
    assert "CalibrationNotFound" in told["before"]
    for step, evidence in ({"no-token": REFUSED[client]} | limits).items():
        assert evidence in told[step]
    [stored] = cdb.Calibration(shared_master.url).get_history(device, "short")
    assert stored.valid_from == AT
    assert cdb.Calibration(shared_master.url).get_calibration_for_id(stored.id).data == FILE
