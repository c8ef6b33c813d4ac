"""Request templates: requests that differ from a validated one in nothing but arguments' values are not parsed.

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

from lxml import etree

from cdb_server import instants, model
from cdb_server.soap.contract import Argument

# At most so many templates, of so many bytes each; when there are more, all are learned anew.
MOST = 1_000
LONGEST = 4 * 2**10

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
    "device_name": re.compile(model.DEVICE_NAME_PATTERN.encode("ascii")),
    "calibration_type": re.compile(model.CALIBRATION_TYPE_PATTERN.encode("ascii")),
    "sha256": re.compile(model.SHA256_PATTERN.encode("ascii")),
    "instant": re.compile(instants.PATTERN.encode("ascii")),
    "serial": _NUMBER,
    **dict.fromkeys(("id", "run_number", "entry_limit"), _POSITIVE),
}

Request = tuple[str, dict[str, str]]


class RequestTemplates:
    """Those of one service. For one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[bytes, ...]], tuple[str, Sequence[tuple[str, re.Pattern[bytes]]]]] = {}

    def read(self, body: bytes, soap_action: str) -> Request | None:
        """The operation that a request by a known template asks for, and its arguments as they are spelled."""
        parts = _TEXT.split(body)
        known = self._known.get((soap_action, tuple(parts[::2])))
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
        if sum(map(len, template)) > LONGEST or not _is_plain(body):
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
        if len(self._known) >= MOST:
            self._known.clear()
        name = str(etree.QName(operation).localname)
        self._known[soap_action, template] = name, [(argument, kinds[argument]) for argument in names]


def _is_plain(body: bytes) -> bool:
    """Whether `<` and `>` are tags' alone, and text is as it is spelled."""
    prolog = _PROLOG.match(body)
    rest = body[prolog.end() :] if prolog else body
    return not any(mark in rest for mark in (b"&", b"<!", b"<?")) and rest.count(b"<") == rest.count(b">")
