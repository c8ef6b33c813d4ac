"""A connection that cannot be held open by doing little: uvicorn's, with limits on headers and deadlines both ways."""

import asyncio
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from cdb_server.http import framing
from cdb_server.http.abandoned import PRESENCE, Presence
from cdb_server.http.questions import RECEIVED
from cdb_server.http.taking import Taking
from cdb_server.http.tally import TALLY, Tally
from cdb_server.settings import Settings

# Requests that may wait for the answer to an earlier one of the same connection.
MOST_WAITING = 16
# Bytes around each byte of a body that is sent in small chunks.
OVERHEAD = 16
# Looks at a reader in the time that it may stop.
LOOKS = 4


class BoundedConnection(HttpToolsProtocol):
    """uvicorn on httptools limits neither the size of headers nor the time that a peer may take; this does."""

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._settings = settings
        self._in_headers = True
        # Whether the parser has the beginning of a request that is not whole.
        self._begun = False
        # What has come of a head that is not whole.
        self._head = b""
        self._chunks: framing.Chunks | None = None
        self._length = 0
        self._refusal: framing.Refusal | None = None
        # Whether nothing is taken any more: there are answers to send, and then it closes.
        self._deaf = False
        # The one whose answer is sent; others may wait behind it.
        self._answering: RequestResponseCycle | None = None
        self._half_closed: asyncio.TimerHandle | None = None
        self._fed = 0
        self._delivered = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._taking: Taking | None = None
        self._last_received = 0.0
        self._tally: Tally = self.app_state[TALLY]
        self._presence = Presence(self._abandon)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_header_timer()
        self._cancel_write_timer()
        if self._half_closed is not None:
            self._half_closed.cancel()
        answering = self._answering
        if answering is not None and not answering.response_complete:
            # uvicorn tells but the last of those that came one after another.
            answering.disconnected = True
            answering.message_event.set()
        super().connection_lost(exc)
        self._presence.lost()

    def data_received(self, data: bytes) -> None:
        # What comes may be the beginning of a head, which uvicorn is not shown before it is whole.
        self._unset_keepalive_if_required()
        received = data if self.at_rest() else b""
        if self._in_headers and self._header_timer is None and not self._deaf:
            self._expect_headers()
        searched, data, self._head = len(self._head), self._head + data, b""
        position = 0
        while position < len(data) and not self._takes_no_more():
            if self._in_headers:
                position = framing.skip_empty_lines(data, position)
                end = self._end_of_head(data, position, searched)
                searched = 0
                if end is None:
                    self._head = data[position:]
                    return
            elif self._chunks is not None:
                end = self._chunks.end(data, position)
            else:
                end = position + self._length - self._delivered
            piece, position = data[position:end], end
            self._feed(piece)
        if received and not self._begun and not self._fed and self.cycle and not self.expect_100_continue:
            self.cycle.scope["extensions"] = {RECEIVED: {"request": received, "closes": not self.cycle.keep_alive}}

    def _takes_no_more(self) -> bool:
        if self.transport.is_closing() or self._deaf:
            return True
        # Nothing is answered after an answer that closes the connection.
        return self._in_headers and self.cycle is not None and not self.cycle.keep_alive

    def _end_of_head(self, data: bytes, start: int, searched: int) -> int | None:
        """Where a head ends, if it is whole and not refused; `searched` is how much was looked at before."""
        end = data.find(framing.END, max(start, searched - 3))
        length = (len(data) if end < 0 else end) - start
        if length > self._settings.header_limit:
            self._refuse(framing.Refusal(431, "the request's headers are too long"))
        elif not framing.may_begin(data, start):
            self._refuse(framing.Refusal(400, "this is not HTTP"))
        elif end >= 0:
            end += len(framing.END)
            refusal = framing.check_line(data[start:end])
            if refusal is None:
                return end
            self._refuse(refusal)
        return None

    def _feed(self, piece: bytes) -> None:
        if self._in_headers:
            piece = framing.without_offer(piece)
        self._fed += len(piece)
        super().data_received(piece)
        # What was fed and is not body is headers, trailers, and what stands between chunks.
        overhead = self._fed - self._delivered
        if overhead > self._settings.header_limit + OVERHEAD * self._delivered and not self.transport.is_closing():
            self._refuse(framing.Refusal(431, "the request's headers are too long"))

    def _refuse(self, refusal: framing.Refusal) -> None:
        """Turn away what came, and close; what came whole before is answered first."""
        if self._deaf:
            return
        self._tally.refused(refusal.status)
        if not self._in_headers and self.pipeline:
            # It waits for its turn, which does not come.
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._answering  # type: ignore[assignment]  # one is
            self._in_headers = True
        if self._in_headers and self.cycle is not None and not self.cycle.response_complete:
            self._hear_no_more()
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            phrase = STATUS_LINE[refusal.status]
            text = f"{refusal.text}\n".encode("ascii")
            self.transport.write(
                b"%scontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"cache-control: no-store\r\nconnection: close\r\n\r\n%s" % (phrase, len(text), text)
            )
        self.transport.close()

    def _hear_no_more(self) -> None:
        """Take nothing any more, and close after the answer to the last that was taken."""
        self._deaf = True
        self._head = b""
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
        self._hear_no_more()
        if self._half_closed is None:
            self._half_closed = self.loop.call_later(self._settings.half_closed_deadline, self._check_half_closed)
        return True

    def _check_half_closed(self) -> None:
        answering = self._answering
        if answering is None or not answering.response_started:
            self.transport.abort()
            return
        self._half_closed = self.loop.call_later(self._settings.half_closed_deadline, self._check_half_closed)

    def in_use(self) -> None:
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

    def at_rest(self) -> bool:
        """Whether all that came is answered, and all that was answered is on its way."""
        return (
            not self._begun
            and not self._head
            and not self._deaf
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def send_400_response(self, msg: str) -> None:
        # What is not HTTP to the parser, or was refused while it was parsed.
        refusal, self._refusal = self._refusal, None
        self._refuse(refusal or framing.Refusal(400, msg))

    def on_header(self, name: bytes, value: bytes) -> None:
        # RFC 9110, section 6.5.1: a trailer is not to be taken for a header.
        if self._in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._refusal = framing.check_headers(
            self.parser.get_method().decode("ascii"), self.url, self.parser.get_http_version(), self.headers
        )
        if self._refusal is not None:
            raise framing.Refused
        self.url = framing.in_origin_form(self.url, self.headers)
        given = dict(self.headers)
        self._length = int(given.get(b"content-length", 0))
        self._chunks = framing.Chunks() if b"transfer-encoding" in given else None
        self._in_headers = False
        self._fed = self._delivered = 0
        self._taking = None
        self._cancel_header_timer()
        self.scope[PRESENCE] = self._presence  # type: ignore[literal-required]  # ours
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        # uvicorn reads on, and queues what it reads, from whoever asks without waiting for answers.
        if len(self.pipeline) >= MOST_WAITING:
            raise ConnectionError("too many requests are waiting")
        self._begun = True
        super().on_message_begin()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._delivered += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_headers = True
        self._begun = False
        self._fed = self._delivered = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        # One for all pieces of an answer: anew for each, it would be patient with each.
        if self._taking is None:
            self._taking = Taking(self.transport, self._settings.least_rate, self._settings.stall_deadline)
        self._taking.begin(self.loop.time())
        self._expect_reader()

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        if self._taking is not None:
            self._taking.is_too_slow(self.loop.time())
        super().resume_writing()

    def _abandon(self) -> None:
        """Close at once, in the middle of an answer."""
        if self._answering is not None:
            self._answering.disconnected = True
        self.transport.abort()

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self._settings.header_deadline, self.transport.close)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _check_reader(self) -> None:
        if self._taking is not None and self._taking.is_too_slow(self.loop.time()):
            self.transport.abort()
        else:
            self._expect_reader()

    def _expect_reader(self) -> None:
        self._write_timer = self.loop.call_later(self._settings.stall_deadline / LOOKS, self._check_reader)
