"""Requests of a form that the gate has let through before: only the values differ, and they alone are looked at.

To parse a request and hold it against the schema takes longer than to answer it. What stands between `>` and `</`,
without markup, is the text of an element; all else of a request is its form. Where the same bytes have been judged
well-formed and right, they are so again; of the values a strict part of what the schema admits is taken. Whatever
is not of a known form, or has other values, is for the gate.
"""

import re
from collections.abc import Sequence

from lxml import etree

from cdb_server import instants, model
from cdb_server.soap.contract import Argument

# At most so many, of so many bytes each; when there are more, all are learned anew.
MOST = 1_000
LONGEST = 4 * 2**10

_TEXT = re.compile(rb">([^<>&]+)</")
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


class Forms:
    """Those of one service. For one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[bytes, ...]], tuple[str, Sequence[tuple[str, re.Pattern[bytes]]]]] = {}

    def read(self, body: bytes, soap_action: str) -> Request | None:
        """The operation that a request of a known form asks for, and its arguments as they are spelled."""
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
        """Know the form of a request for an operation that the gate has let through, if it is a plain one."""
        parts = _TEXT.split(body)
        texts = [text.decode("utf-8", "replace") for text in parts[1::2]]
        form = tuple(parts[::2])
        # With nothing but the arguments' texts taken out, and no comment or section in which `>` could be text.
        if sum(map(len, form)) > LONGEST or b"<!" in body or texts != [child.text for child in operation]:
            return
        kinds = {argument.name: _VALUES[argument.type] for argument in arguments}
        names = [str(etree.QName(child).localname) for child in operation]
        if len(self._known) >= MOST:
            self._known.clear()
        name = str(etree.QName(operation).localname)
        self._known[soap_action, form] = name, [(argument, kinds[argument]) for argument in names]
