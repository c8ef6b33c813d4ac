"""A try that brought no answer: the error to tell, and what another try of the same server may bring."""

from __future__ import annotations

from enum import Enum

from cdb._exceptions import CdbError


class Again(Enum):
    """What another try of the same server within the call may bring."""

    NEVER = "the same"
    ONCE = "an answer, where this one was damaged on its way; else the same"
    AT_ONCE = "an answer, at once or after a while"
    LATER = "an answer after a while"


class Failed(Exception):
    """A try of one server failed with `error`.

    `sound` is a server that is well and whose answer came whole; it is this question that it cannot answer.
    """

    def __init__(self, error: CdbError, again: Again, *, sound: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.sound = sound
