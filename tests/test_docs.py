"""What the documents say is so: commands run, settings exist, nothing that exists is left out."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import click
import pytest

import cdb.cli
import cdb_server.cli
from cdb_server import journal
from cdb_server.instants import UTC
from cdb_server.model import Entry, NewCalibration, RunTimes, Withdrawal
from demo import samples
from tests import servers
from tests.client.as_of import as_of_after
from tests.client.cdb_process import on_a_terminal
from tests.servers import Master

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
JOURNAL = (ROOT / "docs" / "journal.md").read_text()


def blocks(language: str, document: str = README) -> list[str]:
    """The code blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def commands(group: click.Group, *path: str) -> dict[str, click.Command]:
    """All commands of a program by their full names."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, *path, name)
        else:
            found[" ".join((*path, name))] = command
    return found


def settings(group: click.Group) -> set[str]:
    """The environment variables that a program reads."""
    return {
        str(option.envvar)
        for command in commands(group).values()
        for option in command.params
        if option.envvar is not None
    }


@pytest.fixture(scope="module")
def sample_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master that holds the samples, for so long that as_of can be asked."""
    folder = tmp_path_factory.mktemp("samples")
    samples.write(folder)
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as master:
        for command in ("add --from uploads.csv", "run add --from runs.csv"):
            arguments = [sys.executable, "-m", "cdb.cli", *command.split()]
            subprocess.run(arguments, cwd=folder, env=master.environment, capture_output=True, timeout=60)
        client = cdb.Calibration(master.url)
        (last,) = client.get_journal(client.get_status().serial - 1)
        as_of_after(client, last.created)
        yield master


@pytest.mark.parametrize("document", ["README.md", "docs/jobs.md"])
def test_the_commands_of_a_document_run(sample_master: Master, tmp_path: Path, document: str) -> None:
    """Every line of its console blocks, in order, against a server that holds the samples."""
    samples.write(tmp_path)
    # What the server's own commands find where they are run: they replace it, too.
    shutil.copy(sample_master.database.removeprefix("sqlite:///"), tmp_path / "cdb.sqlite")
    environment = {**sample_master.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    console = "".join(blocks("console", (ROOT / document).read_text())).splitlines()
    lines = [line[2:] for line in console if line.startswith("$ ")]
    assert len(lines) > 5
    # A mirror serves until it is told to end: tests/test_docs_deployment.py.
    lines = [line for line in lines if "http://localhost:8080" not in line]
    for line in lines:
        if line.startswith(("cdb-server mirror ", "cdb-server compare ")):
            # They need servers at the addresses that they name: below.
            continue
        done = run(line)
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize("document", ["README.md", "docs/jobs.md", "docs/migration.md"])
def test_the_python_of_a_document_runs(sample_master: Master, tmp_path: Path, document: str) -> None:
    """Every Python block, in one program."""
    program = "\n".join(blocks("python", (ROOT / document).read_text()))
    program = program.replace("http://localhost:8080", sample_master.url)
    environment = {**os.environ, "CDB_SERVER": sample_master.url}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_server_commands_of_the_readme_run(tmp_path: Path) -> None:
    """What makes and serves a database, line by line; at a free port."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CDB_BIND": "127.0.0.1:0",
    }
    lines = [line for line in "".join(blocks("sh")).splitlines() if line.startswith("cdb-server ")]
    assert [line.split()[1] for line in lines] == ["init", "token", "serve", "mirror", "compare"]

    def run(line: str) -> None:
        subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)

    @contextmanager
    def running(line: str) -> Iterator[str]:
        command = ["bash", "-c", f"exec {line}"]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
            server.terminate()

    run(lines[0])
    run(lines[1])
    with running(lines[2]) as master:
        assert cdb.Calibration(master).get_status().role == "master"
        mirroring = lines[3].replace("http://localhost:8080", master).replace("127.0.0.1:8081", "127.0.0.1:0")
        with running(mirroring) as mirror:
            assert cdb.Calibration(mirror).get_status().role == "mirror"
            run(lines[4].replace("http://localhost:8080", master).replace("http://localhost:8081", mirror))


def test_the_readme_begins_with_the_two_commands() -> None:
    """`make demo` and `make test` are its first lines."""
    assert [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()] == ["make demo", "make test"]
    assert README.index("make demo") < 60


@pytest.mark.parametrize(("program", "group"), [("cdb", cdb.cli.main), ("cdb-server", cdb_server.cli.main)])
def test_the_readme_names_every_command_and_none_that_is_not(program: str, group: click.Group) -> None:
    """Commands documented are commands that exist."""
    known = commands(group)
    code = "\n".join(re.findall(r"`[^`\n]+`", README) + blocks("sh") + blocks("console"))
    named = set(re.findall(rf"(?<![\w/-]){program} ((?:run |token |cache |lock )?[a-z]+)", code))
    assert {name for name in named if name not in known} == set()
    assert {name for name in known if name not in named} - {"token list", "token revoke"} == set()


def test_readme_changelog_and_help_keep_step() -> None:
    """The README has a row for each command of `cdb` with its line of `cdb --help`; the changelog names each; and what
    the help shows are commands that are."""
    known = commands(cdb.cli.main)
    rows = re.findall(r"^\| `cdb ([^`]+)` \| (.*) \|$", README, re.MULTILINE)
    assert {re.split(" [A-Z]", call)[0]: told for call, told in rows} == {
        name: command.short_help for name, command in known.items()
    }
    changes = {name.removeprefix("cdb ") for name in re.findall(r"`([a-z -]+)`", CHANGELOG)}
    assert {name for name in known if name not in changes and name.split()[0] not in changes} == set()
    shown = re.findall(r"^  cdb ((?:run )?[a-z]+) ", cdb.cli.main.get_help(click.Context(cdb.cli.main)), re.MULTILINE)
    assert len(shown) > 5
    assert set(shown) <= set(known)


def test_the_readme_names_every_setting_and_none_that_is_not() -> None:
    """Variables documented are variables that exist, and each is a flag whose help names it."""
    exist = settings(cdb.cli.main) | settings(cdb_server.cli.main)
    assert set(re.findall(r"\bCDB_[A-Z_]+\b", README)) == exist
    for group in (cdb.cli.main, cdb_server.cli.main):
        for name, command in commands(group).items():
            shown = command.get_help(click.Context(command, info_name=name))
            assert all(str(option.envvar) in shown for option in command.params if option.envvar is not None)


def test_the_worked_example_of_the_journal_is_what_a_shell_gives(tmp_path: Path) -> None:
    """Every command of docs/journal.md, in order, prints what stands below it, to the byte."""
    found = [
        (command, printed)
        for block in blocks("console", JOURNAL)
        for command, printed in re.findall(r"^\$ (.*?[^\\]\n)((?:[^$].*\n)*)", block, re.MULTILINE | re.DOTALL)
    ]
    assert len(found) == 8
    for command, printed in found:
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == printed, command


def test_the_worked_example_of_the_journal_is_what_the_server_gives() -> None:
    """The same three entries have the same bytes and the same digests there."""
    first, second = datetime(2016, 3, 2, 10, 11, 12, 345678, UTC), datetime(2016, 3, 2, 10, 11, 12, 345679, UTC)
    sha256 = hashlib.sha256(b"1 2 3\n").hexdigest()
    stored = NewCalibration("CKOV A", "t0", datetime(2016, 3, 1, 8, tzinfo=UTC), "Käfig 3, row 2", 6, sha256)
    registered = RunTimes(7662, datetime(2016, 2, 29, 20, 47, 0, 218291, UTC), None)
    withdrawn = Withdrawal(1, "wrong cable")
    entries = [
        Entry(1, first, "alice", stored),
        Entry(2, second, "daq", registered),
        Entry(3, datetime(2016, 3, 2, 11, tzinfo=UTC), "bob", withdrawn),
    ]
    digest = journal.GENESIS
    for entry in entries:
        netstrings = re.findall(r"'(\d+:[^']*,)'", JOURNAL.partition(f"printf '%s' {digest}")[2].partition(">")[0])
        assert "".join(netstrings).encode() == journal.canonical_form(entry)
        digest = journal.digest(digest, entry)
        assert f"\n{digest}  -\n" in JOURNAL


def test_the_journal_is_documented_with_the_fields_that_it_has() -> None:
    """The table of fields is that of the entries, in their order."""
    table = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", JOURNAL, re.MULTILINE))
    kinds = (NewCalibration, Withdrawal, RunTimes)
    assert table == {kind.kind: ", ".join(f"`{field.name}`" for field in fields(kind)) for kind in kinds}


def test_the_demo_runs_on_a_terminal_without_a_question(tmp_path: Path) -> None:
    """The first command of the README needs nobody who answers."""
    command = [sys.executable, "-m", "demo", str(tmp_path / "demo")]
    shown = on_a_terminal(command, dict(os.environ), typed="n\n")
    assert "17 accepted" in shown
    assert "How to go on" in shown
    assert "[y/N]" not in shown


def test_make_explains_itself() -> None:
    """`make` without a goal lists every target."""
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert all(f"make {target} " in shown for target in targets)
