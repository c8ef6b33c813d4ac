"""`cdb diff`: two contents beside each other, against a real server."""

import difflib
import hashlib
import json
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import cdb
from cdb.cli import diff
from cdb_server.database.transactions import Database
from cdb_server.instants import UTC
from cdb_server.repository.writer import Upload, Writer
from tests import servers
from tests.client.cdb_process import said, shell, under_a_terminal
from tests.server.oracle import Clock
from tests.servers import Master


@pytest.fixture
def store(shared_master: Master) -> Callable[..., cdb.CalibrationRecord]:
    """A function that stores a content."""
    client = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    return client.add_calibration


def test_two_ids_are_compared_line_by_line(shared_master: Master, store: Callable[..., cdb.CalibrationRecord]) -> None:
    """A unified diff, whose headings name id, device, type and valid from; all of it, in colours on a terminal."""
    old = store("diff one", "t0", "2016-03-01", "".join(f"channel {n} 1\n" for n in range(100)))
    new = store("diff two", "tw", "2016-03-02 01:02:03.5", "".join(f"channel {n} {n % 2}\n" for n in range(100)))
    lines = said(shared_master, "diff", str(old.id), str(new.id)).splitlines()
    assert lines[:5] == [
        f"--- {old.id} DIFF ONE t0, valid from 2016-03-01 00:00:00",
        f"+++ {new.id} DIFF TWO tw, valid from 2016-03-02 01:02:03.500000",
        "@@ -1,101 +1,101 @@",
        "-channel 0 1",
        "+channel 0 0",
    ]
    assert len(lines) == 3 + 100 + 50 + 1
    shown = under_a_terminal(shared_master, "diff", str(old.id), str(new.id))
    assert "\x1b[31m-channel 0 1\x1b[0m" in shown
    assert "\x1b[32m+channel 0 0\x1b[0m" in shown


def test_two_answers_are_compared(shared_master: Master, store: Callable[..., cdb.CalibrationRecord]) -> None:
    """Of two runs, of two times, and of one question as of two times."""
    old = store("diff three", "t0", "2016-03-01", "1\n2\n3\n4\n")
    new = store("diff three", "t0", "2016-04-01", "1\n2\nthree\n4\n")
    said(shared_master, "run", "add", "751", "--start", "2016-03-05")
    said(shared_master, "run", "add", "752", "--start", "2016-04-05")
    name = "DIFF THREE t0, valid from 2016-0"
    for options, asked in (
        (["--run", "751", "--run", "752"], (", for run 751", ", for run 752")),
        (["--date", "2016-03-31", "--date", "2016-04-01"], (", at 2016-03-31 00:00:00", ", at 2016-04-01 00:00:00")),
    ):
        assert said(shared_master, "diff", "diff three", "t0", *options).splitlines() == [
            f"--- {old.id} {name}3-01 00:00:00{asked[0]}",
            f"+++ {new.id} {name}4-01 00:00:00{asked[1]}",
            "@@ -1,5 +1,5 @@",
            " 1",
            " 2",
            "-3",
            "+three",
            " 4",
            " ",
        ]


def test_the_answers_as_of_two_times_are_compared(tmp_path: Path) -> None:
    """The same question to the database as it stood at two times, and now."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        january, clock = datetime(2016, 1, 1, tzinfo=UTC), Clock(datetime(2016, 3, 1, 8, tzinfo=UTC))
        with Database.open(master.database) as database:
            for content in (b"1", b"2"):
                upload = Upload.validated("TOF1", "t0", january, content, None, None, max_payload=9)
                Writer(database, clock=clock).add_calibration(upload, "alice")
                clock.now += timedelta(hours=1)
        times = ["--as-of", "2016-03-01 08:30", "--as-of", "now"]
        for question in ([], ["--date", "2016-02-01"]):
            lines = said(master, "diff", "TOF1", "t0", *question, *times).splitlines()
            assert lines[0].startswith("--- 1 TOF1 t0, valid from 2016-01-01 00:00:00")
            assert lines[0].endswith(", as of 2016-03-01 08:30:00")
            assert lines[1].startswith("+++ 2 TOF1 t0, valid from 2016-01-01 00:00:00")
            assert lines[3:] == ["-1", "+2"]


def test_what_is_the_same_is_said_to_be(shared_master: Master, store: Callable[..., cdb.CalibrationRecord]) -> None:
    """Two calibrations of the same bytes, and one with itself; exit status 0."""
    content = b"1\n2\n"
    old, new = (store("diff four", "t0", f"2016-03-0{day}", content) for day in (1, 2))
    for other in (new, old):
        lines = said(shared_master, "diff", str(old.id), str(other.id)).splitlines()
        assert lines[0] == f"--- {old.id} DIFF FOUR t0, valid from 2016-03-01 00:00:00"
        assert lines[1].startswith(f"+++ {other.id} ")
        assert lines[2:] == [f"the same: 4 bytes in 2 lines, sha256 {hashlib.sha256(content).hexdigest()}"]
    assert json.loads(said(shared_master, "diff", str(old.id), str(new.id), "--json"))["same"] is True


def test_what_is_no_text_is_compared_by_size_and_hash(
    shared_master: Master, store: Callable[..., cdb.CalibrationRecord]
) -> None:
    """Binary files, and text that would act on a terminal."""
    text = store("diff five", "t0", "2016-03-01", b"1\n")
    for day, content in ((2, bytes(range(256))), (3, b"1 \x1b[31m\n"), (4, "1 \x9b31m\n".encode())):
        other = store("diff five", "t0", f"2016-03-0{day}", content)
        lines = said(shared_master, "diff", str(text.id), str(other.id)).splitlines()
        assert lines[2] == "not both are text"
        assert lines[3] == f"-2 bytes in 1 lines, sha256 {text.sha256}"
        assert lines[4] == f"+{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"
    returned = store("diff five", "t0", "2016-03-05", b"1\r\n")
    assert "no line differs but in white space at its end" in said(
        shared_master, "diff", str(text.id), str(returned.id)
    )


def test_as_json_it_gives_both_records_and_the_lines(
    shared_master: Master, store: Callable[..., cdb.CalibrationRecord]
) -> None:
    """Under the contract's names; without colours."""
    old, new = (store("diff six", "t0", f"2016-03-0{day}", f"{day}\n") for day in (1, 2))
    found = json.loads(said(shared_master, "diff", str(old.id), str(new.id), "--json"))
    assert (found["old"]["sha256"], found["new"]["id"], found["same"]) == (old.sha256, new.id, False)
    assert found["diff"][2:] == ["@@ -1,2 +1,2 @@", "-1", "+2", " "]
    other = store("diff six", "t0", "2016-03-03", b"\x00")
    found = json.loads(said(shared_master, "diff", str(old.id), str(other.id), "--json"))
    assert (found["diff"], found["not_compared"]) == ([], "not both are text")


def test_a_file_of_one_long_line_is_compared_in_its_pieces(
    shared_master: Master, store: Callable[..., cdb.CalibrationRecord]
) -> None:
    """900 kB of JSON on one line, of which one value changed, is a few lines; and what turns words about is spelled."""
    channels = [
        f'{{"channel": {number}, "name": "channel {number:09}", "value": {number % 7}}}' for number in range(16_000)
    ]
    changed = [*channels]
    changed[9] = '{"channel": 9, "name": "channel 000000009", "value": "\u202e"}'
    old, new = (
        store("diff seven", "t0", f"2016-03-0{day}", "[" + ", ".join(lines) + "]")
        for day, lines in enumerate((channels, changed), 1)
    )
    assert old.size > 900_000
    shown = under_a_terminal(shared_master, "diff", str(old.id), str(new.id))
    assert len(shown.splitlines()) == 9
    assert '-{"channel": 9, "name": "channel 000000009", "value": 2},' in shown
    assert '"\\u202e"' in shown
    assert "\u202e" not in shown


def repeating(step: int) -> bytes:
    """Lines of which each is there many times."""
    return b"\n".join(b"%d" % (number % 110) for number in range(0, step * 19_000, step))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (repeating(1), repeating(-1)),
        (
            b"\n".join(b"%d" % number for number in range(19_000)),
            b"\n".join(b"%d" % (number if number % 2 else -number - 1) for number in range(19_000)),
        ),
        (b"1," * 450_000, b",1" * 450_000),
        (b"[" * 900_000, b"{" * 900_000),
        (b"}," * 450_000, b"],," * 300_000),
        (random.Random(1).randbytes(450_000).hex().encode(), random.Random(2).randbytes(450_000).hex().encode()),
        ("\u202e".encode() * 300_000, "\u2066\n".encode() * 200_000),
    ],
)
def test_a_slow_comparison_is_abandoned(old: bytes, new: bytes) -> None:
    """Lines that repeat, every second one changed, one line of anything: compared or not, in a few seconds."""
    began = time.monotonic()
    try:
        lines = diff.unified_diff(old, new, ("1", "2"))
    except diff.NoLineDiff as reason:
        lines = [str(reason)]
    assert time.monotonic() - began < 20
    assert all(line.isprintable() for line in lines)


def test_a_diff_is_the_one_that_difflib_makes() -> None:
    """Line by line, on texts by chance."""
    chance = random.Random(1)
    for _ in range(300):
        old, new = ([str(chance.randrange(5)) for _ in range(chance.randrange(1, 20))] for _ in range(2))
        if old == new:
            continue
        before, after = ("\n".join(lines).encode() for lines in (old, new))
        expected = [*difflib.unified_diff(old, new, "a", "b", lineterm="", n=2)]
        assert diff.unified_diff(before, after, ("a", "b")) == expected


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["1"], 2, "Missing argument"),
        (["TOF1", "t0"], 2, "say what to compare: --run A --run B"),
        (["TOF1", "t0", "--run", "1"], 2, "say what to compare: --run A --run B"),
        (["TOF1", "t0", "--run", "1", "--run", "2", "--run", "3"], 2, "say what to compare"),
        (["TOF1", "t0", "--run", "1", "--date", "2016-01-01"], 2, "exclude each other"),
        (["1", "2", "--run", "1", "--run", "2"], 2, "two ids exclude"),
        (["TOF1", "2"], 2, "2 is no calibration type: name two ids, or DEVICE and TYPE"),
        (["987654321", "1"], 1, "no calibration with id 987654321"),
        (["DIFF NOBODY", "t0", "--run", "987654321", "--run", "2"], 1, "is not registered"),
    ],
)
def test_who_asks_wrongly_is_told(shared_master: Master, arguments: list[str], status: int, words: str) -> None:
    """Exit status 2 for wrong usage, 1 where the service says no; nothing on standard output."""
    done = shell(shared_master, "diff", *arguments)
    assert (done.returncode, done.stdout) == (status, b"")
    assert words in done.stderr.decode()
