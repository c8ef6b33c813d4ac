"""The short scenario with PySimpleSOAP, from the plain description."""

# docs: begin
import base64
import hashlib
import os

from pysimplesoap.client import SoapClient

url, user, token = os.environ["CDB_SERVER"], os.environ["CDB_USER"], os.environ["CDB_TOKEN"]
basic = {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}
reader = SoapClient(wsdl=f"{url}/cdb/v2/calibration?wsdl=plain")
writer = SoapClient(wsdl=f"{url}/cdb/v2/calibrationSuperMouse?wsdl=plain", http_headers=basic)


def store(device, calibration_type, valid_from, data):
    """Store bytes, to apply from a time like "2016-03-01T08:00:00.123456Z" on."""
    return writer.add_calibration(
        device_name=device,
        calibration_type=calibration_type,
        valid_from=valid_from,
        data=base64.b64encode(data).decode("ascii"),
        sha256=hashlib.sha256(data).hexdigest(),
    )["calibration"]


def payload_of(calibration):
    """The bytes, checked, of reader.get_calibration_for_run(device_name="TOF1", …)["calibration"]."""
    data = base64.b64decode(calibration["data"] or "")
    if hashlib.sha256(data).hexdigest() != calibration["sha256"]:
        raise ValueError(f"calibration {calibration['id']} was damaged on its way")
    return data


# docs: end


def apply(date):
    found = reader.get_calibration_for_date(
        device_name=os.environ["INTEROP_DEVICE"], calibration_type="short", date=date
    )
    return found["calibration"]


def status():
    return reader.get_status()["status"]["status"]


def devices():
    return [device["device_name"] for device in reader.list_devices()["device"]]


def without_token():
    nobody = SoapClient(wsdl=f"{url}/cdb/v2/calibrationSuperMouse?wsdl=plain")
    nobody.add_run(run_number=1, start_time="2016-03-01T08:00:00Z")


def kept():
    found = SoapClient(wsdl=f"{url}/cdb/v2/calibration?wsdl").get_status()
    return found["status"]["complete_until"].tzinfo
