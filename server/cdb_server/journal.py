"""Computes a journal entry's digest over its canonical form and the previous digest (rule 12).

The canonical form of an entry is the concatenation of netstrings, one for each field, in this order:

    serial, kind, created, author, and then
    for kind calibration: device_name, calibration_type, valid_from, comment, size, sha256 (of the payload)
    for kind withdrawal:  calibration_id, reason
    for kind run:         run_number, start_time, stop_time

A netstring is the length in bytes in decimal, a colon, the bytes, a comma: `2:t0,`. Text is UTF-8. Numbers are decimal
without sign or leading zeros. Instants are UTC in the form 2016-03-01T08:00:00.000000Z. An absent field is `0:,`.

The digest is the SHA-256, in 64 lower-case hexadecimal digits, of the previous entry's digest, in these same 64 digits
as ASCII, followed by the canonical form. Before the first entry stand 64 zeros.
"""

import hashlib
from dataclasses import fields
from datetime import datetime

from cdb_server import instants
from cdb_server.model import Entry

GENESIS = "0" * 64


def canonical_form(entry: Entry) -> bytes:
    """The bytes of an entry that its digest covers."""
    content = entry.content
    values: list[object] = [entry.serial, content.kind, entry.created, entry.author]
    values += [getattr(content, field.name) for field in fields(content)]
    return b"".join(_netstring(value) for value in values)


def digest(previous: str, entry: Entry) -> str:
    """The digest of an entry, given that of the one before it (GENESIS before the first)."""
    return hashlib.sha256(previous.encode("ascii") + canonical_form(entry)).hexdigest()


def _netstring(value: object) -> bytes:
    if value is None:
        text = ""
    elif isinstance(value, datetime):
        text = instants.format_instant(value)
    else:
        text = str(value)
    encoded = text.encode("utf-8")
    return b"%d:%b," % (len(encoded), encoded)
