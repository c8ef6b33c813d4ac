"""Running the application: a listening socket, shared by worker processes that are restarted when they die."""

import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from cdb_server.http import tls, workers
from cdb_server.http.app import create_app, create_lists, create_pages
from cdb_server.http.background import BackgroundProcess, Work
from cdb_server.http.counts import Counts
from cdb_server.http.front import Front
from cdb_server.http.offload import Door, Doors
from cdb_server.http.tally import layout
from cdb_server.logs import LOGGING
from cdb_server.repository import Fuse
from cdb_server.settings import Settings

GRACE_SECONDS = 7
KEEP_ALIVE_SECONDS = 30
# On a busy machine a worker takes longer to start than uvicorn's own five seconds, after which it would be killed.
HEALTH_SECONDS = 30
BACKLOG = 2048


def listen(settings: Settings) -> tuple[socket.socket, Settings]:
    """A socket at the configured address, and the settings with the port that it really has (for port 0).

    Raises OSError when the address cannot be had, TlsRefused when the files of TLS cannot be used.
    """
    if settings.tls is not None:
        tls.check(settings.tls)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((settings.host, settings.port))
    listening.listen(BACKLOG)
    listening.set_inheritable(True)
    port = listening.getsockname()[1]
    public = urlsplit(settings.public_url)
    if public.port == 0:
        settings = replace(settings, public_url=public._replace(netloc=f"{public.hostname}:{port}").geturl())
    return listening, replace(settings, port=port)


def serve(listening: socket.socket, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first."""
    # Each connection is an open file, and so is each long answer that is kept ready.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Some systems name a limit that they do not let have.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Room for those that come while others go, and for workers that uvicorn adds when it is told to.
    counts = Counts(layout(), rows=2 * settings.workers + 64)
    fuse, doors = Fuse(), Doors(Door(), Door())
    config = tls.Configuration(
        settings,
        app=partial(create_app, settings, fuse, counts, doors),
        factory=True,
        # Called as a class is.
        http=partial(Front, settings),
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=LOGGING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_worker_healthcheck=HEALTH_SECONDS,
    )
    workers.begin_as_copies()
    with Supervisor(config, listening, _background(settings, listening, doors, fuse)) as parent:
        parent.run()
    # uvicorn stops when one cannot start, and makes no difference between that and being told to.
    if any(worker.exitcode == STARTUP_FAILURE for worker in parent.processes):
        sys.exit(1)


class Supervisor(Multiprocess):
    """The parent of the workers, and of the background processes."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, background: list[BackgroundProcess]) -> None:
        super().__init__(config, sockets=[listening])
        self._background = background

    def __enter__(self) -> "Supervisor":
        for process in self._background:
            process.keep_alive()
        return self

    def __exit__(self, *_: object) -> None:
        # Once the workers have ended, which may still have had work for them.
        for process in self._background:
            process.stop()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        for process in self._background:
            process.keep_alive()


def _background(settings: Settings, listening: socket.socket, doors: Doors, fuse: Fuse) -> list[BackgroundProcess]:
    """One process of each kind for two workers."""

    def lists() -> tuple[Work, Callable[[], None]]:
        listening.close()
        return create_lists(settings)

    def pages() -> tuple[Work, Callable[[], None]]:
        listening.close()
        return create_pages(settings, fuse)

    return [
        BackgroundProcess(name, door, make, LOGGING)
        for name, door, make in (("lists", doors.lists, lists), ("pages", doors.pages, pages))
        for _ in range(max(1, settings.workers // 2))
    ]
