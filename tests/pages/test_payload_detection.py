"""What a payload is taken for, and how long that takes."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cdb_server.pages.payload import detect
from demo import samples


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    samples.write(folder)
    return folder


def names(columns: "Sequence[detect.Column]") -> list[str]:
    return [column.name for column in columns]


def test_nothing_is_empty() -> None:
    """No byte, no kind."""
    assert detect.detect(b"") == detect.Content(0, "empty", False)


def test_the_table_of_a_counter_has_its_channel_and_its_values(files: Path) -> None:
    """The fields up to the last text tell the channel, the numbers after it are the values."""
    looked = detect.detect((files / "tof1_t0_2013.txt").read_bytes())
    assert looked.kind == "table"
    assert looked.table is not None
    assert names(looked.table.keys) == [f"column {at}" for at in range(1, 7)]
    assert names(looked.table.values) == ["column 7", "column 8"]
    assert looked.table.rows == 60
    assert looked.table.labels()[0] == "0 0 0 0 tof0"
    assert looked.table.labels()[-1] == "2 1 9 1 tof2"


def test_tabs_and_leading_noughts_are_kept_as_written(files: Path) -> None:
    """A channel's number is a name."""
    looked = detect.detect((files / "kl_gain.txt").read_bytes())
    assert looked.table is not None
    assert looked.table.channels()[0] == ("KLChannelKey", "00", "0", "kl")
    assert len(looked.table.values) == 1


def test_a_list_of_bad_channels_is_all_channel(files: Path) -> None:
    """Whole numbers that only together tell the rows apart are no values."""
    looked = detect.detect((files / "bad_channels_2015.txt").read_bytes())
    assert looked.table is not None
    assert len(looked.table.keys) == 2
    assert looked.table.values == []


def test_whole_numbers_may_be_values_too() -> None:
    """As few leading columns as tell the rows apart are the channel."""
    table = detect.detect(b"0 0 100\n0 1 110\n1 0 100\n").table
    assert table is not None
    assert (names(table.keys), names(table.values)) == (["column 1", "column 2"], ["column 3"])


def test_rows_without_a_channel_are_numbered() -> None:
    """Nothing tells equal rows apart but where they stand."""
    table = detect.detect(b"0.5 1\n0.5 2\n").table
    assert table is not None
    assert table.keys == []
    assert table.channels() == [("1",), ("2",)]


@pytest.mark.parametrize(
    "text", ["# channel gain\n1 0.5\n2 0.6\n", "channel gain\n1 0.5\n2 0.6\n", "channel,gain\n1,0.5\n2,0.6\n"]
)
def test_a_heading_names_the_columns(text: str) -> None:
    """As a comment or as the first row."""
    table = detect.detect(text.encode()).table
    assert table is not None
    assert (names(table.keys), names(table.values)) == (["channel"], ["gain"])


def test_a_list_of_objects_is_a_table_too(files: Path) -> None:
    """The tracker's calibration: whole numbers that tell the rows apart are the channel."""
    looked = detect.detect((files / "trackers_2015.json").read_bytes())
    assert looked.kind == "json"
    assert looked.table is not None
    assert names(looked.table.keys) == ["bank", "channel"]
    assert names(looked.table.values) == ["tdc_gain", "adc_gain", "tdc_pedestal", "adc_pedestal"]
    assert looked.table.rows == 8400
    assert len(looked.lines) == 8400


@pytest.mark.parametrize("text", ['{"a": [1, {"b": null}]}', "[1, 2]", '[{"a": 1}, {"b": 1}]', '[{"a": []}]', "[]"])
def test_other_json_is_no_table(text: str) -> None:
    """It is folded, not tabled."""
    looked = detect.detect(text.encode())
    assert (looked.kind, looked.table) == ("json", None)
    assert looked.value == json.loads(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ', "[1,]"])
def test_what_only_begins_as_json_is_text(text: str) -> None:
    """However deep."""
    assert detect.detect(text.encode()).kind == "text"


@pytest.mark.parametrize("text", ["a b\nc d\n", "1 2\n3\n", "one line", "1_000 2\n1_001 x\n", "\n\n"])
def test_uneven_lines_and_words_are_text(text: str) -> None:
    """No column, no table."""
    looked = detect.detect(text.encode())
    assert (looked.kind, looked.table) == ("text", None)


def test_a_number_that_is_none_is_a_gap() -> None:
    """nan and inf are written as numbers are."""
    table = detect.detect(b"1 nan\n2 0.5\n3 inf\n").table
    assert table is not None
    assert table.values[0].numbers == [None, 0.5, None]
    assert table.values[0].values == ("nan", "0.5", "inf")


@pytest.mark.parametrize("data", [b"\x00\x01", b"ab\x1b[2J", "no \x85 text".encode()])
def test_control_characters_make_bytes(data: bytes) -> None:
    """They are shown as hex."""
    looked = detect.detect(data)
    assert (looked.kind, looked.head) == ("binary", data)


def test_latin_1_is_text() -> None:
    """As files of the earlier years are."""
    assert detect.detect("5 \xb5s".encode("latin-1")).lines == ["5 \xb5s"]


def test_a_long_text_is_cut_between_lines_and_within_no_character() -> None:
    """What is looked at ends with a whole line, and says that there is more."""
    line = "\N{GREEK SMALL LETTER MU}" * 50 + "\n"
    looked = detect.detect(line.encode() * 30_000)
    assert looked.truncated
    assert set(looked.lines) == {line[:-1]}
    assert detect.detect(line[:-1].encode() * 30_000).kind == "text"


@pytest.mark.parametrize(
    "piece", [b"TOFChannelKey 1 2 3 4 tof1 -60000.5 3\n", b"1 2\n", b"\n", b"x", b"\xff\xfe\x00", b'{"a": 1}, ']
)
def test_the_largest_payload_takes_no_longer(piece: bytes) -> None:
    """Within a page's time, with all else that a page does."""
    data = (piece * (32 * 2**20 // len(piece) + 1))[: 32 * 2**20]
    began = time.thread_time()
    looked = detect.detect(data)
    assert time.thread_time() - began < 0.5
    assert looked.size == len(data)
    assert looked.truncated


def test_what_is_endless_is_cut_in_names() -> None:
    """A page is not made of one name."""
    looked = detect.detect(json.dumps([{"key": "a" * 100_000, "gain": 1.5}, {"key": "b", "gain": 2.5}]).encode())
    assert looked.table is not None
    assert [len(label) for label in looked.table.labels()] == [detect.MAX_LABEL_CHARACTERS + 1, 1]
    assert detect.detect(json.dumps([{"a" * 100_000: 1.5}, {"a" * 100_000: 2.5}]).encode()).table is None


def test_what_json_spells_and_no_page_can_hold_stays_spelled() -> None:
    """Halves of characters, and control characters: in names as in values."""
    table = detect.detect(rb'[{"\ud800": "\u001b[2J", "b": 1.5}, {"\ud800": "\udfff", "b": 2.5}]').table
    assert table is not None
    assert [(column.name, column.values) for column in table.keys] == [(r"\ud800", [r"\u001b[2J", r"\udfff"])]


@pytest.mark.parametrize(
    "data", [b"[" + b"[]," * 500_000 + b"[]]", b"[" + b"\n" * 2_000_000 + b"]", b"1 " * 39 + b"1\n", b"a,\n"]
)
def test_many_small_parts_take_no_longer(data: bytes) -> None:
    """Lists, lines and cells are bounded, as bytes are."""
    whole = data if len(data) > 1000 else data * (2**20 // len(data))
    began = time.thread_time()
    detect.detect(whole)
    # Without bounds, it takes two to four times as long.
    assert time.thread_time() - began < 0.5
