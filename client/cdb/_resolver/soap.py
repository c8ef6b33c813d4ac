"""Call one SOAP service with zeep: build the request, parse the response, turn faults into errors.

zeep writes requests and reads answers by the contract that ships with this package. Rejects answers that the contract
does not describe, and those below the caller's minimum serial.
"""

from __future__ import annotations

import binascii
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any, TypeVar

import zeep
import zeep.exceptions
from lxml import etree

from cdb import _exceptions as errors
from cdb._failover import Failover
from cdb._resolver.answers import error_fields, mismatch
from cdb._resolver.query import MinimumSerial
from cdb._transport.credentials import servers_in_clear
from cdb._transport.failures import AttemptFailed, Retry
from cdb._transport.http import MAX_RESPONSE_BYTES, HttpClient, HttpResponse
from cdb._transport.timeouts import AttemptBudget

# Without a handler, zeep prints on stderr what the raised error tells.
logging.getLogger("zeep").addHandler(logging.NullHandler())

NAMESPACE = "urn:mice:cdb:2"
SOAP_NAMESPACE = "http://schemas.xmlsoap.org/soap/envelope/"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WRITE_OPERATIONS = ("add_calibration", "withdraw_calibration", "add_run")

Answer = TypeVar("Answer")


class SoapService:
    """One service of the contract at one or more servers."""

    def __init__(
        self,
        wsdl: str,
        path: str,
        servers: Sequence[str],
        auth: tuple[str, str] | None,
        client_cert: str | None,
        timeout: float,
        min_serial: MinimumSerial,
        *,
        retry: bool,
    ) -> None:
        with as_file(files("cdb.wsdl").joinpath(wsdl)) as file:
            self._client = zeep.Client(str(file))
        self._path = path
        self._failover = Failover(servers, path, timeout, retry=retry)
        self._http = HttpClient(auth, client_cert)
        self._sends_token = auth is not None
        self._servers_in_clear = servers_in_clear(servers) if self._sends_token else frozenset()
        self._min_serial = min_serial

    def call(
        self,
        operation: str,
        convert: Callable[[Any], Answer],
        known_digests: Sequence[str] = (),
        seconds: float | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
        /,
        **arguments: Any,
    ) -> Answer:
        """Call an operation, and return what `convert` makes of the first answer as zeep reads it. Raises CdbError.

        Asks again where `convert` raises Integrity or ServerUnreachable. The server need not send payloads whose sha256
        is in `known_digests`. The call ends after `seconds`, else after the client's timeout. Rejects an answer of more
        than `max_bytes` bytes, and does not read it to its end.
        """
        request = self._build_request(operation, arguments)
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"{NAMESPACE}#{operation}"'}
        if known_digests:
            headers["CDB-Have"] = ", ".join(known_digests)

        def attempt(server: str, budget: AttemptBudget) -> Answer:
            if server in self._servers_in_clear:
                told = (
                    f"{server}: not asked to write, for the token would travel in clear, and other servers are named "
                    "with https://; name it with https:// too, or without those"
                )
                raise AttemptFailed(errors.NotAuthorised(told), Retry.NEVER, healthy=True)
            try:
                response = self._http.exchange(server, self._path, budget, headers, request, max_bytes)
                try:
                    content = self._parse_response(operation, arguments, response, server)
                    answer = _converted(convert, content, digest_verified=response.digest_verified)
                except errors.AsOfNotReached as error:
                    self._check_min_serial(operation, response, server)
                    raise AttemptFailed(error, Retry.NEVER, healthy=True) from None
                except errors.Unavailable as error:
                    raise AttemptFailed(error, Retry.LATER) from None
                except (errors.Integrity, errors.CdbTemporaryError) as error:
                    raise AttemptFailed(error, Retry.ONCE) from None
                except errors.CdbPermanentError:
                    self._check_min_serial(operation, response, server)
                    raise
                self._check_min_serial(operation, response, server)
            except AttemptFailed as failed:
                if not failed.healthy:
                    self._http.discard_connections()
                raise
            if operation in _WRITE_OPERATIONS:
                self._min_serial.raise_to(response.serial or 0)
            return answer

        return self._failover.call(attempt, seconds)

    def _check_min_serial(self, operation: str, response: HttpResponse, server: str) -> None:
        """Raise AttemptFailed for the answer of a server that is behind the minimum serial."""
        if operation in _WRITE_OPERATIONS or (response.serial or 0) >= self._min_serial.serial:
            return
        reaches = f"holds the journal up to {response.serial}"
        holds = "does not say how far it holds the journal" if response.serial is None else reaches
        told = f"{server}: it {holds}, and min_serial asks for {self._min_serial.serial}"
        raise AttemptFailed(errors.Unavailable(told), Retry.LATER, healthy=True)

    def _build_request(self, operation: str, arguments: dict[str, Any]) -> bytes:
        for name, value in arguments.items():
            if isinstance(value, str) and _NOT_XML.search(value):
                raise errors.InvalidArgument(f"{name} holds a character that cannot be sent", argument=name)
        try:
            message = self._client.create_message(self._client.service, operation, **arguments)
        except zeep.exceptions.ValidationError as error:
            argument = str(error.path[-1]) if error.path else operation
            raise errors.InvalidArgument(f"{argument}: {error.message}", argument=argument) from None
        request: bytes = etree.tostring(message, encoding="utf-8", xml_declaration=True)
        return request

    def _parse_response(self, operation: str, arguments: Mapping[str, Any], response: HttpResponse, server: str) -> Any:
        foreign = errors.ForeignAnswer(f"{server}: its answer is not one of a calibration database")
        try:
            envelope = etree.fromstring(response.content, xml_parser())
        except etree.XMLSyntaxError:
            if b":Envelope" in response.content[:300]:
                told = f"{server}: its answer arrived damaged, or was cut off"
                raise AttemptFailed(errors.ServerUnreachable(told), Retry.IMMEDIATELY) from None
            raise AttemptFailed(foreign, Retry.NEVER) from None
        for element in envelope.iter("*") if self._sends_token else ():
            # The server may repeat the token that it was sent.
            element.text = element.text and self._http.redactor.redact(element.text)
        contents = [
            content for body in envelope.iterchildren(f"{{{SOAP_NAMESPACE}}}Body") for content in body.iterchildren("*")
        ]
        if envelope.tag != f"{{{SOAP_NAMESPACE}}}Envelope" or len(contents) != 1:
            raise AttemptFailed(foreign, Retry.NEVER)
        content = contents[0]
        if content.tag == f"{{{SOAP_NAMESPACE}}}Fault":
            fault = _error_from_fault(content, server)
            if (other := mismatch(arguments, fault)) is not None:
                raise AttemptFailed(errors.ForeignAnswer(f"{server}: {other}"), Retry.ONCE)
            raise fault
        if content.tag != f"{{{NAMESPACE}}}{operation}Response" or envelope.getroottree().docinfo.doctype:
            raise AttemptFailed(foreign, Retry.NEVER)
        if response.status != 200:
            # An answer with the status of a fault.
            raise AttemptFailed(foreign, Retry.IMMEDIATELY if response.digest_verified else Retry.NEVER)
        if operation == "get_payload":
            return _payload_bytes(content, foreign)
        try:
            return self._client.service._binding.get(operation).process_reply(envelope)
        except Exception:
            # zeep raises its own errors and those of its libraries.
            raise AttemptFailed(foreign, Retry.NEVER) from None


def _converted(convert: Callable[[Any], Answer], content: Any, *, digest_verified: bool) -> Answer:
    try:
        return convert(content)
    except errors.Integrity as error:
        # A verified digest proves the rest: only the payload was damaged on the way.
        raise AttemptFailed(error, Retry.IMMEDIATELY if digest_verified else Retry.ONCE) from None


def _error_from_fault(fault: etree._Element, server: str) -> errors.CdbError:
    """Convert a fault to an error. Without a detail of the contract, its code tells which side is to blame."""
    message = fault.findtext("faultstring") or "a fault without words"
    details = fault.findall("detail/*")
    name = etree.QName(details[0]).localname if details else ""
    if name not in errors.FAULTS:
        blamed = (fault.findtext("faultcode") or "").rpartition(":")[2]
        kind = errors.Unavailable if blamed.startswith("Server") else errors.MalformedRequest
        return kind(f"{server}: {message}")
    said = {etree.QName(field).localname: field.text or "" for field in details[0]}
    try:
        fields = error_fields(errors.FAULTS[name], said)
    except ValueError:
        return errors.ForeignAnswer(f"{server}: its fault is not one of a calibration database")
    return errors.FAULTS[name](said.get("message", message), **fields)


def _payload_bytes(content: etree._Element, foreign: errors.CdbError) -> bytes:
    """Decode a payload. zeep would need five times its memory. Raises AttemptFailed."""
    fields = content.findall("*")
    if [field.tag for field in fields] != [f"{{{NAMESPACE}}}data"]:
        raise AttemptFailed(foreign, Retry.NEVER)
    text = fields[0].text or ""
    fields[0].clear()
    try:
        return binascii.a2b_base64(text)
    except ValueError:
        raise AttemptFailed(foreign, Retry.NEVER) from None


def xml_parser() -> etree.XMLParser:
    """Return a parser for XML of others, which loads nothing that the XML names."""
    return etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
