"""The earlier CDB's services, driven by suds from the served WSDLs alone, as its clients do: by position, in text."""

import asyncio
import base64
import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from lxml import etree
from starlette.requests import Request
from suds.client import Client

import cdb
from cdb_server.database.transactions import Database
from cdb_server.http.admission import LARGE_PAYLOAD_BYTES, MemoryBudget, ThreadPools
from cdb_server.http.protocol.request_rules import HttpError
from cdb_server.http.routes.soap import LegacyHandler
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.settings import Settings, is_known_host
from cdb_server.soap.legacy_operations import LEGACY_SERVICES, LegacyService
from tests import mirrors, servers
from tests.fuzz import wire
from tests.servers import Master, until

ALLOWED = ("--legacy-write-networks", "127.0.0.0/8")
WSDL = "{http://schemas.xmlsoap.org/wsdl/}"
XS = "{http://www.w3.org/2001/XMLSchema}"

FROM, CREATED = "2016-03-01 08:00:00.0", datetime(2026, 1, 1, tzinfo=timezone.utc)
TEXT = "".join(f"{number} 0.125 -3.5e-09\n" for number in range(60_000)).encode()[:904_000]
BINARY = random.Random(5).randbytes(904_000)

# Operations and the arguments that they take, as the earlier clients call them.
STATUS = {"getStatus": (), "getName": (), "getServerInfo": (), "listDevices": ()}
CALIBRATION = {
    **STATUS,
    "getCurrentDetectorCalibration": ("device", "type"),
    "getDetectorCalibrationForDate": ("device", "type", "timestamp"),
    "getDetectorCalibrationForRun": ("device", "type", "runNumber"),
    "getDetectorCalibrationForId": ("id",),
    "getCalibrationIds": ("start", "stop"),
    "getCurrentCalibration": ("device",),
    "getCalibrationForDate": ("device", "timestamp"),
    "getCalibrationForRun": ("device", "runNumber"),
    "getCalibrationForId": ("id",),
}
CABLING = {
    **STATUS,
    "getCurrentDetectorCabling": ("device",),
    "getDetectorCablingForDate": ("device", "timestamp"),
    "getDetectorCablingForRun": ("device", "runNumber"),
    "getDetectorCablingForId": ("id",),
    "getCablingIds": ("start", "stop"),
    "getCurrentCabling": ("device",),
    "getCablingForDate": ("device", "timestamp"),
    "getCablingForRun": ("device", "runNumber"),
    "getCablingForId": ("id",),
}
CHANNELS = {"setTracker": ("device", "data"), "setControl": ("device", "data")}
CONTROLS = dict.fromkeys(("addControl", "updateControl"), ("crate", "module", "channel", "name"))
SERVICES = {
    "/cdb/calibration": CALIBRATION,
    "/cdb/calibrationSuperMouse": {**CALIBRATION, "setDetector": ("device", "type", "timestamp", "data"), **CHANNELS},
    "/cdb/cabling": CABLING,
    "/cdb/cablingSuperMouse": {**CABLING, "setDetector": ("device", "timestamp", "data"), **CHANNELS, **CONTROLS},
}
# The devices that the earlier client asks for by name and type; for all others it calls other operations.
DETECTORS = "Ckov A, Ckov B, EMR, KL, Scalers, TOF0, TOF1, TOF2, Trigger, Trigger request, Trackers"


def service(url: str, path: str) -> Any:
    """What suds makes of a WSDL."""
    return Client(f"{url}{path}?wsdl", cache=None).service


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def said(answer: str) -> tuple[str, str]:
    """The tag and the text of a status answer, which Python 2's `str` must take."""
    root = etree.fromstring(str(answer).encode("ascii"))
    return str(root.tag), root.text or ""


def refused(answer: str, tag: str = "error") -> str:
    """The text of what stands in the place of a payload."""
    found, text = said(base64.b64decode(answer).decode("ascii"))
    assert found == tag
    return text


def listed(answer: str) -> list[dict[str, str]]:
    """What an answer with ids lists."""
    return [dict(element.attrib) for element in etree.fromstring(str(answer)).iter("id")]


def devices(answer: str) -> tuple[str, list[str]]:
    """The tag of a list of devices, and their names."""
    root = etree.fromstring(str(answer))
    assert [child.tag for child in root] == ["deviceList"]
    return str(root.tag), [str(device.get("name")) for device in root[0]]


def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)


@pytest.fixture(scope="module")
def open_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master that takes uploads of the earlier clients: each test uses device names and runs of its own."""
    folder = tmp_path_factory.mktemp("open")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *ALLOWED) as running:
        yield running


def test_what_is_uploaded_is_read_back_byte_for_byte(database_url: str, tmp_path: Path) -> None:
    """904 kB of text and of anything, by every way to ask, as calibration and as cabling, with its id and device."""
    with servers.master(database_url, tmp_path, *ALLOWED) as master:
        writer(master).add_run(7662, "2016-03-02 10:00:00")
        calibration = service(master.url, "/cdb/calibrationSuperMouse")
        cabling = service(master.url, "/cdb/cablingSuperMouse")
        for number, (kind, data) in enumerate((("t0", TEXT), ("Raw", BINARY)), 1):
            assert said(calibration.setDetector("Ckov A", kind, FROM, encoded(data))) == ("ok", "OK")
            for answer in (
                calibration.getCurrentDetectorCalibration("Ckov A", kind),
                calibration.getDetectorCalibrationForDate("CKOV a", kind.lower(), "2016-03-01 08:00:00"),
                calibration.getDetectorCalibrationForRun("ckov A", kind, 7662),
                calibration.getDetectorCalibrationForId(number + 1),
            ):
                assert base64.b64decode(answer) == data
        assert said(cabling.setDetector("DAQ", "2016-03-01 08:00:00.000001", encoded(BINARY))) == ("ok", "OK")
        for answer in (
            cabling.getCurrentDetectorCabling("DAQ"),
            cabling.getDetectorCablingForDate("daq", "2016-03-01 08:00:00.000001"),
            cabling.getDetectorCablingForRun("DAQ", "7662"),
            cabling.getDetectorCablingForId("4"),
            service(master.url, "/cdb/calibration").getCurrentDetectorCalibration("DAQ", "cabling"),
        ):
            assert base64.b64decode(answer) == BINARY
    with Database.open(database_url) as database:
        stored = [Reader(database).calibration_for_id(id) for id in (2, 3, 4)]
    assert [(of.device_name, of.calibration_type, of.author, of.comment) for of in stored] == [
        ("CKOV A", "t0", "127.0.0.1", None),
        ("CKOV A", "raw", "127.0.0.1", None),
        ("DAQ", "cabling", "127.0.0.1", None),
    ]


@pytest.mark.parametrize("path", LEGACY_SERVICES)
def test_a_wsdl_stands_alone(path: str, open_master: Master) -> None:
    """One service with one port, at the public address; every operation with its arguments, the reading ones too."""
    definitions = etree.fromstring(requests.get(f"{open_master.url}{path}?WSDL", timeout=10).content)
    [port] = definitions.findall(f"{WSDL}service/{WSDL}port")
    assert port[0].get("location") == f"{open_master.url}{path}"
    operations = definitions.findall(f"{WSDL}portType/{WSDL}operation")
    found = {
        str(operation.get("name")): tuple(
            argument.get("name")
            for argument in definitions.findall(
                f".//{XS}element[@name='{operation.get('name')}']/{XS}complexType/{XS}sequence/{XS}element"
            )
        )
        for operation in operations
    }
    assert found == SERVICES[path]


@pytest.mark.parametrize("path", LEGACY_SERVICES)
def test_a_server_tells_who_and_how_it_is(path: str, open_master: Master) -> None:
    """In tags that these clients know: OK to the letter, the name of the public address, version and role."""
    asked = service(open_master.url, path)
    assert asked.getStatus() == "<ok>OK</ok>"
    assert asked.getName() == "<serverName>127.0.0.1</serverName>"
    tag, info = said(asked.getServerInfo())
    assert (tag, "master" in info) == ("ok", True)


def test_ids_are_those_of_the_period(open_master: Master) -> None:
    """Rule 6, both ends included; superseded and later ones are not among them."""
    uploads = service(open_master.url, "/cdb/calibrationSuperMouse")
    for valid_from in ("2011-01-01 00:00:00", "2011-01-01 00:00:00.0", "2011-02-01 00:00:00.25"):
        said(uploads.setDetector("ids", "t0", valid_from, encoded(valid_from.encode())))

    def own(start: str, stop: str) -> list[tuple[str, str]]:
        found = [entry for entry in listed(uploads.getCalibrationIds(start, stop)) if entry["device"] == "IDS"]
        assert all(list(entry) == ["name", "validFrom", "created", "device", "type"] for entry in found)
        for entry in found:
            assert datetime.strptime(f"{entry['created']}+0000", "%Y-%m-%d %H:%M:%S.%f%z") > CREATED
        return [(entry["validFrom"], entry["type"]) for entry in found]

    first, second = ("2011-01-01 00:00:00.0", "t0"), ("2011-02-01 00:00:00.25", "t0")
    assert own("2010-01-01 00:00:00", "2010-12-31 23:59:59.999999") == []
    assert own("2011-01-01 00:00:00", "2011-01-01 00:00:00") == [first]
    assert own("2011-01-01 00:00:00", "2011-02-01 00:00:00.249999") == [first]
    assert own("2011-01-01 00:00:00", "2011-02-01 00:00:00.25") == [first, second]
    assert own("2011-02-01 00:00:00.250000000", "2011-03-01 00:00:00") == [second]


def test_calibrations_and_cablings_are_listed_apart(open_master: Master) -> None:
    """As in the earlier CDB: neither service lists, or gives by id, what is the other's."""
    calibration = service(open_master.url, "/cdb/calibrationSuperMouse")
    cabling = service(open_master.url, "/cdb/cablingSuperMouse")
    said(calibration.setDetector("Apart one", "t0", FROM, encoded(b"t0")))
    said(calibration.setDetector("Apart both", "t0", FROM, encoded(b"t0")))
    said(cabling.setDetector("Apart both", FROM, encoded(b"cabling")))
    said(cabling.setDetector("Apart two", FROM, encoded(b"cabling")))
    tag, found = devices(calibration.listDevices())
    assert (tag, [name for name in found if "APART" in name]) == ("calibration", ["APART BOTH", "APART ONE"])
    tag, found = devices(cabling.listDevices())
    assert (tag, [name for name in found if "APART" in name]) == ("cabling", ["APART BOTH", "APART TWO"])
    calibrations, cablings = (
        listed(calibration.getCalibrationIds(FROM, FROM)),
        listed(cabling.getCablingIds(FROM, FROM)),
    )
    assert "cabling" not in {entry["type"] for entry in calibrations}
    assert {tuple(entry) for entry in cablings} == {("name", "validFrom", "created", "device")}
    [ours] = [entry["name"] for entry in calibrations if entry["device"] == "APART BOTH"]
    [theirs] = [entry["name"] for entry in cablings if entry["device"] == "APART BOTH"]
    assert "t0 of APART BOTH: ask /cdb/calibration for it" in refused(cabling.getDetectorCablingForId(ours))
    assert "cabling of APART BOTH: ask /cdb/cabling for it" in refused(calibration.getDetectorCalibrationForId(theirs))


def test_devices_are_spelled_as_the_earlier_client_knows_them(open_master: Master) -> None:
    """It asks by name and type for what is in its own list, letter for letter: listed otherwise, it could not ask."""
    calibration = service(open_master.url, "/cdb/calibrationSuperMouse")
    cabling = service(open_master.url, "/cdb/cablingSuperMouse")
    for name in ("TRACKERS", "ckov b", "trigger REQUEST", "spelled"):
        assert said(calibration.setDetector(name, "t0", FROM, encoded(b"t0"))) == ("ok", "OK")
    assert said(cabling.setDetector("daq", FROM, encoded(b"map"))) == ("ok", "OK")
    spelled = {"Ckov B", "Trackers", "Trigger request", "SPELLED"}
    assert spelled <= set(devices(calibration.listDevices())[1])
    assert spelled <= {entry["device"] for entry in listed(calibration.getCalibrationIds(FROM, FROM))}
    assert "DAQ" in devices(cabling.listDevices())[1]
    assert "DAQ" in {entry["device"] for entry in listed(cabling.getCablingIds(FROM, FROM))}


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("TRACKERS", "write 'Trackers', as this client spells it, not 'TRACKERS'"),
        ("tof1", "write 'TOF1', as this client spells it, not 'tof1'"),
        ("TOF7", f"'TOF7' is none of the devices that this client can ask for by name: {DETECTORS}."),
        ("Controls", f"{DETECTORS}."),
        ("", f"'' is none of the devices that this client can ask for by name: {DETECTORS}."),
        ("Trackers", "Trigger request"),
        ("../../etc/passwd", f"{DETECTORS}."),
    ],
)
def test_a_device_that_the_earlier_client_does_not_know_is_an_error_it_understands(
    device: str, text: str, open_master: Master
) -> None:
    """It calls these operations, without a type, and reads XML; the error says how to ask, by name or by id."""
    calibration = service(open_master.url, "/cdb/calibration")
    cabling = service(open_master.url, "/cdb/cabling")
    for answer in (
        calibration.getCurrentCalibration(device),
        calibration.getCalibrationForDate(device, FROM),
        calibration.getCalibrationForRun(device, 7662),
    ):
        tag, found = said(answer)
        assert (tag, text in found) == ("error", True)
        assert ("get_calibration_for_id" in found) == ("write" not in text)
    for answer in (
        cabling.getCurrentCabling(device),
        cabling.getCablingForDate(device, FROM),
        cabling.getCablingForRun(device, 7662),
    ):
        tag, found = said(answer)
        assert (tag, text.replace(DETECTORS, f"{DETECTORS}, DAQ") in found) == ("error", True)
        assert ("get_cabling_for_id" in found) == ("write" not in text)


def test_an_id_needs_no_device(open_master: Master) -> None:
    """By the shorter operation as by the longer, with the same payload."""
    calibration = service(open_master.url, "/cdb/calibrationSuperMouse")
    said(calibration.setDetector("Short", "t0", FROM, encoded(BINARY)))
    [id] = [entry["name"] for entry in listed(calibration.getCalibrationIds(FROM, FROM)) if entry["device"] == "SHORT"]
    assert base64.b64decode(calibration.getCalibrationForId(id)) == BINARY
    assert "there is no calibration" in refused(calibration.getCalibrationForId(10**9))
    assert "ask /cdb/calibration for it" in refused(service(open_master.url, "/cdb/cabling").getCablingForId(id))


def test_channels_are_not_stored(open_master: Master) -> None:
    """The error says what to call instead; the journal stays as it is."""
    before = cdb.Calibration(open_master.url).get_status().serial
    calibration = service(open_master.url, "/cdb/calibrationSuperMouse")
    cabling = service(open_master.url, "/cdb/cablingSuperMouse")
    for answer in (
        calibration.setTracker("Tracker 1", "<calibrations/>"),
        calibration.setControl("Controls", "<calibrations/>"),
        cabling.setTracker("Tracker 1", "<cabling/>"),
        cabling.setControl("Controls", "<cabling/>"),
        cabling.addControl(1, 2, 3, "pump"),
        cabling.updateControl(1, 2, 3, "pump"),
    ):
        tag, text = said(answer)
        assert (tag, "store a file with set_detector" in text) == ("error", True)
    assert cdb.Calibration(open_master.url).get_status().serial == before


def test_what_applies_changes_at_its_instant(open_master: Master) -> None:
    """One microsecond before, at, and after; what is not current yet is not."""
    uploads = service(open_master.url, "/cdb/calibrationSuperMouse")
    assert said(uploads.setDetector("Moment", "t0", "2016-03-01 08:00:00.5", encoded(b"a")))[0] == "ok"
    assert said(uploads.setDetector("Moment", "t0", "2999-03-01 08:00:00", encoded(b"b")))[0] == "ok"

    def at(timestamp: object) -> bytes:
        return base64.b64decode(uploads.getDetectorCalibrationForDate("Moment", "t0", timestamp))

    assert at("2016-03-01 08:00:00.499999").startswith(b"<error>no calibration of MOMENT t0 applies")
    assert at("2016-03-01 08:00:00.5") == at(datetime(2016, 3, 1, 8, 0, 0, 500_001)) == b"a"
    assert at("2999-03-01 07:59:59.999999") == b"a"
    assert at("2999-03-01 08:00:00") == b"b"
    assert base64.b64decode(uploads.getCurrentDetectorCalibration("Moment", "t0")) == b"a"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 2**20, 2**20 + 1, 5_000_001])
def test_payloads_of_every_size_are_read_whole(size: int, open_master: Master) -> None:
    """Also the empty one, which only the present services store; suds would make None of an answer without text."""
    data = random.Random(size).randbytes(size)
    writer(open_master).add_calibration(f"SIZE {size}", "t0", "2016-03-01", data)
    answer = service(open_master.url, "/cdb/calibration").getCurrentDetectorCalibration(f"size {size}", "t0")
    assert hashlib.sha256(base64.b64decode(answer)).digest() == hashlib.sha256(data).digest()


PROBLEMS: dict[str, tuple[Callable[[Any], str], str]] = {
    "unknown device": (lambda of: of.getCurrentDetectorCalibration("Nowhere", "t0"), "no calibration of NOWHERE t0"),
    "no type": (lambda of: of.getCurrentDetectorCalibration("TOF1", None), "cannot name a calibration type"),
    "no name": (lambda of: of.getCurrentDetectorCalibration("TOF\xe9 <1>", "t0"), "'TOF\xe9 <1>' cannot name a device"),
    "unknown run": (lambda of: of.getDetectorCalibrationForRun("TOF1", "t0", 404), "run 404 is not registered"),
    "run zero": (lambda of: of.getDetectorCalibrationForRun("TOF1", "t0", 0), "must be a whole number from 1"),
    "run zero, by date": (lambda of: of.getDetectorCalibrationForRun("TOF1", "t0", 0), "run 0 of a simulation: ask by"),
    "run of words": (lambda of: of.getDetectorCalibrationForRun("TOF1", "t0", "last"), "runNumber 'last' is not"),
    "unknown id": (lambda of: of.getDetectorCalibrationForId(10**9), "there is no calibration with id 1000000000"),
    "id of digits": (lambda of: of.getDetectorCalibrationForId("9" * 400), "is not a whole number from 1"),
    "Arabic digits": (lambda of: of.getDetectorCalibrationForId("١٢"), "id '١٢' is not a whole number"),
    "February 30": (
        lambda of: of.getDetectorCalibrationForDate("TOF1", "t0", "2016-02-30 00:00:00"),
        "is no time like",
    ),
    "too fine": (lambda of: of.getDetectorCalibrationForDate("TOF1", "t0", f"{FROM}000001"), "to the microsecond"),
    "no time": (lambda of: of.getDetectorCalibrationForDate("TOF1", "t0", None), "timestamp '' is no time like"),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_error_stands_in_the_place_of_a_payload(problem: str, open_master: Master) -> None:
    """As base64 of <error>: what was asked, and what is wrong with it."""
    ask, text = PROBLEMS[problem]
    assert text in refused(ask(service(open_master.url, "/cdb/calibration")))


STATUS_PROBLEMS: dict[str, tuple[Callable[[Any], str], str]] = {
    "stop before start": (lambda of: of.getCalibrationIds(FROM, "2016-02-01 00:00:00"), "lies before start_time"),
    "no stop": (lambda of: of.getCalibrationIds(FROM, None), "stop '' is no time like"),
    "empty data": (lambda of: of.setDetector("Problem", "t0", FROM, ""), "the payload is empty: "),
    "no data": (lambda of: of.setDetector("Problem", "t0", FROM, None), "the payload is empty: "),
    "no base64": (lambda of: of.setDetector("Problem", "t0", FROM, "!!!!"), "data is not accepted: it must be base64"),
    "three characters": (lambda of: of.setDetector("Problem", "t0", FROM, "YWJ"), "it must be base64"),
    "no device": (lambda of: of.setDetector("", "t0", FROM, "YWJj"), "'' cannot name a device"),
    "no type": (lambda of: of.setDetector("Problem", "0t", FROM, "YWJj"), "'0t' cannot name a calibration type"),
    "no time": (lambda of: of.setDetector("Problem", "t0", "now", "YWJj"), "timestamp 'now' is no time like"),
    "a path": (lambda of: of.setDetector("../../etc/passwd", "t0", FROM, "YWJj"), "cannot name a device"),
}


@pytest.mark.parametrize("problem", STATUS_PROBLEMS)
def test_an_error_stands_in_the_place_of_a_status(problem: str, open_master: Master) -> None:
    """As <error>, with nothing stored."""
    before = cdb.Calibration(open_master.url).get_status().serial
    ask, text = STATUS_PROBLEMS[problem]
    tag, found = said(ask(service(open_master.url, "/cdb/calibrationSuperMouse")))
    assert tag == "error"
    assert text in found
    assert cdb.Calibration(open_master.url).get_status().serial == before


# What the earlier client has not, and its user cannot do.
FOREIGN = re.compile(r"/cdb/v2|sha256|token|as_of|register it|cdb add|get_history|get_journal|get_runs?\b|withdraw_")


def test_errors_name_nothing_that_the_earlier_client_lacks(tmp_path: Path) -> None:
    """Neither an operation of the present services, nor what only they can do."""
    folder = tmp_path / "off"
    folder.mkdir()
    with (
        servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, *ALLOWED, "--max-payload", "1000") as master,
        servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as closed,
    ):
        stores = service(master.url, "/cdb/calibrationSuperMouse")
        cabling = service(master.url, "/cdb/cablingSuperMouse")
        said(stores.setDetector("Later", "t0", "2999-01-01 00:00:00", encoded(b"1")))
        told = [base64.b64decode(ask(stores)).decode("ascii") for ask, _ in PROBLEMS.values()]
        told += [ask(stores) for ask, _ in STATUS_PROBLEMS.values()]
        for asked, id in ((stores.getDetectorCalibrationForId, 9), (cabling.getDetectorCablingForId, 1)):
            told.append(base64.b64decode(asked(id)).decode("ascii"))
        for device, kind in (("Later", "t0"), ("Later", "t1")):
            told.append(base64.b64decode(stores.getCurrentDetectorCalibration(device, kind)).decode("ascii"))
        told += [
            base64.b64decode(stores.getDetectorCalibrationForRun("Later", "t0", 7)).decode("ascii"),
            base64.b64decode(cabling.getDetectorCablingForRun("Later", 7)).decode("ascii"),
            stores.getCurrentCalibration("Later"),
            stores.getCurrentCalibration("TRACKERS"),
            stores.setTracker("Later", "<x/>"),
            stores.setDetector("Later", "t0", FROM, encoded(b"x" * 1001)),
            service(closed.url, "/cdb/calibrationSuperMouse").setDetector("Later", "t0", FROM, encoded(b"1")),
        ]
    assert {said(text)[0] for text in told} == {"error"}
    assert [text for text in told if FOREIGN.search(text)] == []


def test_uploads_are_off_where_no_setting_names_their_network(tmp_path: Path) -> None:
    """Whatever the write networks are, which are for tokens; reading is open, and the log tells who tried."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        for path, arguments in (
            ("/cdb/calibrationSuperMouse", ("OFF", "t0", FROM, "YWJj")),
            ("/cdb/cablingSuperMouse", ("OFF", FROM, "YWJj")),
        ):
            asked = service(master.url, path)
            assert said(asked.getStatus()) == ("ok", "OK")
            tag, text = said(asked.setDetector(*arguments))
            assert tag == "error"
            assert "not allowed from 127.0.0.1" in text
            assert "CDB_LEGACY_WRITE_NETWORKS" in text
        assert cdb.Calibration(master.url).get_status().serial == 0
        assert "refused to write: 127.0.0.1 is outside the allowed networks, as user ''" in master.log.read_text()


def test_the_network_is_that_of_the_peer(tmp_path: Path) -> None:
    """A forged X-Forwarded-For counts for nothing; what a trusted proxy says is judged, and becomes the author."""
    networks = ("--legacy-write-networks", "10.1.0.0/16 ::1/128")

    def upload(master: Master, forwarded: str) -> tuple[str, str]:
        client = Client(f"{master.url}/cdb/calibrationSuperMouse?wsdl", cache=None)
        client.set_options(headers={"X-Forwarded-For": forwarded})
        return said(client.service.setDetector("TOF1", "t0", FROM, "YWJj"))

    with servers.master(f"sqlite:///{tmp_path}/near.sqlite", tmp_path, *networks) as master:
        assert "not allowed from 127.0.0.1" in upload(master, "10.1.2.3")[1]
        assert cdb.Calibration(master.url).get_status().serial == 0
    trusted = ("--trusted-proxies", "127.0.0.1/32")
    with servers.master(f"sqlite:///{tmp_path}/far.sqlite", tmp_path, *networks, *trusted) as master:
        assert "not allowed from 192.0.2.1" in upload(master, "10.1.2.3, 192.0.2.1")[1]
        assert "not allowed from unknown" in upload(master, "somebody")[1]
        assert upload(master, "192.0.2.1, 10.1.2.3") == ("ok", "OK")
        assert cdb.Calibration(master.url).get_calibration_for_id(1).author == "10.1.2.3"


def test_nobody_stores_by_a_name_that_is_not_the_servers(tmp_path: Path) -> None:
    """A page of another site may have its own name lead here: its visitors' browsers then take this for that site."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, *ALLOWED) as master:

        def stored(path: str, host: str | None) -> tuple[str, str]:
            arguments = ("TOF1", "t0", FROM, "YWJj") if path == "/cdb/calibrationSuperMouse" else ("KL", FROM, "YWJj")
            with wire.Peer(master.url) as peer:
                headers = [("Host", host), ("Origin", f"http://{host}")]
                reply = peer.ask(wire.request(path, called("setDetector", *arguments), headers=headers))
            assert reply.status == 200
            return said(etree.fromstring(reply.body).findtext(".//return", ""))

        for path in ("/cdb/calibrationSuperMouse", "/cdb/cablingSuperMouse"):
            for host in ("evil.example", "evil.example:8080", "cdb.example.evil.example", "127.0.0.1.evil.example", ""):
                tag, text = stored(path, host)
                assert tag == "error"
                assert master.url in text
        assert cdb.Calibration(master.url).get_status().serial == 0
        for path in ("/cdb/calibrationSuperMouse", "/cdb/cablingSuperMouse"):
            for host in ("127.0.0.1:9", "[::1]:8080", "192.0.2.1", "LOCALHOST:80"):
                assert stored(path, host) == ("ok", "OK")
        assert cdb.Calibration(master.url).get_status().serial == 2
        assert "from 127.0.0.1, to a server named 'evil.example', by which" in master.log.read_text()


@pytest.mark.parametrize(
    "host", ["cdb.example", "CDB.example.", "cdb.example:80", "inside", "localhost", "192.0.2.1:1"]
)
def test_a_server_is_known_by_its_public_name_and_the_one_it_is_bound_to(host: str) -> None:
    """And by every address, whatever the port."""
    settings = Settings("sqlite://", host="inside", public_url="http://cdb.example:8080/mice")
    assert is_known_host(host, settings)
    assert not is_known_host(f"evil.{host}", settings)
    assert not is_known_host(f"{host}@evil.example", settings)


def test_a_mirror_answers_and_takes_no_uploads(open_master: Master, tmp_path: Path) -> None:
    """Whoever reads by the writing services goes on; whoever uploads is told where."""
    said(service(open_master.url, "/cdb/calibrationSuperMouse").setDetector("Mirrored", "t0", FROM, encoded(BINARY)))
    serial = cdb.Calibration(open_master.url).get_status().serial
    with mirrors.mirror(open_master.url, f"sqlite:///{tmp_path}/mirror.sqlite", tmp_path) as mirror:
        until(lambda: mirror.status().serial == serial)
        for path in ("/cdb/calibration", "/cdb/calibrationSuperMouse"):
            asked = service(mirror.url, path)
            assert said(asked.getStatus()) == ("ok", "OK")
            assert "mirror" in said(asked.getServerInfo())[1]
            assert base64.b64decode(asked.getCurrentDetectorCalibration("Mirrored", "t0")) == BINARY
            assert "MIRRORED" in devices(asked.listDevices())[1]
        tag, text = said(service(mirror.url, "/cdb/cablingSuperMouse").setDetector("Mirrored", FROM, "YWJj"))
        assert tag == "error"
        assert f"send them to {open_master.url}" in text
        assert "refused to write" not in mirror.log.read_text()


def test_a_database_that_cannot_be_read_is_temporary(tmp_path: Path) -> None:
    """<warning>, of which the earlier client makes its CdbTemporaryError, in the place of a status and of a payload."""
    file = tmp_path / "cdb.sqlite"
    with servers.master(f"sqlite:///{file}", tmp_path, *ALLOWED) as master:
        asked = service(master.url, "/cdb/calibrationSuperMouse")
        file.write_bytes(b"no database" * 10_000)
        assert said(asked.getStatus())[0] == "warning"
        assert said(asked.setDetector("TOF1", "t0", FROM, "YWJj"))[0] == "warning"
        told = refused(asked.getCurrentDetectorCalibration("TOF1", "t0"), "warning")
        assert told == "the database cannot be reached or is busy: try again later"


def called(operation: str, *arguments: str) -> bytes:
    """The bytes of a call."""
    inner = "".join(f"<a>{argument}</a>" for argument in arguments)
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f"<{operation}>{inner}</{operation}></s:Body></s:Envelope>"
    ).encode()


def test_a_mirror_that_follows_no_longer_says_so(tmp_path: Path) -> None:
    """As a warning: what it has may not be what its master has."""
    url = f"sqlite:///{tmp_path}/mirror.sqlite"
    Database.create(url)
    with Database.open(url) as database:
        MirrorWriter(database).start_following("http://master.example")

    def status() -> tuple[str, str]:
        with Database.open(url) as database:
            legacy = LegacyService("/cdb/cabling", Settings(url), Reader(database), Reader(database), None)
            answer = b"".join(legacy.answer(called("getStatus"), "127.0.0.1", "").parts)
        return said(etree.fromstring(answer).findtext(".//return", ""))

    assert status() == ("ok", "OK")
    with Database.open(url) as database:
        MirrorWriter(database).stop_following("the histories part")
    tag, text = status()
    assert (tag, text.endswith("the histories part")) == ("warning", True)


def test_who_may_not_store_takes_no_room_from_those_who_may(tmp_path: Path) -> None:
    """A stranger announces what fills a worker's memory, sends some of it, and stops: others store as before."""
    networks = ("--legacy-write-networks", "10.0.0.0/8", "--workers", "1")
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, *networks) as master, ExitStack() as strangers:
        for path in LEGACY_SERVICES:
            peer = strangers.enter_context(wire.Peer(master.url))
            headers = [("Content-Length", str(40 * LARGE_PAYLOAD_BYTES))]
            peer.socket.sendall(wire.request(path, b"", headers=headers) + b" " * 5 * LARGE_PAYLOAD_BYTES)
        begin = time.monotonic()
        cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token).add_calibration(
            "TOF1", "t0", "2016-03-01", b"x" * 2 * LARGE_PAYLOAD_BYTES
        )
        assert time.monotonic() - begin < 5


def test_without_room_for_a_large_payload_http_says_so(tmp_path: Path) -> None:
    """503, as for a request that finds none; a small payload needs none."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    with Database.open(url) as database, closing(ThreadPools.with_threads(1)) as pools:
        for kind, size in (("large", LARGE_PAYLOAD_BYTES + 1), ("small", 3)):
            upload = Upload.validated(
                "TOF1", kind, CREATED, b"x" * size, None, None, max_payload=2 * LARGE_PAYLOAD_BYTES
            )
            Writer(database).add_calibration(upload, "alice")
        reader, sparing = Reader(database), Reader(database, max_payload_bytes=LARGE_PAYLOAD_BYTES)
        legacy = LegacyService("/cdb/calibration", Settings(url), reader, sparing, None)

        async def ask(kind: str) -> int:
            room = MemoryBudget(1, max_wait_seconds=0.01)
            with await room.reserve(1):
                calls = LegacyHandler(legacy, pools, Settings(url), room)
                body = called("getCurrentDetectorCalibration", "TOF1", kind)
                ready, known = await calls.answer(Request({"type": "http", "headers": []}), body, "127.0.0.1")
            assert known is None
            return ready.length

        assert asyncio.run(ask("small")) > 0
        with pytest.raises(HttpError) as refusal:
            asyncio.run(ask("large"))
    assert refusal.value.status == 503


def test_calls_are_counted_by_operation_and_outcome(open_master: Master) -> None:
    """What is wrong goes out as HTTP 200, and is counted under its name all the same."""
    asked = service(open_master.url, "/cdb/cabling")
    asked.getCablingIds(FROM, FROM)
    refused(asked.getCurrentDetectorCabling("Nowhere"))
    counts = requests.get(f"{open_master.url}/metrics", timeout=10).text
    assert 'cdb_requests_total{operation="getCablingIds",outcome="ok"}' in counts
    assert 'cdb_requests_total{operation="getCurrentDetectorCabling",outcome="CalibrationNotFound"}' in counts
