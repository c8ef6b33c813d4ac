"""Answers cached and immediate questions on the socket, past ASGI; batches sends; else falls back to uvicorn.

To wake a peer that sleeps takes the system as long as to send one. Who is woken by the first of several on the same
machine, a proxy or the processes of a farm, is awake for the others, and does not take the processor in between.

All else is handed on to uvicorn's, which is made when it is first needed: that takes as long as a ready answer.
"""

import asyncio
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any, Protocol

from uvicorn.server import ServerState

from cdb_server.http.admission import MEMORY_BUDGET, MemoryBudget, MemoryReservation
from cdb_server.http.metrics import REQUEST_METRICS, RequestMetrics
from cdb_server.http.protocol.limits import LimitedProtocol
from cdb_server.http.response_cache import MIN_FILE_BYTES, EncodedResponse
from cdb_server.http.routes.reading import READING_HANDLER, ReadingHandler
from cdb_server.settings import Settings

# Where the connections find it in the state of the application's lifespan.
SEND_BATCHER = "cdb.outbox"

# Answers that wait at most.
MAX_BATCHED_ANSWERS = 8


class Sender(Protocol):
    """Who has an answer to send."""

    def send(self) -> None:
        """Send it, if it is not sent yet."""


class SendBatcher:
    """One for each worker, and for the thread of its event loop alone."""

    def __init__(self) -> None:
        self._waiting: list[Sender] = []

    def schedule(self, sender: Sender) -> None:
        """Have an answer sent at the end of this turn of the running event loop, or before."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(sender)
        if len(self._waiting) == MAX_BATCHED_ANSWERS:
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


# Bytes that may wait above TLS, which takes ten times as many by itself, and where 0 would stop it for ever.
TLS_BUFFER_BYTES = 2**16

_NO_PIECES: Iterator[bytes | memoryview] = iter(())


class FastPath(asyncio.Protocol):
    """One connection, until it is lost; from when it is needed on with uvicorn's behind it."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        self._settings = settings
        self._uvicorn_arguments = of_uvicorn
        self._loop = asyncio.get_running_loop()
        self._keep_alive: float = of_uvicorn["config"].timeout_keep_alive
        self._server: ServerState = of_uvicorn["server_state"]
        self._reading: ReadingHandler = of_uvicorn["app_state"][READING_HANDLER]
        self._metrics: RequestMetrics = of_uvicorn["app_state"][REQUEST_METRICS]
        self._budget: MemoryBudget = of_uvicorn["app_state"][MEMORY_BUDGET]
        self._send_batcher: SendBatcher = of_uvicorn["app_state"][SEND_BATCHER]
        self._full_protocol: LimitedProtocol | None = None
        self._deadline = 0.0
        # An answer that waits to be sent, what comes before it, and whether the connection is closed after it.
        self._unsent: tuple[EncodedResponse, bytes, bool] | None = None
        # What is left of one that the peer had no room for.
        self._pieces_left = _NO_PIECES
        self._sending: EncodedResponse | None = None
        self._reservation: MemoryReservation | None = None
        self._closes = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        self._transport = transport
        # uvicorn ends what is among these when it stops.
        self._server.connections.add(self)  # type: ignore[arg-type]  # it asks for no more than shutdown
        self._deadline = self._loop.time() + self._settings.header_seconds
        self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        # Whatever the kernel has no room for is looked after, and nothing put on top of it.
        transport.set_write_buffer_limits(high=0 if self._settings.tls is None else TLS_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._timer.cancel()
        self._unsent, self._pieces_left, self._sending, self._reservation = None, _NO_PIECES, None, None
        if self._full_protocol is not None:
            self._full_protocol.connection_lost(exc)

    def eof_received(self) -> bool:
        # uvloop closes after this, if nothing is under way: what is answered is sent before.
        self.send()
        return self._full_protocol is not None and self._full_protocol.eof_received()

    def data_received(self, data: bytes) -> None:
        # Who asks without waiting gets answers in the order of the questions, and none after the last.
        self.send()
        if self._transport.is_closing():
            return
        behind = self._full_protocol
        if (behind is None or behind.is_idle()) and self._answer_immediately(data):
            return
        (behind or self._fall_back()).data_received(data)

    def pause_writing(self) -> None:
        (self._full_protocol or self._fall_back()).pause_writing()

    def resume_writing(self) -> None:
        if self._full_protocol is not None:
            self._full_protocol.resume_writing()
            if self._pieces_left is not _NO_PIECES:
                self._write()

    def shutdown(self) -> None:
        """As uvicorn asks it of its own: answer what is under way, and close."""
        self.send()
        if self._pieces_left is not _NO_PIECES:
            self._closes = True
        elif self._full_protocol is None:
            self._transport.close()
        else:
            self._full_protocol.shutdown()

    def _answer_immediately(self, data: bytes) -> bool:
        began = perf_counter_ns()
        found = self._reading.answer_immediately(data)
        if found is None:
            return False
        ready, known, closes = found
        # First: who has the answer finds it counted, whichever worker is asked.
        self._metrics.count_soap(ready, began)
        beginning = ready.response_head(known, self._server.default_headers, closes=closes)
        self._unsent = ready, beginning, closes
        if ready.memory_file is None and ready.length >= MIN_FILE_BYTES:
            self._send_batcher.schedule(self)
        else:
            self.send()
        if self._full_protocol is not None:
            self._full_protocol.touch()
        else:
            self._deadline = self._loop.time() + self._keep_alive
            if self._deadline < self._timer.when():
                self._timer.cancel()
                self._check_deadline()
        return True

    def send(self) -> None:
        """Send the answer that waits, if one does."""
        if self._unsent is None:
            return
        (ready, beginning, closes), self._unsent = self._unsent, None
        if self._transport.is_closing():
            # The peer has gone meanwhile.
            return
        behind = self._full_protocol
        sent = 0
        if ready.memory_file is not None and not closes and not self._transport.get_write_buffer_size():
            try:
                sent = ready.memory_file.send(self._transport, beginning)
            except OSError:
                # The peer has gone.
                self._transport.abort()
                return
        self._pieces_left = iter(ready.remaining_pieces(beginning, sent))
        self._sending = ready
        self._closes = closes
        self._write()
        if self._full_protocol is not None and self._full_protocol is not behind:
            # What the peer had no room for was handed on, to one that waits for its first request.
            self._full_protocol.touch()

    def _write(self) -> None:
        """Write what is left of the answer, a piece at a time: no more for this peer than its system has room for."""
        for piece in self._pieces_left:
            self._transport.write(piece)
            if self._full_protocol is not None and self._full_protocol.flow.write_paused:
                # No other answer may come between.
                self._full_protocol.flow.pause_reading()
                if self._reservation is None and self._sending is not None:
                    self._reservation = self._sending.memory_while_sent(self._budget)
                    if self._reservation is None:
                        # There is no memory for what it does not take now.
                        self._transport.abort()
                return
        self._pieces_left, self._sending, self._reservation = _NO_PIECES, None, None
        if self._closes:
            self._transport.close()
        elif self._full_protocol is not None:
            self._full_protocol.flow.resume_reading()

    def _fall_back(self) -> LimitedProtocol:
        self._timer.cancel()
        self._full_protocol = LimitedProtocol(self._settings, **self._uvicorn_arguments)
        self._full_protocol.connection_made(self._transport)
        # It is this that is told to stop: there may be an answer to send before.
        self._server.connections.discard(self._full_protocol)
        return self._full_protocol

    def _check_deadline(self) -> None:
        self.send()
        # One timer for many requests.
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        else:
            self._transport.close()
