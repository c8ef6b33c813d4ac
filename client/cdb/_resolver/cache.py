"""Cache payloads by sha256 and answers with a fixed as_of, and verify each file when it is read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cdb._resolver.answers import Answer, from_json, to_json
from cdb._resolver.query import Query
from cdb._resolver.store import Store, StoredFile, read_file

log = logging.getLogger("cdb")
# Without a handler of the program, warnings would go to stderr.
log.addHandler(logging.NullHandler())

# Bytes that a cache holds at most.
MAX_CACHE_BYTES = 10 * 2**30
# Of how many payloads of a device and type a server is told that they are held.
MAX_KNOWN_DIGESTS = 4
# How many prefetches a job without network looks through.
MAX_PREFETCHES = 100

_SHA256 = re.compile("[0-9a-f]{64}")


class Cache:
    """Payloads and answers in a folder. What is read is checked; where the folder fails, it is done without.

    Answers are kept by the server that gave them: databases of different servers may say different things.
    """

    def __init__(self, folder: Path | None = None, limit: int = MAX_CACHE_BYTES) -> None:
        """The cache in a folder; without, in that of `CDB_CACHE`; without that, in the user's cache folder."""
        self.store = Store(folder or _default_folder(), limit)
        self._failed = False

    def payload(self, sha256: str) -> bytes | None:
        """The bytes of a payload, if they are kept."""
        if not _SHA256.fullmatch(sha256):
            # A server or a caller may say anything; this becomes the name of a file.
            return None
        return self._read(_payload_path(sha256), lambda data: _has_digest(sha256, data))

    def store_payload(self, data: bytes) -> None:
        """Keep the bytes of a payload."""
        self._write(_payload_path(hashlib.sha256(data).hexdigest()), data)

    def answer(self, servers: Sequence[str], query: Query) -> Answer | None:
        """What one of the servers answered to a question with as_of, if it is kept."""
        for server in servers:
            name = _answer_path(server, query)
            said = self._read_json(name)
            # The name alone is not enough: a file may have been copied from another's.
            if isinstance(said, dict) and said.get("question") == json.loads(query.canonical_json()):
                try:
                    return from_json(query, said.get("answer"))
                except ValueError:
                    # Written by another version.
                    self.store.quarantine(self.store.folder / name)
        return None

    def store_answer(self, server: str, query: Query, answer: Answer) -> None:
        """Keep what a server answered to a question with as_of."""
        said = {"server": server, "question": json.loads(query.canonical_json()), "answer": to_json(answer)}
        self._write_json(_answer_path(server, query), said)

    def known_digests(self, servers: Sequence[str], query: Query) -> list[str]:
        """The sha256s of the last payloads that were answers to questions about the same, as far as they are kept."""
        found = dict.fromkeys(
            sha256 for server in servers for sha256 in self._read_strings(_digests_path(server, query))
        )
        named = (sha256 for sha256 in found if _SHA256.fullmatch(sha256))
        return [sha256 for sha256 in named if self.store.has(_payload_path(sha256))][:MAX_KNOWN_DIGESTS]

    def store_known_digest(self, server: str, query: Query, sha256: str) -> None:
        """Keep that a payload was the answer to a question."""
        before = [other for other in self._read_strings(_digests_path(server, query)) if other != sha256]
        self._write_json(_digests_path(server, query), [sha256, *before][:MAX_KNOWN_DIGESTS])

    def prefetched(self, servers: Sequence[str]) -> list[str]:
        """The as_of of each prefetch from one of the servers, the latest first."""
        found: set[str] = set()
        for server in servers:
            found.update(self._read_strings(_prefetches_path(server)))
        return sorted(found, reverse=True)

    def store_prefetch(self, server: str, as_of: str) -> None:
        """Keep that answers as of an instant were prefetched from a server."""
        with self.single_flight(_prefetches_path(server), seconds=10):
            self._write_json(_prefetches_path(server), sorted({*self.prefetched([server]), as_of})[-MAX_PREFETCHES:])

    def is_payload(self, file: StoredFile) -> bool:
        """Whether a file of the store is a payload, not an answer."""
        return file.path.is_relative_to(self.store.folder / "payloads")

    def check(self, file: StoredFile) -> bool:
        """Whether a file of the store is what its name says; if not, it is put aside. Raises OSError."""
        try:
            data, _ = read_file(file.path)
        except FileNotFoundError:
            # Another process has removed it, which is its right.
            return True
        right = data is not None and (
            _has_digest(file.path.name, data) if self.is_payload(file) else _has_checksum(data)
        )
        if not right:
            self.store.quarantine(file.path)
        return right

    def single_flight(self, name: str, seconds: float) -> AbstractContextManager[None]:
        """Fetch what is named so while others that want the same wait, `patience` seconds at most."""
        return self.store.lock(name, seconds)

    def _read(self, name: str, is_valid: Callable[[bytes], bool]) -> bytes | None:
        try:
            return self.store.read(name, is_valid)
        except OSError as error:
            self._warn_unusable(error)
            return None

    def _write(self, name: str, data: bytes) -> None:
        try:
            self.store.write(name, data)
        except OSError as error:
            self._warn_unusable(error)

    def _read_json(self, name: str) -> Any:
        data = self._read(name, _has_checksum)
        try:
            return None if data is None else json.loads(data.partition(b"\n")[2])
        except (ValueError, RecursionError):
            self.store.quarantine(self.store.folder / name)
            return None

    def _read_strings(self, name: str) -> list[str]:
        said = self._read_json(name)
        return [text for text in said if isinstance(text, str)] if isinstance(said, list) else []

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, indent=1).encode()
        self._write(name, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def _warn_unusable(self, error: OSError) -> None:
        # Told once: a job asks many questions.
        if not self._failed:
            self._failed = True
            log.warning("the cache %s cannot be used: %s", self.store.folder, error.strerror)


def _has_digest(sha256: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == sha256


def _has_checksum(data: bytes) -> bool:
    """Whether a file's first line is the sha256 of the rest."""
    seal, _, text = data.partition(b"\n")
    return hashlib.sha256(text).hexdigest().encode() == seal


def _payload_path(sha256: str) -> str:
    return f"payloads/{sha256[:2]}/{sha256}"


def _answer_path(server: str, query: Query) -> str:
    return f"answers/{_server_key(server)}/{query.cache_key()}"


def _digests_path(server: str, query: Query) -> str:
    return f"answers/{_server_key(server)}/held-{query.group_key()}"


def _prefetches_path(server: str) -> str:
    return f"answers/{_server_key(server)}/prefetched"


def _server_key(server: str) -> str:
    return hashlib.sha256(server.rstrip("/").encode()).hexdigest()[:16]


def _default_folder() -> Path:
    if named := os.environ.get("CDB_CACHE"):
        return Path(named).absolute()
    # Late, as all that a question answered from elsewhere does without.
    import platformdirs

    return platformdirs.user_cache_path("mice-cdb")
