"""A lock file: the questions that a job asked, each with its answer, so that it gets the same answers again.

Text, one JSON object a line, meant to be kept beside the results:

    {"question": {"get_calibration_for_run": {"device_name": "TOF1", …}}, "answer": {"id": 12, "sha256": …, …}}

In place of the answer stands the `fault` where there was none. The first answer noted to a question stands: processes
that share a file get the same. A line without its end, which a killed process left, counts for nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from cdb._answers import Answer, from_json, to_json
from cdb._exceptions import FAULTS, CdbError, InvalidArgument
from cdb._instants import instant, spell
from cdb._questions import Question

Noted = Answer | CdbError


class LockFile:
    """A file of questions and answers. Safe for any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._noted: dict[str, tuple[Question, Noted]] = {}
        self._read_to = 0

    def find(self, question: Question) -> Noted | None:
        """What was noted to a question. Raises InvalidArgument when the file is no lock file."""
        spelling = question.spelling()
        if spelling not in self._noted:
            self._look()
        return self._noted[spelling][1] if spelling in self._noted else None

    def note(self, question: Question, answer: Noted) -> Noted:
        """Note an answer, unless another process was first; the one that stands. Raises InvalidArgument."""
        said = {"fault": _fault(answer)} if isinstance(answer, CdbError) else {"answer": to_json(answer)}
        text = json.dumps({"question": {question.operation: question.sent}, **said}, ensure_ascii=False)
        try:
            # Unbuffered: what is written is there when the lock is given back.
            with open(self.path, "a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = self._read(file)
                if question.spelling() not in self._noted:
                    file.truncate(end)
                    file.write(text.encode() + b"\n")
        except OSError as error:
            raise self._refused("cannot be written", error) from None
        self._look()
        return self._noted[question.spelling()][1]

    def all(self) -> list[tuple[Question, Noted]]:
        """Everything noted, in the order in which it was asked. Raises InvalidArgument when there is no such file."""
        if not self.path.exists():
            raise InvalidArgument(f"there is no lock file {self.path}", argument="CDB_LOCK")
        self._look()
        return list(self._noted.values())

    def _look(self) -> None:
        try:
            with open(self.path, "rb", buffering=0) as file:
                self._read(file)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._refused("cannot be read", error) from None

    def _read(self, file: IO[bytes]) -> int:
        """Take in what was noted since the last look; where the last whole line ends.

        Threads that read the same lines at once take in the same.
        """
        if os.fstat(file.fileno()).st_size < self._read_to:
            # Another file has this name now.
            self._noted, self._read_to = {}, 0
        end = self._read_to
        file.seek(end)
        for line in file.read().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            question, noted = self._noted_in(line)
            self._noted.setdefault(question.spelling(), (question, noted))
            end += len(line)
        self._read_to = end
        return end

    def _refused(self, what: str, error: OSError) -> InvalidArgument:
        return InvalidArgument(f"the lock file {self.path} {what}: {error.strerror}", argument="CDB_LOCK")

    def _noted_in(self, line: bytes) -> tuple[Question, Noted]:
        try:
            said = json.loads(line)
            ((operation, arguments),) = said["question"].items()
            question = Question.of(operation, **arguments)
            return question, _error(said["fault"]) if "fault" in said else from_json(question, said["answer"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidArgument(
                f"{self.path} is not a lock file of cdb: see its line {line[:60]!r}", argument="CDB_LOCK"
            ) from None


def _fault(error: CdbError) -> dict[str, Any]:
    said: dict[str, Any] = {"name": type(error).__name__, "message": error.message}
    for name in type(error).__annotations__:
        value = getattr(error, name)
        if value is not None:
            said[name] = spell(value) if isinstance(value, datetime) else value
    return said


def _error(said: dict[str, Any]) -> CdbError:
    fields = {name: value for name, value in said.items() if name not in ("name", "message")}
    for name in ("date", "as_of"):
        if fields.get(name) is not None:
            fields[name] = instant(name, fields[name])
    return FAULTS[said["name"]](said["message"], **fields)
