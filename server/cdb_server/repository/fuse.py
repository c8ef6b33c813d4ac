"""A fuse that blows when the disk fails under a write, for all worker processes at once, until the server is restarted.

After a failed fsync the kernel may have dropped the pages and tell so nobody else: a later fsync that succeeds proves
nothing. What is refused can be sent again; what is acknowledged must be on disk (rule 11).
"""

import ctypes
import multiprocessing
import sqlite3


class Fuse:
    """Whole until it is blown, once and for all. Handed to a process when it is started, it is the same fuse there."""

    def __init__(self) -> None:
        # Without a lock, which a worker killed while it held it would take from all others.
        self._blown = multiprocessing.get_context("spawn").RawValue(ctypes.c_bool, False)

    @property
    def blown(self) -> bool:
        """Whether the disk has failed under a write."""
        return bool(self._blown.value)

    def blow(self) -> bool:
        """Blow it; whether it was whole before."""
        was_whole = not self.blown
        self._blown.value = True
        return was_whole


def is_disk_error(error: BaseException | None) -> bool:
    """Whether SQLite met an I/O error on the way to this one. A full disk is none: what did not fit was given back."""
    while error is not None:
        # Python 3.10 has the text only; SQLite has one for all its I/O errors.
        if isinstance(error, sqlite3.Error) and "disk I/O error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
