"""Cache payloads by sha256 and answers with a fixed as_of, and verify each file when it is read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cdb._resolver.answers import Answer, from_json, to_json
from cdb._resolver.query import Query
from cdb._resolver.store import Store, StoredFile, read_file

log = logging.getLogger("cdb")
# Without a handler, logging would print warnings on stderr.
log.addHandler(logging.NullHandler())

# Size of a cache in bytes.
MAX_CACHE_BYTES = 10 * 2**30
# Known digests that a request names, for a device and type.
MAX_KNOWN_DIGESTS = 4
# Prefetches that a job without network looks through.
MAX_PREFETCHES = 100

_SHA256 = re.compile("[0-9a-f]{64}")


class Cache:
    """Stores payloads and answers in a folder. Verifies what it reads; ignores a folder that cannot be used.

    Stores answers by server, since different servers may have different databases.
    """

    def __init__(self, folder: Path | None = None, limit: int = MAX_CACHE_BYTES) -> None:
        """Use a folder: by default that of `CDB_CACHE`, else the user's cache folder."""
        self.store = Store(folder or _default_folder(), limit)
        self._failed = False

    def payload(self, sha256: str) -> bytes | None:
        """Return the bytes of a payload, if it is stored."""
        if not _SHA256.fullmatch(sha256):
            # It comes from a server or a caller, and becomes the name of a file.
            return None
        return self._read(_payload_path(sha256), lambda data: _has_digest(sha256, data))

    def store_payload(self, data: bytes) -> None:
        """Store the bytes of a payload."""
        self._write(_payload_path(hashlib.sha256(data).hexdigest()), data)

    def answer(self, servers: Sequence[str], query: Query) -> Answer | None:
        """Return the answer of one of the servers to a query with as_of, if it is stored."""
        for server in servers:
            name = _server_path(server, query.cache_key())
            said = self._read_json(name)
            # The name alone proves nothing: somebody may have copied the file.
            if isinstance(said, dict) and said.get("question") == json.loads(query.canonical_json()):
                try:
                    return from_json(query, said.get("answer"))
                except ValueError:
                    # Written by another version.
                    self.store.quarantine(self.store.folder / name)
        return None

    def store_answer(self, server: str, query: Query, answer: Answer) -> None:
        """Store the answer of a server to a query with as_of."""
        said = {"server": server, "question": json.loads(query.canonical_json()), "answer": to_json(answer)}
        self._write_json(_server_path(server, query.cache_key()), said)

    def known_digests(self, servers: Sequence[str], query: Query) -> list[str]:
        """Return the digests of stored payloads that were the last answers to queries of the same group."""
        name = f"held-{query.group_key()}"
        found = dict.fromkeys(sha256 for server in servers for sha256 in self._read_strings(_server_path(server, name)))
        named = (sha256 for sha256 in found if _SHA256.fullmatch(sha256))
        return [sha256 for sha256 in named if self.store.has(_payload_path(sha256))][:MAX_KNOWN_DIGESTS]

    def store_known_digest(self, server: str, query: Query, sha256: str) -> None:
        """Store the digest of the payload that answered a query."""
        name = _server_path(server, f"held-{query.group_key()}")
        before = [other for other in self._read_strings(name) if other != sha256]
        self._write_json(name, [sha256, *before][:MAX_KNOWN_DIGESTS])

    def prefetched(self, servers: Sequence[str]) -> list[str]:
        """Return the as_of of each prefetch from one of the servers, the latest first."""
        found: set[str] = set()
        for server in servers:
            found.update(self._read_strings(_server_path(server, "prefetched")))
        return sorted(found, reverse=True)

    def store_prefetch(self, server: str, as_of: str) -> None:
        """Store that answers with this as_of were prefetched from a server."""
        name = _server_path(server, "prefetched")
        with self.store.lock(name, seconds=10):
            self._write_json(name, sorted({*self.prefetched([server]), as_of})[-MAX_PREFETCHES:])

    def is_payload(self, file: StoredFile) -> bool:
        """Return whether a file of the store is a payload, not an answer."""
        return file.path.is_relative_to(self.store.folder / "payloads")

    def check(self, file: StoredFile) -> bool:
        """Verify a file of the store, and quarantine it if it is damaged. Raises OSError."""
        try:
            data, _ = read_file(file.path)
        except FileNotFoundError:
            # Another process has evicted it.
            return True
        right = data is not None and (
            _has_digest(file.path.name, data) if self.is_payload(file) else _has_checksum(data)
        )
        if not right:
            self.store.quarantine(file.path)
        return right

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
        # Warn once: a job sends many queries.
        if not self._failed:
            self._failed = True
            log.warning("the cache %s cannot be used: %s", self.store.folder, error.strerror)


def _has_digest(sha256: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == sha256


def _has_checksum(data: bytes) -> bool:
    """Return whether the first line of a file is the sha256 of the rest."""
    seal, _, text = data.partition(b"\n")
    return hashlib.sha256(text).hexdigest().encode() == seal


def _payload_path(sha256: str) -> str:
    return f"payloads/{sha256[:2]}/{sha256}"


def _server_path(server: str, name: str) -> str:
    return f"answers/{hashlib.sha256(server.rstrip('/').encode()).hexdigest()[:16]}/{name}"


def _default_folder() -> Path:
    if named := os.environ.get("CDB_CACHE"):
        return Path(named).absolute()
    # Imported late: a job that sets CDB_CACHE does not need it.
    import platformdirs

    return platformdirs.user_cache_path("mice-cdb")
