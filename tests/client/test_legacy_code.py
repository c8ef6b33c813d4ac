"""Code that was written for the earlier CDB's client runs against this one."""

import json
import os
import pickle
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import cdb
from cdb import _legacy
from cdb._exceptions import CdbError, CdbPermanentError, CdbTemporaryError
from demo import samples
from tests import servers
from tests.client.cdb_process import said, shell
from tests.servers import Master

UTC = timezone.utc

# In the manner of the experiment's reconstruction, but for Python 3's print.
RECONSTRUCTION = """
import json
import sys

import cdb
from cdb._exceptions import CdbPermanentError


class GetCalib:
    def __init__(self, configuration):
        url = json.loads(configuration)["cdb_download_url"] + "calibration?wsdl"
        self.cdb_server = cdb.Calibration()
        self.cdb_server.set_url(url)
        try:
            cdb.Calibration().get_status()
        except CdbPermanentError:
            raise CdbPermanentError("CDB error")

    def get_calib(self, device, kind, date):
        try:
            if date in ("", "current"):
                return self.cdb_server.get_current_calibration(device, kind)
            return self.cdb_server.get_calibration_for_date(device, date, kind)
        except CdbPermanentError:
            return "cdb_permanent_error"

    def get_calib_for_run(self, device, run, kind):
        try:
            return self.cdb_server.get_calibration_for_run(device, run, kind)
        except CdbPermanentError:
            return self.get_calib(device, kind, "2011-11-24 12:00:00")


class GetCabling:
    def __init__(self, configuration):
        self.cdb_server = cdb.Cabling()
        self.cdb_server.set_url(json.loads(configuration)["cdb_download_url"] + "cabling?wsdl")

    def get_cabling(self, device, date):
        if date == "current":
            return self.cdb_server.get_current_cabling(device)
        return self.cdb_server.get_cabling_for_date(device, date)


configuration = sys.argv[1]
calibrations, cablings = GetCalib(configuration), GetCabling(configuration)
answers = [
    calibrations.get_calib("TOF1", "t0", "2013-08-01 00:00:00"),
    calibrations.get_calib("TOF1", "t0", "current"),
    calibrations.get_calib("Trackers", "trackers", "2015-09-14 00:00:01.0"),
    calibrations.get_calib_for_run("TOF1", 7662, "trigger"),
    calibrations.get_calib_for_run("TOF1", 1, "tw"),
    calibrations.get_calib("TOF1", "t0", "1999-01-01 00:00:00"),
    cablings.get_cabling("DAQ", "2016-01-01 00:00:00.0"),
    cablings.get_cabling("TOF1", "current"),
]
assert all(isinstance(answer, str) for answer in answers)
json.dump(answers, sys.stdout)
"""

# In the manner of the detector experts' scripts, likewise.
UPLOAD = """
import sys

from cdb import CablingSuperMouse, CalibrationSuperMouse

server, file = sys.argv[1:]
calibrations, cablings = CalibrationSuperMouse(server), CablingSuperMouse(server)
print("API Version: " + calibrations.get_version())
print("Server name: " + calibrations.get_name())
print(calibrations)
data = open(file).read()
print(calibrations.set_detector("Uploaded", "trackers", "2015-09-14 00:00:01.0", data))
print(cablings.set_detector("Uploaded", "2015-09-14 00:00:01.0", data))
"""


@pytest.fixture(scope="module")
def sample_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Master, Path]]:
    """A master that holds the samples, and the folder where their files are."""
    folder = tmp_path_factory.mktemp("earlier")
    samples.write(folder)
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as master:
        said(master, "add", "--from", str(folder / "uploads.csv"))
        # Two of its rows are refused.
        runs = [sys.executable, "-m", "cdb.cli", "run", "add", "--from", str(folder / "runs.csv")]
        subprocess.run(runs, env=master.environment, capture_output=True, timeout=60)
        yield master, folder


@pytest.fixture
def writer(shared_master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)


def test_reconstruction_runs_without_change(sample_master: tuple[Master, Path], tmp_path: Path) -> None:
    """Clients without a server, `set_url` with the WSDL, (device, date, type) and (device, run, type), its errors."""
    master, folder = sample_master
    program = tmp_path / "reconstruction.py"
    program.write_text(RECONSTRUCTION)
    configuration = f'{{"cdb_download_url": "{master.url}/cdb/"}}'
    environment = {**os.environ, "CDB_SERVER": master.url, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, str(program), configuration], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    files = (
        "tof1_t0_2013.txt",
        "tof1_t0_2017.txt",
        "trackers_2015.json",
        "tof1_trigger_2013.txt",
        "tof1_tw_2011.txt",
        None,
        "daq_channel_map.txt",
        "tof_channel_map.txt",
    )
    assert json.loads(done.stdout) == [
        "cdb_permanent_error" if file is None else (folder / file).read_bytes().decode() for file in files
    ]


def test_an_upload_script_runs_without_change(shared_master: Master, tmp_path: Path) -> None:
    """Of whom it is says its environment."""
    (tmp_path / "upload.py").write_text(UPLOAD)
    (tmp_path / "map.txt").write_text("0 1 2\n")
    program = [sys.executable, str(tmp_path / "upload.py"), shared_master.url, str(tmp_path / "map.txt")]
    done = subprocess.run(program, env=shared_master.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert cdb.Cabling(shared_master.url).get_current_cabling("Uploaded") == "0 1 2\n"
    assert cdb.Calibration(shared_master.url).get_current_calibration("Uploaded", "trackers") == "0 1 2\n"


@pytest.mark.parametrize("path", ["/cdb/calibration?wsdl", "/cdb/calibrationSuperMouse?wsdl", "/cdb/cabling", "/", ""])
def test_set_url_takes_the_earlier_addresses_and_base_urls(shared_master: Master, path: str) -> None:
    """Whatever was asked before: from then on that server is."""
    client = cdb.Calibration("http://127.0.0.1:1", timeout=5)
    client.set_url(shared_master.url + path)
    assert client.get_status() == "OK"


def test_a_prefix_of_the_address_stays() -> None:
    """Where a proxy has the services below a path; and what is no address is refused."""
    client = cdb.Calibration("", timeout=5)
    client.set_url("http://cdb.example:8080/mice/cdb/cablingSuperMouse?wsdl")
    assert client._servers == ["http://cdb.example:8080/mice"]
    for url in ("http://cdb.example/mice/calibration?wsdl", "file:///cdb/calibration?wsdl", ""):
        with pytest.raises(CdbPermanentError):
            client.set_url(url)


def test_a_writer_writes_where_set_url_says(shared_master: Master) -> None:
    """Both its services follow; a script that printed what it set prints what was stored."""
    writer = cdb.CalibrationSuperMouse("http://127.0.0.1:1", user=shared_master.user, token=shared_master.token)
    writer.set_url(shared_master.url + "/cdb/calibrationSuperMouse?wsdl")
    stored = writer.set_detector("Set", "t0", "2015-03-08 00:00:00.0", "by an upload script")
    assert writer.get_calibration_for_id(stored.id) == "by an upload script"
    assert (stored.device_name, stored.valid_from) == ("SET", datetime(2015, 3, 8, tzinfo=UTC))


def test_both_orders_of_arguments_ask_the_same(writer: cdb.CalibrationSuperMouse) -> None:
    """(device, type, run) and (device, run, type); (device, type, date) and (device, date, type)."""
    writer.add_calibration("orders", "t0", "2016-03-01", "ordered")
    writer.add_run(8101, "2016-03-02")
    for run in (8101, "8101"):
        assert writer.get_calibration_for_run("orders", run, "t0") == "ordered"  # type: ignore[arg-type]  # the earlier order
    assert writer.get_calibration_for_run("orders", "t0", 8101) == "ordered"
    for date in ("2016-03-02 00:00:00", datetime(2016, 3, 2), datetime(2016, 3, 2).date()):
        for second, third in (("t0", date), (date, "t0")):
            assert writer.get_calibration_for_date("orders", second, third) == "ordered"  # type: ignore[arg-type]  # the earlier order


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("t0", "t0"), "run_number"), ((1, 2), "calibration_type"), (("7x", "t0"), "run_number"), ((None, "t0"), "run")],
)
def test_what_is_neither_order_is_told_as_before(
    writer: cdb.CalibrationSuperMouse, arguments: tuple[Any, Any], named: str
) -> None:
    """Where no run is given, or no type, the error names what is wrong."""
    with pytest.raises(cdb.InvalidArgument, match=named):
        writer.get_calibration_for_run("orders", *arguments)


def test_the_values_of_get_ids_have_the_earlier_names(writer: cdb.CalibrationSuperMouse) -> None:
    """`device` and `valid_from`, beside device_name and validFrom."""
    stored = writer.add_calibration("named", "t0", "2016-03-01", "1")
    found = writer.get_ids("2016-03-01", "2016-03-02")[stored.id]
    assert (found["device"], found["valid_from"]) == ("NAMED", stored.valid_from)
    assert (found["device"], found["valid_from"]) == (found["device_name"], found["validFrom"])
    assert (found["id"], found["created"], found["calibration_type"]) == (stored.id, stored.created, "t0")


def test_what_a_server_says_of_itself_is_text(shared_master: Master) -> None:
    """Scripts compare the status and put the rest into lines that they print."""
    client = cdb.Calibration(shared_master.url)
    status = client.get_status()
    assert (status == "OK", status == "OK", status in {"OK"}, f"{status}", "is " + status) == (
        *[True] * 3,
        "OK",
        "is OK",
    )
    assert status.role == "master"
    assert client.get_name() == client.get_server_host_name() == "127.0.0.1"
    assert client.get_server_info() == f"mice-cdb {status.version}, master, {status.serial} entries"
    assert client.get_version() == version("mice-cdb")


def test_statuses_of_one_text_are_two(shared_master: Master) -> None:
    """As records they differ in what else they say; they cross processes."""
    status = cdb.Calibration(shared_master.url).get_status()
    again = pickle.loads(pickle.dumps(status))
    assert (again, hash(again), again.serial) == (status, hash(status), status.serial)
    assert cdb.Device("TOF1", ("t0",)) != cdb.Device("TOF1", ("tw",))
    assert pickle.loads(pickle.dumps(cdb.Device("TOF1", ("t0",)))) == cdb.Device("TOF1", ("t0",))


def test_devices_are_found_by_their_names(sample_master: tuple[Master, Path]) -> None:
    """In upper case, as text; of Cabling those that have cabling, of Calibration those that have anything else."""
    base = sample_master[0].url
    devices = cdb.Calibration(base).list_devices()
    assert "TOF1" in devices
    assert "TRACKERS" in devices
    assert ", ".join(devices) == "KL, TOF1, TRACKERS"
    assert ", ".join(cdb.Calibration(base).list_devices(with_cabling=True)) == "DAQ, KL, TOF1, TRACKERS"
    assert cdb.Cabling(base).list_devices() == ["DAQ", "TOF1"]
    assert json.loads(said(sample_master[0], "devices", "--json"))[1] == {
        "device_name": "KL",
        "calibration_type": ["gain"],
    }


def test_cabling_is_the_calibration_type_cabling(shared_master: Master) -> None:
    """Written and read by its own clients, and by ours."""
    cabling = cdb.CablingSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    stored = cabling.set_detector("Cabled", "2016-03-01 00:00:00.0", "map")
    other = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    other.add_calibration("cabled", "t0", "2016-03-01", "not a map")
    other.add_run(8102, "2016-03-02")
    reader = cdb.Cabling()
    reader.set_url(shared_master.url + "/cdb/cabling?wsdl")
    answers = [
        reader.get_current_cabling("Cabled"),
        reader.get_cabling_for_date("Cabled", "2016-03-01 00:00:00"),
        reader.get_cabling_for_run("Cabled", 8102),
        reader.get_cabling_for_id(stored.id),
        other.get_current_calibration("cabled", "cabling"),
    ]
    assert answers == ["map"] * 5
    found = [fields for fields in reader.get_ids("2016-03-01").values() if fields["device"] == "CABLED"]
    assert [(fields["id"], fields["valid_from"]) for fields in found] == [(stored.id, stored.valid_from)]
    assert (reader.get_status(), reader.get_name()) == ("OK", "127.0.0.1")
    with pytest.raises(CdbPermanentError):
        reader.get_current_cabling("nobody cabled this")


def test_the_exceptions_say_what_the_earlier_ones_said() -> None:
    """Raised by callers, too, with a message and perhaps with another exception."""
    reason = ValueError("not a date")
    for kind in (CdbError, CdbPermanentError, CdbTemporaryError):
        assert (kind("why").get_message(), str(kind("why")), kind("why").get_exception()) == ("why", "why", None)
        assert kind("why", reason).get_exception() is reason
    with pytest.raises(CdbPermanentError) as caught:
        raise CdbPermanentError("raised for it") from reason
    assert caught.value.get_exception() is reason


def test_a_client_prints_its_methods() -> None:
    """With their arguments, one in each line."""
    lines = str(cdb.Calibration()).splitlines()
    assert lines[0] == "Calibration"
    assert "\tget_calibration_for_run(device_name, calibration_type, run_number, as_of=None)" in lines
    assert "\tset_url(url)" in lines
    assert not [line for line in lines if line.startswith("\t_") or "set_detector" in line]
    assert "\tset_detector(device, calibration_type, valid_from, data)" in str(cdb.CalibrationSuperMouse())
    assert "\tget_cabling_for_date(device, timestamp)" in str(cdb.Cabling())
    assert "\tset_detector(device, valid_from, data)" in str(cdb.CablingSuperMouse())


def test_the_type_may_be_named_beside_the_earlier_order(writer: cdb.CalibrationSuperMouse) -> None:
    """(device, run, calibration_type=…) and (device, date, calibration_type=…), with as_of too."""
    writer.add_calibration("by name", "t0", "2016-03-01", "named")
    writer.add_run(8103, "2016-03-02")
    ask_run: Any = writer.get_calibration_for_run
    ask_date: Any = writer.get_calibration_for_date
    answers = [
        ask_run("by name", 8103, calibration_type="t0"),
        ask_run("by name", calibration_type="t0", run_number=8103),
        ask_run("by name", "t0", run_number=8103),
        ask_date("by name", "2016-03-02 00:00:00", calibration_type="t0"),
        ask_date("by name", datetime(2016, 3, 2), calibration_type="t0", as_of=None),
        ask_date(device_name="by name", date="2016-03-02", calibration_type="t0"),
    ]
    assert answers == ["named"] * 6
    with pytest.raises(TypeError):
        ask_run("by name", "t0", calibration_type="t0", run_number=8103)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (("yesterday", "t0"), "yesterday"),
        (("t0", "yesterday"), "yesterday"),
        (("2016-13-01", "t0"), "2016-13-01"),
        (("t0", "2016-13-01"), "2016-13-01"),
        (("Mon Feb 29 20:47:00 2016", "t0"), "Mon Feb 29 20:47:00 2016"),
    ],
)
def test_a_wrong_date_is_blamed_in_either_order(given: tuple[str, str], wrong: str) -> None:
    """The message names what was meant as the date, and says that it is the date."""
    with pytest.raises(cdb.InvalidArgument) as caught:
        cdb.Calibration("http://127.0.0.1:1").get_calibration_for_date("TOF1", *given)
    assert caught.value.argument == "date"
    assert repr(wrong) in str(caught.value)
    assert "'t0' is not a time" not in str(caught.value)


def test_run_0_says_what_to_ask_instead(shared_master: Master) -> None:
    """It stands for Monte Carlo, in every question about a run, at the shell too."""
    client = cdb.CalibrationSuperMouse("http://127.0.0.1:1", user="alice", token="none of it")
    ask: Any = client.get_calibration_for_run
    for question in (
        lambda: ask("TOF1", "t0", 0),
        lambda: ask("TOF1", "0", "t0"),
        lambda: client.get_calibrations_for_run(0),
        lambda: client.get_run(0),
        lambda: client.add_run(0, "2016-03-01"),
        lambda: cdb.Cabling("http://127.0.0.1:1").get_cabling_for_run("DAQ", 0),
    ):
        with pytest.raises(
            cdb.InvalidArgument, match=r"Monte Carlo.*get_calibration_for_date.*get_current_calibration"
        ):
            question()
    done = shell(shared_master, "get", "TOF1", "t0", "--run", "0")
    assert (done.returncode, b"--date in place of --run" in done.stderr) == (1, True)


def test_cabling_by_id_is_cabling_and_nothing_else(writer: cdb.CalibrationSuperMouse, shared_master: Master) -> None:
    """The id of a calibration is not found, as with the earlier CDB, which counted the two apart."""
    stored = writer.add_calibration("no cabling", "t0", "2016-03-01", "1")
    with pytest.raises(cdb.CalibrationNotFound, match="is no cabling, but NO CABLING t0") as caught:
        cdb.Cabling(shared_master.url).get_cabling_for_id(stored.id)
    assert caught.value.id == stored.id
    assert writer.get_calibration_for_id(stored.id) == "1"


@pytest.mark.parametrize("name", sorted({*_legacy.MISSING_CLASSES, "TargetSuperMouse"}))
def test_what_is_not_here_says_where_it_is(name: str) -> None:
    """To import it beside what is here is no error, for a script may never use it."""
    program = f"from cdb import Calibration, {name}\nCalibration()\n{name}('http://localhost:8080')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(
        f"cdb._exceptions.CdbPermanentError: cdb.{name} is not in this client"
    )
    assert "earlier CDB" in done.stderr
    assert [other for other in ("beamline", "Nothing") if hasattr(cdb, other)] == []
    assert name not in cdb.__all__


def test_the_package_tells_its_version() -> None:
    """Under the name that packages tell it by."""
    assert cdb.__version__ == version("mice-cdb")
    assert "__version__" in dir(cdb)


@pytest.mark.parametrize("end", ["/", "//"])
def test_a_base_url_with_a_slash_at_its_end_is_one(shared_master: Master, end: str) -> None:
    """As is the address of an earlier service made of it."""
    assert cdb.Calibration(shared_master.url + end).get_status() == "OK"
    client = cdb.Calibration()
    for address in (f"{shared_master.url}{end}", f"{shared_master.url}{end}/cdb/calibration?wsdl"):
        client.set_url(address)
        assert client.get_status() == "OK"
    assert shell(shared_master, "devices", CDB_SERVER=shared_master.url + end).returncode == 0


@pytest.mark.parametrize("path", ["/cdb/v2/calibration?wsdl", "/cdb/calibration?wsdl", "/cdb/v2/calibrationSuperMouse"])
def test_two_slashes_of_a_foreign_client_are_told(shared_master: Master, path: str) -> None:
    """As they come of a base URL with a slash at its end: what is answered says so."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{shared_master.url}/{path}")
    with caught.value as answer:
        assert (answer.code, b"two slashes where one belongs" in answer.read()) == (404, True)
