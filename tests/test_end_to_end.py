"""The whole way on whole files: loaded by the shell, asked through `import cdb`, on both databases."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import pytest

import cdb
from tests import sample_files, servers
from tests.crash.traffic import send, upload
from tests.fuzz import wire
from tests.servers import Master

CURRENT = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
    b'<get_current_calibration xmlns="urn:mice:cdb:2"><device_name>TOF1</device_name>'
    b"<calibration_type>t0</calibration_type></get_current_calibration></s:Body></s:Envelope>"
)


def shell(master: Master, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cdb.cli", *arguments]
    return subprocess.run(command, env=master.environment, capture_output=True, text=True, timeout=120)


def load(master: Master, folder: Path) -> None:
    """Load both tables as a user would, and check what is said."""
    uploads, runs = sample_files.rows(folder / "uploads.csv"), sample_files.rows(folder / "runs.csv")
    refused = [row for row in runs if not sample_files.is_good_run(row)]
    adding = shell(master, "add", "--from", str(folder / "uploads.csv"))
    assert (adding.returncode, adding.stdout) == (0, "")
    assert adding.stderr == f"uploads.csv: {len(uploads)} rows, {len(uploads)} accepted, 0 refused\n"
    registering = shell(master, "run", "add", "--from", str(folder / "runs.csv"))
    *lines, summary = registering.stderr.splitlines()
    assert registering.returncode == 1
    assert summary == f"runs.csv: {len(runs)} rows, {len(runs) - len(refused)} accepted, {len(refused)} refused"
    assert len(lines) == len(refused)
    for line, row in zip(lines, refused, strict=True):
        assert line.startswith("runs.csv:")
        assert ("lies before start_time" if row["start_time"] else "has no start_time") in line


def answers(client: cdb.Calibration, folder: Path) -> dict[tuple[object, ...], int]:
    """The id of the answer for every registered run, device and type; -1 where nothing applies."""
    found: dict[tuple[object, ...], int] = {}
    keys = {(row["device_name"], row["calibration_type"]) for row in sample_files.rows(folder / "uploads.csv")}
    for row in filter(sample_files.is_good_run, sample_files.rows(folder / "runs.csv")):
        for device, type_ in keys:
            try:
                by_run = client.get_calibration_for_run(device, type_, int(row["run_number"]))
            except cdb.CalibrationNotFound:
                with pytest.raises(cdb.CalibrationNotFound):
                    client.get_calibration_for_date(device, type_, row["start_time"])
                found[device, type_, row["run_number"]] = -1
                continue
            by_date = client.get_calibration_for_date(device, type_, row["start_time"])
            assert (by_run.id, by_run.data) == (by_date.id, by_date.data)
            found[device, type_, row["run_number"]] = by_run.id
    return found


@contextmanager
def watched(master: Master, folder: Path, expected: dict[tuple[object, ...], int]) -> Iterator[None]:
    """Ask again and again while the block runs: every answer must be the expected one."""
    done = threading.Event()
    right: list[bool] = []

    def watch() -> None:
        reader = cdb.Calibration(master.url)
        while not done.is_set() or not right:
            right.append(answers(reader, folder) == expected)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert right
    assert all(right)


def check_content(client: cdb.Calibration, folder: Path) -> None:
    """Every file by its id, and the last one of each device and type as the current one, byte for byte."""
    uploads = sample_files.rows(folder / "uploads.csv")
    for id, row in enumerate(uploads, start=1):
        text = client.get_calibration_for_id(id)
        assert text.data == text.encode("utf-8", "surrogateescape") == (folder / row["file"]).read_bytes()
        assert text.device_name == row["device_name"].upper()
        assert text.calibration_type == row["calibration_type"]
    for row in {(row["device_name"].upper(), row["calibration_type"]): row for row in uploads}.values():
        current = client.get_current_calibration(row["device_name"], row["calibration_type"])
        assert current.data == (folder / row["file"]).read_bytes()


def test_whole_files_come_back_as_they_were_stored(
    backend: str, new_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    """Both tables load; every file comes back byte for byte; by run is by date at its start; loading again changes
    nothing, and at no moment does a reader get another answer."""
    for folder in sample_files.folders(tmp_path / "samples"):
        with servers.master(new_database_url(backend), tmp_path) as master:
            load(master, folder)
            client = cdb.Calibration(master.url)
            check_content(client, folder)
            before, status = answers(client, folder), client.get_status()
            with watched(master, folder, before):
                load(master, folder)
            after = client.get_status()
            assert (after.serial, after.digest) == (status.serial, status.digest)


def test_anyone_can_recompute_the_digest_of_a_server(master: Master, tmp_path: Path) -> None:
    """A program of Python's own library alone gets the serial and the digest that `cdb status` tells; if one entry were
    another, it would say which."""
    program = Path(__file__).parent / "recompute_digest.py"

    def recomputed() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-I", program, master.url], capture_output=True, text=True, timeout=60)

    assert recomputed().stdout == f"0 {'0' * 64}\n"
    sample_files.folders(tmp_path / "samples")
    load(master, tmp_path / "samples")
    writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
    for comment in ("Käfig 3,\r\n\trow 2 ]]> <&>", " 漢字 😀 ", "\r", "4:text,"):
        stored = writer.add_calibration("ckov a", "t0", "0001-01-01", b"", comment)
        writer.withdraw_calibration(stored.id, comment if comment.strip() else "why")
    writer.add_run(2**63 - 1, "9999-12-31T23:59:59.999999Z")
    status = cdb.Calibration(master.url).get_status()
    assert recomputed().stdout == f"{status.serial} {status.digest}\n"
    told = dict(line.split("\t") for line in shell(master, "status").stdout.splitlines())
    assert recomputed().stdout.split() == [told["serial"], told["digest"]]


def test_an_entry_that_was_changed_is_found(tmp_path: Path) -> None:
    """Whoever gets past the triggers and changes what was noted is found out, at that entry."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        for comment in ("one", "two", "three"):
            writer.add_calibration("TOF1", "t0", "2016-03-01", comment, comment)
        with sqlite3.connect(tmp_path / "cdb.sqlite") as connection:
            connection.execute("DROP TRIGGER calibration_no_update")
            connection.execute("UPDATE calibration SET comment = 'zwei' WHERE id = 2")
        connection.close()
        program = Path(__file__).parent / "recompute_digest.py"
        done = subprocess.run([sys.executable, "-I", program, master.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("entry 2 has the digest ")


def test_an_acknowledged_upload_is_seen_by_the_next_read_of_the_other_worker(database_url: str, tmp_path: Path) -> None:
    """Rule 11, 1,000 times out of 1,000: two worker processes on one database, written and read crosswise."""
    # Each worker at an address of its own, so that it is known which one answers.
    with (
        servers.master(database_url, tmp_path, "--workers", "1") as one,
        servers.serving(database_url, tmp_path, one.token, "--workers", "1") as other,
        ExitStack() as entered,
    ):
        # On open connections, without a client's own time between an answer and the next question.
        peers = [entered.enter_context(wire.Peer(server.url)) for server in (one, other)]
        question = wire.request(wire.READING, CURRENT)
        seen = 0
        for number in range(1000):
            writer, reader = peers if number % 2 else reversed(peers)
            write = upload("TOF1", "t0", datetime(2016, 10, 1), b"upload %d" % number)
            stored = send(writer, write, (one.user, one.token))
            seen += b":id>%d<" % stored.id in reader.ask(question).body
        assert seen == 1000
