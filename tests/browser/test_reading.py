"""Reading in a real browser: on a desk and a phone, by light and dark, with a keyboard, and without JavaScript."""

import re
import zipfile
from collections.abc import Iterator

import pytest

import cdb
from tests import mirrors, servers
from tests.browser.conftest import WIDTHS, Visiting
from tests.servers import Master

MARKUP = "<script>document.title = 'taken over'</script><img src=x onerror=\"alert('taken over')\"><b>bold</b>"
# As long and as free of spaces as they are admitted.
LONG_DEVICE, LONG_TYPE = "D" * 64, "t" * 64

PAGES = {
    "overview": "/",
    "search": "/?q=march",
    "nothing-found": "/?q=nobody",
    "timeline": "/timeline/TOF1/t0",
    "timeline-closer": "/timeline/TOF1/t0?from=2016-02-25&to=2016-03-05",
    "timeline-of-many": "/timeline/MANY/t0",
    "timeline-wrong": "/timeline/TOF1/t0?from=yesterday",
    "applies": "/applies",
    "applies-to-run": "/applies?run=7662",
    "applies-wrong": "/applies?run=seven&date=yesterday",
    "journal": "/journal",
    "journal-filtered": "/journal?kind=withdrawal&author=alice",
    "missing": "/no/such/page",
}


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master with what experiments store, and with what somebody may store who means ill."""
    folder = tmp_path_factory.mktemp("reading")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as running:
        writer = cdb.CalibrationSuperMouse(running.url, user=running.user, token=running.token)
        for date in ("2011-11-23 12:00", "2013-08-01", "2016-03-01"):
            for kind in ("t0", "tw", "trigger"):
                writer.add_calibration("TOF1", kind, date, f"{date} {kind}\n", comment=f"survey of {date[:4]}")
        mistake = writer.add_calibration("TOF1", "t0", "2016-02-29 20:00", b"0\n", comment=MARKUP)
        writer.withdraw_calibration(mistake.id, reason=MARKUP)
        writer.add_calibration("KL", "gain", "2013-01-01", b"1\n", comment="after the March survey")
        writer.add_calibration("KL", "gain", "2013-01-01", b"2\n", comment="the same, with a digit mended")
        writer.add_calibration("CKOV A", "bad.channels", "2015-01-01", b"", comment=MARKUP)
        writer.add_calibration(LONG_DEVICE, LONG_TYPE, "2015-01-01", b"x", comment="w" * 4096)
        for day in range(1, 29):
            for hour in range(13):
                writer.add_calibration("MANY", "t0", f"2016-01-{day:02} {hour:02}:00", f"{day} {hour}")
        for number in range(7660, 7670):
            writer.add_run(number, f"2016-{number - 7658:02}-29 20:47:00.218291", None)
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_is_accessible_fits_and_asks_nobody_else(
    master: Master, visiting: Visiting, width: int, scheme: str
) -> None:
    """No violation by axe-core, nothing to move sideways, no request to another server, no complaint, no alert."""
    visit = visiting(width, scheme)
    for name, path in PAGES.items():
        visit.page.goto(master.url + path)
        visit.picture(f"{name}-{width}-{scheme}")
        assert visit.violations() == [], name
        assert not visit.is_too_wide(), name
        assert "taken over" not in visit.page.title()
    assert all(address.startswith(master.url) for address in visit.asked)
    # The browser tells of each answer that is an error.
    assert [each for each in visit.complaints if "the server responded with a status of 4" not in each] == []


def test_what_is_stored_is_shown_as_text(master: Master, visiting: Visiting) -> None:
    """Markup in comments and reasons is read as it was written, and makes no element."""
    visit = visiting()
    for path in ("/", "/timeline/TOF1/t0", "/applies?run=7662", "/journal?before=14"):
        visit.page.goto(master.url + path)
        assert "<script>document.title" in visit.page.inner_text("main"), path
        assert visit.page.locator("main script, main img, main b").count() == 0
    assert [each for each in visit.complaints if "dialog" in each] == []


def test_a_person_finds_what_applied_to_a_run_and_why_without_javascript(
    master: Master, visiting: Visiting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From the first page, by links and forms alone, to the archive; a wrong number is told and mended on the way."""
    visit = visiting(scripts=False)
    page = visit.page
    page.goto(master.url)
    page.get_by_role("link", name="What applies").click()
    page.get_by_label("Run number").fill("7662 or so")
    page.get_by_role("button", name="Show what applies").click()
    assert page.get_by_label("Run number").input_value() == "7662 or so"
    assert "digits alone" in page.inner_text("main")
    page.get_by_label("Run number").fill("7662")
    page.get_by_role("button", name="Show what applies").click()
    assert page.inner_text("h1") == "What applies to run 7662"
    row = page.get_by_role("row").filter(has_text="TOF1 t0")
    assert "took over from number 4" in row.inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all of them").click()
    path = tmp_path_factory.mktemp("downloads") / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "run7662.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert "run7662/CKOV_A_bad.channels_14.dat" in archive.namelist()
    row.get_by_role("link", name="TOF1 t0", exact=True).click()
    assert page.inner_text("h1") == "When which calibration of TOF1 t0 applies"
    page.get_by_role("link", name="Closer").click()
    assert re.search(r"/timeline/TOF1/t0\?from=.+&to=", page.url)
    page.get_by_role("link", name="Everything").click()
    assert page.url == f"{master.url}/timeline/TOF1/t0"


def test_the_keyboard_is_enough(master: Master, visiting: Visiting) -> None:
    """The first key leads past the bar; every link and field is reached, in order, and one sees where one is."""
    visit = visiting()
    page = visit.page
    page.goto(master.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("march")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=march*")
    seen = 0
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body") and seen < 50:
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        seen += 1
        page.keyboard.press("Tab")
    assert seen >= page.locator("main a, main button, main input").count()


def test_a_mirror_says_where_to_write_and_offers_no_way(
    master: Master, visiting: Visiting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every page of it says so, is accessible, and fits."""
    folder = tmp_path_factory.mktemp("mirror")
    with mirrors.mirror(master.url, f"sqlite:///{folder}/cdb.sqlite", folder) as mirror:
        servers.until(lambda: mirror.status().lag_entries == 0 and mirror.status().serial > 300)
        for width in WIDTHS:
            visit = visiting(width)
            for path in PAGES.values():
                visit.page.goto(mirror.url + path)
                assert visit.page.get_by_role("link", name=master.url).is_visible()
                assert visit.page.locator("form[method=post]").count() == 0
                assert visit.page.get_by_role("link", name="Upload").count() == 0
            visit.page.goto(mirror.url)
            visit.picture(f"mirror-{width}")
            assert visit.violations() == []
            assert not visit.is_too_wide()
