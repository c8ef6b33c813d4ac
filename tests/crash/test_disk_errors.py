"""The disk fails under a write: refused or acknowledged, never between; and after a failed fsync, no more writes."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import pytest

from cdb_server.database.transactions import CircuitBreaker, Database
from cdb_server.errors import Unavailable
from cdb_server.model import Run
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests import servers
from tests.crash import strace
from tests.crash.invariants import whole
from tests.crash.processes import STATUS, peers
from tests.crash.strace import Injection
from tests.crash.traffic import Acknowledged, Content, Refused, Write, send, spelled, upload
from tests.fuzz import wire
from tests.servers import Master

SYNCS = "fsync,fdatasync"


def failing_here(calls: str, error: str, when: str, written: Path) -> AbstractContextManager[object]:
    """This thread's calls to the disk fail until the block ends."""
    return strace.attached([os.getpid()], written, Injection(calls, f"error={error}", when), threads=False)


def a_write(number: int) -> Write:
    return upload("TOF1", "t0", datetime(2016, 3, 1, number // 60 % 24, number % 60), b"%d " % number * 2000)


def repeatedly_failing(url: str, calls: str, error: str, when: str, folder: Path) -> int:
    """Upload while the n-th call fails, for all n until none is left to fail. The number of failures."""
    sent: set[Content] = set()
    acknowledged: list[Acknowledged] = []
    failures = 0

    def store(database: Database, write: Write) -> bool:
        sent.add(write.content)
        _, device, type_, _, comment, _, sha256 = write.content
        valid_from = datetime.fromisoformat(spelled(write.content[3]).replace("Z", "+00:00"))
        checked = Upload.validated(
            str(device), str(type_), valid_from, write.data, str(sha256), str(comment), max_payload=2**20
        )
        try:
            stored = Writer(database).add_calibration(checked, "alice")
        except Unavailable:
            return False
        created = stored.created.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        acknowledged.append(Acknowledged(write.content, stored.id, created))
        return True

    number, met = 0, True
    while met:
        number += 1
        written = folder / f"strace {number}"
        # Each with a fuse of its own, as after a restart.
        with Database.open(url) as database:
            assert store(database, a_write(2 * number))
            with failing_here(calls, error, when.format(number), written):
                done = store(database, a_write(2 * number + 1))
            met = strace.injected(written) > 0
            failures += met
            # Nothing was changed, and nothing is half done: reads go on, in this process and in others.
            assert Reader(database).status().serial == len(acknowledged) + _unacknowledged(url, acknowledged)
            assert done or met
    ledger, findings = whole(url, acknowledged, sent)
    assert not findings, findings
    assert len(ledger.entries) >= len(acknowledged)
    return failures


def _unacknowledged(url: str, acknowledged: list[Acknowledged]) -> int:
    """How many uploads are there whole that were refused: their commit failed after it was done."""
    ledger, findings = whole(url, acknowledged, {answer.content for answer in acknowledged})
    known = {answer.content for answer in acknowledged}
    others = [content for content, _ in ledger.entries.values() if content not in known]
    assert len(findings.other) == len(others), findings
    assert not findings.lost + findings.partial + findings.gaps, findings
    return len(others)


@pytest.fixture
def backend() -> str:
    """SQLite alone: the disk of PostgreSQL is PostgreSQL's."""
    return "sqlite"


@pytest.fixture
def fused(database_url: str) -> Iterator[tuple[Database, CircuitBreaker]]:
    """A new database, open, and the fuse that stops its writes."""
    Database.create(database_url)
    fuse = CircuitBreaker()
    with Database.open(database_url, circuit_breaker=fuse) as database:
        yield database, fuse


@pytest.mark.parametrize("when", ["{}", "{}+"], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(("call", "least"), [("pwrite64", 20), ("fdatasync", 4), ("fsync", 0), ("ftruncate", 1)])
def test_a_call_to_the_disk_fails(
    call: str, least: int, error: str, when: str, database_url: str, tmp_path: Path
) -> None:
    """Each of an upload's calls in turn: it is refused or acknowledged, nothing acknowledged is lost, reads go on."""
    Database.create(database_url)
    assert repeatedly_failing(database_url, call, error, when, tmp_path) >= least


def refusal(peer: wire.Peer, write: Write, master: Master) -> str:
    """What a worker says when it takes no write."""
    with pytest.raises(Refused) as refused:
        send(peer, write, (master.user, master.token))
    assert refused.value.name == "Unavailable"
    return str(refused.value)


@pytest.mark.parametrize("number", [1, 2, 3], ids=["journal", "its length", "after the commit"])
def test_after_a_failed_fsync_no_worker_writes_until_the_server_is_restarted(
    number: int, master: Master, tmp_path: Path
) -> None:
    """The kernel may have dropped what it could not write: every worker refuses, a new one too, and reads go on."""
    journal = Path(f"{master.database.removeprefix('sqlite:///')}-journal")
    with peers(master) as connections:
        (process, peer), (_, other) = connections.items()
        kept = send(peer, a_write(0), (master.user, master.token))
        failing = Injection(SYNCS, "error=EIO", str(number), journal)
        with strace.attached([process], tmp_path / "strace", failing):
            assert "the database cannot be reached" in refusal(peer, a_write(1), master)
        assert strace.injected(tmp_path / "strace") == 1
        for each in (peer, other):
            assert "restarted" in refusal(each, a_write(2), master)
            assert each.ask(STATUS).status == 200
        os.kill(process, signal.SIGKILL)
        while process in master.workers() or len(master.workers()) < 2:
            assert other.ask(STATUS).status == 200
    with peers(master) as connections:
        for each in connections.values():
            assert "restarted" in refusal(each, a_write(2), master)
    assert master.log.read_text().count("before that, see to the disk") == 1
    servers.kill(master.process)
    with servers.serving(master.database, tmp_path, master.token) as again, wire.Peer(again.url) as peer:
        answers = [send(peer, a_write(number), (again.user, again.token)) for number in range(3)]
        assert answers[0] == kept
    _, findings = whole(master.database, answers, {a_write(number).content for number in range(3)})
    assert not findings, findings


def test_a_full_disk_does_not_trip_the_circuit_breaker(fused: tuple[Database, CircuitBreaker], tmp_path: Path) -> None:
    """What did not fit was given back, and the kernel has dropped nothing: the next write is taken."""
    database, fuse = fused

    def add_run() -> Run:
        return Writer(database).add_run(1, datetime(2016, 3, 1).astimezone(), None, "alice")

    with (
        failing_here("pwrite64", "ENOSPC", "1", tmp_path / "strace"),
        pytest.raises(Unavailable, match="is full"),
    ):
        add_run()
    assert not fuse.is_tripped
    assert add_run().author == "alice"


def test_a_failing_rollback_trips_the_circuit_breaker(fused: tuple[Database, CircuitBreaker], tmp_path: Path) -> None:
    """A write that is given up for another reason may meet the failing disk only when it is taken back."""
    database, fuse = fused

    def give_up() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("PRAGMA cache_spill = 1")
            connection.exec_driver_sql("PRAGMA cache_size = 1")
            connection.exec_driver_sql(
                "INSERT INTO payload WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) "
                "SELECT i, randomblob(5000) FROM n"
            )
            raise KeyError("given up")

    with (
        failing_here(f"ftruncate,{SYNCS}", "EIO", "1+", tmp_path / "strace"),
        contextlib.suppress(KeyError, Unavailable),
    ):
        give_up()
    assert strace.injected(tmp_path / "strace")
    assert fuse.is_tripped
    with pytest.raises(Unavailable, match="restarted"), database.write():
        raise AssertionError("the disk has failed")


def test_a_new_database_has_its_name_on_disk_before_init_ends(tmp_path: Path) -> None:
    """Else a power cut could take a database with all that was acknowledged since: its folder is synced after link."""
    command = ["strace", "-f", "-y", "-o", str(tmp_path / "strace"), "-e", f"trace=link,linkat,unlink,{SYNCS}"]
    init = [sys.executable, "-m", "cdb_server", "init", "--database", f"sqlite:///{tmp_path}/cdb.sqlite"]
    subprocess.run([*command, *init], check=True, capture_output=True)
    lines = (tmp_path / "strace").read_text().splitlines()
    linked = next(at for at, line in enumerate(lines) if "link(" in line and f'"{tmp_path}/cdb.sqlite"' in line)
    synced = [at for at, line in enumerate(lines) if f"<{tmp_path}>) = 0" in line and "sync(" in line]
    content = [at for at, line in enumerate(lines) if "sync(" in line and f"<{tmp_path}/.cdb.sqlite" in line]
    assert min(content) < linked < max(synced)
