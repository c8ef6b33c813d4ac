"""The server killed at named points of an upload: what was not acknowledged is there whole or not at all."""

import contextlib
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests import servers
from tests.crash import strace
from tests.crash.invariants import whole
from tests.crash.processes import peers
from tests.crash.strace import Injection
from tests.crash.traffic import Acknowledged, Write, send, upload
from tests.fuzz import wire
from tests.servers import Master

KEPT = upload("TOF1", "t0", datetime(2016, 3, 1), b"kept")
# Larger than a few pages: its journal and its database writes are many.
CUT_OFF = upload("TOF1", "t0", datetime(2016, 3, 2), b"cut off" * 3000)

# In the order in which they come. The names of SQLite's two files stand for their paths.
SQLITE_POINTS = {
    "opening of the journal": Injection("openat", "signal=KILL", "1", Path("-journal")),
    "first write of the journal": Injection("pwrite64", "signal=KILL", "1", Path("-journal")),
    "fsync of the journal": Injection("fdatasync,fsync", "signal=KILL", "1", Path("-journal")),
    "fsync of the folder": Injection("fdatasync,fsync", "signal=KILL", "1", Path()),
    "fsync of the journal's length": Injection("fdatasync,fsync", "signal=KILL", "2", Path("-journal")),
    "first write of the database": Injection("pwrite64", "signal=KILL", "1", Path("sqlite")),
    "third write of the database": Injection("pwrite64", "signal=KILL", "3", Path("sqlite")),
    "fsync of the database": Injection("fdatasync,fsync", "signal=KILL", "1", Path("sqlite")),
    "truncation of the journal": Injection("ftruncate", "signal=KILL", "1", Path("-journal")),
    "fsync after the commit": Injection("fdatasync,fsync", "signal=KILL", "3", Path("-journal")),
    "sending of the answer": Injection("write,writev,sendto,sendmsg", "signal=KILL", "1"),
    "middle of the answer": Injection("write,writev,sendto,sendmsg", "signal=KILL", "2"),
}
COMMITTED = ("fsync after the commit", "sending of the answer", "middle of the answer")


def write(master: Master, request: Write) -> Acknowledged:
    with wire.Peer(master.url) as peer:
        return send(peer, request, (master.user, master.token))


def check(url: str, kept: Acknowledged, *, committed: bool) -> None:
    """What was acknowledged is there, what was cut off is there whole or not at all, as the point says."""
    ledger, findings = whole(url, [kept], {KEPT.content, CUT_OFF.content})
    assert not findings, findings
    assert [content for content, _ in ledger.entries.values()] == [KEPT.content, CUT_OFF.content][: 1 + committed]


def check_repeated(url: str, folder: Path, token: str, kept: Acknowledged) -> None:
    """Sent again, as a client would, it is there exactly once."""
    with servers.serving(url, folder, token, "--workers", "1") as again:
        repeated = write(again, CUT_OFF)
        assert repeated.id == kept.id + 1
        servers.kill(again.process)
    ledger, findings = whole(url, [kept, repeated], {KEPT.content, CUT_OFF.content})
    assert not findings, findings
    assert len(ledger.entries) == 2


@pytest.mark.parametrize("point", SQLITE_POINTS)
def test_killed_at_a_point_of_an_upload_on_sqlite(point: str, tmp_path: Path) -> None:
    """Killed just before the named call: before the commit it is not there, from then on it is, acknowledged or not."""
    file = tmp_path / "cdb.sqlite"
    injection = SQLITE_POINTS[point]
    if injection.path is not None:
        paths = {"-journal": file.with_name("cdb.sqlite-journal"), "sqlite": file, ".": tmp_path}
        injection = Injection(injection.calls, injection.what, injection.when, paths[str(injection.path)])
    with servers.master(f"sqlite:///{file}", tmp_path) as master:
        kept = write(master, KEPT)
        with peers(master) as connections:
            process, peer = next(iter(connections.items()))
            # The first thread alone sends answers; others write to it and to the log.
            threads = "answer" not in point
            with strace.attached([process], tmp_path / "strace", injection, threads=threads) as watching:
                with pytest.raises(wire.Broken):
                    send(peer, CUT_OFF, (master.user, master.token))
                servers.kill(master.process)
                watching.wait(20)
        assert "killed by SIGKILL" in (tmp_path / "strace").read_text()
    check(master.database, kept, committed=point in COMMITTED)
    check_repeated(master.database, tmp_path, master.token, kept)


class Between:
    """Stands between the server and PostgreSQL, and ends the server at a statement: before it or after its effect."""

    def __init__(self, folder: Path, target: Path) -> None:
        self._target = target
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / target.name))
        self._listening.listen(100)
        self._statement = re.compile(b"(?!)")
        self._end: Callable[[], None] = lambda: None
        self._after = False
        self.met = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for(self, statement: str, end: Callable[[], None], *, after: bool) -> None:
        """Call `end` when a writing transaction sends a statement that matches."""
        self._statement, self._end, self._after = re.compile(statement.encode()), end, after

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                server, _ = self._listening.accept()
                threading.Thread(target=self._pass, args=(server,), daemon=True).start()

    def _pass(self, server: socket.socket) -> None:
        with server, socket.socket(socket.AF_UNIX) as postgresql:
            postgresql.connect(str(self._target))
            back = threading.Thread(target=self._pass_back, args=(postgresql, server), daemon=True)
            back.start()
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                # Closed alone, it would stay open for as long as the other thread reads from it.
                stack.callback(postgresql.shutdown, socket.SHUT_RDWR)
                writing = False
                while sent := server.recv(2**16):
                    # Reads are transactions of another kind: BEGIN and COMMIT are met in writing ones only.
                    writing |= b"READ COMMITTED" in sent
                    met = writing and self._statement.search(sent) and not self.met.is_set()
                    writing &= b"COMMIT\0" not in sent
                    if met and not self._after:
                        self.met.set()
                        self._end()
                        return
                    if met:
                        self.met.set()
                    postgresql.sendall(sent)

    def _pass_back(self, postgresql: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while answered := postgresql.recv(2**16):
                if self.met.is_set():
                    # PostgreSQL has done it, and the server never hears of that.
                    self._end()
                    return
                server.sendall(answered)


# A statement, and whether PostgreSQL does it before the server is killed.
POSTGRESQL_POINTS = {
    "before BEGIN": ("BEGIN", False),
    "after the lock": ("FOR UPDATE", True),
    "before the journal's INSERT": ("INSERT INTO journal", False),
    "after the last INSERT": ("INSERT INTO calibration", True),
    "before COMMIT": ("COMMIT\0", False),
    "after COMMIT": ("COMMIT\0", True),
}


@pytest.fixture
def between(postgresql_cluster: str) -> Iterator[tuple[Between, str]]:
    """Someone between, and what to put in place of the cluster's own folder in a URL."""
    folder = Path(re.findall(r"host=([^&]+)", postgresql_cluster)[0])
    with tempfile.TemporaryDirectory() as name:
        standing = Between(Path(name), folder / ".s.PGSQL.5432")
        yield standing, name
        standing.close()


@pytest.mark.parametrize("point", POSTGRESQL_POINTS)
def test_killed_at_a_statement_of_an_upload_on_postgresql(
    point: str,
    new_database_url: Callable[[str], str],
    between: tuple[Between, str],
    tmp_path: Path,
) -> None:
    """Killed before the named statement reaches PostgreSQL, or once it was done: only a COMMIT done counts."""
    url = new_database_url("postgresql")
    standing, folder = between
    statement, after = POSTGRESQL_POINTS[point]
    with servers.master(re.sub("host=[^&]+", f"host={folder}", url), tmp_path) as master:
        kept = write(master, KEPT)
        standing.wait_for(statement, lambda: servers.kill(master.process), after=after)
        with pytest.raises(wire.Broken):
            write(master, CUT_OFF)
        assert standing.met.is_set()
    check(url, kept, committed=point == "after COMMIT")
    check_repeated(url, tmp_path, master.token, kept)
