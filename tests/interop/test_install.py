"""Installing from a clone as the README says, into a place of its own: both programs run there without the clone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.test_docs import ROOT, blocks

# What a clone does not hold.
LEFT_OUT = ("build", "*.egg-info", ".venv*", ".git", ".*_cache", ".hypothesis", "__pycache__", "*-data", "node_modules")


def test_the_lines_of_the_readme_install_both_programs(tmp_path: Path) -> None:
    """First the client alone, with a `cdb-server` that says what it lacks; then both. Neither needs the clone."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*LEFT_OUT))
    [block] = [block for block in blocks("sh") if "-m venv" in block]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    environment["HOME"] = str(tmp_path)
    url = f"sqlite:///{tmp_path}/cdb.sqlite"

    def run(command: str, status: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=clone if clone.exists() else tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    made, client, server, postgresql = [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]
    run(made)
    run(client)
    program = re.sub("/pip .*", "", client)
    assert "cdb, version" in run(f"{program}/cdb --version")
    said = run(f"{program}/cdb-server --version", status=1)
    assert said.endswith("is not installed: pip install 'mice-cdb[server]' brings what the server needs\n")
    run(server)
    assert "mice-cdb[server,postgresql]" in run(f"{program}/cdb-server init --database postgresql://cdb@/cdb", status=1)
    run(postgresql)
    shutil.rmtree(clone)
    run(f"{program}/cdb-server init --database {url}")
    assert "clean: 0 entries" in run(f"{program}/cdb-server verify --database {url}")
    # Templates, styles and the WSDL came along.
    serve = f"{program}/cdb-server serve --database {url} --bind 127.0.0.1:0"
    asked = 'read -r line <&"${SERVER[0]}"; url=${line##* }; curl -fsS "$url/" "$url/cdb/v2/calibration?wsdl"'
    shown = run(f'coproc SERVER {{ exec {serve}; }}; {asked}; {program}/cdb status --server "$url"; kill $SERVER_PID')
    assert "</html>" in shown
    assert "CalibrationPort" in shown
    assert "master" in shown
