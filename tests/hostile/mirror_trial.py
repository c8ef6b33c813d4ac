"""A trial: a true master, a false one before it, and the following process of a mirror, that is lied to."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdb_server import instants
from cdb_server.database.transactions import Database
from cdb_server.model import COMPLETENESS_DELAY
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests import random_histories, servers
from tests.hostile import false_answers
from tests.hostile.false_answers import Lie, Truth
from tests.hostile.false_master import FalseMaster, false_master
from tests.servers import until

MOST_KB = 300_000


class Trial:
    """A true master, a false one before it, and what follows that."""

    def __init__(
        self, truth: Database, copy: Database, false: FalseMaster, process: "subprocess.Popen[bytes]", log: Path
    ):
        self.false = false
        self._copy, self._process, self._log = copy, process, log
        self.true, self.mirror = Reader(truth), Reader(copy)
        self._writer = Writer(truth)
        self._numbers = itertools.count(1)

    def write(self) -> Truth:
        """Accept two entries, and say how the true journal stands."""
        number = next(self._numbers)
        self._writer.add_run(number, false_answers.START, None, "daq")
        self.store(f"payload {number}".encode())
        status = self.true.status()
        promised = self.mirror.status().complete_until
        entry = self.true.journal(status.serial - 1, 1)[0][0]
        return Truth(status.serial, status.digest, entry.created, promised, status.serial - 1, 1)

    def store(self, data: bytes) -> None:
        """Accept a calibration."""
        upload = Upload.validated("TOF1", "t0", false_answers.START, data, None, None, max_payload=2**25)
        self._writer.add_calibration(upload, "alice")

    def lied_to(self, lie: Lie) -> None:
        """Tell a lie until it is told of, and the truth again until all of it is there."""
        with self.false.quiet:
            log = self._log.stat().st_size
            heard = self.mirror.status()
            self.false.tell = lie.make(self.write())
        if lie.harmless:
            until(lambda: self.mirror.status().serial == self.true.status().serial)
            assert self.mirror.status().complete_until <= instants.now() - COMPLETENESS_DELAY
        else:
            until(lambda: any(level in self._log.read_bytes()[log:] for level in (b" WARNING ", b" ERROR ")), 15)
        said = self.mirror.status()
        assert said.complete_until >= heard.complete_until
        assert self.mirror.journal(0, 1_000) == self.true.journal(0, 1_000)[: said.serial], lie.name
        assert self.peak() < MOST_KB, lie.name
        with self.false.quiet:
            self.false.tell = None
        self.goes_on()
        assert self._process.poll() is None
        assert b"Traceback" not in self._log.read_bytes()[log:], self._log.read_text()[log:]

    def goes_on(self, patience: float = servers.PATIENCE) -> None:
        """Wait until the mirror has, and knows that it has, all that is true by now; resume it where it stopped."""
        since = instants.now() - COMPLETENESS_DELAY

        def is_there() -> bool:
            status = self.mirror.status()
            if status.status.startswith("stopped"):
                self.resume()
            # What it says to be complete it was told since.
            return status.complete_until >= since and (status.serial, status.digest, status.status) == (
                *self.head(),
                "OK",
            )

        until(is_there, patience)

    def head(self) -> tuple[int, str]:
        status = self.true.status()
        return status.serial, status.digest

    def resume(self) -> None:
        """What an operator does once he has looked into it."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        until(lambda: not self.mirror.status().status.startswith("stopped"))

    def peak(self) -> int:
        """The most memory, in kB, that the following process has had."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@contextmanager
def trial(folder: Path, answer_seconds: float = 2.0) -> Iterator[Trial]:
    """A trial until the block ends, in which an answer may take so many seconds."""
    of, url = f"sqlite:///{folder}/true.sqlite", f"sqlite:///{folder}/mirror.sqlite"
    for made in (of, url):
        Database.create(made)
    with Database.open(of) as accepting:
        data = Upload.validated("TOF1", "t0", random_histories.START, b"first", None, None, max_payload=100)
        first = Writer(accepting).add_calibration(data, "alice")
        Writer(accepting).withdraw_calibration(first.id, "wrong", "alice")
    with Database.open(url) as database:
        MirrorWriter(database).start_following("http://master")
    log = folder / "following.log"
    with (
        servers.serving(of, folder, "") as master,
        false_master(master.url) as false,
        Database.open(of) as truth,
        Database.open(url, read_only=True) as copy,
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.follower_process", url, false.url, str(answer_seconds)],
            stdin=subprocess.PIPE,
            stderr=out,
            cwd=Path(__file__).parents[2],
            env=dict(os.environ),
        ) as process,
    ):
        assert process.stdin is not None
        found = Trial(truth, copy, false, process, log)
        until(lambda: found.mirror.status().serial == 2)
        yield found
        false.ended.set()
        process.stdin.close()
        assert process.wait(20) == 0
