"""How two payloads are found to differ."""

import time
from pathlib import Path

import pytest

from cdb_server.pages.payload import diff
from cdb_server.pages.payload.detect import detect
from cdb_server.pages.payload.diff import SideBySide, TableChange
from demo import samples


def lines(left: bytes, right: bytes) -> SideBySide:
    return diff.side_by_side(detect(left), detect(right))


def tables(left: bytes, right: bytes) -> TableChange:
    one, other = detect(left).table, detect(right).table
    assert one is not None
    assert other is not None
    found = diff.compare_tables(one, other)
    assert found is not None
    return found


def test_equal_lines_far_from_a_change_are_left_out() -> None:
    """Three stay on each side, and the gap says how many do not."""
    old = [f"line {n}" for n in range(20)]
    new = [*old[:10], "another", *old[11:]]
    found = lines("\n".join(old).encode(), "\n".join(new).encode())
    assert [row.kind for row in found.rows] == ["gap", *["equal"] * 3, "changed", *["equal"] * 3, "gap"]
    assert found.rows[0].left_number == 7
    assert (found.rows[4].left_number, found.rows[4].right_number) == (11, 11)
    assert (found.removed, found.added, found.changed, found.complete) == (0, 0, 1, True)


def test_differing_words_are_marked() -> None:
    """And the white space between them is as it was."""
    row = lines(b"key 1   2.5 end", b"key 1   2.7 end").rows[0]
    assert row.left == [("key 1   ", False), ("2.5", True), (" end", False)]
    assert row.right == [("key 1   ", False), ("2.7", True), (" end", False)]


def test_lines_come_and_go() -> None:
    """Each on its side."""
    found = lines(b"a\nb\nc\n", b"a\nc\nd\n")
    assert [(row.kind, row.left_number, row.right_number) for row in found.rows] == [
        ("equal", 1, 1),
        ("removed", 2, None),
        ("equal", 3, 2),
        ("added", None, 3),
    ]


@pytest.mark.parametrize(("left", "right"), [(b"", b"a\n"), (b"a\n", b""), (b"", b""), (b"a\n", b"a\n")])
def test_nothing_can_be_compared(left: bytes, right: bytes) -> None:
    """Nothing with something, and equal ones."""
    found = lines(left, right)
    assert (found.removed, found.added, found.changed) == (left > right, right > left, 0)


def test_values_are_compared_channel_by_channel() -> None:
    """Whatever the order of the rows; largest first."""
    found = tables(b"K 1 a 10\nK 2 a 20\nK 3 a 30\n", b"K 3 a 30\nK 2 a 15\nK 1 a 11\n")
    [column] = found.columns
    assert [(change.channel, change.old, change.new, change.difference) for change in column.largest] == [
        ("2", "20", "15", -5.0),
        ("1", "10", "11", 1.0),
    ]
    assert column.largest[0].relative == -0.25
    assert found.labels == ["3", "2", "1"]
    assert column.differences == [0.0, -5.0, 1.0]
    assert column.mean == pytest.approx(-4 / 3)


def test_channels_in_one_alone_are_named() -> None:
    """They have no difference."""
    found = tables(b"0 1\n0 2\n1 1\n", b"0 2\n1 1\n1 2\n")
    assert (found.only_left, found.only_right, found.columns) == (["0 1"], ["1 2"], [])


def test_a_value_from_nought_has_no_relative_change() -> None:
    """There is nothing to relate it to."""
    [column] = tables(b"1 0.0\n2 0.0\n", b"1 0.5\n2 0.0\n").columns
    assert [change.relative for change in column.largest] == [None]


def test_channels_that_repeat_are_compared_row_by_row() -> None:
    """And it is said."""
    found = tables(b"a 1.5\na 2.5\n", b"a 1.5\na 3.5\na 4.5\n")
    assert found.by_number
    assert [change.difference for change in found.columns[0].largest] == [1.0]
    assert len(found.only_right) == 1


def test_other_columns_are_not_compared() -> None:
    """A file of another device, perhaps."""
    one, other = detect(b"1 2.5\n2 2.5\n").table, detect(b"1 2.5 3\n2 2.5 3\n").table
    assert one is not None
    assert other is not None
    assert diff.compare_tables(one, other) is None


def test_the_trackers_are_compared_in_a_page_s_time(tmp_path: Path) -> None:
    """8,400 channels of JSON that all differ, as text and as tables."""
    samples.write(tmp_path)
    began = time.thread_time()
    old, new = (detect((tmp_path / f"trackers_{year}.json").read_bytes()) for year in (2015, 2017))
    found = diff.side_by_side(old, new)
    assert old.table is not None
    assert new.table is not None
    assert diff.compare_tables(old.table, new.table) is not None
    assert time.thread_time() - began < 1
    assert len(found.rows) == diff.MAX_SHOWN_ROWS
    assert not found.complete


@pytest.mark.parametrize("new", [b"b\na\n", b"a\n", b"a\nc\na\nd\n"])
def test_lines_that_repeat_are_compared_in_a_page_s_time(new: bytes) -> None:
    """What belongs together is not looked for past a limit: line n stands beside line n."""
    began = time.thread_time()
    found = lines(b"a\nb\n" * 200_000, new * 200_000)
    assert time.thread_time() - began < 2
    assert found.by_number
    assert found.truncated
    assert len(found.rows) <= diff.MAX_SHOWN_ROWS
