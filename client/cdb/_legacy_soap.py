"""Call a running legacy CDB as its own WSDL says: list its ids, get its payloads (for `cdb copy`).

Only that WSDL tells the namespace, the arguments and how they are wrapped; its imports are read from the same server.
Answers are text: XML, or base64 of a payload, or an error in their place.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import zeep
import zeep.exceptions
from lxml import etree

from cdb import _exceptions as errors
from cdb._arguments import server_urls
from cdb._failover import Failover
from cdb._legacy import split_address
from cdb._resolver.soap import xml_parser
from cdb._transport.http import HttpClient


@dataclass(frozen=True, slots=True)
class ListedCalibration:
    """A calibration as the earlier CDB lists it, with its times as text; an unknown time is `null`."""

    id: int
    device_name: str
    calibration_type: str
    valid_from: str
    created: str


class LegacyService:
    """One service of a running earlier CDB. Making one sends nothing.

    Its methods raise ServerUnreachable; Unavailable for a warning of the service, CdbPermanentError for its errors.
    """

    def __init__(self, base: str, name: str, timeout: float) -> None:
        """Name a service, such as `calibration`, below a base URL; `timeout` limits each call, in seconds.

        `origin` is the address of its reading service, whichever of the two is named.
        """
        self._subject = "Cabling" if name.lower().startswith("cabling") else "Calibration"
        self._address = f"{base.rstrip('/')}/cdb/{name}"
        self.origin = f"{base.rstrip('/')}/cdb/{self._subject.lower()}"
        self._transport = _ZeepTransport(self._address, timeout)
        self._client: zeep.Client | None = None

    def ids(self, start: str, stop: str) -> list[ListedCalibration]:
        """List the calibrations in force at any instant from start to stop, both included."""
        answered = self._call(f"get{self._subject}Ids", start, stop)
        listed = _xml(answered.encode()) if isinstance(answered, str) else None
        if listed is None or listed.tag != "ids":
            self._raise_reported(listed)
            raise self._not_a_legacy_cdb()
        try:
            return [self._listed(line) for line in listed.iterchildren("id")]
        except (KeyError, ValueError):
            raise self._not_a_legacy_cdb() from None

    def payload(self, id: int) -> bytes:
        """Get the bytes of a calibration."""
        # zeep reads an empty text as None, and a value that the WSDL declares as base64 as bytes.
        answered = self._call(f"getDetector{self._subject}ForId", id) or ""
        if not isinstance(answered, str | bytes):
            raise self._not_a_legacy_cdb()
        try:
            data = answered if isinstance(answered, bytes) else _decoded(answered)
        except ValueError:
            raise errors.CdbPermanentError(f"{self._address}: what it answers for {id} is not base64") from None
        if data.lstrip().startswith(b"<"):
            self._raise_reported(_xml(data))
        return data

    def _listed(self, line: etree._Element) -> ListedCalibration:
        named = line.attrib
        kind = named["type"] if self._subject == "Calibration" else "cabling"
        return ListedCalibration(int(named["name"]), named["device"], kind, named["validFrom"], named["created"])

    def _raise_reported(self, answered: etree._Element | None) -> None:
        """Raise the warning or error that takes the place of an answer, if any."""
        if answered is not None and answered.tag == "warning":
            raise errors.Unavailable(f"{self._address}: {answered.text}")
        if answered is not None and answered.tag == "error":
            raise errors.CdbPermanentError(f"{self._address}: {answered.text}")

    def _call(self, operation: str, *arguments: Any) -> Any:
        try:
            if self._client is None:
                settings = zeep.Settings(xml_huge_tree=True, forbid_dtd=True)
                self._client = zeep.Client(f"{self._address}?wsdl", transport=self._transport, settings=settings)
            return getattr(self._client.service, operation)(*arguments)
        except errors.CdbError:
            raise
        except zeep.exceptions.Fault as fault:
            raise errors.CdbPermanentError(f"{self._address}: {fault.message}") from None
        except Exception as error:
            # zeep raises its own errors and those of its libraries.
            raise self._not_a_legacy_cdb() from error

    def _not_a_legacy_cdb(self) -> errors.ServerUnreachable:
        return errors.ServerUnreachable(f"{self._address}: it does not answer as the earlier CDB did")


def legacy_services(url: str, timeout: float) -> list[LegacyService]:
    """Return the two services, calibration and cabling, at a base URL, or the one that an address names.

    Such an address is `…/cdb/calibration?wsdl`. Raises InvalidArgument.
    """
    base, named = split_address(url)
    server_urls([base])
    return [LegacyService(base, name, timeout) for name in ([named] if named else ["calibration", "cabling"])]


class _ZeepTransport:
    """The transport for zeep, limited in time and size. Sends every request to one server, whatever host it names."""

    def __init__(self, address: str, timeout: float) -> None:
        parts = urlsplit(address)
        self._path = parts.path
        self._failover = Failover([f"{parts.scheme}://{parts.netloc}"], self._path, timeout)
        self._http = HttpClient(None, None)

    def load(self, url: str) -> bytes:
        """Read a WSDL, or a part of one."""
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return self._failover.call(lambda server, budget: self._http.exchange(server, path, budget)).content

    def post_xml(self, address: str, envelope: etree._Element, headers: Mapping[str, str]) -> _Response:
        """Send a call and return the response."""
        request = etree.tostring(envelope, encoding="utf-8", xml_declaration=True)
        response = self._failover.call(
            lambda server, budget: self._http.exchange(server, self._path, budget, headers, request)
        )
        return _Response(response.status, response.content, {"Content-Type": response.content_type})


@dataclass(frozen=True, slots=True)
class _Response:
    """A response with the attributes that zeep reads."""

    status_code: int
    content: bytes
    headers: Mapping[str, str]
    encoding: str = "utf-8"


def _xml(text: bytes) -> etree._Element | None:
    try:
        return etree.fromstring(text, xml_parser())
    except etree.XMLSyntaxError:
        return None


def _decoded(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)
