"""`cdb-server`, in its own process."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import cdb.cli
from cdb_server.cli.options import CLIENT_SETTINGS
from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from tests.servers import Master
from tests.test_docs import settings


def cdb_server(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdb_server", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_init_makes_a_database_and_leaves_one_that_exists_untouched(database_url: str, tmp_path: Path) -> None:
    """`cdb-server init`: "an existing database: exit 1, untouched"."""
    assert cdb_server("init", CDB_DATABASE=database_url).returncode == 0
    assert cdb_server("token", "add", "alice", CDB_DATABASE=database_url).returncode == 0
    again = cdb_server("init", CDB_DATABASE=database_url)
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    with Database.open(database_url) as database:
        assert [token.name for token in Tokens(database).list()] == ["alice"]


def test_a_token_is_alone_on_stdout_and_told_once(database_url: str) -> None:
    """`token add NAME` prints the token, `list` does not, `revoke` ends it."""
    cdb_server("init", CDB_DATABASE=database_url)
    added = cdb_server("token", "add", "alice", CDB_DATABASE=database_url)
    token = added.stdout.strip()
    assert (added.returncode, len(token), added.stderr) == (0, 43, "")
    assert cdb_server("token", "add", "alice", CDB_DATABASE=database_url).returncode == 1
    listed = cdb_server("token", "list", CDB_DATABASE=database_url).stdout
    assert listed.startswith("alice\t")
    assert token not in listed
    assert cdb_server("token", "revoke", "alice", CDB_DATABASE=database_url).returncode == 0
    assert cdb_server("token", "revoke", "alice", CDB_DATABASE=database_url).returncode == 1


@pytest.mark.parametrize("name", ["", "a:b", "ä", "x" * 65, " a"])
def test_what_is_no_name_gets_no_token(name: str, tmp_path: Path) -> None:
    """Exit status 1, and nothing on stdout that a script could take for a token."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    refused = cdb_server("token", "add", name, CDB_DATABASE=url)
    assert (refused.returncode, refused.stdout) == (1, "")


def test_tokens_are_listed_the_valid_ones_first(tmp_path: Path) -> None:
    """As lines with tabs, and as JSON for a program; nobody's is no line, and an empty list."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    assert cdb_server("token", "list", CDB_DATABASE=url).stdout == ""
    assert json.loads(cdb_server("token", "list", "--json", CDB_DATABASE=url).stdout) == []
    with Database.open(url) as database:
        tokens = Tokens(database)
        tokens.add("alice")
        tokens.add("bob")
        tokens.revoke("alice")
        tokens.add("alice")
        tokens.add("carol")
        tokens.revoke("carol")
    listed = json.loads(cdb_server("token", "list", "--json", CDB_DATABASE=url).stdout)
    assert [(token["user"], token["revoked"] is None) for token in listed] == [
        ("bob", True),
        ("alice", True),
        ("alice", False),
        ("carol", False),
    ]
    lines = cdb_server("token", "list", CDB_DATABASE=url).stdout.splitlines()
    assert lines == ["\t".join((token["user"], token["since"], token["revoked"] or "")) for token in listed]


def test_tokens_are_shown_whole_on_a_terminal(tmp_path: Path) -> None:
    """A table in which no time is cut off, at the usual 80 columns."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    with Database.open(url) as database:
        Tokens(database).add("alice.of.the.tracker@example.org")
        Tokens(database).revoke("alice.of.the.tracker@example.org")
        (known,) = Tokens(database).list()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cdb_server", "token", "list", "--database", url]
    subprocess.run(command, stdout=theirs, check=True, timeout=30, env={**os.environ, "COLUMNS": "80"})
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    os.close(theirs)
    for text in (known.name, f"{known.created:%Y-%m-%d %H:%M:%S}", f"{known.revoked:%Y-%m-%d %H:%M:%S}"):
        assert text in shown


def test_serve_makes_no_database_where_there_is_none(tmp_path: Path) -> None:
    """A wrong path is an error that names `init`, not an empty master."""
    refused = cdb_server("serve", "--database", f"sqlite:///{tmp_path}/missing.sqlite")
    assert refused.returncode == 1
    assert "cdb-server init" in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bind", "0.0.0.0:0"], "CDB_PUBLIC_URL"),
        (["--bind", "nonsense"], "not an address like"),
        (["--bind", "127.0.0.1:99999"], "not an address like"),
        (["--write-networks", "10.0.0.0/99"], "10.0.0.0/99"),
        (["--trusted-proxies", "10.0.0.1/8"], "10.0.0.1/8"),
        (["--trusted-proxies", "*"], "--trusted-proxies"),
        (["--public-url", "cdb.example.org"], "not a base address like"),
        (["--public-url", 'http://x/"&'], "not a base address like"),
        (["--public-url", "http://ü.example"], "not a base address like"),
        (["--workers", "0"], "workers"),
        (["--max-payload", "0"], "max-payload"),
    ],
)
def test_wrong_settings_are_wrong_usage(arguments: list[str], said: str) -> None:
    """Exit status 2, and the text names the setting."""
    refused = cdb_server("serve", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "postgresql://nobody@127.0.0.1:1/none"])
def test_a_database_that_cannot_be_used_is_said_in_one_line(url: str) -> None:
    """No traceback, and no password."""
    refused = cdb_server("serve", "--database", url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("cdb-server: ")
    assert "Traceback" not in refused.stderr


def test_an_address_in_use_is_said_in_one_line(shared_master: Master, tmp_path: Path) -> None:
    """The second server at one address does not start."""
    address = shared_master.url.removeprefix("http://")
    refused = cdb_server("serve", "--database", shared_master.database, "--bind", address)
    assert refused.returncode == 1
    assert refused.stderr == f"cdb-server: cannot listen at {address}: Address already in use\n"


def test_a_variable_that_is_no_setting_is_named(tmp_path: Path) -> None:
    """With the setting that is meant, if one is near; the client's settings are none of these."""
    named = {"CDB_WORKRES": "4", "CDB_NOTHING": "x", "CDB_AS_OF": "now", "CDB_CLIENT_CERT": "x", "_CDB_COMPLETE": ""}
    done = cdb_server("init", CDB_DATABASE=f"sqlite:///{tmp_path}/cdb.sqlite", **named)
    assert done.returncode == 0
    assert done.stderr.splitlines()[:-1] == [
        "cdb-server: no setting is called CDB_NOTHING, which is left out",
        "cdb-server: no setting is called CDB_WORKRES, which is left out: is CDB_WORKERS meant?",
    ]


def test_the_clients_settings_are_known_to_the_server() -> None:
    """Those that it reads, no more and no less."""
    assert settings(cdb.cli.main) == CLIENT_SETTINGS


@pytest.mark.parametrize("missing", ["sqlalchemy", "uvicorn", "spyne"])
def test_without_its_libraries_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    """Exit status 1 and one line, as where only the client was installed."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    Database.create(url)
    program = f"import sys; sys.modules[{missing!r}] = None; from cdb_server.__main__ import main; main()"
    arguments = ["serve", "--database", url, "--bind", "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"cdb-server: {missing}")
    assert line.endswith("is not installed: pip install 'mice-cdb[server]' brings what the server needs")


def test_without_the_driver_of_postgresql_it_says_what_to_install() -> None:
    """One line that names the extra."""
    program = "import sys; sys.modules['psycopg'] = None; from cdb_server.__main__ import main; main()"
    arguments = ["token", "list", "--database", "postgresql://cdb@/cdb"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "cdb-server: PostgreSQL's driver is not installed: pip install 'mice-cdb[server,postgresql]' brings it\n"
    )
