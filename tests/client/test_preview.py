"""What would change is seen before it is made: `cdb add --dry-run` and its question, `cdb withdraw --dry-run`."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cdb
from cdb.cli import diff, main
from tests import sample_files, servers
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.servers import Master

# What XML can carry and a terminal acts on: C1 controls, DEL, carriage return, and what turns words about.
ACTING = "\x9b31m \x9d0;title\x9c \x85 \x7f \r \u202e \u2066"


@dataclass(frozen=True)
class Upload:
    """A command that stores a file under a device of its own, and the client that sees what came of it."""

    master: Master
    file: Path
    device: str

    @property
    def command(self) -> list[str]:
        return ["add", self.device, "t0", str(self.file), "--valid-from", "2016-03-01"]

    def stored(self) -> list[bytes]:
        """What is stored for the device, in order."""
        client = cdb.Calibration(self.master.url)
        return [client.get_calibration_for_id(record.id).data for record in client.get_history(self.device, "t0")]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    folder = tmp_path_factory.mktemp("impact")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as running:
        yield running


@pytest.fixture
def upload(master: Master, tmp_path: Path) -> Upload:
    path = tmp_path / "t0.txt"
    path.write_bytes(b"1 2 3\n")
    return Upload(master, path, f"impact {cdb.Calibration(master.url).get_status().serial}")


def test_a_dry_run_stores_nothing(upload: Upload) -> None:
    """It says what would change on standard output, ends with 0, and leaves the journal as it is."""
    before = cdb.Calibration(upload.master.url).get_status().digest
    told = said(upload.master, *upload.command, "--dry-run").splitlines()
    assert told[0] == f"{upload.device.upper()} t0 from 2016-03-01 00:00:00, valid until replaced"
    assert "replaces none: no calibration is in force at that time" in told
    assert "content: 6 bytes in 1 lines" in told
    assert under_a_terminal(upload.master, *upload.command, "--dry-run").splitlines() == told
    assert cdb.Calibration(upload.master.url).get_status().digest == before


def test_a_dry_run_of_what_is_refused_is_refused(upload: Upload) -> None:
    """With the words and the exit status of the upload itself."""
    wrong = ["add", "TOF1 ", "t0", str(upload.file), "--valid-from", "2016-03-01"]
    refused = shell(upload.master, *wrong)
    again = shell(upload.master, *wrong, "--dry-run")
    assert (again.returncode, again.stdout, again.stderr) == (1, b"", refused.stderr)
    assert shell(upload.master, *upload.command, "--dry-run", CDB_TOKEN="wrong").returncode == 1
    both = shell(upload.master, *upload.command, "--dry-run", "--yes")
    assert (both.returncode, b"leave --yes out" in both.stderr) == (2, True)


def test_on_a_terminal_it_is_asked(upload: Upload) -> None:
    """What would change is shown first; y stores, n and an empty answer do not, and that is exit status 1."""
    for typed in ("n\n", "\n", "\x04"):
        shown = under_a_terminal(upload.master, *upload.command, typed=typed, status=1)
        assert "replaces none" in shown
        assert "store it? [y/N]" in shown
    assert "nothing was stored" in under_a_terminal(upload.master, *upload.command, typed="n\n", status=1)
    assert upload.stored() == []
    shown = under_a_terminal(upload.master, *upload.command, typed="y\n")
    assert "store it? [y/N]" in shown
    [record] = cdb.Calibration(upload.master.url).get_history(upload.device, "t0")
    assert shown.splitlines()[-1].endswith(f"store it? [y/N]: {record.id}")
    # What is stored is not asked for again: it writes nothing.
    shown = under_a_terminal(upload.master, *upload.command)
    assert f"these bytes are stored there as {record.id}; nothing would change" in shown
    assert "store it?" not in shown


def test_yes_skips_the_confirmation(upload: Upload) -> None:
    """`--yes` stores at once, and shows no more than a command in a pipe."""
    shown = under_a_terminal(upload.master, *upload.command, "--yes")
    assert shown.strip().isdigit()
    assert upload.stored() == [b"1 2 3\n"]


def test_what_is_no_terminal_is_never_asked(upload: Upload) -> None:
    """With standard input from a pipe or a file it stores as ever, also where the output is a terminal."""
    shown = under_a_terminal(upload.master, *upload.command, stdin=subprocess.DEVNULL)
    assert shown.strip().isdigit()
    upload.file.write_bytes(b"4 5 6\n")
    done = shell(upload.master, *upload.command)
    assert (done.returncode, done.stderr, done.stdout.strip().isdigit()) == (0, b"", True)
    assert upload.stored() == [b"1 2 3\n", b"4 5 6\n"]


@pytest.fixture
def table(upload: Upload) -> Path:
    (upload.file.parent / "empty.txt").write_bytes(b"")
    path = upload.file.parent / "uploads.csv"
    path.write_text(
        "device_name,calibration_type,valid_from,file,comment\n"
        f"{upload.device},t0,2016-03-01,t0.txt,\n"
        f"{upload.device},t0,2016-03-02,missing.txt,\n"
        f"{upload.device},t0,2016-03-03,empty.txt,none\n"
    )
    return path


def test_a_dry_run_of_a_table_tells_each_row(upload: Upload, table: Path) -> None:
    """What each row would change by itself, and which are refused, with exit status 1 for those; nothing is stored."""
    done = shell(upload.master, "add", "--from", str(table), "--dry-run")
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert done.returncode == 1
    assert [row[2][:10] for row in rows] == ["2016-03-01", "2016-03-03"]
    assert [row[6] for row in rows] == ["6", "0"]
    assert all("is a new device" in row[8] for row in rows)
    assert "it is empty" in rows[1][8]
    errors = done.stderr.decode()
    assert "uploads.csv:3" in errors
    assert "uploads.csv: 3 rows, 2 previewed, 1 refused" in errors
    assert "each row compared with what is stored now" in errors
    assert upload.stored() == []
    said(upload.master, *upload.command)
    done = shell(upload.master, "add", "--from", str(table), "--dry-run")
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    [stored] = cdb.Calibration(upload.master.url).get_history(upload.device, "t0")
    assert rows[0][8] == f"is stored as {stored.id}"
    assert rows[1][4:8:3] == [str(stored.id), "6"]


def test_a_table_is_asked_for_once(upload: Upload, table: Path) -> None:
    """For all rows that are new together; n stores none of them, and `--yes` does not ask."""
    command = ["add", "--from", str(table)]
    shown = under_a_terminal(upload.master, *command, typed="n\n", status=1)
    assert "store 2 calibrations? [y/N]" in shown
    assert upload.stored() == []
    shown = under_a_terminal(upload.master, *command, typed="y\n", status=1)
    assert "uploads.csv: 3 rows, 2 accepted, 1 refused" in shown
    assert upload.stored() == [b"1 2 3\n", b""]
    assert "calibrations?" not in under_a_terminal(upload.master, *command, status=1)
    assert "calibrations?" not in under_a_terminal(upload.master, *command, "--yes", status=1)


def test_a_superseded_file_is_said_to_be_so(upload: Upload) -> None:
    """To store again what was stored before another under the same valid from does not bring it back."""
    first = said(upload.master, *upload.command).strip()
    upload.file.write_bytes(b"4 5 6\n")
    second = said(upload.master, *upload.command).strip()
    upload.file.write_bytes(b"1 2 3\n")
    told = said(upload.master, *upload.command, "--dry-run")
    assert f"stored there as {first}; {second}, stored later under the same valid from, is in force" in told


def test_what_others_wrote_does_not_act_on_a_terminal(upload: Upload) -> None:
    """Comments, reasons and contents with markup and control characters are shown as text, wherever they are shown."""
    words, master = f"[bold red]A[/] {ACTING} [/x]", upload.master
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    first = writer.add_calibration(upload.device, "t0", "1980-01-01", "old [bold red]A[/]\u202e\n", words)
    second = writer.add_calibration(upload.device, "t0", "1980-01-02", "2", words)
    third = writer.add_calibration(upload.device, "t0", "2999-01-01", "new [bold red]A[/]\u2066\n")
    writer.withdraw_calibration(second.id, words)
    writer.add_run(711, "1980-01-01")
    upload.file.write_bytes("new [bold red]A[/]\u2066\n".encode())
    log = ["log", "--since", first.created.isoformat(), "--device", upload.device]
    for command, times in (
        ([*upload.command[:-1], "1980-01-03", "--dry-run"], 1),
        (["withdraw", str(first.id), "--dry-run"], 1),
        (["withdraw", str(second.id), "--dry-run"], 2),
        (["withdraw", str(second.id), "--reason", "again"], 1),
        (log, 3),
        ([*log, "--json"], 4),
        (["ids", "1980-01-01"], 1),
        (["why", upload.device, "t0", "--run", "711"], 2),
        (["why", upload.device, "t0", "--date", "1980-01-02"], 4),
        (["why", upload.device, "t0", "--date", "1980-01-02", "--json"], 4),
        (["diff", str(first.id), str(third.id)], 2),
        (["diff", str(first.id), str(third.id), "--json"], 3),
        (["run", "show", "711", "--json"], 1),
        (["get", "--id", str(second.id), "-o", "/dev/null"], 1),
    ):
        on_terminal = under_a_terminal(master, *command)
        written = CliRunner().invoke(main, command, env=master.environment).output
        assert on_terminal.count("[bold red]A[/]") >= times, (command, on_terminal)
        assert written.count("[bold red]A[/]") >= times, (command, written)
        assert not re.search("[\x7f-\x9f\u202e\u2066]", on_terminal), (command, on_terminal)
        assert not re.search("[\x7f-\x9f\u202e\u2066\r\x1b]", written), (command, written)
    [entry, *_] = json.loads(said(master, *log, "--json"))
    assert entry["comment"] == words


def test_names_in_a_table_do_not_act_on_a_terminal(upload: Upload, table: Path) -> None:
    """Nor do cells of a table that is refused, or its name."""
    strange = table.with_name("[bold]\x9b[x].csv")
    strange.write_text("device_name,calibration_type,valid_from,file\n\x1b[31m[/x]\x9b31m,t0,2016-03-01,t0.txt\n")
    shown = under_a_terminal(upload.master, "add", "--from", str(strange), "--yes", status=1)
    assert "\\x1b[31m[/x]\\x9b31m" in shown
    assert "\x9b" not in shown


# "A wrong upload (wrong date, wrong device, truncated file) is visible in the preview before it is made."


@dataclass(frozen=True)
class Loaded:
    """A master that holds the files of a folder, and of TOF1 t0 the file that is current with the id it has."""

    master: Master
    folder: Path
    current: Path
    id: int

    def told(self, device: str, calibration_type: str, file: Path, valid_from: str) -> list[str]:
        """The lines of a preview."""
        command = ["add", device, calibration_type, str(file), "--valid-from", valid_from, "--dry-run"]
        done = CliRunner().invoke(main, command, env=self.master.environment)
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()


@pytest.fixture(scope="module", params=["samples", *(["real"] if sample_files.REAL else [])])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    place = tmp_path_factory.mktemp("loaded")
    folder = sample_files.folders(place / "samples")[["samples", "real"].index(request.param)]
    with servers.master(f"sqlite:///{place}/cdb.sqlite", place) as master:
        for command in (["add", "--from", f"{folder}/uploads.csv"], ["run", "add", "--from", f"{folder}/runs.csv"]):
            subprocess.run([sys.executable, "-m", "cdb.cli", *command], env=master.environment, capture_output=True)
        current = cdb.Calibration(master.url).get_current_calibration("TOF1", "t0")
        [*_, row] = [row for row in sample_files.rows(folder / "uploads.csv") if row["calibration_type"] == "t0"]
        yield Loaded(master, folder, folder / row["file"], current.id)


def test_a_wrong_date_is_visible(loaded: Loaded) -> None:
    """A year too late lies in the future; too early, before the first run; between, another takes over, and the runs
    that get it are named."""
    late = loaded.told("TOF1", "t0", loaded.current, "2071-09-20")
    assert "! it applies only from a time in the future" in late
    assert "affected runs: none" in late
    early = loaded.told("TOF1", "t0", loaded.current, "2001-09-20")
    assert "! it applies from before the first run" in early
    assert early[0] == "TOF1 t0 from 2001-09-20 00:00:00, until 2011-11-23 12:00:00"
    between = loaded.told("TOF1", "t0", loaded.current, "2016-09-20")
    runs = cdb.Calibration(loaded.master.url).get_runs("2016-09-20", "2017-09-20")
    assert between[0] == "TOF1 t0 from 2016-09-20 00:00:00, until 2017-09-20 00:00:00"
    [told] = [line for line in between if line.startswith(f"affected runs: {len(runs)} (")]
    assert all(str(run.run_number) in told for run in (runs[0], runs[-1]))
    assert len(runs) >= 3


def test_a_wrong_device_is_visible(loaded: Loaded) -> None:
    """A slip of the finger makes a new device or type, and the ones near it are named; the name of another device takes
    over from a file of another kind."""
    assert "! TOF11 is a new device: is TOF1 meant?" in loaded.told("tof11", "t0", loaded.current, "2017-10-01")
    assert "! DAK is a new device: is DAQ meant?" in loaded.told("dak", "cabling", loaded.current, "2017-10-01")
    new_type = loaded.told("TOF1", "triger", loaded.current, "2017-10-01")
    assert "! triger is a new type of TOF1: is trigger meant?" in new_type
    kl = loaded.told("KL", "gain", loaded.current, "2017-10-01")
    assert any(line.startswith("replaces 4 (valid since 2011-11-23 12:00:00): ") for line in kl)
    assert "! its lines begin with 'TOFChannelKey', those of 4 with 'KLChannelKey': is it the right file?" in kl
    tw = cdb.Calibration(loaded.master.url).get_current_calibration("TOF1", "tw").id
    assert f"! its lines have 8 fields, those of {tw} 10: is it the right file?" in loaded.told(
        "TOF1", "tw", loaded.current, "2017-10-01"
    )


def test_a_truncated_file_is_visible(loaded: Loaded, tmp_path: Path) -> None:
    """Cut anywhere, it is said by how much it is shorter than the one before, or where its last line breaks off; an
    empty one is called empty."""
    whole, cut = loaded.current.read_bytes(), tmp_path / "cut"
    for kept in (1, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:kept])
        told = loaded.told("TOF1", "t0", cut, "2017-10-01")
        assert f"! it is {loaded.id} without the last {len(whole) - kept} bytes: cut off?" in told
        lines = whole[:kept].count(b"\n") + (whole[:kept][-1:] != b"\n")
        size = f"content: {kept} bytes in {lines} lines; {loaded.id} has {len(whole)} bytes in "
        assert any(line.startswith(size) for line in told)
    # As the new version of a file, of which nothing is stored yet.
    cut.write_bytes(whole[: whole.rindex(b"\n") + 30].replace(b"3", b"4"))
    assert any("of 8 fields: cut off?" in line for line in loaded.told("TOF1", "t0", cut, "2017-10-01"))
    cut.write_bytes(b"")
    assert "! it is empty" in loaded.told("TOF1", "t0", cut, "2017-10-01")


def test_a_truncated_json_file_is_visible(loaded: Loaded, tmp_path: Path) -> None:
    """A list of channels on one line, of new values, that breaks off."""
    client, cut = cdb.Calibration(loaded.master.url), tmp_path / "cut"
    current = client.get_current_calibration("TRACKERS", "trackers")
    cut.write_bytes(current.data[:-20].replace(b"1", b"2"))
    told = loaded.told("trackers", "trackers", cut, "2017-12-01")
    assert f"! it is not JSON, as {current.id} is: cut off, or another file?" in told


def test_every_wrong_file_raises_a_suspicion_and_no_right_one(loaded: Loaded) -> None:
    """Each file in the place of each other type's is doubted in words; its own successors are not, unless empty."""
    rows = sample_files.rows(loaded.folder / "uploads.csv")
    content = {row["file"]: (loaded.folder / row["file"]).read_bytes() for row in rows}
    latest: dict[tuple[str, str], str] = {}
    for row in rows:
        key = row["device_name"].upper(), row["calibration_type"]
        new = content[row["file"]]
        assert diff.suspicions(new, content[latest[key]] if key in latest else None, "1") in ([], ["it is empty"])
        latest[key] = row["file"]
    for old in latest.values():
        # A cabling map of the same columns is as good as the other by its looks.
        others = [file for file in latest.values() if file != old and "hannel" not in file.split("_")[0]]
        for file in others:
            told = diff.summary(content[old], content[file], ("1", "this file"), line_by_line=False, most=40)
            assert any("?" in line for line in told[1:]) or told[0].count("bytes") == 2


def test_a_wrong_file_in_a_table_is_visible(loaded: Loaded, tmp_path: Path) -> None:
    """The note of a row has the same words."""
    (tmp_path / "cut").write_bytes(loaded.current.read_bytes()[:-100])
    (tmp_path / "same").write_bytes(loaded.current.read_bytes())
    table = tmp_path / "wrong.csv"
    table.write_text(
        "device_name,calibration_type,valid_from,file\nTOF1,t0,2017-10-01,cut\nTOF11,t0,2017-10-01,same\n"
        "TOF1,t0,2071-10-01,same\nKL,gain,2017-10-01,same\n"
    )
    notes = [line.split("\t")[8] for line in said(loaded.master, "add", "--from", str(table), "--dry-run").splitlines()]
    assert f"it is {loaded.id} without the last 100 bytes: cut off?" in notes[0]
    assert "TOF11 is a new device: is TOF1 meant?" in notes[1]
    assert "in the future" in notes[2]
    assert f"the same bytes as {loaded.id}" in notes[2]
    assert "is it the right file?" in notes[3]


def test_a_change_is_shown_line_by_line_on_a_terminal(loaded: Loaded, tmp_path: Path) -> None:
    """The lines that differ, with their neighbours; in a pipe the hashes."""
    changed = tmp_path / "changed"
    lines = loaded.current.read_text().split("\n")
    changed.write_text("\n".join([*lines[:5], "TOFChannelKey changed", *lines[6:]]))
    command = ["add", "TOF1", "t0", str(changed), "--valid-from", "2017-10-01", "--dry-run"]
    shown = under_a_terminal(loaded.master, *command)
    assert f"-{lines[5]}" in shown
    assert "+TOFChannelKey changed" in shown
    told = said(loaded.master, *command)
    assert "TOFChannelKey changed" not in told
    assert told.count("sha256 ") == 2


# What the comparison of two contents says.


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"1\n", b"1\n", "content: the same as 7"),
        (b"1\n", b"", "content: 0 bytes in 0 lines; 7 has 2 bytes in 1 lines"),
        (b"", b"1", "content: 1 bytes in 1 lines; 7 has 0 bytes in 0 lines"),
        (b"1\n", b"1\n2\n", "it is 7 with 2 bytes more at its end"),
        (b"1\n2\n", b"1\n", "! it is 7 without the last 2 bytes: cut off?"),
        (b"1\n2\n", b"3\n4", "! its last line does not end, as that of 7 does: cut off?"),
        (b"1 2\n" * 3, b"3 4\n3 4\n3\n", "! its last line has 1 of 2 fields: cut off?"),
        (b"1\r\n2\r\n", b"1\n2\n", "no line differs but in white space at its end"),
        (b'[{"a": 1}]', b'[{"a": 2}', "! it is not JSON, as 7 is: cut off, or another file?"),
        (b"1\n", bytes(range(256)), "content: 256 bytes; 7 has 2 bytes in 1 lines"),
        (b"1\n", "1 \x9b31m\n".encode(), "content: 8 bytes; 7 has 2 bytes in 1 lines"),
        (b"1\n", b"1 \x1b[31m\n", "content: 8 bytes; 7 has 2 bytes in 1 lines"),
        (b"1\n" * 30_000, b"2\n" * 30_000, "too many lines to compare here"),
    ],
)
def test_two_contents_are_told_apart(old: bytes, new: bytes, words: str) -> None:
    """Each difference has its words, and nothing that a terminal acts on is in them."""
    told = diff.summary(old, new, ("7", "this file"), line_by_line=True, most=10)
    assert words in told
    assert all(click.unstyle(line).isprintable() for line in told)


def test_a_long_comparison_is_cut_and_said_to_be(tmp_path: Path) -> None:
    """At most so many lines, and how many are left; a single long line is compared in its pieces."""
    old = ",".join(f'{{"channel": {n}}}' for n in range(2000))
    new = old.replace("1234", "4321")
    told = diff.summary(old.encode(), new.encode(), ("7", "this file"), line_by_line=True, most=40)
    assert len(told) < 15
    assert any("4321" in line for line in told)
    rows = diff.summary(b"k 1\n" * 100, b"k 2\n" * 100, ("7", "this file"), line_by_line=True, most=10)
    assert len(rows) == 12
    assert rows[-1] == "… and 194 lines more"


def test_a_withdrawal_is_seen_before_it_is_made(upload: Upload) -> None:
    """What is withdrawn, until when it is in force, what would apply instead, and which runs would get that."""
    master = upload.master
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    ids = [
        writer.add_calibration(upload.device, "t0", f"1970-02-0{day}", content, comment).id
        for day, content, comment in ((1, b"one", None), (3, b"three", "the third"), (5, b"five", None))
    ]
    for number, start in (
        (721, "1970-02-03"),
        (722, "1970-02-04 23:59:59.999999"),
        (724, "1970-02-04"),
        (725, "1970-02-05"),
    ):
        writer.add_run(number, start)
    digest = writer.get_status().digest
    name = upload.device.upper()

    def told(id: int) -> list[str]:
        return said(master, "withdraw", str(id), "--dry-run").splitlines()

    lines = told(ids[1])
    assert lines[0].startswith(f"{ids[1]}: {name} t0 from 1970-02-03 00:00:00, 5 bytes, stored ")
    assert lines[0].endswith(" by alice, 'the third'")
    assert lines[1] == "in force from 1970-02-03 00:00:00, until 1970-02-05 00:00:00"
    assert lines[2].startswith(f"replaced by {ids[0]}, from 1970-02-01 00:00:00: 3 bytes, stored ")
    assert lines[3] == "affected runs: 3 (721-722, 724)"
    assert told(ids[0])[2] == "! nothing would apply instead"
    assert told(ids[2])[1] == "in force from 1970-02-05 00:00:00, with no end"
    assert writer.get_status().digest == digest
    before = {number: writer.get_calibration_for_run(upload.device, "t0", number).id for number in (721, 722, 724, 725)}
    record = writer.withdraw_calibration(ids[1], "wrong cable")
    after = {number: writer.get_calibration_for_run(upload.device, "t0", number).id for number in before}
    assert {number: after[number] for number in before if after[number] != before[number]} == {
        721: ids[0],
        722: ids[0],
        724: ids[0],
    }
    when = f"{record.withdrawn_at:%Y-%m-%d %H:%M:%S.%f}"
    assert told(ids[1])[1] == f"it was withdrawn at {when}: wrong cable; nothing would change"
    superseded = writer.add_calibration(upload.device, "t0", "1970-02-05", b"five again")
    assert told(ids[2])[1] == "it is never in force: nothing would change"
    assert told(superseded.id)[2].startswith(f"replaced by {ids[2]}, ")
    missing = shell(master, "withdraw", "987654321", "--dry-run")
    assert (missing.returncode, missing.stdout) == (1, b"")


def test_what_is_withdrawn_says_so_when_and_why(upload: Upload) -> None:
    """Wherever it is shown: got by id, in the journal, before a withdrawal. Lists of what applies cannot have it."""
    id = said(upload.master, *upload.command).strip()
    said(upload.master, "run", "add", "731", "--start", "2016-03-01 00:00:01")
    assert f"{id}\t" in said(upload.master, "ids", "2016-03-01")
    assert f"\n{id}\t" in said(upload.master, "run", "show", "731")
    done = shell(upload.master, "withdraw", id, "--reason", "wrong cable")
    assert done.stderr.decode() == f"{id} is withdrawn: wrong cable\n"
    text = cdb.Calibration(upload.master.url).get_calibration_for_id(int(id))
    when = f"{text.withdrawn_at:%Y-%m-%d %H:%M:%S.%f}"
    got = shell(upload.master, "get", "--id", id)
    assert got.stdout == b"1 2 3\n"
    assert got.stderr.decode() == f"cdb: {id} was withdrawn at {when}: wrong cable\n"
    assert f"it was withdrawn at {when}: wrong cable" in said(upload.master, "withdraw", id, "--dry-run")
    [entry, _] = said(upload.master, "log", "--device", upload.device).splitlines()
    assert entry.split("\t")[5] == f"{when} by alice: wrong cable"
    assert f"\n{id}\t" not in "\n" + said(upload.master, "ids", "2016-03-01")
    assert f"\n{id}\t" not in said(upload.master, "run", "show", "731")
