"""The short scenario with xsdata, which makes data classes of the contract."""

# docs: begin
import base64
import hashlib
import os

from cdb_read import (
    CalibrationGetCalibrationForDate,
    CalibrationGetCalibrationForDateInput,
    CalibrationGetStatus,
    CalibrationGetStatusInput,
    CalibrationListDevices,
    CalibrationListDevicesInput,
    GetCalibrationForDate,
    GetStatus,
    ListDevices,
)
from cdb_write import (
    AddCalibration,
    CalibrationSuperMouseAddCalibration,
    CalibrationSuperMouseAddCalibrationInput,
)
from xsdata.formats.dataclass.client import Client

url, user, token = os.environ["CDB_SERVER"], os.environ["CDB_USER"], os.environ["CDB_TOKEN"]
basic = {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}


def ask(service, message, headers=None):
    """The Body of an answer; its `fault` says what went wrong."""
    path = "calibrationSuperMouse" if service.__module__.startswith("cdb_write") else "calibration"
    client = Client.from_service(service, location=f"{url}/cdb/v2/{path}")
    body = client.send(message, headers=headers or {}).body
    if body.fault is not None:
        raise RuntimeError(f"{body.fault.faultcode}: {body.fault.faultstring}")
    return body


def store(device, calibration_type, valid_from, data):
    """Store bytes, to apply from a time like "2016-03-01T08:00:00.123456Z" on."""
    call = AddCalibration(
        device_name=device,
        calibration_type=calibration_type,
        valid_from=valid_from,
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    message = CalibrationSuperMouseAddCalibrationInput(
        body=CalibrationSuperMouseAddCalibrationInput.Body(add_calibration=call)
    )
    return ask(CalibrationSuperMouseAddCalibration, message, basic).add_calibration_response.calibration


def for_date(device, calibration_type, date):
    """What applies at a time."""
    call = GetCalibrationForDate(device_name=device, calibration_type=calibration_type, date=date)
    message = CalibrationGetCalibrationForDateInput(
        body=CalibrationGetCalibrationForDateInput.Body(get_calibration_for_date=call)
    )
    return ask(CalibrationGetCalibrationForDate, message).get_calibration_for_date_response.calibration


def payload_of(calibration):
    """The bytes, checked."""
    data = calibration.data or b""
    if hashlib.sha256(data).hexdigest() != calibration.sha256:
        raise ValueError(f"calibration {calibration.id} was damaged on its way")
    return data


# docs: end


def apply(date):
    return for_date(os.environ["INTEROP_DEVICE"], "short", date)


def status():
    message = CalibrationGetStatusInput(body=CalibrationGetStatusInput.Body(get_status=GetStatus()))
    return ask(CalibrationGetStatus, message).get_status_response.status.status


def devices():
    message = CalibrationListDevicesInput(body=CalibrationListDevicesInput.Body(list_devices=ListDevices()))
    found = ask(CalibrationListDevices, message).list_devices_response.device
    return [device.device_name for device in found]


def without_token():
    basic.clear()
    store(os.environ["INTEROP_DEVICE"], "short", "2016-03-01T08:00:00Z", b"x")
