"""What a peer meets first: what can be answered at once is answered here, on a connection of next to nothing.

All else is handed on to uvicorn's, which is made when it is first needed: that takes as long as a ready answer.
"""

import asyncio
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

from uvicorn.server import ServerState

from cdb_server.http.budget import BUDGET, Budget, Reservation
from cdb_server.http.connection import BoundedConnection
from cdb_server.http.outbox import OUTBOX, Outbox
from cdb_server.http.questions import QUESTIONS, Questions
from cdb_server.http.ready import Ready
from cdb_server.http.shelf import LEAST
from cdb_server.http.tally import TALLY, Tally
from cdb_server.settings import Settings

# Bytes that may wait above TLS, which takes ten times as many by itself, and where 0 would stop it for ever.
OF_TLS = 2**16
_NOTHING: Iterator[bytes | memoryview] = iter(())


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
        self._budget: Budget = of_uvicorn["app_state"][BUDGET]
        self._outbox: Outbox = of_uvicorn["app_state"][OUTBOX]
        self._behind: BoundedConnection | None = None
        self._until = 0.0
        # An answer that waits to be sent, what comes before it, and whether the connection is closed after it.
        self._unsent: tuple[Ready, bytes, bool] | None = None
        # What is left of one that the peer had no room for.
        self._pieces = _NOTHING
        self._sending: Ready | None = None
        self._held: Reservation | None = None
        self._closes = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        self._transport = transport
        # uvicorn ends what is among these when it stops.
        self._server.connections.add(self)  # type: ignore[arg-type]  # it asks for no more than shutdown
        self._until = self._loop.time() + self._settings.header_deadline
        self._timer = self._loop.call_at(self._until, self._look_at_the_clock)
        # Whatever the kernel has no room for is looked after, and nothing put on top of it.
        transport.set_write_buffer_limits(high=0 if self._settings.tls is None else OF_TLS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._timer.cancel()
        self._unsent, self._pieces, self._sending, self._held = None, _NOTHING, None, None
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
            if self._pieces is not _NOTHING:
                self._write()

    def shutdown(self) -> None:
        """As uvicorn asks it of its own: answer what is under way, and close."""
        self.send()
        if self._pieces is not _NOTHING:
            self._closes = True
        elif self._behind is None:
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
        self._pieces = iter(ready.rest(beginning, sent))
        self._sending = ready
        self._closes = closes
        self._write()
        if self._behind is not None and self._behind is not behind:
            # What the peer had no room for was handed on, to one that waits for its first request.
            self._behind.in_use()

    def _write(self) -> None:
        """Write what is left of the answer, a piece at a time: no more for this peer than its system has room for."""
        for piece in self._pieces:
            self._transport.write(piece)
            if self._behind is not None and self._behind.flow.write_paused:
                # No other answer may come between.
                self._behind.flow.pause_reading()
                if self._held is None and self._sending is not None:
                    self._held = self._sending.under_way(self._budget)
                    if self._held is None:
                        # There is no memory for what it does not take now.
                        self._transport.abort()
                return
        self._pieces, self._sending, self._held = _NOTHING, None, None
        if self._closes:
            self._transport.close()
        elif self._behind is not None:
            self._behind.flow.resume_reading()

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
