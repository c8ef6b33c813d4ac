"""The pages of one calibration and of two compared, over a real socket."""

import hashlib
import html

import pytest

import cdb
from tests.pages.browser_session import Visitor
from tests.servers import Master

TABLE = "\n".join(f"TOFChannelKey 1 0 {slab} 0 tof1 {-60000.5 + slab} 3" for slab in range(10))
MARKUP = "<script>alert(1)</script>\n<img src=x onerror=alert(2)>\n</textarea>\"'>&amp;\n"


@pytest.fixture
def writer(shared_master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)


@pytest.fixture
def visitor(shared_master: Master) -> Visitor:
    return Visitor(shared_master)


def test_it_says_all_of_itself(visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
    """Who stored it, when and why; its bytes by name; and how others get the same."""
    stored = writer.add_calibration("ONE", "t0", "2016-03-01", TABLE, comment="after the March survey")
    page = visitor.see(f"calibrations/{stored.id}")
    sha256 = hashlib.sha256(TABLE.encode()).hexdigest()
    for told in (
        "In force now",
        "2016-03-01 00:00:00",
        "after the March survey",
        "by alice",
        sha256,
        f"cdb get --id {stored.id} -o ONE_t0_{stored.id}.txt",
        f'cdb.Calibration("{visitor.server.url}").get_calibration_for_id({stored.id})',
        f'href="../cdb/v2/payload/{sha256}" download="ONE_t0_{stored.id}.txt"',
        "6 columns for its channel and 2 values",
        "is <code>3</code> in every row",
        "5: \N{MINUS SIGN}59995.5",
    ):
        assert told in page
    assert page.count("<figure") == 1


def test_it_stands_in_its_timeline(visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
    """With the one before and the one after; drawn beside the one before."""
    first, second, third = (
        writer.add_calibration("STANDS", "t0", date, TABLE.replace("-6", value)).id
        for date, value in (("2016-03-01", "-6"), ("2016-05-01", "-7"), ("2016-04-01", "-8"))
    )
    page = visitor.see(f"calibrations/{third}")
    assert f'href="../calibrations/{first}" rel="prev"' in page
    assert f'href="../calibrations/{second}" rel="next"' in page
    assert f'href="../compare?left={first}&amp;right={third}"' in page
    assert "Was in force from" in page
    assert f"0: \N{MINUS SIGN}80000.5 ({third})" in page
    assert f"0: \N{MINUS SIGN}60000.5 ({first})" in page
    writer.withdraw_calibration(third, "the cable was swapped")
    page = visitor.see(f"calibrations/{third}")
    assert "Withdrawn</strong>" in page
    assert "the cable was swapped" in page
    assert "/withdraw" not in page


@pytest.mark.parametrize("data", [MARKUP.encode(), b'{"</script>": "<b>"}', b"<b> 1\n<i> 2\n", b""])
def test_a_payload_is_text(visitor: Visitor, writer: cdb.CalibrationSuperMouse, data: bytes) -> None:
    """Whatever it says; comments and reasons likewise."""
    stored = writer.add_calibration("MARKUP", "t0", "2016-03-01", data, comment=MARKUP)
    writer.withdraw_calibration(stored.id, MARKUP)
    page = visitor.see(f"calibrations/{stored.id}")
    assert page.count("<script ") == page.count("</script>") == 1
    for tag in ("<b>", "<i>", "<img src=x", "</textarea>", "<script>"):
        assert tag not in page
    assert html.unescape(page).count("<script>alert(1)</script>") >= 2


def test_bytes_are_shown_as_such(visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
    """Size, hash, and the first of them in hexadecimal."""
    stored = writer.add_calibration("BYTES", "raw", "2016-03-01", bytes(range(256)) * 4)
    page = visitor.see(f"calibrations/{stored.id}")
    assert "The first 512 of 1,024" in page
    assert "00000040  40 41 42 43 44 45 46 47" in page
    assert "@ABCDEFGHIJKLMNO" in page


def test_long_contents_come_in_parts(visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
    """Each part has an address."""
    stored = writer.add_calibration(
        "LONG", "text", "2016-03-01", "".join(f"line {n}{' more' * (n % 2)}\n" for n in range(500))
    )
    page = visitor.see(f"calibrations/{stored.id}")
    assert "Lines 1 to 200 of 500" in page
    assert "line 200<" not in page
    assert f'href="../calibrations/{stored.id}?from=201#content-of-it"' in page
    page = visitor.see(f"calibrations/{stored.id}?from=401")
    assert "Lines 401 to 500 of 500" in page
    assert '<li value="401">line 400</li>' in page
    assert "line 200<" not in visitor.see(f"calibrations/{stored.id}?from=999999")


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("calibrations/999999999", 404, "no calibration with id 999999999"),
        ("calibrations/0", 400, "digits alone"),
        ("calibrations/one", 400, "digits alone"),
        ("calibrations/" + "9" * 60, 400, "digits alone"),
        ("calibrations/1?from=no", 400, "digits alone"),
        ("calibrations/1?as_of=yesterday", 400, "is no time"),
        ("calibrations/1?as_of=9999-01-01", 503, "is not reached"),
        ("compare?left=999999999&right=1", 404, "no calibration with id 999999999"),
        ("compare?left=x&right=1", 400, "digits alone"),
    ],
)
def test_what_cannot_be_shown_is_said_on_a_page(visitor: Visitor, path: str, status: int, told: str) -> None:
    """What was asked, what is wrong, what to do."""
    page = visitor.see(path, status)
    assert told in html.unescape(page)
    assert "<h1>" in page


def test_two_are_compared_channel_by_channel(visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
    """What changed and by how much, largest first; drawn; and line beside line."""
    one = writer.add_calibration("TWO", "t0", "2016-03-01", TABLE).id
    other = writer.add_calibration(
        "TWO", "t0", "2016-04-01", TABLE.replace("-59997.5", "-59000").replace("-60000.5", "-60010.5")
    ).id
    page = visitor.see(f"compare?left={one}&right={other}")
    assert "2 of 10 channels changed" in page
    assert "<strong>+997.5</strong> at most (channel 3)" in page
    assert "Unchanged: column 8" in page
    assert page.index("+997.5</td>") < page.index("\N{MINUS SIGN}10</td>")
    assert "2 lines changed" in page
    assert "<mark>-59000</mark>" in page
    assert "The same bytes" in visitor.see(f"compare?left={one}&right={one}")


def test_other_kinds_are_compared_as_far_as_they_can_be(visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
    """Of different devices, and of bytes."""
    text = writer.add_calibration("KINDS", "t0", "2016-03-01", "some text").id
    raw = writer.add_calibration("KINDS", "raw", "2016-03-01", b"\x00").id
    channels = writer.add_calibration("KINDS", "bad", "2016-03-01", "0 1\n0 2\n").id
    others = writer.add_calibration("KINDS", "bad", "2016-04-01", "0 2\n1 1\n").id
    page = visitor.see(f"compare?left={text}&right={raw}")
    assert "different devices or types" in page
    assert "they differ" in page
    page = visitor.see(f"compare?left={channels}&right={others}")
    assert f"1 channel only in {channels}" in page
    assert f"1 channel only in {others}" in page


def test_the_form_of_a_comparison_asks_for_two(visitor: Visitor) -> None:
    """And keeps what was typed."""
    assert 'value="7"' in visitor.see("compare?left=7")
    assert "What changed" not in visitor.see("compare")
