"""Long answers that were found wait until all that came in a turn of the event loop is answered, and go out together.

To wake a peer that sleeps takes the system as long as to send one. Who is woken by the first of several on the same
machine, a proxy or the processes of a farm, is awake for the others, and does not take the processor in between.
"""

import asyncio
from typing import Protocol

# Where the connections find it in the state of the application's lifespan.
OUTBOX = "cdb.outbox"
# Answers that wait at most.
MOST = 8


class Sender(Protocol):
    """Who has an answer to send."""

    def send(self) -> None:
        """Send it, if it is not sent yet."""


class Outbox:
    """One for each worker, and for the thread of its event loop alone."""

    def __init__(self) -> None:
        self._waiting: list[Sender] = []

    def put(self, sender: Sender) -> None:
        """Have an answer sent at the end of this turn of the running event loop, or before."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(sender)
        if len(self._waiting) == MOST:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sender in waiting:
            try:
                sender.send()
            except Exception as error:
                # Whatever is wrong with one, the others are sent theirs.
                context = {"message": "an answer could not be sent", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
