"""Caches request heads and validated request templates, so that a repeated request is not parsed.

To parse a request and validate it against the schema takes longer than to answer it. A template is the bytes of a
validated request around the texts of its arguments. It is learned only from a plain request, in which these places
are certain:

- It has no reference, comment, CDATA section, processing instruction or document type, so that `<` stands nowhere but
  at the beginning of a tag. It has as many `>` as `<`: each tag ends in one, so that none stands anywhere else. What
  lies between a `>` and the next `<` is therefore text, and is read as it is spelled.
- The text of each argument, which has no child, is one such place, and begins with a letter or digit. No other text
  does: there are as many of these places as arguments. So they are the arguments' places, in order.
- Neither the operation nor an argument has an attribute, such as xsi:type, by which a value would be judged otherwise.

Another value in such a place, without markup, changes no other part of what the parser finds. The values that are taken
are a strict part of what the schema admits. The parser and the schema judge everything else.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from lxml import etree

from cdb_server import arguments, instants
from cdb_server.soap.endpoint import ParsedRequest
from cdb_server.soap.wsdl import Argument

# At most so many, of so many bytes each; the oldest go first.
MAX_HEADS = 1_000

MAX_HEAD_BYTES = 4 * 2**10

HEAD_END = b"\r\n\r\n"


class RequestHead(NamedTuple):
    """What there is to know of a request to the reading service that was answered, apart from its body."""

    soap_action: str
    have: str
    length: int
    closes: bool


class RequestHeadCache:
    """By their bytes. For one thread."""

    def __init__(self) -> None:
        self._heads: dict[bytes, RequestHead] = {}

    def lookup(self, request: bytes) -> tuple[RequestHead, bytes] | None:
        """The head and the body of a whole request; None when it is not whole or its head not known."""
        end = request.find(HEAD_END) + len(HEAD_END)
        head = self._heads.get(request[:end])
        if head is None or len(request) - end != head.length:
            return None
        return head, request[end:]

    def learn(self, request: bytes, head: RequestHead) -> None:
        """Know the head of a whole request from now on."""
        known = request[: len(request) - head.length]
        # Not where something else came before its head, or the body came in chunks.
        if (
            len(known) > MAX_HEAD_BYTES
            or not known.endswith(HEAD_END)
            or known.find(HEAD_END) + len(HEAD_END) != len(known)
        ):
            return
        if known not in self._heads and len(self._heads) >= MAX_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[known] = head


# At most so many templates, of so many bytes each; when there are more, all are learned anew.
MAX_TEMPLATES = 1_000

MAX_TEMPLATE_BYTES = 4 * 2**10

# No value begins otherwise, and none holds markup.
_TEXT = re.compile(rb">([A-Za-z0-9][^<>&]*)<")

# What may stand before the first tag.
_PROLOG = re.compile(
    rb"(?:\xef\xbb\xbf)?"
    rb"""(?:<\?xml version=["']1\.0["'](?: encoding=["'](?i:utf-8)["'])?(?: standalone=["'](?:yes|no)["'])? ?\?>)?"""
)

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,17}")

_POSITIVE = re.compile(rb"[1-9][0-9]{0,17}")

_VALUES = {
    "device_name": re.compile(arguments.DEVICE_NAME_PATTERN.encode("ascii")),
    "calibration_type": re.compile(arguments.CALIBRATION_TYPE_PATTERN.encode("ascii")),
    "sha256": re.compile(arguments.SHA256_PATTERN.encode("ascii")),
    "instant": re.compile(instants.INSTANT_PATTERN.encode("ascii")),
    "serial": _NUMBER,
    **dict.fromkeys(("id", "run_number", "entry_limit"), _POSITIVE),
}


class RequestTemplateCache:
    """Those of one service. For one thread."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, tuple[bytes, ...]], tuple[str, Sequence[tuple[str, re.Pattern[bytes]]]]] = {}

    def match(self, body: bytes, soap_action: str) -> ParsedRequest | None:
        """The operation that a request by a known template asks for, and its arguments as they are spelled."""
        parts = _TEXT.split(body)
        known = self._templates.get((soap_action, tuple(parts[::2])))
        if known is None:
            return None
        name, arguments = known
        given = {}
        for (argument, value), text in zip(arguments, parts[1::2], strict=True):
            if not value.fullmatch(text):
                return None
            given[argument] = text.decode("ascii")
        return name, given

    def learn(self, body: bytes, soap_action: str, operation: etree._Element, arguments: Sequence[Argument]) -> None:
        """Learn the template of a request that parser and schema have accepted, for an operation, if it is plain."""
        parts = _TEXT.split(body)
        template, texts = tuple(parts[::2]), parts[1::2]
        if sum(map(len, template)) > MAX_TEMPLATE_BYTES or not _is_plain(body):
            return
        children = list(operation)
        if operation.attrib or any(child.attrib for child in children):
            return
        if texts != [(child.text or "").encode("utf-8") for child in children]:
            return
        kinds = {argument.name: _VALUES[argument.type] for argument in arguments}
        names = [str(etree.QName(child).localname) for child in children]
        if not all(kinds[name].fullmatch(text) for name, text in zip(names, texts, strict=True)):
            return
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        name = str(etree.QName(operation).localname)
        self._templates[soap_action, template] = name, [(argument, kinds[argument]) for argument in names]


def _is_plain(body: bytes) -> bool:
    """Whether `<` and `>` are tags' alone, and text is as it is spelled."""
    prolog = _PROLOG.match(body)
    rest = body[prolog.end() :] if prolog else body
    return not any(mark in rest for mark in (b"&", b"<!", b"<?")) and rest.count(b"<") == rest.count(b">")
