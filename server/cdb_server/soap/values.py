"""Arguments as values: what the schema admits, read exactly."""

from datetime import datetime

from cdb_server import instants
from cdb_server.errors import InvalidArgument


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
