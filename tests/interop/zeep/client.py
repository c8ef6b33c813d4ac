"""The scenario in Python with zeep."""

# docs: begin
import hashlib
import os
from datetime import datetime, timedelta, timezone

import requests
import zeep
from lxml import etree

url, user, token = os.environ["CDB_SERVER"], os.environ["CDB_USER"], os.environ["CDB_TOKEN"]
transport = zeep.Transport(operation_timeout=60)  # seconds; without it, zeep waits forever
settings = zeep.Settings(xml_huge_tree=True)  # without it, payloads end at 7.5 MB
reader = zeep.Client(f"{url}/cdb/v2/calibration?wsdl", transport=transport, settings=settings).service

session = requests.Session()
session.auth = (user, token)
transport = zeep.Transport(session=session, operation_timeout=60)
writer = zeep.Client(f"{url}/cdb/v2/calibrationSuperMouse?wsdl", transport=transport).service


def store(device, calibration_type, valid_from, data):
    """Store bytes, to apply from a datetime on. One without a time zone is taken as UTC."""
    checksum = hashlib.sha256(data).hexdigest()  # the server checks it; an empty payload needs it
    return writer.add_calibration(device, calibration_type, valid_from, data, sha256=checksum, comment="from zeep")


def payload_of(calibration):
    """The bytes, checked, of an answer such as reader.get_calibration_for_run("TOF1", "t0", 7662)."""
    data = calibration.data or b""  # an empty payload comes as None
    if hashlib.sha256(data).hexdigest() != calibration.sha256:
        raise ValueError(f"calibration {calibration.id} was damaged on its way")
    return data


def explain(error):
    """The name of a zeep.exceptions.Fault, like CalibrationNotFound, and the fields of its detail."""
    detail = error.detail[0]
    return etree.QName(detail).localname, {etree.QName(field).localname: field.text for field in detail}


# docs: end
DEVICE, RUN, PAYLOADS = os.environ["INTEROP_DEVICE"], int(os.environ["INTEROP_RUN"]), os.environ["INTEROP_PAYLOADS"]
UTC, EAST = timezone.utc, timezone(timedelta(hours=2))
VALID_FROM = datetime(2016, 1, 1, tzinfo=UTC)
RUN_START, RUN_STOP = datetime(2016, 2, 1, 12, 0, 0, 1, tzinfo=UTC), datetime(2016, 2, 1, 13, tzinfo=UTC)
PRECISE = datetime(2016, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)
BEFORE_PRECISE, AFTER_PRECISE = PRECISE - timedelta(microseconds=1), PRECISE + timedelta(microseconds=1)
OFFSET, OFFSET_IN_UTC = datetime(2016, 3, 1, 12, 0, 0, 1, tzinfo=EAST), datetime(2016, 3, 1, 10, 0, 0, 1, tzinfo=UTC)
BEFORE_OFFSET, WITHOUT_OFFSET = OFFSET - timedelta(microseconds=1), OFFSET_IN_UTC.replace(tzinfo=None)
files: dict[str, bytes] = {}
ids: dict[str, int] = {}


def step(name, work, *arguments):
    """Do one step of the scenario and print what came of it."""
    try:
        work(*arguments)
    except Exception as error:
        print(f"not ok {name}: {type(error).__name__}: {error}".replace("\n", " "))
    else:
        print(f"ok {name}")


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{str(found)[:200]} instead of {str(wanted)[:200]}")


def wsdl():
    reader.get_ids(VALID_FROM)
    expect(reader.get_status().status, "OK")


def add(label, calibration_type, file, valid_from, answered):
    """Store a file under a label, or again under the same one."""
    stored = store(DEVICE, calibration_type, valid_from, files[file])
    expect((stored.device_name, stored.valid_from, stored.size), (DEVICE, answered, len(files[file])))
    expect(ids.setdefault(label, stored.id), stored.id)


def add_run():
    run = writer.add_run(RUN, RUN_START, RUN_STOP)
    expect((run.run_number, run.start_time, run.stop_time), (RUN, RUN_START, RUN_STOP))


def by_id(label):
    return reader.get_calibration_for_id(ids[label])


def same(file, ask, *question):
    calibration = ask(*question)
    expect(calibration.id, ids[file])
    expect(payload_of(calibration) == files[file], True)


def applies(label, date, answered):
    calibration = reader.get_calibration_for_date(DEVICE, "instants", date)
    expect((calibration.id, calibration.valid_from), (ids[label], answered))


def valid_until():
    expect(by_id("precise").valid_until, OFFSET_IN_UTC)
    expect(by_id("offset").valid_until, None)


def listed(labels, *period):
    own = [calibration for calibration in reader.get_ids(*period) if calibration.device_name == DEVICE]
    expect([calibration.id for calibration in own], [ids[label] for label in labels])
    expect([calibration.data for calibration in own], [None] * len(own))


def list_devices():
    [device] = [device for device in reader.list_devices() if device.device_name == DEVICE]
    expect(device.calibration_type, ["binary", "empty", "instants", "megabyte"])


def as_of():
    fault("CalibrationNotFound", {}, lambda: reader.get_current_calibration(DEVICE, "binary", as_of=VALID_FROM))


def journal():
    [entry] = reader.get_journal(ids["binary"] - 1, 1)
    expect((entry.serial, entry.kind, entry.device_name), (ids["binary"], "calibration", DEVICE))
    expect((entry.size, entry.reason, entry.run_number), (len(files["binary"]), None, None))


def preview():
    told = writer.preview_calibration(DEVICE, "binary", RUN_START, b"new")
    expect((told.stored_id, told.device_is_new, told.takes_over_from.id), (None, False, ids["binary"]))
    expect((RUN, RUN) in [(found.first_run, found.last_run) for found in told.run_range], True)
    expect(writer.preview_calibration(DEVICE, "binary", VALID_FROM, files["binary"]).stored_id, ids["binary"])


def withdraw():
    withdrawn = writer.withdraw_calibration(ids["offset"], "only a test")
    expect((withdrawn.withdrawn, withdrawn.withdrawn_reason), (True, "only a test"))
    applies("precise", OFFSET, PRECISE)


def fault(name, fields, ask, *question):
    """A question must end with this fault, its detail with these fields."""
    try:
        answer = ask(*question)
    except zeep.exceptions.Fault as error:
        found, detail = explain(error)
        expect((found, {field: detail[field] for field in fields}), (name, fields))
        expect(len(detail["message"]) > 20, True)
    else:
        raise AssertionError(f"no fault, but {str(answer)[:200]}")


def no_token():
    nobody = zeep.Client(f"{url}/cdb/v2/calibrationSuperMouse?wsdl").service
    try:
        nobody.add_run(RUN, RUN_START)
    except zeep.exceptions.TransportError as error:
        expect(error.status_code, 401)
    else:
        raise AssertionError("written without a token")


def large_answer():
    stored = store(DEVICE, "large", VALID_FROM, bytes(8_000_000))
    zeep.Client(f"{url}/cdb/v2/calibration?wsdl").service.get_calibration_for_id(stored.id)


for name in ("binary", "megabyte", "empty"):
    with open(os.path.join(PAYLOADS, name), "rb") as file:
        files[name] = file.read()
step("wsdl", wsdl)
for name in files:
    step(f"upload-{name}", add, name, name, name, VALID_FROM, VALID_FROM)
step("upload-again", add, "binary", "binary", "binary", VALID_FROM, VALID_FROM)
step("add-run", add_run)
for name in files:
    step(f"get-for-run-{name}", same, name, reader.get_calibration_for_run, DEVICE, name, RUN)
    step(f"get-for-date-{name}", same, name, reader.get_calibration_for_date, DEVICE, name, VALID_FROM)
    step(f"get-current-{name}", same, name, reader.get_current_calibration, DEVICE, name)
    step(f"get-for-id-{name}", same, name, by_id, name)
by_date = reader.get_calibration_for_date
step("upload-microseconds", add, "precise", "instants", "binary", PRECISE, PRECISE)
step("microsecond-before", fault, "CalibrationNotFound", {}, by_date, DEVICE, "instants", BEFORE_PRECISE)
step("microsecond-at", applies, "precise", PRECISE, PRECISE)
step("microsecond-after", applies, "precise", AFTER_PRECISE, PRECISE)
step("upload-offset", add, "offset", "instants", "binary", OFFSET, OFFSET_IN_UTC)
step("offset-before", applies, "precise", BEFORE_OFFSET, PRECISE)
step("offset-at", applies, "offset", OFFSET, OFFSET_IN_UTC)
step("no-offset", applies, "offset", WITHOUT_OFFSET, OFFSET_IN_UTC)
step("valid-until", valid_until)
step("get-ids", listed, ["binary", "megabyte", "empty", "precise"], BEFORE_OFFSET)
step("get-ids-period", listed, ["binary", "megabyte", "empty", "precise", "offset"], RUN_START, OFFSET)
step("list-devices", list_devices)
step("as-of", as_of)
step("journal", journal)
step("preview", preview)
step("withdraw", withdraw)
missing = {"device_name": DEVICE, "calibration_type": "missing"}
step(
    "fault-calibration-not-found",
    fault,
    "CalibrationNotFound",
    missing,
    reader.get_current_calibration,
    DEVICE,
    "missing",
)
step("fault-invalid-argument", fault, "InvalidArgument", {"argument": "stop_time"}, reader.get_ids, PRECISE, VALID_FROM)
unknown = {"run_number": str(RUN + 1)}
step("fault-run-not-found", fault, "RunNotFound", unknown, reader.get_calibration_for_run, DEVICE, "binary", RUN + 1)
step("no-token", no_token)

# What zeep cannot do by default: see the table in the test.
step("large-answer", large_answer)
