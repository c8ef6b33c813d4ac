"""Time that runs out: connections that wait no longer for any byte than what is left of it.

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
PAUSE_SECONDS = 10.0
# Longer than anybody waits, and no longer than a socket's timeout may be.
LONGEST_WAIT = 86_400.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one try may take: until when, by time.monotonic, and for how many seconds nothing may come."""

    until: float
    silence: float


class Clock:
    """What is left to the try that a session is at."""

    def __init__(self) -> None:
        self.start(Share(0.0, 0.0))

    def start(self, share: Share) -> None:
        """Begin a try."""
        self._share = share
        self.begun = False

    def left(self) -> float:
        """Seconds until the end. Raises TimeoutError when there are none."""
        left = self._share.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is up")
        return min(left, LONGEST_WAIT)

    def wait(self) -> float:
        """Seconds to wait for the next bytes. Raises TimeoutError when there are none."""
        return min(self.left(), self._share.silence, PAUSE_SECONDS if self.begun else LONGEST_WAIT)


class Incoming(io.RawIOBase):
    """What comes from a socket, while there is time."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: Clock) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._clock.wait())
        count: int | None = self._raw.readinto(buffer)
        self._clock.begun = self._clock.begun or bool(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def send(sock: socket.socket, data: bytes, clock: Clock) -> None:
    """Send all, while there is time. Raises TimeoutError, and what sockets raise."""
    view = memoryview(data)
    while view:
        sock.settimeout(clock.wait())
        view = view[sock.send(view) :]


def connected(host: str, port: int, options: Sequence[tuple[Any, ...]], clock: Clock) -> socket.socket:
    """A connection to the first address of a host that takes one. Raises what sockets raise.

    All of them together get CONNECT_SECONDS, and each leaves the others their share: where one is a dead end, as IPv6
    often is, the next is reached.
    """
    end = time.monotonic() + min(CONNECT_SECONDS, clock.wait())
    found = _resolved(host, port, end - time.monotonic())
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
            sock.settimeout(min(CONNECT_SECONDS, clock.wait()))
        except OSError as error:
            sock.close()
            refused = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise refused


def _resolved(host: str, port: int, seconds: float) -> list[Any]:
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
