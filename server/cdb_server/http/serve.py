"""Runs the server: listening socket, TLS, worker processes by fork, supervision of background processes.

Forked workers share memory: they take less than half of it, and one that died is replaced at once.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvicorn
import uvicorn._subprocess
import uvloop
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess, multiprocess

from cdb_server.database.transactions import CircuitBreaker
from cdb_server.errors import TlsUnusable
from cdb_server.http.app import create_app, create_list_process
from cdb_server.http.background import BackgroundProcess, JobHandler, JobQueue, JobQueues
from cdb_server.http.metrics import SharedCounters, counter_layout
from cdb_server.http.protocol.fast_path import FastPath
from cdb_server.http.routes.pages import create_page_process
from cdb_server.logs import LOGGING
from cdb_server.settings import Settings, Tls

log = logging.getLogger(__name__)


def check_tls_files(tls: Tls) -> None:
    """Read what the settings name, as each worker will. Raises TlsUnusable with a sentence for the operator."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for variable, name in (("CDB_TLS_CERT", tls.cert), ("CDB_TLS_KEY", tls.key), ("CDB_TLS_CLIENT_CA", tls.client_ca)):
        if name is None:
            continue
        try:
            with open(name, "rb") as file:
                file.read(1)
        except OSError as error:
            raise TlsUnusable(f"{variable} {name} cannot be read: {error.strerror}") from error
    try:
        # Without this, a worker would ask the terminal for the password of an encrypted key.
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except ssl.SSLError as error:
        raise TlsUnusable(
            f"CDB_TLS_CERT {tls.cert} and CDB_TLS_KEY {tls.key} are not a certificate and its key in PEM"
            f"{f' ({error.reason})' if error.reason else ''}"
        ) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise TlsUnusable(f"CDB_TLS_CLIENT_CA {tls.client_ca} holds no certificate in PEM") from error


class ServerConfig(uvicorn.Config):
    """uvicorn's, with TLS 1.2 at least, and with deadlines on what TLS does before and after HTTP."""

    def __init__(self, settings: Settings, **of_uvicorn: Any) -> None:
        tls = settings.tls
        if tls is not None:
            of_uvicorn |= {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key, "ssl_ca_certs": tls.client_ca}
            if tls.client_ca is not None:
                of_uvicorn["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        super().__init__(**of_uvicorn)
        self._settings = settings

    def load(self) -> None:
        """What each worker begins with: it reads the files anew."""
        if self._settings.tls is not None:
            try:
                check_tls_files(self._settings.tls)
            except TlsUnusable as error:
                log.error("a worker cannot start: %s", error)
                sys.exit(STARTUP_FAILURE)
        super().load()
        if self.ssl is not None:
            self.ssl.minimum_version = ssl.TLSVersion.TLSv1_2

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """A loop whose connections have the service's deadlines."""
        return partial(_Loop, self._settings)


class _Loop(uvloop.Loop):
    """uvicorn has no settings for these: by default, a handshake may take a minute, and a farewell half of one."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    # uvloop's own has many more parameters, by name; whatever they are, all are passed on.
    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.AbstractServer:  # type: ignore[override]
        if kwargs.get("ssl") is not None:
            kwargs["ssl_handshake_timeout"] = self._settings.header_seconds
            kwargs["ssl_shutdown_timeout"] = self._settings.stall_seconds
        return await super().create_server(*args, **kwargs)


def _no_password() -> str:
    raise TlsUnusable("the key in CDB_TLS_KEY is encrypted: give one without a password, readable to the server alone")


class _Worker(multiprocess.Process):
    def start(self) -> None:
        super().start()
        # The worker has this end: while its parent kept it too, the end of a worker that is asked for a sign of life
        # would not be seen, and waited for until it is due.
        self.child_conn.close()


def fork_workers() -> None:
    """From now on, in this process. To be called before it has connected to anything; its threads are not copied."""
    uvicorn._subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]  # of another kind
    multiprocess.Process = _Worker  # type: ignore[misc]  # what uvicorn makes workers of
    # A signal that comes to a worker before it has its own handlers would be kept for the parent, and be lost.
    os.register_at_fork(after_in_child=_reset_signals)
    # A collection writes to all that it looks at, and what is written to is no longer shared.
    gc.collect()
    gc.freeze()


def _reset_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


SHUTDOWN_GRACE_SECONDS = 7

KEEP_ALIVE_SECONDS = 30

# On a busy machine a worker takes longer to start than uvicorn's own five seconds, after which it would be killed.
WORKER_START_SECONDS = 30

MAX_BACKLOG_CONNECTIONS = 2048


def listen(settings: Settings) -> tuple[socket.socket, Settings]:
    """A socket at the configured address, and the settings with the port that it really has (for port 0).

    Raises OSError when the address cannot be had, TlsUnusable when the files of TLS cannot be used.
    """
    if settings.tls is not None:
        check_tls_files(settings.tls)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((settings.host, settings.port))
    listening.listen(MAX_BACKLOG_CONNECTIONS)
    listening.set_inheritable(True)
    port = listening.getsockname()[1]
    public = urlsplit(settings.public_url)
    if public.port == 0:
        settings = replace(settings, public_url=public._replace(netloc=f"{public.hostname}:{port}").geturl())
    return listening, replace(settings, port=port)


def serve(listening: socket.socket, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first."""
    # Each connection is an open file, and so is each long answer that is kept ready.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Some systems name a limit that they do not let have.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    # Room for those that come while others go, and for workers that uvicorn adds when it is told to.
    counters = SharedCounters(counter_layout(), rows=2 * settings.workers + 64)
    circuit_breaker, queues = CircuitBreaker(), JobQueues(JobQueue(), JobQueue())
    config = ServerConfig(
        settings,
        app=partial(create_app, settings, circuit_breaker, counters, queues),
        factory=True,
        # Called as a class is.
        http=partial(FastPath, settings),
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=LOGGING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_SECONDS,
        timeout_worker_healthcheck=WORKER_START_SECONDS,
    )
    fork_workers()
    with Supervisor(config, listening, _background_processes(settings, listening, queues, circuit_breaker)) as parent:
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
            process.ensure_running()
        return self

    def __exit__(self, *_: object) -> None:
        # Once the workers have ended, which may still have had work for them.
        for process in self._background:
            process.stop()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        for process in self._background:
            process.ensure_running()


def _background_processes(
    settings: Settings, listening: socket.socket, queues: JobQueues, circuit_breaker: CircuitBreaker
) -> list[BackgroundProcess]:
    """One process of each kind for two workers."""

    def lists() -> tuple[JobHandler, Callable[[], None]]:
        listening.close()
        return create_list_process(settings)

    def pages() -> tuple[JobHandler, Callable[[], None]]:
        listening.close()
        return create_page_process(settings, circuit_breaker)

    return [
        BackgroundProcess(name, queue, make, LOGGING)
        for name, queue, make in (("lists", queues.lists, lists), ("pages", queues.pages, pages))
        for _ in range(max(1, settings.workers // 2))
    ]
