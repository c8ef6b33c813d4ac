"""Every answer of SOAP carries a digest, by which whoever asked sees what was damaged on its way."""

import base64
import hashlib

import pytest
import requests

import cdb
from tests.servers import Master

ENVELOPE = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    '<{0} xmlns="urn:mice:cdb:2">{1}</{0}></s:Body></s:Envelope>'
)


@pytest.mark.parametrize(
    ("service", "body", "status"),
    [
        ("calibration", ENVELOPE.format("get_status", ""), 200),
        ("calibration", ENVELOPE.format("get_run", "<run_number>999999</run_number>"), 500),
        ("calibration", "nonsense", 500),
        (
            "calibrationSuperMouse",
            ENVELOPE.format("add_run", "<run_number>9401</run_number><start_time>2016-03-01T00:00:00Z</start_time>"),
            200,
        ),
    ],
)
def test_answers_and_faults_carry_the_digest_of_their_bytes(
    shared_master: Master, service: str, body: str, status: int
) -> None:
    """With the serial as its parameter: the same as CDB-Serial, which no digest of a body covers."""
    answer = requests.post(
        f"{shared_master.url}/cdb/v2/{service}",
        data=body,
        headers={"Content-Type": "text/xml; charset=utf-8"},
        auth=(shared_master.user, shared_master.token) if "Mouse" in service else None,
        timeout=10,
    )
    assert answer.status_code == status
    digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
    assert answer.headers["CDB-Digest"] == f"sha-256=:{digest}:;serial={answer.headers['CDB-Serial']}"


def test_the_payload_is_left_out_of_the_digest(shared_master: Master) -> None:
    """For it its sha256 speaks: all that stands between the tags of `data` is not counted."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    stored = writer.add_calibration("digest", "t0", "2016-03-01", b"1 2 3\n" * 1000)
    answer = requests.post(
        f"{shared_master.url}/cdb/v2/calibration",
        data=ENVELOPE.format("get_calibration_for_id", f"<id>{stored.id}</id>"),
        headers={"Content-Type": "text/xml; charset=utf-8"},
        timeout=10,
    )
    begin, _, rest = answer.content.partition(b"<tns:data>")
    data, _, end = rest.partition(b"</tns:data>")
    assert base64.b64decode(data) == b"1 2 3\n" * 1000
    digest = base64.b64encode(hashlib.sha256(begin + b"<tns:data></tns:data>" + end).digest()).decode()
    assert answer.headers["CDB-Digest"].startswith(f"sha-256=:{digest}:")


def test_the_earlier_soaps_leave_nothing_out(shared_master: Master) -> None:
    """There no sha256 speaks for a payload, so that the digest is of it, too."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    stored = writer.add_calibration("digest", "tw", "2016-03-01", b"1 2 3\n" * 1000)
    for call in ("<getStatus/>", f"<getDetectorCalibrationForId><id>{stored.id}</id></getDetectorCalibrationForId>"):
        answer = requests.post(
            f"{shared_master.url}/cdb/calibration",
            data=ENVELOPE.partition("<{0}")[0] + call + "</s:Body></s:Envelope>",
            headers={"Content-Type": "text/xml; charset=utf-8"},
            timeout=10,
        )
        digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
        assert answer.headers["CDB-Digest"].startswith(f"sha-256=:{digest}:")


def test_what_is_no_answer_of_soap_has_none(shared_master: Master) -> None:
    """By that a client tells a refusal of HTTP from an answer whose status was damaged."""
    for path in ("/cdb/v2/calibrationSuperMouse", "/cdb/v2/nowhere"):
        answer = requests.post(shared_master.url + path, data="x", timeout=10)
        assert answer.status_code in (401, 404)
        assert "CDB-Digest" not in answer.headers
