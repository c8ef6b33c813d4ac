"""Limit every wait on a socket to the time that the attempt has left.

A timeout of a socket begins anew with each byte, so that a server that trickles could hold a caller for ever. Here it
is set anew before each wait, to what is left.
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
# Once an answer has begun: a server that is at work does not pause for long.
MAX_PAUSE_IN_RESPONSE_SECONDS = 10.0
# Longer than anybody waits, and no longer than a socket's timeout may be.
MAX_WAIT_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class AttemptBudget:
    """What one try may take: until when, by time.monotonic, and for how many seconds nothing may come."""

    end: float
    max_silence: float


class Deadline:
    """What is left to the try that a session is at."""

    def __init__(self) -> None:
        self.start(AttemptBudget(0.0, 0.0))

    def start(self, budget: AttemptBudget) -> None:
        """Begin a try."""
        self._budget = budget
        self.has_received = False

    def seconds_left(self) -> float:
        """Seconds until the end. Raises TimeoutError when there are none."""
        left = self._budget.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        return min(left, MAX_WAIT_SECONDS)

    def next_timeout(self) -> float:
        """Seconds to wait for the next bytes. Raises TimeoutError when there are none."""
        return min(
            self.seconds_left(),
            self._budget.max_silence,
            MAX_PAUSE_IN_RESPONSE_SECONDS if self.has_received else MAX_WAIT_SECONDS,
        )


class DeadlineReader(io.RawIOBase):
    """What comes from a socket, while there is time."""

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
    """Send all, while there is time. Raises TimeoutError, and what sockets raise."""
    view = memoryview(data)
    while view:
        sock.settimeout(deadline.next_timeout())
        view = view[sock.send(view) :]


def connect(host: str, port: int, options: Sequence[tuple[Any, ...]], deadline: Deadline) -> socket.socket:
    """A connection to the first address of a host that takes one. Raises what sockets raise.

    All of them together get CONNECT_SECONDS, and each leaves the others their share: where one is a dead end, as IPv6
    often is, the next is reached.
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
            # For the handshake of TLS, as a whole.
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
    """The addresses of a host. In a thread, for the system's look-up knows no deadline."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        # A name.
        pass
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} cannot be a name") from None
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            # Whatever it is, it is raised where it is waited for.
            found.put(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        answer = found.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise TimeoutError("the host's name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
