"""What the earlier CDB's client asks, by suds alone: on Python 2.7 with suds 0.4, and on Python 3 with suds-community.

Answers are read as that client reads them: `str` of a status, in which XML is looked for; base64 of a payload, in which
XML is looked for too.
"""

import base64
import os
import sys
from datetime import datetime
from xml.sax import SAXParseException, parseString
from xml.sax.handler import ContentHandler

from suds.client import Client

OPEN, CLOSED, MIRROR = os.environ["CDB_SERVER"], os.environ["INTEROP_CLOSED"], os.environ["INTEROP_MIRROR"]
DEVICE, RUN, PAYLOADS = os.environ["INTEROP_DEVICE"], int(os.environ["INTEROP_RUN"]), os.environ["INTEROP_PAYLOADS"]
FROM, BEFORE = "2016-03-01 08:00:00.000000", "2016-03-01 07:59:59.999999"
OTHER = "TOF7"
UPPER, ODD = DEVICE.upper(), b"TOF\xc3\xa9 <1>".decode("utf-8")


class Permanent(Exception):
    """The earlier client's CdbPermanentError."""


class Temporary(Exception):
    """The earlier client's CdbTemporaryError."""


class Handler(ContentHandler):
    """What the earlier client finds in XML: a message, an error, the names of devices, ids."""

    def __init__(self):
        ContentHandler.__init__(self)
        self.message, self.devices, self.ids = "", [], {}

    def startElement(self, name, attributes):
        if name in ("ok", "serverName", "error", "warning"):
            self.message = ""
        elif name == "device":
            self.devices.append(str(attributes.get("name")))
        elif name == "id":
            self.ids[str(attributes.get("name"))] = dict(attributes.items())

    def characters(self, content):
        self.message += content

    def endElement(self, name):
        if name == "error":
            raise Permanent(self.message)
        if name == "warning":
            raise Temporary(self.message)


def service(url, name):
    return Client("%s/cdb/%s?wsdl" % (url, name), cache=None).service


def status(answer):
    handler = Handler()
    parseString(str(answer).encode("ascii"), handler)
    return handler


def payload(answer):
    data = base64.b64decode(answer)
    try:
        parseString(data, Handler())
    except SAXParseException:
        return data  # not XML, as it should be
    raise AssertionError("XML without an error: %.200r" % data)


def time_of(text):
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f")


def step(name, work, *arguments):
    """Do one step and print what came of it."""
    try:
        work(*arguments)
    except Exception as error:
        line = "not ok %s: %s: %r" % (name, type(error).__name__, error)
    else:
        line = "ok " + name
    sys.stdout.write(line + "\n")


def expect(found, wanted):
    if found != wanted:
        raise AssertionError("%.200r instead of %.200r" % (found, wanted))


def wsdl(name, *operations):
    """suds finds the operations, and the service answers."""
    client = Client("%s/cdb/%s?wsdl" % (OPEN, name), cache=None)
    [definition] = client.sd
    [(_, methods)] = definition.ports
    expect(sorted(method for method, _ in methods), sorted(COMMON + operations))
    expect(str(client.service.getStatus()), "<ok>OK</ok>")
    expect(status(client.service.getName()).message, "127.0.0.1")
    expect(len(status(client.service.getServerInfo()).message) > 10, True)


def upload(store, file, *where):
    arguments = list(where)
    arguments.append(base64.b64encode(files[file]).decode("ascii"))
    expect(status(store(*arguments)).message, "OK")


def same(file, ask, *question):
    expect(payload(ask(*question)) == files[file], True)


def ids(ask, fields):
    """Those of the device, at a time that they are valid from and before that."""
    found = [entry for entry in status(ask(FROM, FROM)).ids.values() if entry["device"] == DEVICE]
    expect(sorted(entry.get("type", "") for entry in found), fields)
    for entry in found:
        expect(time_of(entry["validFrom"]), time_of(FROM))
        expect(time_of(entry["created"]) > time_of(FROM), True)
    before = status(ask(BEFORE, BEFORE)).ids.values()
    expect([entry for entry in before if entry["device"] == DEVICE], [])


def by_id(file, kind, listing, ask):
    entries = status(listing(FROM, FROM)).ids.items()
    [id] = [id for id, entry in entries if (entry["device"], entry.get("type", "cabling")) == (DEVICE, kind)]
    same(file, ask, id)


def device(ask):
    expect(DEVICE in status(ask()).devices, True)


def loop(listing, detectors, by_type, by_name):
    """A loop over the devices listed, each asked for as that client does: those that it does not know, otherwise."""
    asked = {}
    for name in status(listing()).devices:
        try:
            asked[name] = payload(by_type(name)) if name in detectors else status(by_name(name)).devices
        except Permanent as error:
            asked[name] = error.args[0]
    expect(asked[DEVICE] == files["binary"], True)
    expect(OTHER in asked and "get_ids" in asked[OTHER], True)


def permanent(text, read, ask, *question):
    """A question must end with an error that says this."""
    try:
        answer = read(ask(*question))
    except Permanent as error:
        expect(text in error.args[0], True)
    else:
        raise AssertionError("no error, but %.200r" % (answer,))


COMMON = ("getStatus", "getName", "getServerInfo", "listDevices")
CALIBRATION = (
    "getCurrentDetectorCalibration",
    "getDetectorCalibrationForDate",
    "getDetectorCalibrationForRun",
    "getDetectorCalibrationForId",
    "getCalibrationIds",
    "getCurrentCalibration",
    "getCalibrationForDate",
    "getCalibrationForRun",
    "getCalibrationForId",
)
CHANNELS = ("setTracker", "setControl")
CONTROLS = ("addControl", "updateControl")
CABLING = tuple(name.replace("Calibration", "Cabling") for name in CALIBRATION)

files = {}
for name in ("text", "binary", "empty"):
    with open(os.path.join(PAYLOADS, name), "rb") as file:
        files[name] = file.read()

step("wsdl-calibration", wsdl, "calibration", *CALIBRATION)
step("wsdl-calibration-writing", wsdl, "calibrationSuperMouse", "setDetector", *(CALIBRATION + CHANNELS))
step("wsdl-cabling", wsdl, "cabling", *CABLING)
step("wsdl-cabling-writing", wsdl, "cablingSuperMouse", "setDetector", *(CABLING + CHANNELS + CONTROLS))

writer, reader = service(OPEN, "calibrationSuperMouse"), service(OPEN, "calibration")
for name in ("text", "binary"):
    step("upload-" + name, upload, writer.setDetector, name, DEVICE, name, FROM)
    step("upload-again-" + name, upload, writer.setDetector, name, DEVICE, name, FROM)
for name in files:
    step("current-" + name, same, name, reader.getCurrentDetectorCalibration, DEVICE, name)
    step("for-date-" + name, same, name, reader.getDetectorCalibrationForDate, DEVICE, name, FROM)
    step("for-run-" + name, same, name, reader.getDetectorCalibrationForRun, DEVICE, name, RUN)
    step("for-id-" + name, by_id, name, name, reader.getCalibrationIds, reader.getDetectorCalibrationForId)
step("ids", ids, reader.getCalibrationIds, ["binary", "empty", "text"])
step("devices", device, reader.listDevices)
# That the earlier client knows as detectors, letter for letter.
DETECTORS = (
    "Ckov A",
    "Ckov B",
    "EMR",
    "KL",
    "Scalers",
    "TOF0",
    "TOF1",
    "TOF2",
    "Trigger",
    "Trigger request",
    "Trackers",
)
step("upload-other", upload, writer.setDetector, "binary", OTHER, "binary", FROM)
step(
    "loop-over-devices",
    loop,
    reader.listDevices,
    DETECTORS,
    lambda name: reader.getCurrentDetectorCalibration(name, "binary"),
    reader.getCurrentCalibration,
)

wires, plan = service(OPEN, "cablingSuperMouse"), service(OPEN, "cabling")
step("upload-cabling", upload, wires.setDetector, "binary", DEVICE, FROM)
step("current-cabling", same, "binary", plan.getCurrentDetectorCabling, DEVICE)
# The earlier client hands a datetime on as it is.
step("for-date-cabling", same, "binary", plan.getDetectorCablingForDate, DEVICE, time_of(FROM))
step("for-run-cabling", same, "binary", plan.getDetectorCablingForRun, DEVICE, RUN)
step("for-id-cabling", by_id, "binary", "cabling", plan.getCablingIds, plan.getDetectorCablingForId)
step("ids-cabling", ids, plan.getCablingIds, [""])
step("devices-cabling", device, plan.listDevices)
step("upload-cabling-other", upload, wires.setDetector, "binary", OTHER, FROM)
step(
    "loop-over-devices-cabling",
    loop,
    plan.listDevices,
    set(DETECTORS) | {"DAQ"},
    plan.getCurrentDetectorCabling,
    plan.getCurrentCabling,
)

copy = service(MIRROR, "calibration")
step("mirror-binary", same, "binary", copy.getCurrentDetectorCalibration, "TOF1", "binary")

ask = reader.getCurrentDetectorCalibration
step("error-device", permanent, "no calibration of NOWHERE t0 applies", payload, ask, "Nowhere", "t0")
step("error-spelling", permanent, "write 'Ckov A'", status, reader.getCurrentCalibration, "CKOV A")
step("error-controls", permanent, "ask for by name: Ckov A", status, plan.getCurrentCabling, "Controls")
step("error-tracker", permanent, "with set_detector", status, writer.setTracker, "Tracker 1", "<calibrations/>")
step("error-control", permanent, "with set_detector", status, wires.addControl, 1, 2, 3, "pump")
step("error-name", permanent, "cannot name a device", payload, ask, ODD, "t0")
step("error-no-type", permanent, "cannot name a calibration type", payload, ask, DEVICE, None)
ask = reader.getDetectorCalibrationForDate
step("error-date", permanent, "no calibration of " + UPPER, payload, ask, DEVICE, "text", BEFORE)
step("error-time", permanent, "is no time like", payload, ask, DEVICE, "text", "yesterday")
step("error-run", permanent, "is not registered", payload, reader.getDetectorCalibrationForRun, DEVICE, "text", RUN + 1)
step("error-id", permanent, "there is no calibration with id", payload, reader.getDetectorCalibrationForId, 10**9)
step(
    "error-cabling", permanent, "no calibration of NOWHERE cabling", payload, plan.getCurrentDetectorCabling, "Nowhere"
)
step("error-period", permanent, "lies before start_time", status, reader.getCalibrationIds, FROM, BEFORE)
store = writer.setDetector
step("error-empty", permanent, "the payload is empty", status, store, DEVICE, "empty", FROM, "")
step("error-base64", permanent, "it must be base64", status, store, DEVICE, "text", FROM, "!!!!")
step("error-upload-name", permanent, "cannot name a device", status, store, ODD, "t0", FROM, "YWJj")
store = service(CLOSED, "calibrationSuperMouse").setDetector
step("error-off", permanent, "CDB_LEGACY_WRITE_NETWORKS", status, store, DEVICE, "text", FROM, "YWJj")
store = service(MIRROR, "cablingSuperMouse").setDetector
step("error-mirror", permanent, "send them to " + OPEN, status, store, DEVICE, FROM, "YWJj")
