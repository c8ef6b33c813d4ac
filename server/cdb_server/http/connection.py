"""A connection that cannot be held open by doing little: uvicorn's, with limits on headers and deadlines both ways."""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cdb_server.http.abandoned import PRESENCE, Presence
from cdb_server.http.questions import RECEIVED
from cdb_server.http.tally import TALLY, Tally
from cdb_server.settings import Settings

# Requests that may wait for the answer to an earlier one of the same connection.
MOST_WAITING = 16
# Bytes around each byte of a body that is sent in small chunks.
OVERHEAD = 16

_REQUEST = re.compile(rb"[A-Z]{1,20} ")
_TUNNEL = b"CONNECT "
_OFFER = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class BoundedConnection(HttpToolsProtocol):
    """uvicorn on httptools limits neither the size of headers nor the time that a peer may take; this does."""

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._settings = settings
        self._in_headers = True
        # Whether the parser has the beginning of a request that is not whole.
        self._begun = False
        self._head = b""
        self._fed = 0
        self._delivered = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._last_received = 0.0
        self._tally: Tally = self.app_state[TALLY]
        self._presence = Presence(self._abandon)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_header_timer()
        self._cancel_write_timer()
        super().connection_lost(exc)
        self._presence.lost()

    def data_received(self, data: bytes) -> None:
        # What comes may be the beginning of a head, which uvicorn is not shown before it is whole.
        self._unset_keepalive_if_required()
        received = data if self.at_rest() else b""
        if self._in_headers and self._header_timer is None:
            self._expect_headers()
        self._fed += len(data)
        if self._in_headers:
            self._head += data
            if (
                _REQUEST.match(self._head)
                and b"\r\n\r\n" not in self._head
                and self._fed <= self._settings.header_limit
            ):
                return
            data, self._head = _without_offer(self._head), b""
            if _REQUEST.match(data) and data.find(b"\r\n\r\n") > self._settings.header_limit:
                # Whole in one piece: once it is parsed, nothing of its length is left.
                self._refuse_headers()
                return
        super().data_received(data)
        # What was fed and is not body is headers, trailers, and what stands between chunks.
        overhead = self._fed - self._delivered
        allowed = self._settings.header_limit + OVERHEAD * self._delivered
        if overhead > allowed and not self.transport.is_closing():
            self._refuse_headers()
        elif received and not self._begun and not self._fed and self.cycle and not self.expect_100_continue:
            self.cycle.scope["extensions"] = {RECEIVED: {"request": received, "closes": not self.cycle.keep_alive}}

    def _refuse_headers(self) -> None:
        self._tally.refused(431)
        text = b"the request's headers are too long\n"
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(text), text)
        )
        self.transport.close()

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
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def send_400_response(self, msg: str) -> None:
        # What is not HTTP: uvicorn itself turns it away.
        self._tally.refused(400)
        super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._fed = self._delivered = 0
        self._cancel_header_timer()
        self.scope[PRESENCE] = self._presence  # type: ignore[literal-required]  # ours
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        # uvicorn reads on, and queues what it reads, from whoever asks without waiting for answers.
        if len(self.pipeline) >= MOST_WAITING:
            raise ConnectionError("too many requests are waiting")
        self._begun = True
        super().on_message_begin()

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
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._settings.stall_deadline, self._check_reader)

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        super().resume_writing()

    def _abandon(self) -> None:
        """Close at once, in the middle of an answer."""
        self.cycle.disconnected = True
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
        unsent = self.transport.get_write_buffer_size()
        if self._unsent - unsent < self._settings.least_rate * self._settings.stall_deadline:
            self.transport.abort()
            return
        self._unsent = unsent
        self._write_timer = self.loop.call_later(self._settings.stall_deadline, self._check_reader)


def _without_offer(data: bytes) -> bytes:
    """Headers that ask for no other protocol and no tunnel: httptools takes such a request for one without a body.

    Java's client offers another protocol with every request. A tunnel is refused like any other method but those known.
    """
    headers, end, rest = data.partition(b"\r\n\r\n")
    if headers.startswith(_TUNNEL):
        headers = b"OPTIONS " + headers[len(_TUNNEL) :]
    return _OFFER.sub(b"\r\nOffered:", headers) + end + rest
