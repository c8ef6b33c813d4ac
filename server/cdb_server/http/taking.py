"""How fast a peer takes what it is sent: by what its system has acknowledged, not by what has left this process.

The kernel's buffer takes megabytes, and has room for more only when a good part of it is free again: above it, a peer
that reads steadily seems to stop for a minute, and then to take a megabyte at once.
"""

import asyncio
import socket
import struct
import sys

# A peer's system that had no room left for what comes tells of new room only when that is a sixteenth of all it has for
# the connection: so many bytes more than it has to take may come at once, and count for later.
AT_ONCE = 2**19

# tcpi_bytes_acked of Linux's struct tcp_info, since Linux 4.1.
_ACKNOWLEDGED = struct.Struct("=120xQ")


class Taking:
    """What a peer takes while it is waited for: `least_rate` bytes a second, and late by `deadline` seconds at most."""

    def __init__(self, transport: asyncio.Transport, least_rate: int, deadline: float) -> None:
        self._transport = transport
        self._least_rate = least_rate
        self._most_ahead = least_rate * deadline + AT_ONCE
        self._ahead = least_rate * deadline
        self._taken = _taken(transport)
        self._now = 0.0

    def begin(self, now: float) -> None:
        """From now on it is waited for."""
        self._now = now

    def is_too_slow(self, now: float) -> bool:
        """Whether the peer took less than it had to until now. To be asked several times before a deadline is over."""
        taken = _taken(self._transport)
        ahead = self._ahead + taken - self._taken - self._least_rate * (now - self._now)
        self._ahead = min(ahead, self._most_ahead)
        self._taken, self._now = taken, now
        return self._ahead <= 0


def _taken(transport: asyncio.Transport) -> int:
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
