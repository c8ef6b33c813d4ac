"""The scenario in Python with suds-community."""

# docs: begin
import base64
import hashlib
import os
from datetime import datetime, timezone

import suds
from suds.client import Client

url, user, token = os.environ["CDB_SERVER"], os.environ["CDB_USER"], os.environ["CDB_TOKEN"]
reader = Client(f"{url}/cdb/v2/calibration?wsdl", cache=None).service
writer = Client(f"{url}/cdb/v2/calibrationSuperMouse?wsdl", cache=None, username=user, password=token).service


def store(device, calibration_type, valid_from, data):
    """Store bytes, to apply from a time like "2016-03-01T08:00:00.123456Z" on. suds leaves base64 to us."""
    encoded = base64.b64encode(data).decode("ascii")
    checksum = hashlib.sha256(data).hexdigest()  # the server checks it; an empty payload needs it
    return writer.add_calibration(device, calibration_type, valid_from, encoded, sha256=checksum, comment="from suds")


def payload_of(calibration):
    """The bytes, checked, of an answer such as reader.get_calibration_for_run("TOF1", "t0", 7662)."""
    data = base64.b64decode(calibration.data or "")  # an empty payload comes as None
    if hashlib.sha256(data).hexdigest() != calibration.sha256:
        raise ValueError(f"calibration {calibration.id} was damaged on its way")
    return data


def explain(error):
    """The name of a suds.WebFault, like CalibrationNotFound, and the fields of its detail."""
    [(name, detail)] = error.fault.detail
    return name, dict(detail)


# docs: end
DEVICE, RUN, PAYLOADS = os.environ["INTEROP_DEVICE"], int(os.environ["INTEROP_RUN"]), os.environ["INTEROP_PAYLOADS"]
VALID_FROM = "2016-01-01T00:00:00.000000Z"
RUN_START, RUN_STOP = "2016-02-01T12:00:00.000001Z", "2016-02-01T13:00:00.000000Z"
BEFORE_PRECISE, PRECISE, AFTER_PRECISE = (f"2016-03-01T08:00:00.{fraction}Z" for fraction in (123455, 123456, 123457))
BEFORE_OFFSET, OFFSET = "2016-03-01T12:00:00.000000+02:00", "2016-03-01T12:00:00.000001+02:00"
OFFSET_IN_UTC, WITHOUT_OFFSET = "2016-03-01T10:00:00.000001Z", "2016-03-01T10:00:00.000001"
files: dict[str, bytes] = {}
ids: dict[str, str] = {}


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
    expect((int(run.run_number), run.start_time, run.stop_time), (RUN, RUN_START, RUN_STOP))


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
    expect(hasattr(by_id("offset"), "valid_until"), False)


def listed(labels, *period):
    own = [calibration for calibration in reader.get_ids(*period) if calibration.device_name == DEVICE]
    expect([calibration.id for calibration in own], [ids[label] for label in labels])
    expect([hasattr(calibration, "data") for calibration in own], [False] * len(own))


def list_devices():
    [device] = [device for device in reader.list_devices() if device.device_name == DEVICE]
    expect(device.calibration_type, ["binary", "empty", "instants", "megabyte"])


def as_of():
    fault("CalibrationNotFound", {}, lambda: reader.get_current_calibration(DEVICE, "binary", as_of=VALID_FROM))


def journal():
    [entry] = reader.get_journal(int(ids["binary"]) - 1, 1)
    expect((entry.serial, entry.kind, entry.device_name), (ids["binary"], "calibration", DEVICE))
    expect((int(entry.size), hasattr(entry, "reason")), (len(files["binary"]), False))


def preview():
    told = writer.preview_calibration(DEVICE, "binary", RUN_START, base64.b64encode(b"new").decode("ascii"))
    expect((hasattr(told, "stored_id"), told.device_is_new), (False, False))
    expect(told.takes_over_from.id, ids["binary"])
    expect((RUN, RUN) in [(int(found.first_run), int(found.last_run)) for found in told.run_range], True)
    known = base64.b64encode(files["binary"]).decode("ascii")
    expect(writer.preview_calibration(DEVICE, "binary", VALID_FROM, known).stored_id, ids["binary"])


def withdraw():
    withdrawn = writer.withdraw_calibration(ids["offset"], "only a test")
    expect((withdrawn.withdrawn, withdrawn.withdrawn_reason), (True, "only a test"))
    applies("precise", OFFSET, PRECISE)


def fault(name, fields, ask, *question):
    """A question must end with this fault, its detail with these fields."""
    try:
        answer = ask(*question)
    except suds.WebFault as error:
        found, detail = explain(error)
        expect((found, {field: detail[field] for field in fields}), (name, fields))
        expect(len(detail["message"]) > 20, True)
    else:
        raise AssertionError(f"no fault, but {str(answer)[:200]}")


def no_token():
    nobody = Client(f"{url}/cdb/v2/calibrationSuperMouse?wsdl", cache=None).service
    try:
        nobody.add_run(RUN, RUN_START)
    except Exception as error:  # suds has no class for this one
        expect(error.args, ((401, "Unauthorized"),))
    else:
        raise AssertionError("written without a token")


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

# What suds cannot do: see the table in the test.
step("own-time-type", reader.get_ids, datetime(2016, 3, 1, tzinfo=timezone.utc))
step("raw-bytes", writer.add_calibration, DEVICE, "raw", VALID_FROM, files["binary"])
