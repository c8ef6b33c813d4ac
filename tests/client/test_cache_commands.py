"""`cdb cache`: shown, verified, emptied."""

import json
import os
from pathlib import Path

from cdb._resolver.cache import Cache
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.servers import Master


def test_the_cache_is_shown_verified_and_emptied(shared_master: Master) -> None:
    """A wrong file is found, named and put aside; nothing is removed unasked."""
    folder = Path(os.environ["CDB_CACHE"])
    cache = Cache()
    for data in (b"one", b"two", b"three"):
        cache.store_payload(data)
    shown = json.loads(said(shared_master, "cache", "show", "--json"))
    assert (shown["folder"], shown["payloads"], shown["bytes"]) == (str(folder), 3, 11)
    assert said(shared_master, "cache", "verify") == "3 files are intact, 0 damaged\n"
    next((folder / "payloads").rglob("*/*")).write_bytes(b"four")
    done = shell(shared_master, "cache", "verify")
    assert (done.returncode, done.stdout) == (1, b"2 files are intact, 1 damaged\n")
    assert json.loads(said(shared_master, "cache", "show", "--json"))["put_aside_as_wrong"] == 1
    assert "remove 2 files of" in under_a_terminal(shared_master, "cache", "empty", typed="n\n", status=1)
    assert len(cache.store.files()) == 2
    under_a_terminal(shared_master, "cache", "empty", typed="y\n")
    assert cache.store.files() == []
    assert cache.store.quarantined() == []
    assert shell(shared_master, "cache", "empty").returncode == 0
