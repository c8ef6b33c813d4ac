"""Answers that are made before anybody asks whether there is memory for them: counted until the peer has taken them.

They are none of the large ones, which wait for memory before they are made; but hundreds that nobody reads are as much.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdb_server.http import tally
from cdb_server.http.abandoned import PRESENCE, Presence
from cdb_server.http.budget import NO_ROOM, Budget, Reservation
from cdb_server.http.ready import PIECE, Ready
from cdb_server.http.refusals import Refused
from cdb_server.http.threads import RETRY_SECONDS

# Seconds.
LONGEST = 120.0


@dataclass(eq=False, slots=True)
class _Large:
    """A large answer that is sent since an instant of time.monotonic, and how to end that."""

    began: float
    length: int
    abort: Callable[[], None]


class Metered:
    """Around the application: without memory for an answer that is no tiny one it is 503; all go out in pieces.

    `budget` is for those that are made before. Of those that waited for their memory in `waited` the oldest are cut off
    where somebody waits who finds none, once they were sent for `longest` seconds: no reader needs to be so slow.
    """

    def __init__(self, app: ASGIApp, budget: Budget, waited: Budget, longest: float = LONGEST) -> None:
        self._app = app
        self._budget = budget
        self._longest = longest
        # In the order in which they began.
        self._large: dict[_Large, None] = {}
        waited.reclaim_by(self._cut_off)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        budget = self._budget
        start: Message | None = None
        held: list[Reservation] = []
        large: _Large | None = None
        refused = False

        async def send_metered(message: Message) -> None:
            nonlocal start, refused, large
            if refused:
                return
            if message["type"] == "http.response.start":
                # Whether it is counted shows with its body.
                start = message
                return
            body, more = message.get("body", b""), message.get("more_body", False)
            if start is not None:
                ready: Ready | None = scope.get(tally.ANSWER)
                # What comes in several parts is counted by who makes it.
                if ready is not None or (len(body) > PIECE and not more):
                    counted = ready.under_way(budget) if ready is not None else budget.reserve_at_once(len(body))
                    if counted is None:
                        refused = True
                        await Refused(503, NO_ROOM, {"Retry-After": RETRY_SECONDS}).response()(scope, receive, send)
                        return
                    held.append(counted)
                presence: Presence | None = scope.get(PRESENCE)
                if ready is not None and ready.reservation is not None and presence is not None:
                    large = _Large(time.monotonic(), ready.length, presence.abort)
                    self._large[large] = None
                await send(start)
                start = None
            for at in range(0, len(body) - PIECE, PIECE):
                await send({"type": "http.response.body", "body": body[at : at + PIECE], "more_body": True})
            rest = (len(body) - 1) // PIECE * PIECE if body else 0
            await send({"type": "http.response.body", "body": body[rest:], "more_body": more})

        try:
            await self._app(scope, receive, send_metered)
        finally:
            held.clear()
            if large is not None:
                self._large.pop(large, None)

    def _cut_off(self, missing: int) -> None:
        for large in list(self._large):
            if missing <= 0 or time.monotonic() - large.began < self._longest:
                return
            del self._large[large]
            large.abort()
            missing -= large.length
