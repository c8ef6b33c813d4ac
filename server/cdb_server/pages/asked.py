"""What people type, read under its field's name: what cannot be read is refused as the argument that it is."""

from datetime import datetime

from cdb_server.errors import InvalidArgument
from cdb_server.pages import typed


def number(text: str, argument: str) -> int:
    """An id, or where to begin. Raises InvalidArgument."""
    try:
        return typed.number(text)
    except ValueError as error:
        raise InvalidArgument(argument, str(error)) from None


def instant(text: str, argument: str) -> datetime:
    """A time. Raises InvalidArgument."""
    try:
        return typed.instant(text)
    except ValueError as error:
        raise InvalidArgument(argument, str(error)) from None
