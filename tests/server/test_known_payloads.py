"""A caller that has a payload is not sent it again: it names the payload's sha256 in the header CDB-Have."""

import hashlib
from datetime import datetime

import pytest
import requests
from lxml import etree

import cdb
from cdb_server import schema
from cdb_server.database.transactions import Database
from cdb_server.errors import DamagedPayload
from cdb_server.instants import UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests.servers import Master

NAMESPACE = "urn:mice:cdb:2"
DATA = b"a payload that somebody has"
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()

QUESTIONS = {
    "get_calibration_for_run": "<device_name>HELD</device_name><calibration_type>t0</calibration_type>"
    "<run_number>9401</run_number>",
    "get_calibration_for_date": "<device_name>HELD</device_name><calibration_type>t0</calibration_type>"
    "<date>2016-03-01T00:00:00Z</date>",
    "get_current_calibration": "<device_name>HELD</device_name><calibration_type>t0</calibration_type>",
    "get_calibration_for_id": "<id>{id}</id>",
}


@pytest.fixture
def stored(shared_master: Master) -> int:
    """The id of a calibration with DATA."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    writer.add_run(9401, "2016-03-01")
    return writer.add_calibration("HELD", "t0", "2016-01-01", DATA).id


def answered(master: Master, operation: str, arguments: str, have: str | None) -> tuple[list[str], requests.Response]:
    """The names of the elements of the calibration that is answered, and the answer."""
    envelope = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<{operation} xmlns="{NAMESPACE}">{arguments}</{operation}></s:Body></s:Envelope>'
    )
    headers = {"Content-Type": "text/xml", **({} if have is None else {"CDB-Have": have})}
    answer = requests.post(f"{master.url}/cdb/v2/calibration", data=envelope, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    calibration = etree.fromstring(answer.content).find(f".//{{{NAMESPACE}}}calibration")
    assert calibration is not None
    assert calibration.findtext(f"{{{NAMESPACE}}}sha256") == SHA256
    return [etree.QName(element).localname for element in calibration], answer


@pytest.mark.parametrize("operation", QUESTIONS)
@pytest.mark.parametrize(
    ("have", "sent"),
    [
        (None, True),
        ("", True),
        (OTHER, True),
        (SHA256[:-1], True),
        (f"{SHA256}0", True),
        ("x" * 3000, True),
        (SHA256, False),
        (f"{OTHER}, {SHA256}", False),
    ],
)
def test_a_payload_that_the_client_has_is_omitted(
    shared_master: Master, stored: int, operation: str, have: str | None, sent: bool
) -> None:
    """All else is answered as ever; what is no sha256 is no matter."""
    arguments = QUESTIONS[operation].format(id=stored)
    elements, _ = answered(shared_master, operation, arguments, have)
    everything, _ = answered(shared_master, operation, arguments, None)
    assert elements == (everything if sent else everything[:-1])
    assert everything[-1] == "data"


def test_no_cache_gives_an_answer_without_payload_to_others(shared_master: Master, stored: int) -> None:
    """Caches that keep answers to POST are told what the answer depends on."""
    for have in (None, SHA256):
        _, answer = answered(shared_master, "get_calibration_for_id", f"<id>{stored}</id>", have)
        assert answer.headers["Vary"] == "CDB-Have"


def test_a_known_payload_does_not_hide_a_damaged_database(database_url: str) -> None:
    """Rule 13: "On mismatch: an error, never the data" - whatever size a damaged row says."""
    Database.create(database_url)
    with Database.open(database_url) as database:
        upload = Upload.validated("TOF1", "t0", datetime(2016, 3, 1, tzinfo=UTC), DATA, None, None, max_payload=1_000)
        stored = Writer(database).add_calibration(upload, "alice")
        with database.write() as connection:
            for table in ("calibration", "payload"):
                for trigger in ("no_update", "no_change"):
                    sqlite = f"DROP TRIGGER IF EXISTS {table}_{trigger}"
                    connection.exec_driver_sql(sqlite if database.supports_nonblocking else f"{sqlite} ON {table}")
            connection.exec_driver_sql("UPDATE calibration SET size = -5")
            connection.execute(schema.payload.update().values(data=b"altered"))
        for reader in (Reader(database), Reader(database).formatted()):
            assert reader.calibration_for_id(stored.id, held={SHA256}).data is None
            for held in ((), {OTHER}):
                with pytest.raises(DamagedPayload):
                    reader.calibration_for_id(stored.id, held=held)
