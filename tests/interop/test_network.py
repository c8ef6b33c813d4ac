"""Master, mirror and clients in networks of their own, with real links between them: who reaches whom, and what of it
remains when a link is down.

The master stands inside, the mirror between, the clients outside: they have a link to the mirror's machine alone. It
passes nothing on, unless told to.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from tests import servers
from tests.servers import Server

PROGRAMS = Path(sys.executable).parent
MASTER, MIRROR, OUTSIDE = "10.71.1.1", "10.71.1.2", "10.71.2.2"
MASTER_URL, MIRROR_URL = f"http://{MASTER}:8080", "http://10.71.2.1:8080"


@dataclass(frozen=True)
class Network:
    """Three network namespaces, by their role."""

    name: str

    def within(self, role: str) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", f"{self.name}-{role}")

    def run(self, role: str, *command: str) -> str:
        """What a command there prints."""
        return subprocess.run([*self.within(role), *command], check=True, capture_output=True, text=True).stdout

    def cdb(self, role: str, server: str, *arguments: str, **token: str) -> subprocess.CompletedProcess[str]:
        """`cdb` there."""
        return subprocess.run(
            [*self.within(role), f"{PROGRAMS}/cdb", *arguments],
            env={**os.environ, "CDB_SERVER": server, **token},
            capture_output=True,
            text=True,
            timeout=60,
        )


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@contextmanager
def network() -> Iterator[Network]:
    """The namespaces, with links from the master to the mirror and from there to the outside."""
    made = Network(f"cdb{os.getpid()}")
    with ExitStack() as end:
        for role in ("master", "mirror", "outside"):
            ip("netns", "add", f"{made.name}-{role}")
            end.callback(ip, "netns", "delete", f"{made.name}-{role}")
            made.run(role, "ip", "link", "set", "lo", "up")
        links = [("master", "inner", MASTER, "mirror", "inner", MIRROR)]
        links += [("mirror", "outer", "10.71.2.1", "outside", "outer", OUTSIDE)]
        for one, name, address, other, other_name, other_address in links:
            far = ("peer", "name", other_name, "netns", f"{made.name}-{other}")
            ip("link", "add", name, "netns", f"{made.name}-{one}", "type", "veth", *far)
            for role, device, at in ((one, name, address), (other, other_name, other_address)):
                made.run(role, "ip", "address", "add", f"{at}/24", "dev", device)
                made.run(role, "ip", "link", "set", device, "up")
        yield made


@dataclass(frozen=True)
class Site:
    """A master and its mirror, each in its network."""

    network: Network
    master: Server
    mirror: Server
    # Of one who may write.
    token: dict[str, str]

    def add(self, role: str, server: str, file: Path) -> subprocess.CompletedProcess[str]:
        """`cdb add` by one who may write, from somewhere."""
        arguments = ("add", "TOF1", "t0", str(file), "--valid-from", "2016-03-01", "--yes")
        return self.network.cdb(role, server, *arguments, **self.token)

    def get(self, role: str, server: str) -> str | None:
        """`cdb get` from somewhere; None when there is nothing yet."""
        done = self.network.cdb(role, server, "get", "TOF1", "t0")
        assert done.returncode in (0, 1), done.stderr
        return done.stdout if done.returncode == 0 else None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Served as docs/deployment.md says: the master takes writes from the inside alone."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    with Database.open(url) as database:
        token = Tokens(database).add(servers.USER)
    program = f"{PROGRAMS}/cdb-server"
    bound = ("--bind", "0.0.0.0:8080", "--workers", "1")
    with network() as made:
        serve = (program, "serve", "--database", url, *bound, "--public-url", MASTER_URL)
        follow = (program, "mirror", "--of", MASTER_URL, *bound, "--public-url", MIRROR_URL)
        copy = f"sqlite:///{tmp_path}/mirror.sqlite"
        inside = ("--write-networks", f"{MASTER}/32")
        with (
            servers.running((*made.within("master"), *serve, *inside), url, tmp_path / "server.log") as master,
            servers.running(
                (*made.within("mirror"), *follow, "--database", copy), copy, tmp_path / "mirror.log"
            ) as mirror,
        ):
            yield Site(made, master, mirror, {"CDB_USER": servers.USER, "CDB_TOKEN": token})


def test_the_outside_reads_from_the_mirror_and_cannot_write(site: Site, tmp_path: Path) -> None:
    """What is written inside is read outside. Who writes outside is told where, and does not get there: there is no
    way; and where there is one, the master refuses."""
    (tmp_path / "t0.txt").write_text("1\n")
    assert site.add("master", MASTER_URL, tmp_path / "t0.txt").returncode == 0
    servers.until(lambda: site.get("outside", MIRROR_URL) == "1\n", 30)

    refused = site.add("outside", MIRROR_URL, tmp_path / "t0.txt")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"this is a mirror, and takes no writes: write to {MASTER_URL}" in refused.stderr

    away = site.add("outside", MASTER_URL, tmp_path / "t0.txt")
    assert away.returncode == 3
    assert "no connection" in away.stderr

    # Somebody makes a way, by mistake.
    site.network.run("mirror", "sysctl", "-w", "net.ipv4.ip_forward=1")
    site.network.run("outside", "ip", "route", "add", "default", "via", "10.71.2.1")
    site.network.run("master", "ip", "route", "add", "default", "via", MIRROR)
    assert site.get("outside", MASTER_URL) == "1\n"
    judged = site.add("outside", MASTER_URL, tmp_path / "t0.txt")
    assert (judged.returncode, "HTTP 403" in judged.stderr) == (1, True)
    assert (
        f"refused to write: {OUTSIDE} is outside the allowed networks, as user 'alice'" in site.master.log.read_text()
    )
    # The mirror's machine may read from the master, and is not inside either.
    assert site.get("mirror", MASTER_URL) == "1\n"
    assert "HTTP 403" in site.add("mirror", MASTER_URL, tmp_path / "t0.txt").stderr


@pytest.mark.parametrize("device", ["master", "mirror"])
def test_a_mirror_goes_on_while_its_link_is_down_and_catches_up(device: str, site: Site, tmp_path: Path) -> None:
    """Whichever end fails: the outside reads what the mirror has, and sees how old it is; nobody does anything about it
    when the link is back."""
    file = tmp_path / "t0.txt"
    file.write_text("1\n")
    assert site.add("master", MASTER_URL, file).returncode == 0
    servers.until(lambda: site.get("outside", MIRROR_URL) == "1\n", 30)

    site.network.run(device, "ip", "link", "set", "inner", "down")
    file.write_text("2\n")
    # On its own machine the master is reached by its name for this machine.
    if device == "master":
        site.network.run("master", "ip", "address", "add", f"{MASTER}/32", "dev", "lo")
    assert site.add("master", MASTER_URL, file).returncode == 0
    servers.until(lambda: f"following {MASTER_URL} failed" in site.mirror.log.read_text(), 90)
    assert site.get("outside", MIRROR_URL) == "1\n"
    shown = site.network.cdb("outside", MIRROR_URL, "status", "--json").stdout
    assert '"role": "mirror"' in shown
    assert '"lag_seconds": 0,' not in shown
    as_of = site.network.cdb("outside", MIRROR_URL, "get", "TOF1", "t0", "--as-of", "now")
    assert as_of.stdout in ("1\n", "")

    if device == "master":
        site.network.run("master", "ip", "address", "delete", f"{MASTER}/32", "dev", "lo")
    site.network.run(device, "ip", "link", "set", "inner", "up")
    servers.until(lambda: site.get("outside", MIRROR_URL) == "2\n", 120)
    servers.until(lambda: f"{MASTER_URL} answers again" in site.mirror.log.read_text(), 10)
