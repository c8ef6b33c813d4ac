"""Record a job's queries and answers in a lock file, and replay them.

It is text with one JSON object in each line, to be stored with the results:

    {"question": {"get_calibration_for_run": {"device_name": "TOF1", …}}, "answer": {"id": 12, "sha256": …, …}}

A line has a `fault` where there was no answer. The first answer recorded to a query counts: processes that share a file
get the same answers. An incomplete last line, left by a killed process, is ignored, and so are NULs at the end, left by
a power loss. Each record is synced to disk.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from cdb._exceptions import FAULTS, CdbError, InvalidArgument, ServerUnreachable, Unavailable
from cdb._files import NotRegular, open_regular, read_at
from cdb._resolver.answers import Answer, check_matches, error_fields, fields_to_json, from_json, to_json
from cdb._resolver.query import Query
from cdb._resolver.store import file_lock

Recorded = Answer | CdbError

# How every line begins.
LINE_START = b'{"question": {'
# A longer file is not a lock file, and is not read.
MAX_LOCK_FILE_BYTES = 2**30


class LockFile:
    """A file of queries and answers. Safe for any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, tuple[Query, Recorded]] = {}
        self._file_id = (0, 0)
        self._offset = 0

    def find(self, query: Query) -> Recorded | None:
        """Return the recorded answer to a query. Raises InvalidArgument when the file is not a lock file."""
        self._refresh()
        found = self._entries.get(query.canonical_json())
        return found and found[1]

    def record(self, query: Query, answer: Recorded, wait_seconds: float = 30) -> Recorded:
        """Record an answer, unless another process was first; return the answer that is recorded.

        Raises InvalidArgument where the file is not a lock file or cannot be written, Unavailable where another process
        locks it for longer than `wait_seconds`.
        """
        said = {"fault": _fault_to_json(answer)} if isinstance(answer, CdbError) else {"answer": to_json(answer)}
        text = json.dumps({"question": {query.operation: query.wire_arguments}, **said}, ensure_ascii=False)
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            with open_regular(self.path, flags) as file, file_lock(file, wait_seconds) as acquired:
                if not acquired:
                    raise Unavailable(f"the lock file {self.path} is locked by another process: is it suspended?")
                end, tail = self._read_new_lines(file)
                if query.canonical_json() not in self._entries:
                    self._append(file, end, tail, text.encode() + b"\n")
                    self._read_new_lines(file)
        except OSError as error:
            raise self._io_error("cannot be written", error) from None
        return self._entries[query.canonical_json()][1]

    def entries(self) -> list[tuple[Query, Recorded]]:
        """Return all queries and answers, in their order. Raises InvalidArgument when there is no such file."""
        if not self.path.exists():
            raise InvalidArgument(f"there is no lock file {self.path}", argument="CDB_LOCK")
        self._refresh()
        return list(self._entries.values())

    def _refresh(self) -> None:
        try:
            with open_regular(self.path) as file:
                self._read_new_lines(file)
        except FileNotFoundError:
            self._entries, self._file_id, self._offset = {}, (0, 0), 0
        except OSError as error:
            raise self._io_error("cannot be read", error) from None

    def _read_new_lines(self, file: int) -> tuple[int, bytes]:
        """Add the lines written since the last call; return where the last whole line ends, and the bytes after it.

        Threads may run this at the same time: they add the same lines.
        """
        end = self._offset
        status = os.fstat(file)
        anew = (status.st_dev, status.st_ino) != self._file_id or status.st_size < end
        if not anew and status.st_size == end:
            return end, b""
        # Read all of it where another file has this name now.
        end, entries = (0, {}) if anew else (end, dict(self._entries))
        if status.st_size > MAX_LOCK_FILE_BYTES:
            raise self._not_a_lock_file(read_at(file, end, 60))
        *lines, tail = read_at(file, end, status.st_size - end).split(b"\n")
        while lines and b"\0" in lines[-1]:
            # JSON has no NUL: the file system put it in place of data that did not reach the disk.
            tail = lines.pop() + b"\n" + tail
        for line in lines:
            self._add_line(entries, line)
            end += len(line) + 1
        if tail and self._is_json(tail):
            # An editor removed the end of the line.
            self._add_line(entries, tail)
        elif not self._is_torn_tail(tail, end):
            raise self._not_a_lock_file(tail)
        self._file_id, self._entries, self._offset = (status.st_dev, status.st_ino), entries, end
        return end, tail

    def _append(self, file: int, end: int, tail: bytes, line: bytes) -> None:
        if tail and self._is_json(tail):
            line = b"\n" + line
            end += len(tail)
        os.ftruncate(file, end)
        try:
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _fsync(file)
            if end == 0:
                self._fsync_folder()
        except OSError:
            # What may not be on disk does not count as recorded.
            os.ftruncate(file, end)
            raise

    def _fsync_folder(self) -> None:
        """Sync the name of a new file to disk."""
        # Some folders cannot be opened, and some file systems cannot sync them: nothing more can be done.
        with suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _is_torn_tail(self, tail: bytes, end: int) -> bool:
        """Return whether a killed process or a power loss can have left this tail after the whole lines."""
        written, nul, lost = tail.partition(b"\0")
        if end > 0 and nul:
            return True
        # With no line before it, NULs may be the start of another program's file.
        return written.startswith(LINE_START) or (LINE_START.startswith(written) and not lost.strip(b"\0"))

    def _add_line(self, entries: dict[str, tuple[Query, Recorded]], line: bytes) -> None:
        query, answer = self._parse_line(line)
        before = entries.setdefault(query.canonical_json(), (query, answer))[1]
        if isinstance(before, CdbError) != isinstance(answer, CdbError) or (
            before != answer and not isinstance(before, CdbError)
        ):
            raise InvalidArgument(f"{self.path} has two answers to {query}: remove one", argument="CDB_LOCK")

    def _is_json(self, tail: bytes) -> bool:
        if b"\0" in tail:
            return False
        try:
            json.loads(tail)
        except (ValueError, RecursionError):
            return False
        return True

    def _parse_line(self, line: bytes) -> tuple[Query, Recorded]:
        try:
            said = json.loads(line)
            ((operation, arguments),) = said["question"].items()
            query = Query.of(operation, **arguments)
            return query, _fault_from_json(query, said["fault"]) if "fault" in said else from_json(
                query, said["answer"]
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ServerUnreachable):
            raise self._not_a_lock_file(line) from None

    def _not_a_lock_file(self, line: bytes) -> InvalidArgument:
        return InvalidArgument(
            f"{self.path} is not a lock file of cdb, or one of a later version: see its line {line[:60]!r}",
            argument="CDB_LOCK",
        )

    def _io_error(self, what: str, error: OSError) -> InvalidArgument:
        if isinstance(error, NotRegular):
            what = "cannot be one"
        return InvalidArgument(f"the lock file {self.path} {what}: {error.strerror}", argument="CDB_LOCK")


def _fsync(file: int) -> None:
    """Sync what was written to disk. Raises OSError."""
    try:
        os.fsync(file)
    except OSError as error:
        # Some file systems have no such call, because they write at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def _fault_to_json(error: CdbError) -> dict[str, Any]:
    named = {"name": type(error).__name__, "message": error.message}
    return named | fields_to_json(error, type(error).__annotations__)


def _fault_from_json(query: Query, said: dict[str, Any]) -> CdbError:
    if not isinstance(said["message"], str):
        raise ValueError("a message is text")
    kind = FAULTS[said["name"]]
    error = kind(said["message"], **error_fields(kind, said))
    check_matches(query, error)
    return error
