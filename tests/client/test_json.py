"""`--json`: what a command answers, for programs; under the contract's names, and nothing else on standard output."""

import json
from pathlib import Path
from typing import Any

import pytest

import cdb
from cdb.cli import main
from tests.client.cdb_process import said, shell
from tests.servers import Master
from tests.test_docs import commands

RECORD = {*cdb.CalibrationRecord.__dataclass_fields__}


def answered(master: Master, *arguments: str) -> Any:
    """What a command that succeeds prints, read."""
    return json.loads(said(master, *arguments, "--json"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t0.txt"
    path.write_bytes(b"1 2 3\n")
    return path


def test_every_command_has_it() -> None:
    """But those of which the exit status says all."""
    without = {
        name
        for name, command in commands(main).items()
        if not any("--json" in option.opts for option in command.params)
    }
    assert without == {"cache verify", "cache empty", "lock fetch"}


def test_what_is_stored_and_got_is_a_record(shared_master: Master, file: Path, tmp_path: Path) -> None:
    """`add` gives it in place of the id, `get` in place of the content, which goes to a file."""
    name, out = ["json one", "t0"], tmp_path / "out"
    upload = ["add", *name, str(file), "--valid-from", "2016-03-01"]
    preview = answered(shared_master, *upload, "--dry-run")
    assert set(preview) == {*cdb.Preview.__dataclass_fields__}
    assert (preview["stored_id"], preview["device_is_new"]) == (None, True)
    stored = answered(shared_master, *upload)
    assert (set(stored), stored["size"]) == (RECORD, 6)
    assert answered(shared_master, "get", *name) == stored
    assert answered(shared_master, "get", *name, "-o", str(out)) == stored
    assert out.read_bytes() == b"1 2 3\n"


def test_what_is_withdrawn_is_a_record(shared_master: Master, file: Path) -> None:
    """And before that, what would apply instead, for which runs."""
    first, second = (
        answered(shared_master, "add", "json two", "t0", str(file), "--valid-from", f"2018-03-0{day}") for day in (1, 2)
    )
    run = answered(shared_master, "run", "add", "761", "--start", "2018-03-05")
    assert (set(run), run["stop_time"]) == ({*cdb.Run.__dataclass_fields__}, None)
    change = answered(shared_master, "withdraw", str(second["id"]), "--dry-run")
    assert (change["calibration"], change["instead"]["id"]) == (second, first["id"])
    assert {"first_run": 761, "last_run": 761} in change["run_range"] or change["run_count"] > 1
    withdrawn = answered(shared_master, "withdraw", str(second["id"]), "--reason", "wrong")
    assert (withdrawn["id"], withdrawn["withdrawn_reason"]) == (second["id"], "wrong")
    assert answered(shared_master, "withdraw", str(second["id"]), "--dry-run")["run_count"] == 0


def test_a_table_is_a_list_of_its_rows(shared_master: Master, file: Path, tmp_path: Path) -> None:
    """Each with its line and the answer or why it was refused; the exit status is the same as without."""
    uploads, runs = tmp_path / "uploads.csv", tmp_path / "runs.csv"
    uploads.write_text(
        "device_name,calibration_type,valid_from,file\n"
        "json three,t0,2016-03-01,t0.txt\njson three,t0,2016-02-30,t0.txt\njson three,t0,2016-03-02,none\n"
    )
    runs.write_text("run_number,start_time,stop_time\n762,2016-03-01,\nx,2016-03-01,\n")
    for command, fields, refused in (
        (["add", "--from", str(uploads), "--dry-run"], {*cdb.Preview.__dataclass_fields__}, 2),
        (["add", "--from", str(uploads)], RECORD, 2),
        (["run", "add", "--from", str(runs)], {*cdb.Run.__dataclass_fields__}, 1),
    ):
        done = shell(shared_master, *command, "--json")
        first, *others = json.loads(done.stdout)
        assert (done.returncode, first["line"], first["refused"], set(first["answer"])) == (1, 2, None, fields)
        assert [(row["line"], row["answer"]) for row in others] == [(3, None), (4, None)][:refused]
        assert all(row["refused"] for row in others)
