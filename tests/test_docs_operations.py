"""What the guide for operators says is so: its commands, settings and SQL exist and run, and no log line is missing."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import cdb.cli
import cdb_server.cli
from cdb_server import maintenance
from cdb_server.database.transactions import Database
from cdb_server.errors import DatabaseUnusable
from cdb_server.repository.tokens import Tokens
from tests import standbys
from tests.test_docs import ROOT, commands, settings
from tests.test_layers import SERVER, modules

GUIDE = (ROOT / "docs" / "operations.md").read_text()
# The mirror's unit belongs to docs/deployment.md.
OURS = (ROOT / "docs" / name for name in ("cdb-server.service", "cdb-backup.service", "cdb-backup.timer", "nginx.conf"))
FILES = sorted(OURS)
LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


def blocks(language: str) -> list[str]:
    """The code blocks of a language, or of none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


def lines_of_the_code() -> dict[str, str]:
    """The patterns of the lines that the server logs, and where; whatever is not a text is a pattern of its own."""
    found = {}
    for path in modules(SERVER):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in [f"log.{level}" for level in LEVELS]:
                text = ast.literal_eval(node.args[0])
                pattern = re.sub(r"%[a-z]", "[A-Z]+", re.escape(text).replace(r"\%", "%"))
                found[pattern] = f"{path.name}:{node.lineno}"
    return found


def lines_of_the_guide() -> list[str]:
    """The first column of its first table."""
    return re.findall(
        r"^\| `([^`]+)` \|", GUIDE.partition("## What the log says")[2].partition("uvicorn, which")[0], re.M
    )


def test_every_line_of_the_log_is_in_the_guide_and_no_other() -> None:
    """Each call of a log, and each row of the table."""
    code, guide = lines_of_the_code(), lines_of_the_guide()
    assert len(code) > 5
    missing = {at: line for line, at in code.items() if not any(re.fullmatch(line, row) for row in guide)}
    assert missing == {}
    assert [row for row in guide if not any(re.fullmatch(line, row) for line in code)] == []


def test_logs_are_kept_under_one_name() -> None:
    """What the test above looks for is all there is: nothing logs but through a module's own `log`."""
    for path in modules(SERVER):
        for name in re.findall(r"(\w+) = logging\.getLogger\(__name__\)", path.read_text()):
            assert name == "log", path
        assert not re.search(rf"logging\.({'|'.join(LEVELS)})\(", path.read_text()), path


def test_the_guide_names_no_setting_and_no_command_that_is_not() -> None:
    """Nor do the files beside it."""
    texts = [GUIDE, *(file.read_text() for file in FILES)]
    known = settings(cdb.cli.main) | settings(cdb_server.cli.main)
    for text in texts:
        assert set(re.findall(r"\bCDB_[A-Z_]+\b", text)) <= known
    code = "\n".join([*re.findall(r"`[^`\n]+`", GUIDE), *blocks("console"), *texts[1:]])
    named = set(re.findall(r"(?:^|[\s`/])cdb-server ((?:token )?[a-z]+)", code))
    assert {"init", "serve", "token add", "token list", "token revoke", "backup", "restore", "verify"} <= named
    assert named <= set(commands(cdb_server.cli.main))


def test_the_files_that_the_guide_names_are_there() -> None:
    """Each link leads somewhere, and each file beside the guide is named."""
    links = re.findall(r"\]\(([^)#]+)", GUIDE)
    assert all((ROOT / "docs" / link).is_file() for link in links)
    assert {file.name for file in FILES} <= set(links)


def test_the_commands_of_the_guide_run(tmp_path: Path) -> None:
    """Every `cdb-server` that a person types, in its order, up to the backups: they have tests of their own."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CDB_DATABASE": f"sqlite:///{tmp_path}/cdb.sqlite",
    }
    first = GUIDE.partition("## Backups")[0]
    lines = re.findall(r"^\$ (cdb-server .*)$", first, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)


def test_the_settings_of_the_guide_are_taken(tmp_path: Path) -> None:
    """Each block of them, as far as the files that it names are there: nothing in it is wrong usage."""
    of_environment = [block for block in blocks("") if block.startswith("CDB_")]
    assert len(of_environment) == 3
    for block in of_environment:
        given = dict(line.split("=", 1) for line in block.splitlines())
        # systemd and a shell read the same file.
        sourced = subprocess.run(
            ["bash", "-ec", f"set -a\n{block}env"], env={}, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        assert {line for line in sourced.splitlines() if line.startswith("CDB_")} == set(block.splitlines())
        given |= {"CDB_DATABASE": given.get("CDB_DATABASE", "").replace("/var/", f"{tmp_path}/") or "sqlite:///none"}
        refused = subprocess.run(
            [sys.executable, "-m", "cdb_server", "serve"],
            env={**os.environ, **given},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert refused.returncode == 1, refused.stderr
        assert re.search("there is no database|cannot be used: .*No such file", refused.stderr)


def sql(cluster: str, block: int, name: str) -> None:
    """Run the SQL of the guide as a superuser, with a role and a database of this name."""
    with psycopg.connect(cluster, autocommit=True) as superuser:
        for statement in re.split(r";\s*", blocks("sql")[block])[:-1]:
            superuser.execute(re.sub(r"\bcdb\b", name, statement).encode())


def url_of(cluster: str, name: str) -> str:
    """The database of this name in a cluster, by its role."""
    return re.sub("//[^:@/]+(:[^@]*)?@", f"//{name}@", cluster).replace("/postgres?", f"/{name}?")


def test_the_sql_of_the_guide_makes_a_database_that_can_be_used(postgresql_cluster: str) -> None:
    """A role that is nothing more than the owner makes the tables, and no other role can connect."""
    sql(postgresql_cluster, 0, "operated")
    with psycopg.connect(postgresql_cluster, autocommit=True) as superuser:
        superuser.execute(b"CREATE ROLE somebody LOGIN")
    url = url_of(postgresql_cluster, "operated")
    Database.create(url)
    Database.open(url).close()
    with psycopg.connect(url) as owner:
        assert owner.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(url.replace("//operated@", "//somebody@"))


def test_the_role_of_the_guide_restores_with_the_right_that_the_guide_says(
    postgresql_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a sentence says which; with it the database is replaced, and still nobody else connects to it."""
    monkeypatch.setenv("PATH", f"{standbys.BIN}{os.pathsep}{os.environ['PATH']}")
    sql(postgresql_cluster, 0, "regained")
    url = url_of(postgresql_cluster, "regained")
    Database.create(url)
    maintenance.back_up(url, tmp_path / "backup")
    with Database.open(url) as database:
        Tokens(database).add("later")
    with pytest.raises(DatabaseUnusable, match="ALTER ROLE … CREATEDB, by a superuser"):
        maintenance.restore(url, tmp_path / "backup")
    giving, taking = re.split(r"(?<=;)\s*", blocks("sql")[1].strip())[:2]
    with psycopg.connect(postgresql_cluster, autocommit=True) as superuser:
        superuser.execute(re.sub(r"\bcdb\b", "regained", giving).encode())
        maintenance.restore(url, tmp_path / "backup")
        superuser.execute(re.sub(r"\bcdb\b", "regained", taking).encode())
        rights = superuser.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'regained'").fetchone()
        assert rights == (False,)
        public = superuser.execute("SELECT datacl::text FROM pg_database WHERE datname = 'regained'").fetchone()
        # What is granted to everybody would begin with an empty name.
        assert public == ("{regained=CTc/regained}",)
    with Database.open(url) as database:
        assert Tokens(database).list() == []
        assert not maintenance.verify(database).problems
