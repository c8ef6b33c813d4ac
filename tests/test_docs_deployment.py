"""What docs/deployment.md says is so: nothing that it names is missing, its settings are taken, its lines run.

What it says of mirrors that parted, and of a lost master, is in tests/interop/test_rebuilding.py.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
import pytest

import cdb
import cdb.cli
import cdb_server.cli
from cdb_server.database.transactions import Database
from cdb_server.instants import UTC
from cdb_server.repository.writer import Upload, Writer
from tests import servers, standbys
from tests.servers import Master, Server
from tests.test_docs import ROOT, commands, settings

GUIDE = (ROOT / "docs" / "deployment.md").read_text()
FILES = ("cdb-mirror.service", "varnish.vcl", "squid.conf")
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def section(title: str) -> str:
    """A part of the guide."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def typed(text: str) -> list[str]:
    """What a person types as the service's user."""
    return re.findall(r"^\$ (.*)$", text, re.MULTILINE)


def run(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of the guide in a shell, with its folders below this one."""
    line = line.replace("/var/backups/cdb/", f"{folder}/")
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_guide_names_nothing_that_is_not() -> None:
    """Settings, commands, and files; each file beside the guide is named in it, and both guides lead to one another."""
    known = settings(cdb.cli.main) | settings(cdb_server.cli.main)
    for text in (GUIDE, *((ROOT / "docs" / name).read_text() for name in FILES)):
        assert set(re.findall(r"\bCDB_[A-Z_]+\b", text)) <= known
    shown = "\n".join([*re.findall(r"`[^`\n]+`", GUIDE), *typed(GUIDE)])
    groups: list[tuple[str, click.Group]] = [("cdb", cdb.cli.main), ("cdb-server", cdb_server.cli.main)]
    for program, group in groups:
        named = set(re.findall(rf"(?:^|[\s`/]){program} ((?:token )?[a-z]+)", shown))
        assert named
        assert named <= set(commands(group))
    links = re.findall(r"\]\(([^)#]+)", GUIDE)
    assert all((ROOT / "docs" / link).is_file() for link in links)
    assert set(FILES) <= set(links)
    assert "(deployment.md)" in (ROOT / "docs" / "operations.md").read_text()
    assert "(docs/deployment.md)" in (ROOT / "README.md").read_text()


def test_every_command_of_the_guide_is_run() -> None:
    """Those of PostgreSQL and Linux too: none is in a section that no test runs."""
    run_below = ("A mirror", "A hot standby", "Varnish or Squid in front", "A mirror follows no longer")
    lines = [line for title in (*run_below, "A master that lost its data") for line in typed(section(title))]
    assert sorted(lines) == sorted(typed(GUIDE))


def test_the_settings_of_the_guide_are_taken(tmp_path: Path) -> None:
    """By master and mirror: what is wrong with them here is only that their addresses are not of this machine."""
    for title, command in (("The master", "serve"), ("A mirror", "mirror --of $MASTER")):
        block = re.findall(r"^```\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)[0]
        done = run(f"set -a\n{block.replace('/var/lib/cdb', '/nowhere')}cdb-server {command}", tmp_path)
        assert done.returncode == 1, done.stderr
        assert re.search("there is no database|unable to open|/nowhere", done.stderr)


def wait_for(mirror: Server, serial: int) -> None:
    servers.until(lambda: cdb.Calibration(mirror.url).get_status().serial == serial, 30)


@pytest.fixture
def past_master(tmp_path: Path) -> Iterator[Master]:
    """A master whose calibration and run were stored in 2016."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    march, data = datetime(2016, 3, 1, tzinfo=UTC), b"1 2 3\n"
    Database.create(url)
    with Database.open(url) as database:
        writer = Writer(database, clock=lambda: march)
        upload = Upload.validated("TOF1", "t0", march, data, None, None, max_payload=100)
        writer.add_calibration(upload, author=servers.USER)
        writer.add_run(7662, march, None, author=servers.USER)
    with servers.serving(url, tmp_path, "", "--workers", "1") as running:
        yield running


def test_a_file_is_had_as_the_guide_says(past_master: Master, tmp_path: Path) -> None:
    """The line with curl, and that in the README."""
    [line] = typed(section("Varnish or Squid in front"))
    readme = re.findall(r"^\$ (curl .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(readme) == 1
    for shown in (line, *readme):
        done = run(shown.replace("http://127.0.0.1:8080", past_master.url), tmp_path, CDB_SERVER=past_master.url)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "t0.txt").read_bytes() == b"1 2 3\n"
        (tmp_path / "t0.txt").unlink()


def test_the_sql_of_a_standby_is_accepted(postgresql_cluster: str, new_database_url: Callable[[str], str]) -> None:
    """By the primary, of roles of other names; the lines for a shell are those by which the tests make standbys."""
    text = section("A hot standby")
    [block] = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    standbys.said(postgresql_cluster, "CREATE ROLE guided LOGIN")
    for statement in block.split(";\n")[:-1]:
        standbys.said(
            postgresql_cluster, statement.replace("replicator", "guided_replicator").replace("TO cdb", "TO guided")
        )
    assert [line.split()[0] for line in typed(text)] == ["pg_basebackup", "pg_ctl", "pg_ctl"]
    assert typed(text) == standbys.LINES
