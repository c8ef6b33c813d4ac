"""Answers cached and immediate questions on the socket, past ASGI; batches sends; else falls back to uvicorn.

Waking a sleeping peer takes the kernel as long as sending to it. Peers on the same machine, a proxy or the processes of
a farm, are woken by the first of several answers and are awake for the others: hence the batches.

Every other request goes to uvicorn's protocol, created when first needed: creating it takes as long as a cached answer.
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

# The key of the batcher in the state of the application's lifespan, where connections find it.
SEND_BATCHER = "cdb.send_batcher"

# The most answers that wait to be sent together.
MAX_BATCHED_ANSWERS = 8


class Sender(Protocol):
    """A connection that has an answer to send."""

    def send(self) -> None:
        """Send the answer, if it is not sent yet."""


class SendBatcher:
    """Sends several answers of one turn of the event loop together. One for each worker, for its event loop."""

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
                # A failure of one connection must not keep the others' answers.
                context = {"message": "an answer could not be sent", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)


# Bytes that may wait above TLS, which takes ten times as many by itself, and where 0 would stop it for ever.
TLS_BUFFER_BYTES = 2**16

_NO_PIECES: Iterator[bytes | memoryview] = iter(())


class FastPath(asyncio.Protocol):
    """One connection, until it is lost; uvicorn's protocol stands behind it once a request needs it."""

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, settings: Settings, **uvicorn_arguments: Any) -> None:
        self._settings = settings
        self._uvicorn_arguments = uvicorn_arguments
        self._loop = asyncio.get_running_loop()
        self._keep_alive: float = uvicorn_arguments["config"].timeout_keep_alive
        self._server: ServerState = uvicorn_arguments["server_state"]
        self._reading: ReadingHandler = uvicorn_arguments["app_state"][READING_HANDLER]
        self._metrics: RequestMetrics = uvicorn_arguments["app_state"][REQUEST_METRICS]
        self._budget: MemoryBudget = uvicorn_arguments["app_state"][MEMORY_BUDGET]
        self._send_batcher: SendBatcher = uvicorn_arguments["app_state"][SEND_BATCHER]
        self._full_protocol: LimitedProtocol | None = None
        self._deadline = 0.0
        # An answer that waits to be sent, its head, and whether the connection is closed after it.
        self._unsent: tuple[EncodedResponse, bytes, bool] | None = None
        # The pieces of an answer that the peer's system could not take yet.
        self._pieces_left = _NO_PIECES
        self._sending: EncodedResponse | None = None
        self._reservation: MemoryReservation | None = None
        self._closes = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        self._transport = transport
        # uvicorn shuts these down when it stops.
        self._server.connections.add(self)  # type: ignore[arg-type]  # it asks for no more than shutdown
        self._deadline = self._loop.time() + self._settings.header_seconds
        self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        # Nothing is buffered above the kernel: what it cannot take waits in `_pieces_left`.
        transport.set_write_buffer_limits(high=0 if self._settings.tls is None else TLS_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._timer.cancel()
        self._unsent, self._pieces_left, self._sending, self._reservation = None, _NO_PIECES, None, None
        if self._full_protocol is not None:
            self._full_protocol.connection_lost(exc)

    def eof_received(self) -> bool:
        # uvloop closes after this if nothing is under way: send the answer before.
        self.send()
        return self._full_protocol is not None and self._full_protocol.eof_received()

    def data_received(self, data: bytes) -> None:
        # A peer that sends requests without waiting gets the answers in order.
        self.send()
        if self._transport.is_closing():
            return
        full_protocol = self._full_protocol
        if (full_protocol is None or full_protocol.is_idle()) and self._answer_immediately(data):
            return
        (full_protocol or self._fall_back()).data_received(data)

    def pause_writing(self) -> None:
        (self._full_protocol or self._fall_back()).pause_writing()

    def resume_writing(self) -> None:
        if self._full_protocol is not None:
            self._full_protocol.resume_writing()
            if self._pieces_left is not _NO_PIECES:
                self._write()

    def shutdown(self) -> None:
        """Answer what is under way, and close; uvicorn calls this of its own protocols too."""
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
        response, position, closes = found
        # Count first: a peer that has its answer finds it in the metrics of every worker.
        self._metrics.count_soap(response, began)
        head = response.response_head(position, self._server.default_headers, closes=closes)
        self._unsent = response, head, closes
        if response.memory_file is None and response.length >= MIN_FILE_BYTES:
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
        (response, head, closes), self._unsent = self._unsent, None
        if self._transport.is_closing():
            # The peer has gone meanwhile.
            return
        full_protocol = self._full_protocol
        sent = 0
        if response.memory_file is not None and not closes and not self._transport.get_write_buffer_size():
            try:
                sent = response.memory_file.send(self._transport, head)
            except OSError:
                # The peer has gone.
                self._transport.abort()
                return
        self._pieces_left = iter(response.remaining_pieces(head, sent))
        self._sending = response
        self._closes = closes
        self._write()
        if self._full_protocol is not None and self._full_protocol is not full_protocol:
            # The rest was handed to uvicorn's protocol, which would otherwise wait for a first request.
            self._full_protocol.touch()

    def _write(self) -> None:
        """Write the rest of the answer a piece at a time, as fast as the peer's system takes it."""
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
        # uvicorn tells this object to stop, not the one behind it: an answer may have to be sent before.
        self._server.connections.discard(self._full_protocol)
        return self._full_protocol

    def _check_deadline(self) -> None:
        self.send()
        # One timer for many requests.
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check_deadline)
        else:
            self._transport.close()
