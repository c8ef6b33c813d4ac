"""What a peer meets first: what can be answered at once is answered here, on a connection of next to nothing.

All else is handed on to uvicorn's, which is made when it is first needed: that takes as long as a ready answer.
"""

import asyncio
from time import perf_counter_ns
from typing import Any

from uvicorn.server import ServerState

from cdb_server.http.connection import BoundedConnection
from cdb_server.http.outbox import OUTBOX, Outbox
from cdb_server.http.questions import QUESTIONS, Questions
from cdb_server.http.ready import Ready
from cdb_server.http.shelf import LEAST
from cdb_server.http.tally import TALLY, Tally
from cdb_server.settings import Settings


class Front(asyncio.Protocol):
    """One connection, until it is lost; from when it is needed on with uvicorn's behind it."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        self._settings = settings
        self._of_uvicorn = of_uvicorn
        self._loop = asyncio.get_running_loop()
        self._keep_alive: float = of_uvicorn["config"].timeout_keep_alive
        self._server: ServerState = of_uvicorn["server_state"]
        self._questions: Questions = of_uvicorn["app_state"][QUESTIONS]
        self._tally: Tally = of_uvicorn["app_state"][TALLY]
        self._outbox: Outbox = of_uvicorn["app_state"][OUTBOX]
        self._behind: BoundedConnection | None = None
        self._until = 0.0
        # An answer that waits to be sent, what comes before it, and whether the connection is closed after it.
        self._unsent: tuple[Ready, bytes, bool] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        self._transport = transport
        # uvicorn ends what is among these when it stops.
        self._server.connections.add(self)  # type: ignore[arg-type]  # it asks for no more than shutdown
        self._until = self._loop.time() + self._settings.header_deadline
        self._timer = self._loop.call_at(self._until, self._look_at_the_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._timer.cancel()
        self._unsent = None
        if self._behind is not None:
            self._behind.connection_lost(exc)

    def eof_received(self) -> bool:
        # uvloop closes after this, if nothing is under way: what is answered is sent before.
        self.send()
        return self._behind is not None and self._behind.eof_received()

    def data_received(self, data: bytes) -> None:
        # Who asks without waiting gets answers in the order of the questions, and none after the last.
        self.send()
        if self._transport.is_closing():
            return
        behind = self._behind
        if (behind is None or behind.at_rest()) and self._answered_at_once(data):
            return
        (behind or self._handed_on()).data_received(data)

    def pause_writing(self) -> None:
        (self._behind or self._handed_on()).pause_writing()

    def resume_writing(self) -> None:
        if self._behind is not None:
            self._behind.resume_writing()

    def shutdown(self) -> None:
        """As uvicorn asks it of its own: answer what is under way, and close."""
        self.send()
        if self._behind is None:
            self._transport.close()
        else:
            self._behind.shutdown()

    def _answered_at_once(self, data: bytes) -> bool:
        began = perf_counter_ns()
        found = self._questions.at_once(data)
        if found is None:
            return False
        ready, known, closes = found
        # First: who has the answer finds it counted, whichever worker is asked.
        self._tally.answered(ready, began)
        beginning = ready.beginning(known, self._server.default_headers, closes=closes)
        self._unsent = ready, beginning, closes
        if ready.shelved is None and ready.length >= LEAST:
            self._outbox.put(self)
        else:
            self.send()
        if self._behind is not None:
            self._behind.in_use()
        else:
            self._until = self._loop.time() + self._keep_alive
            if self._until < self._timer.when():
                self._timer.cancel()
                self._look_at_the_clock()
        return True

    def send(self) -> None:
        """Send the answer that waits, if one does."""
        if self._unsent is None:
            return
        (ready, beginning, closes), self._unsent = self._unsent, None
        if self._transport.is_closing():
            # The peer has gone meanwhile.
            return
        behind = self._behind
        sent = 0
        if ready.shelved is not None and not closes and not self._transport.get_write_buffer_size():
            try:
                sent = ready.shelved.send(self._transport, beginning)
            except OSError:
                # The peer has gone.
                self._transport.abort()
                return
        if sent < len(beginning) + ready.length:
            self._transport.writelines(ready.rest(beginning, sent))
        if closes:
            self._transport.close()
        elif self._behind is not None and self._behind is not behind:
            # What the peer had no room for was handed on, to one that waits for its first request.
            self._behind.in_use()

    def _handed_on(self) -> BoundedConnection:
        self._timer.cancel()
        self._behind = BoundedConnection(self._settings, **self._of_uvicorn)
        self._behind.connection_made(self._transport)
        # It is this that is told to stop: there may be an answer to send before.
        self._server.connections.discard(self._behind)
        return self._behind

    def _look_at_the_clock(self) -> None:
        self.send()
        # One timer for many requests.
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look_at_the_clock)
        else:
            self._transport.close()
