"""The least serial that an answer must know: it only rises."""

from __future__ import annotations

import threading


class Floor:
    """A serial that many threads raise, and that a child process may have from a fork at any moment."""

    def __init__(self, serial: int) -> None:
        self._raised = {0: serial}

    @property
    def serial(self) -> int:
        """The greatest so far."""
        return max(self._raised.copy().values())

    def raise_to(self, serial: int) -> None:
        """Raise it, unless it is as great."""
        # Each thread writes its own place alone: nothing is lost, and there is no lock that a fork could leave held.
        me = threading.get_ident()
        self._raised[me] = max(serial, self._raised.get(me, 0))
