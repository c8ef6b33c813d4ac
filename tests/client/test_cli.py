"""`cdb`, in its own process, and once under a terminal."""

import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

import cdb
import cdb_server.cli
from cdb.cli import main
from cdb.cli.options import SETTINGS
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.servers import Master
from tests.test_docs import commands, settings

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "every byte.bin"
    path.write_bytes(EVERY_BYTE)
    return path


def test_add_prints_the_id_and_get_gives_the_bytes(shared_master: Master, file: Path, tmp_path: Path) -> None:
    """Store, then get it by run, by date, the current one and by id, to stdout and to a file."""
    id = said(
        shared_master, "add", "shell one", "t0", str(file), "--valid-from", "2016-03-01", "--comment", "c"
    ).strip()
    said(shared_master, "run", "add", "701", "--start", "2016-03-01 00:00:00")
    out = tmp_path / "out"
    for question in (
        ["Shell One", "t0", "--run", "701"],
        ["shell one", "T0", "--date", "2016-03-01"],
        ["shell one", "t0"],
        ["--id", id],
    ):
        assert shell(shared_master, "get", *question).stdout == EVERY_BYTE
        out.unlink(missing_ok=True)
        assert said(shared_master, "get", *question, "-o", str(out)) == ""
        assert out.read_bytes() == EVERY_BYTE
    again = shell(shared_master, "add", "shell one", "t0", str(file), "--valid-from", "2016-03-01")
    assert (again.stdout.decode().strip(), again.stderr) == (id, b"")


def test_to_store_what_is_superseded_says_what_is_in_force(shared_master: Master, tmp_path: Path) -> None:
    """Rule 9: "the answer says which is in force; to go back, withdraw the later one"."""
    ids = []
    for number, content in enumerate((b"1", b"2", b"1")):
        path = tmp_path / str(number)
        path.write_bytes(content)
        done = shell(shared_master, "add", "shell two", "t0", str(path), "--valid-from", "2016-03-01")
        ids.append(done.stdout.decode().strip())
    assert ids[0] == ids[2] != ids[1]
    assert f"{ids[1]}, stored later under the same valid from, is in force" in done.stderr.decode()
    said(shared_master, "withdraw", ids[1], "--reason", "to go back")
    assert shell(shared_master, "get", "shell two", "t0").stdout == b"1"
    withdrawn = shell(shared_master, "get", "--id", ids[1])
    assert (withdrawn.stdout, b"to go back" in withdrawn.stderr) == (b"2", True)


def test_lists_are_columns_in_a_pipe_and_json_when_asked(shared_master: Master, file: Path) -> None:
    """Tabs between columns, no heading; or JSON."""
    id = said(shared_master, "add", "shell three", "t0", str(file), "--valid-from", "1980-03-01").strip()
    said(shared_master, "run", "add", "702", "--start", "1980-03-01", "--stop", "1980-03-02")
    assert "SHELL THREE\tt0\n" in said(shared_master, "devices")
    assert {"device_name": "SHELL THREE", "calibration_type": ["t0"]} in json.loads(
        said(shared_master, "devices", "--json")
    )
    start = "1980-03-01T00:00:00.000000Z"
    assert f"{id}\tSHELL THREE\tt0\t{start}\t\talice\t256\t\n" in said(shared_master, "ids", "1980-03-01")
    assert json.loads(said(shared_master, "ids", "1980-01-01", "1980-04-01", "--json"))[id]["validFrom"] == start
    shown = said(shared_master, "run", "show", "702")
    assert shown.startswith(f"702\t{start}\t1980-03-02T00:00:00.000000Z\n{id}\tSHELL THREE\tt0\t")
    assert json.loads(said(shared_master, "run", "show", "702", "--json"))["calibrations"][0]["id"] == int(id)
    status = json.loads(said(shared_master, "status", "--json"))
    assert (status["status"], status["role"]) == ("OK", "master")
    assert "role\tmaster\n" in said(shared_master, "status")


def test_a_terminal_shows_tables(shared_master: Master) -> None:
    """The same answers with headings and lines, where a person reads them."""
    shown = under_a_terminal(shared_master, "status")
    assert "server" in shown
    assert "━" in shown


def test_a_terminal_shows_how_far_a_table_is_loaded(shared_master: Master, tmp_path: Path) -> None:
    """A bar with the rows done, of how many; in a pipe there is none."""
    table = tmp_path / "runs.csv"
    table.write_text("run_number,start_time,stop_time\n" + "".join(f"71{n:03},1970-03-01,\n" for n in range(40)))
    assert "40/40" in under_a_terminal(shared_master, "run", "add", "--from", str(table))
    assert shell(shared_master, "run", "add", "--from", str(table)).stderr == (
        b"runs.csv: 40 rows, 40 accepted, 0 refused\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["get", "NOBODY", "t0"], 1, "nothing is stored for this device"),
        (["get", "TOF1 ", "t0"], 1, "device_name"),
        (["get", "--id", "987654321"], 1, "no calibration with id 987654321"),
        (["run", "show", "987654321"], 1, "is not registered"),
        (["get", "TOF1", "t0", "--as-of", "2999-01-01"], 1, "is not reached"),
        (["withdraw", "987654321", "--reason", "x"], 1, "no calibration with id"),
        (["ids", "2016-03-02", "2016-03-01"], 1, "lies before start_time"),
        (["get"], 2, "name DEVICE and TYPE, or give --id"),
        (["get", "TOF1"], 2, "name DEVICE and TYPE"),
        (["get", "TOF1", "t0", "--run", "1", "--date", "2016-01-01"], 2, "exclude each other"),
        (["get", "TOF1", "t0", "--id", "1"], 2, "leave DEVICE and TYPE out"),
        (["get", "TOF1", "t0", "--date", "yesterday"], 2, "is not a time"),
        (["get", "TOF1", "t0", "--run", "x"], 2, "--run"),
        (["add", "TOF1", "t0", "/missing", "--valid-from", "2016-03-01"], 2, "cannot be read"),
        (["add", "TOF1", "t0", "/missing"], 2, "--valid-from"),
        (["add", "TOF1"], 2, "name DEVICE, TYPE and FILE"),
        (["add", "--from", "/missing.csv"], 2, "does not exist"),
        (["add", "--from", "/dev/null"], 2, "with commas between: device_name,calibration_type,valid_from,file"),
        (["get", "12"], 2, "give --id 12 if that is an id"),
        (["get", "TOF1", "t0", "--date", "yesterday"], 2, "Invalid value for '--date': 'yesterday' is not a time"),
        # What to type next.
        (["get", "NOBODY", "t0"], 1, "what there is: cdb devices; what would apply when: cdb why NOBODY t0\n"),
        (["get", "NO BODY", "t0", "--date", "2016-03-01"], 1, "cdb why 'NO BODY' t0 --date '2016-03-01 00:00:00'\n"),
        (["get", "--id", "987654321"], 1, "which ids there are: cdb log"),
        (["run", "show", "987654321"], 1, "cdb run add 987654321 --start TIME"),
        (["get", "TOF1", "t0", "--as-of", "2999-01-01"], 1, "--as-of now"),
        (["add", "TOF1", "t0", "/dev/null", "--valid-from", "2016-03-01", "--user", ""], 1, "--user and --token"),
        (["status", "--server", "https://localhost:1", "--timeout", "0.5"], 3, "(CDB_SERVER)"),
        (["status", "--server", "localhost"], 1, "by its base URL alone, like http://localhost:8080"),
        (["withdraw", "1"], 2, "--reason"),
        (["run", "add", "7"], 2, "--start"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_the_exit_status_says_who_said_no(shared_master: Master, arguments: list[str], status: int, text: str) -> None:
    """1 the service said no, 2 wrong usage; nothing on stdout, and no traceback."""
    done = shell(shared_master, *arguments)
    assert (done.returncode, done.stdout) == (status, b"")
    assert text in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "written",
    ["2016-03-01", "2016-03-01 00:00", "2016-03-01T00:00:00Z", "2016-03-01 02:00+02:00", "2016-03-01 00:00:00 UTC"],
)
def test_a_time_is_read_as_people_write_it_everywhere(written: str) -> None:
    """Every option and argument that is a time takes the same spellings."""
    times = {
        f"{name} {option.name}": option
        for name, command in commands(main).items()
        for option in command.params
        if option.name in ("date", "start", "stop", "since", "until", "valid_from", "as_of")
    }
    assert len(times) > 12
    for name, option in times.items():
        assert option.type.convert(written, option, None) == datetime(2016, 3, 1, tzinfo=timezone.utc), name


def test_an_address_that_is_none_of_a_database_is_told(shared_master: Master) -> None:
    """The server is there; what was named is not its base."""
    done = shell(shared_master, "status", CDB_SERVER=f"{shared_master.url}/cdb")
    assert done.returncode == 3
    assert b"by its base URL alone" in done.stderr


def test_no_server_is_exit_status_3(shared_master: Master) -> None:
    """And the text names the server that was asked."""
    done = shell(shared_master, "status", "--timeout", "0.5", CDB_SERVER="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"http://127.0.0.1:1" in done.stderr


def test_a_failed_get_leaves_the_file_as_it_was(shared_master: Master, file: Path) -> None:
    """A file is written whole or not at all."""
    assert shell(shared_master, "get", "NOBODY", "t0", "-o", str(file)).returncode == 1
    assert file.read_bytes() == EVERY_BYTE
    assert shell(shared_master, "get", "--id", "1", "-o", "/nowhere/file").returncode == 1


def test_a_pipe_or_a_link_stays_what_it_is(shared_master: Master, file: Path, tmp_path: Path) -> None:
    """`-o` writes into a pipe and through a link; it replaces neither."""
    said(shared_master, "add", "shell five", "t0", str(file), "--valid-from", "2016-03-01")
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_bytes(b"old")
    link.symlink_to(target)
    said(shared_master, "get", "shell five", "t0", "-o", str(link))
    assert link.is_symlink()
    assert target.read_bytes() == EVERY_BYTE
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        said(shared_master, "get", "shell five", "t0", "-o", str(pipe))
        assert reader.stdout is not None
        assert reader.stdout.read() == EVERY_BYTE
    assert pipe.is_fifo()


def test_an_output_that_is_full_is_said_in_one_line(shared_master: Master) -> None:
    """Exit status 1, no traceback."""
    command = f"{sys.executable} -m cdb.cli status > /dev/full"
    done = subprocess.run(["bash", "-c", command], env=shared_master.environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"cdb: No space left on device\n")


def test_a_table_tells_each_refused_row_and_loads_the_rest(shared_master: Master, tmp_path: Path) -> None:
    """A line for each refused row with its reason, a summary, exit status 1; a second time the same."""
    (tmp_path / "good.txt").write_bytes(b"good")
    table = tmp_path / "uploads.csv"
    table.write_text(
        "\ufeffdevice_name,calibration_type,valid_from,file,comment\n"
        "shell four,t0,2016-03-01,good.txt,\n"
        "shell four,t0,2016-03-01,missing.txt,\n"
        'shell four,t0,2016-02-30,good.txt,\nshell four,tw,2016-03-01,good.txt,"a\ncomment"\n'
        "shell four,,2016-03-01,good.txt\n"
        "shell four\n"
    )
    for _ in range(2):
        done = shell(shared_master, "add", "--from", str(table))
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, done.stdout) == (1, b"")
        assert [line.split(": shell four")[0] for line in lines[:-1]] == [f"uploads.csv:{n}" for n in (3, 4, 7, 8)]
        assert all(": refused: " in line for line in lines[:-1])
        assert lines[-1] == "uploads.csv: 6 rows, 2 accepted, 4 refused"
    [first, second] = cdb.Calibration(shared_master.url).get_history("shell four", "t0") + cdb.Calibration(
        shared_master.url
    ).get_history("shell four", "tw")
    assert (first.comment, second.comment) == (None, "a\ncomment")
    (tmp_path / "wrong.csv").write_text("device,type\n")
    assert shell(shared_master, "add", "--from", str(tmp_path / "wrong.csv")).returncode == 2


def test_a_table_stops_where_no_row_is_to_blame(shared_master: Master, tmp_path: Path) -> None:
    """A wrong token is said once, not for each row."""
    table = tmp_path / "runs.csv"
    table.write_text("run_number,start_time,stop_time\n1,2016-03-01,\n2,2016-03-02,\n")
    done = shell(shared_master, "run", "add", "--from", str(table), CDB_TOKEN="wrong")
    assert done.returncode == 1
    assert done.stderr.decode().count("HTTP 401") == 1
    assert "runs.csv: 2 rows, 0 accepted, 0 refused, 2 not tried: repeat the command" in done.stderr.decode()
    away = ("run", "add", "--from", str(table), "--timeout", "0.5", "--server", "http://127.0.0.1:1")
    assert shell(shared_master, *away).returncode == 3


def test_a_setting_that_is_misspelt_is_named(shared_master: Master) -> None:
    """A job would not be pinned; what others call their variables is theirs, as are the server's."""
    others = dict.fromkeys(settings(cdb_server.cli.main), "x") | {"CDB_HOME": "x", "CDB_URL": "x"}
    environment = {**shared_master.environment, **others, "CDB_ASOF": "2016-03-01"}
    command = [sys.executable, "-m", "cdb.cli", "devices"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "cdb: no setting is called CDB_ASOF, which is left out: is CDB_AS_OF meant?\n"


def test_the_settings_that_are_known_are_those_that_are_read() -> None:
    """No more and no less."""
    assert settings(main) == set(SETTINGS)
