"""The short scenario with osa, from the plain description."""

# docs: begin
import base64
import hashlib
import os
import urllib.request

import osa

url, user, token = os.environ["CDB_SERVER"], os.environ["CDB_USER"], os.environ["CDB_TOKEN"]
# osa asks by urllib, and has no place for a password itself.
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, url, user, token)
urllib.request.install_opener(urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords)))
reader = osa.Client(f"{url}/cdb/v2/calibration?wsdl=plain").service
writer = osa.Client(f"{url}/cdb/v2/calibrationSuperMouse?wsdl=plain").service


def store(device, calibration_type, valid_from, data):
    """Store bytes, to apply from a time like "2016-03-01T08:00:00.123456Z" on."""
    return writer.add_calibration(
        device_name=device,
        calibration_type=calibration_type,
        valid_from=valid_from,
        data=base64.b64encode(data).decode("ascii"),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def payload_of(calibration):
    """The bytes, checked, of an answer such as reader.get_calibration_for_run("TOF1", "t0", 7662)."""
    data = base64.b64decode(calibration.data or "")
    if hashlib.sha256(data).hexdigest() != calibration.sha256:
        raise ValueError(f"calibration {calibration.id} was damaged on its way")
    return data


# docs: end


def apply(date):
    return reader.get_calibration_for_date(os.environ["INTEROP_DEVICE"], "short", date)


def status():
    return reader.get_status().status


def devices():
    return [device.device_name for device in reader.list_devices()]


def without_token():
    urllib.request.install_opener(urllib.request.build_opener())
    writer.add_run(run_number=1, start_time="2016-03-01T08:00:00Z")


def kept():
    return osa.Client(f"{url}/cdb/v2/calibration?wsdl").service.get_status().status
