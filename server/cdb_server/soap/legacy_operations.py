"""Answers the legacy CDB's four SOAP services for its old clients, errors included.

They pass arguments by position, as text, and get text: XML, or base64 where they asked for a payload. They read no SOAP
fault, so that an error stands where the answer would. Cabling is the calibration type `cabling`, with services of its
own; there as here, the services for calibrations list none of it.
"""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

import pybase64
from lxml import etree

from cdb_server import arguments
from cdb_server.arguments import MAX_NUMBER, legacy_instant, legacy_number
from cdb_server.database import statements
from cdb_server.errors import InvalidArgument, LargePayload, LongList, MalformedRequest
from cdb_server.model import CalibrationRecord
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.settings import Settings, is_in_networks, is_known_host
from cdb_server.soap.encoder import ROWS_PER_CHECK
from cdb_server.soap.endpoint import SoapResult
from cdb_server.soap.request_parser import SOAP_NAMESPACE, parse_envelope
from cdb_server.soap.types import EnvelopeError, fault_name, metrics_outcome, to_fault
from cdb_server.soap.wsdl import Wsdl

# Where each service is found, and its WSDL.
LEGACY_SERVICES = {
    "/cdb/calibration": "legacy_calibration.wsdl",
    "/cdb/calibrationSuperMouse": "legacy_calibration_supermouse.wsdl",
    "/cdb/cabling": "legacy_cabling.wsdl",
    "/cdb/cablingSuperMouse": "legacy_cabling_supermouse.wsdl",
}

CABLING = "cabling"

# The devices that the earlier client (1.1.3 to 1.1.9) knows as detectors. For one that is not in its list, letter for
# letter, it calls operations of trackers and controls, which pass no type and are answered by lists of channels.
_CALIBRATION_DEVICES = (
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

# Cabling knows one more.
_CABLING_DEVICES = (*_CALIBRATION_DEVICES, "DAQ")

# The operations that answer with a payload.
_PAYLOAD_OPERATIONS = ("getCurrentDetector", "getDetector", "getCalibrationForId", "getCablingForId")

# What errors advise that this client cannot do, and what they say to it instead.
_ADVICE = (
    (", or register it", ""),
    ("; get_history tells what there is", ""),
    ("get_ids and get_history tell which ids there are", "get_ids tells which ids there are"),
)

# Those whose answers may be long.
_LIST_OPERATIONS = ("getCalibrationIds", "getCablingIds")

# What an upload is counted as that is refused: for where it came from, and on a mirror. The present services answer so.
OUTCOME_NOT_ALLOWED, OUTCOME_NOT_HERE = "403", "404"

_ENVELOPE_START = f"<?xml version='1.0' encoding='UTF-8'?>\n<s:Envelope xmlns:s=\"{SOAP_NAMESPACE[1:-1]}\"><s:Body>"

_ENVELOPE_END = "</s:Body></s:Envelope>"


def legacy_operations() -> list[str]:
    """The operations of the four services, by name; those that several have, once."""
    return list(dict.fromkeys(name for file_name in LEGACY_SERVICES.values() for name in Wsdl(file_name).operations))


class LegacyService:
    """The service at one of the paths of LEGACY_SERVICES.

    `limited_reader` gives no large payloads. Without a `writer` nothing is stored.
    """

    def __init__(
        self, path: str, settings: Settings, reader: Reader, limited_reader: Reader, writer: Writer | None
    ) -> None:
        self.path = path
        self.contract = Wsdl(LEGACY_SERVICES[path])
        self._is_cabling = path.startswith("/cdb/cabling")
        self._client_names = {
            name.upper(): name for name in (_CABLING_DEVICES if self._is_cabling else _CALIBRATION_DEVICES)
        }
        self._settings = settings
        self._reader = reader
        self._limited_reader = limited_reader
        self._writer = writer

    def may_upload_from(self, peer: str) -> bool:
        """Whether a call from an address may store."""
        stores = self._writer is not None and "setDetector" in self.contract.operations
        return stores and is_in_networks(self._settings.legacy_write_networks, peer)

    def answer(self, body: bytes, peer: str, host: str, *, size_limited: bool = False) -> SoapResult:
        """Answer a call from the address `peer`, which is the author of what is stored, to the `host` that it names.

        What goes wrong is said within the answer, whose `fault` names it. Raises MalformedRequest for what calls no
        operation of this service, to which there is no answer, and LargePayload and LongList as Endpoint.answer does.
        """
        call = self._call(body)
        name = etree.QName(call).localname
        of_payload = name.startswith(_PAYLOAD_OPERATIONS)
        if size_limited and name in _LIST_OPERATIONS:
            raise LongList
        try:
            if name.startswith("set") and self._writer is not None and not is_known_host(host, self._settings):
                raise _UploadRefused(
                    OUTCOME_NOT_ALLOWED,
                    f"{name} is not allowed at {host[:80]!a}, by which this server is not known: call it as "
                    f"{self._settings.public_url}",
                )
            said = self._answer_text(
                name, self._arguments_of(name, call), peer, self._limited_reader if size_limited else self._reader
            )
        except LargePayload:
            raise
        except Exception as error:
            fault, problem = _error_text(error)
            said = pybase64.b64encode(problem.encode("ascii")) if of_payload else _text(problem)
            return _answer(call, name, said, fault)
        return _answer(call, name, said)

    def _call(self, body: bytes) -> etree._Element:
        try:
            call = parse_envelope(body)
        except EnvelopeError as error:
            raise MalformedRequest(str(error)) from None
        name = etree.QName(call).localname
        if name not in self.contract.operations:
            known = ", ".join(self.contract.operations)
            raise MalformedRequest(f"{name[:80]!a} is no operation of this service, which has {known}")
        return call

    def _arguments_of(self, name: str, call: etree._Element) -> list[str]:
        """The arguments, whatever the caller names them."""
        wanted = [argument.name for argument in self.contract.operations[name]]
        if len(call) != len(wanted):
            takes = ", ".join(wanted) or "no arguments"
            raise MalformedRequest(f"{name} takes {takes}; the call has {len(call)} arguments")
        for argument, child in zip(wanted, call, strict=True):
            if len(child):
                raise MalformedRequest(f"{argument} is not text: there are elements in it")
        given = [child.text or "" for child in call]
        if self._is_cabling and wanted[:1] == ["device"]:
            given.insert(1, CABLING)
        return given

    def _answer_text(self, name: str, given: list[str], peer: str, reader: Reader) -> bytes:
        """What an answer holds: base64, or the text of XML as it stands within XML."""
        match name.replace("Cabling", "Calibration"), given:
            case "getStatus", []:
                status = reader.status().status
                return _text(_element("ok", status) if status == "OK" else _element("warning", status))
            case "getName", []:
                return _text(_element("serverName", urlsplit(self._settings.public_url).hostname or ""))
            case "getServerInfo", []:
                stands = reader.status()
                info = f"mice-cdb {stands.version}, {stands.role}, {stands.serial} entries"
                return _text(_element("ok", info))
            case "listDevices", []:
                return _text(self._devices(reader))
            case "getCalibrationIds", [start, stop]:
                return _text(self._ids(reader, legacy_instant("start", start), legacy_instant("stop", stop)))
            case "getCurrentDetectorCalibration", [device, kind]:
                return _payload(reader.current_calibration(device, kind))
            case "getDetectorCalibrationForDate", [device, kind, timestamp]:
                return _payload(reader.calibration_for_date(device, kind, legacy_instant("timestamp", timestamp)))
            case "getDetectorCalibrationForRun", [device, kind, run]:
                return _payload(reader.calibration_for_run(device, kind, _run_number(run)))
            case "getDetectorCalibrationForId" | "getCalibrationForId", [id]:
                return _payload(self._check_service(reader.calibration_for_id(legacy_number("id", id))))
            case "setDetector", [device, kind, timestamp, _]:
                self._store(device, kind, timestamp, given, peer)
                return _text(_element("ok", "OK"))
            case "getCurrentCalibration" | "getCalibrationForDate" | "getCalibrationForRun", [device, *_]:
                raise self._not_a_detector(device)
            case "setTracker" | "setControl" | "addControl" | "updateControl", _:
                problem = "channels are not kept here one by one: store a file with set_detector, as device 'Trackers'"
                raise InvalidArgument("device", f"{problem} or another")
        # Only if a WSDL had an operation that is not above, which a test would find.
        raise NotImplementedError(name)

    def _not_a_detector(self, device: str) -> InvalidArgument:
        """What to do where the client did not find a device in its list.

        It sent no type, and reads a list of channels, so that no payload can be given, even where the device is clear.
        """
        known = self._client_names.get(device.strip().upper())
        # A client before 1.1.3 does not know Trackers, however spelled.
        if known not in (None, device):
            problem = f"write {known!r}, as this client spells it, not {device[:80]!r}"
        else:
            names = ", ".join(name for name in self._client_names.values() if name != device)
            by_id = f"get_{'cabling' if self._is_cabling else 'calibration'}_for_id"
            problem = (
                f"{device[:80]!r} is none of the devices that this client can ask for by name: "
                f"{names}. What is stored for others it gets by id, with {by_id}; get_ids tells which there are"
            )
        return InvalidArgument("device", problem)

    def _client_name(self, device_name: str) -> str:
        """A device's name as the client knows it, so that it can ask for what is listed."""
        return self._client_names.get(device_name, device_name)

    def _belongs_here(self, calibration_type: str) -> bool:
        return (calibration_type == CABLING) == self._is_cabling

    def _check_service(self, found: CalibrationRecord) -> CalibrationRecord:
        if self._belongs_here(found.calibration_type):
            return found
        there = "/cdb/calibration" if self._is_cabling else "/cdb/cabling"
        problem = f"the id {found.id} is that of a {found.calibration_type} of {found.device_name}: ask {there} for it"
        raise InvalidArgument("id", problem)

    def _devices(self, reader: Reader) -> str:
        own = [
            self._client_name(device.device_name)
            for device in reader.devices()
            if any(map(self._belongs_here, device.calibration_type))
        ]
        tag = "cabling" if self._is_cabling else "calibration"
        listed = "".join(f'<device name="{name}"/>' for name in own)
        return f"<{tag}><deviceList>{listed}</deviceList></{tag}>"

    def _ids(self, reader: Reader, start: datetime, stop: datetime) -> str:
        lines: list[Any] = reader.formatted().ids(start, stop)
        portions = []
        for first in range(0, len(lines), ROWS_PER_CHECK):
            statements.check_cancelled()
            portion = lines[first : first + ROWS_PER_CHECK]
            portions.append("".join(self._id(line) for line in portion if self._belongs_here(line.calibration_type)))
        return f"<ids>{''.join(portions)}</ids>"

    def _id(self, of: Any) -> str:
        kind = "" if self._is_cabling else f' type="{of.calibration_type}"'
        times = f'validFrom="{_format_time(of.valid_from)}" created="{_format_time(of.created)}"'
        return f'<id name="{of.id}" {times} device="{self._client_name(of.device_name)}"{kind}/>'

    def _store(self, device: str, kind: str, timestamp: str, given: list[str], peer: str) -> None:
        if self._writer is None:
            master = self._reader.status().master
            raise _UploadRefused(
                OUTCOME_NOT_HERE, f"this is a mirror, and takes no uploads: send them to {master or 'the master'}"
            )
        if not is_in_networks(self._settings.legacy_write_networks, peer):
            raise _UploadRefused(
                OUTCOME_NOT_ALLOWED,
                f"setDetector is not allowed from {peer}: ask the operator to name your network in "
                "CDB_LEGACY_WRITE_NETWORKS",
            )
        most = self._settings.max_payload
        # Taken out of the list: while it is decoded, the text of a large one would be there once more.
        data = arguments.decode_payload("data", given.pop().encode("utf-8"), most)
        if not data:
            raise InvalidArgument(
                "data",
                "the payload is empty: this service takes no empty file, which may be a mistake; ask the operator to "
                "store it if it is meant",
            )
        valid_from = legacy_instant("timestamp", timestamp)
        self._writer.add_calibration(
            Upload.validated(device, kind, valid_from, data, None, None, max_payload=most), author=peer
        )


class _UploadRefused(Exception):
    """An upload that is refused, whatever it is; `outcome` is what it is counted as."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def _error_text(error: Exception) -> tuple[str, str]:
    """What an error is counted as, and how these clients are told."""
    if isinstance(error, _UploadRefused):
        return error.outcome, _element("error", str(error))
    fault = to_fault(error)
    name, text = fault_name(fault), fault.faultstring
    for advice, here in _ADVICE:
        text = text.replace(advice, here)
    return metrics_outcome(fault), _element("warning" if name == "Unavailable" else "error", text)


def _element(tag: str, text: str) -> str:
    """An element with a text, in ASCII: the earlier client calls Python 2's `str` on it, which takes nothing else."""
    return f"<{tag}>{escape(text).encode('ascii', 'xmlcharrefreplace').decode('ascii')}</{tag}>"


def _text(xml: str) -> bytes:
    return escape(xml).encode("ascii")


def _payload(found: CalibrationRecord) -> bytes:
    # Of no text at all suds makes None, at which the earlier client fails; a line break says as much, and stays text.
    return pybase64.b64encode(found.data or b"") or b"\n"


def _answer(call: etree._Element, name: str, said: bytes, fault: str = "") -> SoapResult:
    """An answer in the namespace of the call, whichever that is."""
    namespace = etree.QName(call).namespace
    tag = f"t:{name}Response" if namespace else f"{name}Response"
    declared = f" xmlns:t={quoteattr(namespace)}" if namespace else ""
    begin, end = f"{_ENVELOPE_START}<{tag}{declared}><return>".encode(), f"</return></{tag}>{_ENVELOPE_END}".encode()
    # As one part: the digest of an answer leaves the second out, and here no sha256 speaks for it.
    return SoapResult(fault, (b"".join((begin, said, end)), b"", b""), operation=name)


def _run_number(text: str) -> int:
    number = legacy_number("runNumber", text)
    if number == 0:
        by_date = "for run 0 of a simulation: ask by date"
        problem = f"runNumber must be a whole number from 1 to {MAX_NUMBER}; {by_date}"
        raise InvalidArgument("runNumber", problem)
    return number


def _format_time(instant: str) -> str:
    """A time as the earlier CDB spells it: with the digits of fraction that it has, and one at least."""
    text = instant.replace("T", " ").rstrip("Z").rstrip("0")
    return f"{text}0" if text.endswith(".") else text
