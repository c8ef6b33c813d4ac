"""A fuse that blows when the disk fails under a write, for all worker processes at once, until the server is restarted.

It also notes for all of them why the last write was refused, if it was, so that any can tell.

After a failed fsync the kernel may have dropped the pages and tell so nobody else: a later fsync that succeeds proves
nothing. What is refused can be sent again; what is acknowledged must be on disk (rule 11).
"""

import ctypes
import multiprocessing
import sqlite3

# Why the database takes no writes, as callers and the operator are told: the last write found it so.
FULL = "the disk of the database is full: its operator must make room"
FAILED = "the database failed, was locked for long, or refuses to be written: its operator finds the reason in the log"
_REASONS = (None, FULL, FAILED)


class Fuse:
    """Whole until it is blown, once and for all. Handed to a process when it is started, it is the same fuse there."""

    def __init__(self) -> None:
        # Without a lock, which a worker killed while it held it would take from all others.
        self._blown = multiprocessing.get_context("spawn").RawValue(ctypes.c_bool, False)
        self._refused = multiprocessing.get_context("spawn").RawValue(ctypes.c_byte, 0)

    @property
    def blown(self) -> bool:
        """Whether the disk has failed under a write."""
        return bool(self._blown.value)

    def blow(self) -> bool:
        """Blow it; whether it was whole before."""
        was_whole = not self.blown
        self._blown.value = True
        return was_whole

    @property
    def refused(self) -> str | None:
        """Why the last write was refused; None when it was taken, or there was none."""
        return _REASONS[self._refused.value]

    @refused.setter
    def refused(self, reason: str | None) -> None:
        self._refused.value = _REASONS.index(reason)


def is_full(error: BaseException | None) -> bool:
    """Whether the database met a full disk on the way to this error."""
    while error is not None:
        # https://www.postgresql.org/docs/current/errcodes-appendix.html: 53100 is disk_full.
        if getattr(error, "sqlstate", None) == "53100":
            return True
        if isinstance(error, sqlite3.Error) and "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_disk_error(error: BaseException | None) -> bool:
    """Whether SQLite met an I/O error on the way to this one. A full disk is none: what did not fit was given back."""
    while error is not None:
        # Python 3.10 has the text only; SQLite has one for all its I/O errors.
        if isinstance(error, sqlite3.Error) and "disk I/O error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
