"""Limit every wait on a socket to the time that the attempt has left.

The timeout of a socket starts anew with each byte, so that a slow server could block a caller for ever. This module
sets it before each wait to the time left.
"""

from __future__ import annotations

import io
import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONNECT_SECONDS = 5.0
# Seconds; once an answer has begun, a healthy server does not pause for longer.
MAX_PAUSE_IN_RESPONSE_SECONDS = 10.0
# Seconds; longer than any caller waits, and short enough for the timeout of a socket.
MAX_WAIT_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class AttemptBudget:
    """The limits of one attempt: its end, by time.monotonic, and the longest silence in seconds."""

    end: float
    max_silence: float


class Deadline:
    """The time left to the current attempt of a session."""

    def __init__(self) -> None:
        self.start(AttemptBudget(0.0, 0.0))

    def start(self, budget: AttemptBudget) -> None:
        """Begin an attempt."""
        self._budget = budget
        self.has_received = False

    def seconds_left(self) -> float:
        """Return the seconds left. Raises TimeoutError when there are none."""
        left = self._budget.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        return min(left, MAX_WAIT_SECONDS)

    def next_timeout(self) -> float:
        """Return the seconds to wait for the next bytes. Raises TimeoutError when none are left."""
        return min(
            self.seconds_left(),
            self._budget.max_silence,
            MAX_PAUSE_IN_RESPONSE_SECONDS if self.has_received else MAX_WAIT_SECONDS,
        )


class DeadlineReader(io.RawIOBase):
    """Reads from a socket until a deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.next_timeout())
        count: int | None = self._raw.readinto(buffer)
        self._deadline.has_received = self._deadline.has_received or bool(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def send_all(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Send all data before a deadline. Raises TimeoutError, and what sockets raise."""
    view = memoryview(data)
    while view:
        sock.settimeout(deadline.next_timeout())
        view = view[sock.send(view) :]


def connect(host: str, port: int, options: Sequence[tuple[Any, ...]], deadline: Deadline) -> socket.socket:
    """Connect to the first address of a host that accepts. Raises what sockets raise.

    All addresses share CONNECT_SECONDS, so that one that does not answer, as with IPv6 often, leaves time for the next.
    """
    end = time.monotonic() + min(CONNECT_SECONDS, deadline.next_timeout())
    found = _resolve_host(host, port, end - time.monotonic())
    refused: OSError = OSError("the host has no address")
    for position, (family, kind, protocol, _, address) in enumerate(found):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no connection in time")
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(left / (len(found) - position))
            sock.connect(address)
            # For the whole TLS handshake.
            sock.settimeout(min(CONNECT_SECONDS, deadline.next_timeout()))
        except OSError as error:
            sock.close()
            refused = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise refused


def _resolve_host(host: str, port: int, seconds: float) -> list[Any]:
    """Look up the addresses of a host, in a thread: the system's function has no timeout."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        # It is a name, not an address.
        pass
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} cannot be a name") from None
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            # Any error is raised in the waiting thread.
            found.put(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        answer = found.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise TimeoutError("the host's name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
