"""Real mirrors for tests: `cdb-server mirror` in processes of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cdb
from tests import servers
from tests.servers import Server


@dataclass(frozen=True)
class Mirror(Server):
    """A running mirror."""

    @property
    def client(self) -> cdb.Calibration:
        """A client of it alone."""
        return cdb.Calibration(self.url, direct=True)

    def status(self) -> cdb.Status:
        """What it says of itself."""
        return self.client.get_status()

    def follower(self) -> int:
        """The process that follows: begun by another thread than the first, which keeps it running."""
        tasks = Path(f"/proc/{self.process.pid}/task")

        def found() -> int:
            others = [task for task in tasks.iterdir() if task.name != str(self.process.pid)]
            return max((number for task in others for number in servers.spawned(task)), default=0)

        return servers.until(found)


@contextmanager
def mirror(
    of: str, database_url: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Mirror]:
    """Follow and serve until the block ends. `options` are flags of `cdb-server mirror`."""
    follow = servers.command("mirror", database_url, "--of", of, *options)
    with servers.running(follow, database_url, folder / "mirror.log", environment) as started:
        yield Mirror(**vars(started))
