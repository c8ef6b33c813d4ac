"""The verified cache: payloads by their sha256, and the answers that never change, those to questions with as_of."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cdb._answers import Answer, from_json, to_json
from cdb._log import log
from cdb._questions import Question
from cdb._store import Store, Stored, content

# Bytes that a cache holds at most.
LIMIT = 10 * 2**30
# Of how many payloads of a device and type a server is told that they are held.
MOST_HELD = 4
# How many prefetches a job without network looks through.
MOST_PREFETCHED = 100

_SHA256 = re.compile("[0-9a-f]{64}")


class Cache:
    """Payloads and answers in a folder. What is read is checked; where the folder fails, it is done without.

    Answers are kept by the server that gave them: databases of different servers may say different things.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        """The cache in a folder; without, in that of `CDB_CACHE`; without that, in the user's cache folder."""
        self.store = Store(folder or _users_folder(), limit)
        self._failed = False

    def payload(self, sha256: str) -> bytes | None:
        """The bytes of a payload, if they are kept."""
        if not _SHA256.fullmatch(sha256):
            # A server or a caller may say anything; this becomes the name of a file.
            return None
        return self._read(_payload(sha256), lambda data: _is_named(sha256, data))

    def keep_payload(self, data: bytes) -> None:
        """Keep the bytes of a payload."""
        self._write(_payload(hashlib.sha256(data).hexdigest()), data)

    def answer(self, servers: Sequence[str], question: Question) -> Answer | None:
        """What one of the servers answered to a question with as_of, if it is kept."""
        for server in servers:
            name = _answer(server, question)
            said = self._read_json(name)
            # The name alone is not enough: a file may have been copied from another's.
            if isinstance(said, dict) and said.get("question") == json.loads(question.spelling()):
                try:
                    return from_json(question, said.get("answer"))
                except ValueError:
                    # Written by another version.
                    self.store.put_aside(self.store.folder / name)
        return None

    def keep_answer(self, server: str, question: Question, answer: Answer) -> None:
        """Keep what a server answered to a question with as_of."""
        said = {"server": server, "question": json.loads(question.spelling()), "answer": to_json(answer)}
        self._write_json(_answer(server, question), said)

    def held(self, servers: Sequence[str], question: Question) -> list[str]:
        """The sha256s of the last payloads that were answers to questions about the same, as far as they are kept."""
        found = dict.fromkeys(sha256 for server in servers for sha256 in self._read_texts(_held(server, question)))
        named = (sha256 for sha256 in found if _SHA256.fullmatch(sha256))
        return [sha256 for sha256 in named if self.store.has(_payload(sha256))][:MOST_HELD]

    def keep_held(self, server: str, question: Question, sha256: str) -> None:
        """Keep that a payload was the answer to a question."""
        before = [other for other in self._read_texts(_held(server, question)) if other != sha256]
        self._write_json(_held(server, question), [sha256, *before][:MOST_HELD])

    def prefetched(self, servers: Sequence[str]) -> list[str]:
        """The as_of of each prefetch from one of the servers, the latest first."""
        found: set[str] = set()
        for server in servers:
            found.update(self._read_texts(_prefetched(server)))
        return sorted(found, reverse=True)

    def keep_prefetched(self, server: str, as_of: str) -> None:
        """Keep that answers as of an instant were prefetched from a server."""
        with self.alone(_prefetched(server), patience=10):
            self._write_json(_prefetched(server), sorted({*self.prefetched([server]), as_of})[-MOST_PREFETCHED:])

    def is_payload(self, file: Stored) -> bool:
        """Whether a file of the store is a payload, not an answer."""
        return file.path.is_relative_to(self.store.folder / "payloads")

    def check(self, file: Stored) -> bool:
        """Whether a file of the store is what its name says; if not, it is put aside. Raises OSError."""
        try:
            data, _ = content(file.path)
        except FileNotFoundError:
            # Another process has removed it, which is its right.
            return True
        right = data is not None and (_is_named(file.path.name, data) if self.is_payload(file) else _is_sealed(data))
        if not right:
            self.store.put_aside(file.path)
        return right

    def alone(self, name: str, patience: float) -> AbstractContextManager[None]:
        """Fetch what is named so while others that want the same wait, `patience` seconds at most."""
        return self.store.alone(name, patience)

    def _read(self, name: str, is_right: Callable[[bytes], bool]) -> bytes | None:
        try:
            return self.store.read(name, is_right)
        except OSError as error:
            self._do_without(error)
            return None

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.store.write(name, data)
        except OSError as error:
            self._do_without(error)

    def _read_json(self, name: str) -> Any:
        data = self._read(name, _is_sealed)
        try:
            return None if data is None else json.loads(data.partition(b"\n")[2])
        except (ValueError, RecursionError):
            self.store.put_aside(self.store.folder / name)
            return None

    def _read_texts(self, name: str) -> list[str]:
        said = self._read_json(name)
        return [text for text in said if isinstance(text, str)] if isinstance(said, list) else []

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, indent=1).encode()
        self._write(name, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def _do_without(self, error: OSError) -> None:
        # Told once: a job asks many questions.
        if not self._failed:
            self._failed = True
            log.warning("the cache %s cannot be used: %s", self.store.folder, error.strerror)


def _is_named(sha256: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == sha256


def _is_sealed(data: bytes) -> bool:
    """Whether a file's first line is the sha256 of the rest."""
    seal, _, text = data.partition(b"\n")
    return hashlib.sha256(text).hexdigest().encode() == seal


def _payload(sha256: str) -> str:
    return f"payloads/{sha256[:2]}/{sha256}"


def _answer(server: str, question: Question) -> str:
    return f"answers/{_name(server)}/{question.key()}"


def _held(server: str, question: Question) -> str:
    return f"answers/{_name(server)}/held-{question.topic()}"


def _prefetched(server: str) -> str:
    return f"answers/{_name(server)}/prefetched"


def _name(server: str) -> str:
    return hashlib.sha256(server.rstrip("/").encode()).hexdigest()[:16]


def _users_folder() -> Path:
    if named := os.environ.get("CDB_CACHE"):
        return Path(named).absolute()
    # Late, as all that a question answered from elsewhere does without.
    import platformdirs

    return platformdirs.user_cache_path("mice-cdb")
