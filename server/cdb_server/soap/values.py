"""Arguments as values: what the schema admits, read exactly."""

from contextlib import suppress
from datetime import datetime

import pybase64

from cdb_server import instants
from cdb_server.errors import InvalidArgument
from cdb_server.repository import check_size
from cdb_server.soap.gate import BASE64

# XML's white space.
_SPACES = (b" ", b"\t", b"\r", b"\n")


def instant(argument: str, text: str) -> datetime:
    """An instant. Raises InvalidArgument for one that does not exist, such as the 30th of February."""
    try:
        return instants.parse(text)
    except ValueError as error:
        raise InvalidArgument(argument, f"{argument}: {error}") from None


def whole_number(argument: str, text: str) -> int:
    """The number that an `xs:long` spells: with more zeros before it than Python cares to read, perhaps."""
    return int(text.strip(" \t\r\n+").lstrip("0") or "0")


def words(argument: str, text: str) -> str:
    """Text, as it stands."""
    return text


def data(argument: str, text: bytes, most: int) -> bytes:
    """The at most so many bytes that base64 stands for. Raises InvalidArgument for other text, and TooLarge."""
    # Line breaks within base64 are legal.
    if any(space in text for space in _SPACES):
        text = text.translate(None, b"".join(_SPACES))
    # Before it is decoded: what is far too large need not be.
    check_size(len(text) // 4 * 3 - text[-2:].count(b"="), most)
    with suppress(ValueError):
        decoded = pybase64.b64decode(text)
        # Decoders pass over much that is not base64, each another part of it; what comes back does not.
        if pybase64.b64encode(decoded) == text:
            return decoded
    raise InvalidArgument(argument, f"{argument} is not accepted: it must be {BASE64}")
