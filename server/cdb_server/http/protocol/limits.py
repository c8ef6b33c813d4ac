"""Limits each connection: size of headers, deadlines for headers and idle time, minimum reading rate, pipelining.

The kernel's buffer takes megabytes, and has room for more only when a good part of it is free again: above it, a peer
that reads steadily seems to stop for a minute, and then to take a megabyte at once.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from cdb_server.http.metrics import REQUEST_METRICS, RequestMetrics
from cdb_server.http.protocol import request_rules
from cdb_server.settings import Settings

# Where a request's scope has the Presence of the connection that received it.
CLIENT_PRESENCE = "cdb.presence"


class ClientPresence:
    """Whether the peer of a connection is still there, and how the server itself gives it up."""

    def __init__(self, abort: Callable[[], None]) -> None:
        """`abort` closes the connection at once."""
        self.abort = abort
        self.gone = False
        self._cancel: Callable[[], None] | None = None

    def mark_gone(self) -> None:
        """The connection was lost."""
        self.gone = True
        if self._cancel is not None:
            self._cancel()

    def on_disconnect(self, cancel: Callable[[], None] | None) -> None:
        """What to call when the connection is lost, at once if it was, for the request under way."""
        self._cancel = cancel
        if self.gone and cancel is not None:
            cancel()


# A peer's system that had no room left for what comes tells of new room only when that is a sixteenth of all it has for
# the connection: so many bytes more than it has to take may come at once, and count for later.
MAX_BURST_BYTES = 2**19

# tcpi_bytes_acked of Linux's struct tcp_info, since Linux 4.1.
_ACKNOWLEDGED = struct.Struct("=120xQ")


class ReadRate:
    """What a peer takes while it is waited for: `least_rate` bytes a second, and late by `deadline` seconds at most."""

    def __init__(self, transport: asyncio.Transport, least_rate: int, deadline: float) -> None:
        self._transport = transport
        self._min_bytes_per_second = least_rate
        self._max_credit_bytes = least_rate * deadline + MAX_BURST_BYTES
        self._credit_bytes = least_rate * deadline
        self._acknowledged_before = _acknowledged_bytes(transport)
        self._now = 0.0

    def start(self, now: float) -> None:
        """From now on it is waited for."""
        self._now = now

    def is_too_slow(self, now: float) -> bool:
        """Whether the peer took less than it had to until now. To be asked several times before a deadline is over."""
        taken = _acknowledged_bytes(self._transport)
        ahead = self._credit_bytes + taken - self._acknowledged_before - self._min_bytes_per_second * (now - self._now)
        self._credit_bytes = min(ahead, self._max_credit_bytes)
        self._acknowledged_before, self._now = taken, now
        return self._credit_bytes <= 0


def _acknowledged_bytes(transport: asyncio.Transport) -> int:
    """A number that grows by each byte that the peer takes."""
    if sys.platform == "linux":
        its = transport.get_extra_info("socket")
        # What the loop gives out for a socket is not one that can be asked everything.
        beneath = socket.socket(its.family, its.type, its.proto, fileno=its.fileno())
        try:
            told = beneath.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
        finally:
            # The transport closes it.
            beneath.detach()
        if len(told) == _ACKNOWLEDGED.size:
            acknowledged: int = _ACKNOWLEDGED.unpack(told)[0]
            return acknowledged
    # Elsewhere, what has left this process.
    return -transport.get_write_buffer_size()


# Among the extensions of a request's scope: the bytes of one that a connection received whole, and whether it closes.
RECEIVED_REQUEST = "cdb.received"

# Requests that may wait for the answer to an earlier one of the same connection.
MAX_PIPELINED_REQUESTS = 16

# Bytes around each byte of a body that is sent in small chunks.
MAX_OVERHEAD_BYTES_PER_BODY_BYTE = 16

# Looks at a reader in the time that it may stop.
READ_RATE_CHECKS = 4


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn on httptools limits neither the size of headers nor the time that a peer may take; this does."""

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._settings = settings
        self._in_headers = True
        # Whether the parser has the beginning of a request that is not whole.
        self._request_started = False
        # What has come of a head that is not whole.
        self._partial_head = b""
        self._chunks: request_rules.ChunkScanner | None = None
        self._content_length = 0
        self._refusal: request_rules.HeadRefusal | None = None
        # Whether nothing is taken any more: there are answers to send, and then it closes.
        self._ignores_input = False
        # The one whose answer is sent; others may wait behind it.
        self._active_cycle: RequestResponseCycle | None = None
        self._half_closed_timer: asyncio.TimerHandle | None = None
        self._parsed_bytes = 0
        self._body_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._read_rate: ReadRate | None = None
        self._last_received = 0.0
        self._metrics: RequestMetrics = self.app_state[REQUEST_METRICS]
        self._presence = ClientPresence(self._abort)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_header_timer()
        self._cancel_write_timer()
        if self._half_closed_timer is not None:
            self._half_closed_timer.cancel()
        answering = self._active_cycle
        if answering is not None and not answering.response_complete:
            # uvicorn tells but the last of those that came one after another.
            answering.disconnected = True
            answering.message_event.set()
        super().connection_lost(exc)
        self._presence.mark_gone()

    def data_received(self, data: bytes) -> None:
        # What comes may be the beginning of a head, which uvicorn is not shown before it is whole.
        self._unset_keepalive_if_required()
        received = data if self.is_idle() else b""
        if self._in_headers and self._header_timer is None and not self._ignores_input:
            self._start_header_timer()
        searched, data, self._partial_head = len(self._partial_head), self._partial_head + data, b""
        position = 0
        while position < len(data) and not self._has_ended_input():
            if self._in_headers:
                position = request_rules.skip_empty_lines(data, position)
                end = self._end_of_head(data, position, searched)
                searched = 0
                if end is None:
                    self._partial_head = data[position:]
                    return
            elif self._chunks is not None:
                end = self._chunks.end(data, position)
            else:
                end = position + self._content_length - self._body_bytes
            piece, position = data[position:end], end
            self._feed(piece)
        if (
            received
            and not self._request_started
            and not self._parsed_bytes
            and self.cycle
            and not self.expect_100_continue
        ):
            self.cycle.scope["extensions"] = {
                RECEIVED_REQUEST: {"request": received, "closes": not self.cycle.keep_alive}
            }

    def _has_ended_input(self) -> bool:
        if self.transport.is_closing() or self._ignores_input:
            return True
        # Nothing is answered after an answer that closes the connection.
        return self._in_headers and self.cycle is not None and not self.cycle.keep_alive

    def _end_of_head(self, data: bytes, start: int, searched: int) -> int | None:
        """Where a head ends, if it is whole and not refused; `searched` is how much was looked at before."""
        end = data.find(request_rules.HEAD_END, max(start, searched - 3))
        length = (len(data) if end < 0 else end) - start
        if length > self._settings.max_header_bytes:
            self._refuse(request_rules.HeadRefusal(431, "the request's headers are too long"))
        elif not request_rules.may_start_head(data, start):
            self._refuse(request_rules.HeadRefusal(400, "this is not HTTP"))
        elif end >= 0:
            end += len(request_rules.HEAD_END)
            refusal = request_rules.check_request_line(data[start:end])
            if refusal is None:
                return end
            self._refuse(refusal)
        return None

    def _feed(self, piece: bytes) -> None:
        if self._in_headers:
            piece = request_rules.without_upgrade(piece)
        self._parsed_bytes += len(piece)
        super().data_received(piece)
        # What was fed and is not body is headers, trailers, and what stands between chunks.
        overhead = self._parsed_bytes - self._body_bytes
        if (
            overhead > self._settings.max_header_bytes + MAX_OVERHEAD_BYTES_PER_BODY_BYTE * self._body_bytes
            and not self.transport.is_closing()
        ):
            self._refuse(request_rules.HeadRefusal(431, "the request's headers are too long"))

    def _refuse(self, refusal: request_rules.HeadRefusal) -> None:
        """Turn away what came, and close; what came whole before is answered first."""
        if self._ignores_input:
            return
        self._metrics.count_refusal(refusal.status)
        if not self._in_headers and self.pipeline:
            # It waits for its turn, which does not come.
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._active_cycle  # type: ignore[assignment]  # one is
            self._in_headers = True
        if self._in_headers and self.cycle is not None and not self.cycle.response_complete:
            self._ignore_input()
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            phrase = STATUS_LINE[refusal.status]
            text = f"{refusal.text}\n".encode("ascii")
            self.transport.write(
                b"%scontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"cache-control: no-store\r\nconnection: close\r\n\r\n%s" % (phrase, len(text), text)
            )
        self.transport.close()

    def _ignore_input(self) -> None:
        """Take nothing any more, and close after the answer to the last that was taken."""
        self._ignores_input = True
        self._partial_head = b""
        self.cycle.keep_alive = False
        self._cancel_header_timer()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's own says nothing, asyncio's may
        """Whether to keep the connection, for answers to what came whole: the peer sends no more, but may read.

        It may be gone as well, which looks alike; then nothing is worth a long wait. Over TLS there is no half of a
        connection.
        """
        waiting = self.cycle is not None and not self.cycle.response_complete
        if self.scheme == "https" or not waiting or self.cycle.more_body or self.transport.is_closing():
            return False
        self._ignore_input()
        if self._half_closed_timer is None:
            self._half_closed_timer = self.loop.call_later(self._settings.half_closed_seconds, self._check_half_closed)
        return True

    def _check_half_closed(self) -> None:
        answering = self._active_cycle
        if answering is None or not answering.response_started:
            self.transport.abort()
            return
        self._half_closed_timer = self.loop.call_later(self._settings.half_closed_seconds, self._check_half_closed)

    def touch(self) -> None:
        """An answer was given on the connection, though not by this."""
        self._cancel_header_timer()
        self._last_received = self.loop.time()
        # One timer for many requests: it looks for itself how long ago the last one came.
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        idle = self.loop.time() - self._last_received
        if idle < self.timeout_keep_alive:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive - idle, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def is_idle(self) -> bool:
        """Whether all that came is answered, and all that was answered is on its way."""
        return (
            not self._request_started
            and not self._partial_head
            and not self._ignores_input
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def send_400_response(self, msg: str) -> None:
        # What is not HTTP to the parser, or was refused while it was parsed.
        refusal, self._refusal = self._refusal, None
        self._refuse(refusal or request_rules.HeadRefusal(400, msg))

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9110, section 6.5.1: a trailer is not to be taken for a header.
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._refusal = request_rules.check_head(
            self.parser.get_method().decode("ascii"), self.url, self.parser.get_http_version(), self.headers
        )
        if self._refusal is not None:
            raise request_rules.HeadRefused
        self.url = request_rules.to_origin_form(self.url, self.headers)
        given = dict(self.headers)
        self._content_length = int(given.get(b"content-length", 0))
        self._chunks = request_rules.ChunkScanner() if b"transfer-encoding" in given else None
        self._in_headers = False
        self._parsed_bytes = self._body_bytes = 0
        self._read_rate = None
        self._cancel_header_timer()
        self.scope[CLIENT_PRESENCE] = self._presence  # type: ignore[literal-required]  # ours
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        # uvicorn reads on, and queues what it reads, from whoever asks without waiting for answers.
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise ConnectionError("too many requests are waiting")
        self._request_started = True
        super().on_message_begin()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_headers = True
        self._request_started = False
        self._parsed_bytes = self._body_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        # One for all pieces of an answer: anew for each, it would be patient with each.
        if self._read_rate is None:
            self._read_rate = ReadRate(
                self.transport, self._settings.min_bytes_per_second, self._settings.stall_seconds
            )
        self._read_rate.start(self.loop.time())
        self._start_write_timer()

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        if self._read_rate is not None:
            self._read_rate.is_too_slow(self.loop.time())
        super().resume_writing()

    def _abort(self) -> None:
        """Close at once, in the middle of an answer."""
        if self._active_cycle is not None:
            self._active_cycle.disconnected = True
        self.transport.abort()

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(self._settings.header_seconds, self.transport.close)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_read_rate(self) -> None:
        if self._read_rate is not None and self._read_rate.is_too_slow(self.loop.time()):
            self.transport.abort()
        else:
            self._start_write_timer()

    def _start_write_timer(self) -> None:
        self._write_timer = self.loop.call_later(self._settings.stall_seconds / READ_RATE_CHECKS, self._check_read_rate)
