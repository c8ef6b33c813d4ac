"""A SOAP service from here: a call to the servers, an answer or a typed error.

zeep writes requests and reads answers, by the contract that ships with this package. Nothing is taken for an answer
that the contract does not describe, nor one that knows less of the journal than the caller has seen.
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
from cdb._answers import other_than
from cdb._deadline import Share
from cdb._failures import Again, Failed
from cdb._http import LONGEST_ANSWER, Http, Reply
from cdb._instants import instant
from cdb._secrets import exposed
from cdb._serials import Floor
from cdb._servers import Servers

# zeep tells on stderr, where nobody configured logging, what the error that is raised then says.
logging.getLogger("zeep").addHandler(logging.NullHandler())

NAMESPACE = "urn:mice:cdb:2"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INSTANTS = ("date", "as_of", "complete_until")
_NUMBERS = ("run_number", "id", "limit")
_WRITES = ("add_calibration", "withdraw_calibration", "add_run")

Answer = TypeVar("Answer")


class Service:
    """One service of the contract at one or more servers."""

    def __init__(
        self,
        wsdl: str,
        path: str,
        servers: Sequence[str],
        auth: tuple[str, str] | None,
        client_cert: str | None,
        timeout: float,
        known: Floor,
        *,
        retry: bool,
    ) -> None:
        with as_file(files("cdb.wsdl").joinpath(wsdl)) as file:
            self._client = zeep.Client(str(file))
        self._path = path
        self._servers = Servers(servers, path, timeout, retry=retry)
        self._http = Http(auth, client_cert)
        self._sends_token = auth is not None
        self._exposed = exposed(servers) if self._sends_token else frozenset()
        self._known = known

    def call(
        self,
        operation: str,
        made: Callable[[Any], Answer],
        held: Sequence[str] = (),
        seconds: float | None = None,
        longest: int = LONGEST_ANSWER,
        /,
        **arguments: Any,
    ) -> Answer:
        """What is `made` of the answer's content, as zeep gives it, by the first server that has one. Raises CdbError.

        `made` raises Integrity or ServerUnreachable for what cannot be the answer: then it is asked for again. A server
        is told the sha256s of payloads that are `held`, and need not send these. After so many `seconds`, or the
        client's timeout, the call ends. An answer of more than `longest` bytes is none, and is not read to its end.
        """
        request = self._request(operation, arguments)
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": f'"{NAMESPACE}#{operation}"'}
        if held:
            headers["CDB-Have"] = ", ".join(held)
        return self._servers.ask(
            lambda server, share: self._asked(server, share, operation, arguments, headers, request, made, longest),
            seconds,
        )

    def _asked(
        self,
        server: str,
        share: Share,
        operation: str,
        arguments: Mapping[str, Any],
        headers: Mapping[str, str],
        request: bytes,
        made: Callable[[Any], Answer],
        longest: int,
    ) -> Answer:
        """The answer of one server. Raises Failed and CdbPermanentError."""
        if server in self._exposed:
            told = (
                f"{server}: not asked to write, for the token would travel in clear, and other servers are named with "
                "https://; name it with https:// too, or without those"
            )
            raise Failed(errors.NotAuthorised(told), Again.NEVER, sound=True)
        try:
            reply = self._http.post(server, self._path, headers, request, share, longest)
            try:
                content = self._read(operation, arguments, reply, server)
                answer = _sound(made, content, proven=reply.proven)
            except errors.AsOfNotReached as error:
                self._check_known(operation, reply, server)
                raise Failed(error, Again.NEVER, sound=True) from None
            except errors.Unavailable as error:
                raise Failed(error, Again.LATER) from None
            except (errors.Integrity, errors.CdbTemporaryError) as error:
                raise Failed(error, Again.ONCE) from None
            except errors.CdbPermanentError:
                self._check_known(operation, reply, server)
                raise
            self._check_known(operation, reply, server)
        except Failed as failed:
            if not failed.sound:
                self._http.forget()
            raise
        if operation in _WRITES:
            self._known.raise_to(reply.serial or 0)
        return answer

    def _check_known(self, operation: str, reply: Reply, server: str) -> None:
        """Raise Failed for the answer of a server that is behind what the caller knows to be there."""
        if operation in _WRITES or (reply.serial or 0) >= self._known.serial:
            return
        holds = (
            "does not say how far it holds the journal"
            if reply.serial is None
            else (f"holds the journal up to {reply.serial}")
        )
        told = f"{server}: it {holds}, and min_serial asks for {self._known.serial}"
        raise Failed(errors.Unavailable(told), Again.LATER, sound=True)

    def _request(self, operation: str, arguments: dict[str, Any]) -> bytes:
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

    def _read(self, operation: str, arguments: Mapping[str, Any], reply: Reply, server: str) -> Any:
        foreign = errors.ForeignAnswer(f"{server}: its answer is not one of a calibration database")
        try:
            envelope = etree.fromstring(reply.content, parser())
        except etree.XMLSyntaxError:
            if b":Envelope" in reply.content[:300]:
                told = f"{server}: its answer arrived damaged, or was cut off"
                raise Failed(errors.ServerUnreachable(told), Again.AT_ONCE) from None
            raise Failed(foreign, Again.NEVER) from None
        self._hide_secrets(envelope)
        contents = [content for body in envelope.iterchildren(f"{{{SOAP}}}Body") for content in body.iterchildren("*")]
        if envelope.tag != f"{{{SOAP}}}Envelope" or len(contents) != 1:
            raise Failed(foreign, Again.NEVER)
        content = contents[0]
        if content.tag == f"{{{SOAP}}}Fault":
            fault = _typed(content, server)
            if (other := other_than(arguments, fault)) is not None:
                raise Failed(errors.ForeignAnswer(f"{server}: {other}"), Again.ONCE)
            raise fault
        if content.tag != f"{{{NAMESPACE}}}{operation}Response" or _has_doctype(envelope):
            raise Failed(foreign, Again.NEVER)
        if reply.status != 200:
            # An answer of ours under the status of a fault.
            raise Failed(foreign, Again.AT_ONCE if reply.proven else Again.NEVER)
        if operation == "get_payload":
            return _payload(content, foreign)
        try:
            return self._client.service._binding.get(operation).process_reply(envelope)
        except Exception:
            # zeep lets its own errors and those of what it stands on through.
            raise Failed(foreign, Again.NEVER) from None

    def _hide_secrets(self, envelope: etree._Element) -> None:
        """Hide in an answer what its server repeats of the token that it was sent."""
        if self._sends_token:
            for element in envelope.iter("*"):
                element.text = element.text and self._http.secrets.hidden(element.text)


def _sound(made: Callable[[Any], Answer], content: Any, *, proven: bool) -> Answer:
    try:
        return made(content)
    except errors.Integrity as error:
        # The rest came as it was sent: it is the line that damages.
        raise Failed(error, Again.AT_ONCE if proven else Again.ONCE) from None


def _typed(fault: etree._Element, server: str) -> errors.CdbError:
    """The error that a fault stands for. One without a detail of ours is taken by the side that its code blames."""
    message = fault.findtext("faultstring") or "a fault without words"
    details = fault.findall("detail/*")
    name = etree.QName(details[0]).localname if details else ""
    if name not in errors.FAULTS:
        blamed = (fault.findtext("faultcode") or "").rpartition(":")[2]
        kind = errors.Unavailable if blamed.startswith("Server") else errors.MalformedRequest
        return kind(f"{server}: {message}")
    said = {etree.QName(field).localname: field.text or "" for field in details[0]}
    # The fields that the error has, and no others, whatever the server says.
    fields: dict[str, Any] = {field: said.get(field) for field in errors.FAULTS[name].__annotations__}
    try:
        for field, text in fields.items():
            if text is not None and field in _INSTANTS:
                fields[field] = instant(field, text)
            elif text is not None and field in _NUMBERS:
                fields[field] = int(text)
    except ValueError:
        return errors.ForeignAnswer(f"{server}: its fault is not one of a calibration database")
    return errors.FAULTS[name](said.get("message", message), **fields)


def _payload(content: etree._Element, foreign: errors.CdbError) -> bytes:
    """The bytes of a payload. zeep would hold it five times over while it reads it. Raises Failed."""
    fields = content.findall("*")
    if [field.tag for field in fields] != [f"{{{NAMESPACE}}}data"]:
        raise Failed(foreign, Again.NEVER)
    text = fields[0].text or ""
    fields[0].clear()
    try:
        return binascii.a2b_base64(text)
    except ValueError:
        raise Failed(foreign, Again.NEVER) from None


def parser() -> etree.XMLParser:
    """What reads XML of others: nothing that it names is looked up."""
    return etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )


def _has_doctype(envelope: etree._Element) -> bool:
    return bool(envelope.getroottree().docinfo.doctype)
