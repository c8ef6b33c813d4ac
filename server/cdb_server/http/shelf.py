"""Answers that the kernel sends by itself, as it sends files, without a copy: as many bytes as the peer has room for.

A copy for each of 256 peers is more than the processor's caches hold, and took longer than all the rest of an answer.
"""

import asyncio
import contextlib
import math
import os
import socket

# Bytes from which on it pays; not less, for each answer on the shelf is an open file.
LEAST = 2**16


class Shelf:
    """For at most so many answers. For one thread."""

    def __init__(self, most: int) -> None:
        self.room: float = most

    def put(self, parts: tuple[bytes, ...]) -> "Shelved | None":
        """A copy of an answer; None where it cannot be had."""
        length = sum(map(len, parts))
        if self.room <= 0:
            return None
        try:
            copy = Shelved(self, os.memfd_create("cdb-answer"), length)
            # Nothing is ever written over: what peers still get is the file itself.
            if os.writev(copy._file, parts) == length:
                return copy
        except (AttributeError, OSError):
            # Only Linux has such files, and not without limit.
            pass
        # It would be tried again for every answer.
        self.room = -math.inf
        return None


class Shelved:
    """An answer in a file of its own, which lies in memory until nobody holds this, and no peer still gets it."""

    __slots__ = ("_file", "_shelf", "length")

    def __init__(self, shelf: Shelf, file: int, length: int) -> None:
        self._shelf = shelf
        self._file = file
        self.length = length
        shelf.room -= 1

    def __del__(self) -> None:
        os.close(self._file)
        self._shelf.room += 1

    def send(self, transport: asyncio.Transport, head: bytes) -> int:
        """Send the head and the answer, and tell how many bytes of both together the peer had room for.

        The transport has nothing left to send, and TLS is not on it. Raises OSError when there is no peer any more.
        """
        its = transport.get_extra_info("socket")
        beneath = socket.socket(its.family, its.type, its.proto, fileno=its.fileno())
        sent = 0
        try:
            with contextlib.suppress(BlockingIOError):
                sent = beneath.send(head, socket.MSG_MORE)
                if sent == len(head):
                    sent += os.sendfile(beneath.fileno(), self._file, 0, self.length)
        finally:
            # The transport closes it.
            beneath.detach()
        return sent
