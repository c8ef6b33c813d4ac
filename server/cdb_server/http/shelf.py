"""Answers that the kernel sends by itself, as it sends files, without a copy: as many bytes as the peer has room for.

A copy for each of 256 peers is more than the processor's caches hold, and took longer than all the rest of an answer.
"""

import contextlib
import os
import socket

# Bytes from which on it pays; not less, for each answer on the shelf is an open file.
LEAST = 2**16


class Shelved:
    """An answer in a file of its own, which lies in memory until nobody holds this, and no peer still gets it."""

    __slots__ = ("_file", "length")

    def __init__(self, file: int, length: int) -> None:
        self._file = file
        self.length = length

    def __del__(self) -> None:
        os.close(self._file)

    def send(self, to: socket.socket, head: bytes) -> int:
        """Send the head and the answer, and tell how many bytes of both together the peer had room for.

        Raises OSError when there is no peer any more.
        """
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = to.send(head, socket.MSG_MORE)
            if sent == len(head):
                sent += os.sendfile(to.fileno(), self._file, 0, self.length)
        return sent


def shelved(parts: tuple[bytes, ...]) -> Shelved | None:
    """A copy of an answer; None where it cannot be had."""
    length = sum(map(len, parts))
    try:
        copy = Shelved(os.memfd_create("cdb-answer"), length)
        # Nothing is ever written over: what peers still get is the file itself.
        return copy if os.writev(copy._file, parts) == length else None
    except (AttributeError, OSError):
        # Only Linux has such files, and not without limit.
        return None
