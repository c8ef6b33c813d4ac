"""Storing in a real browser: found, compared, uploaded with a preview, seen in the timeline, withdrawn."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

import cdb
from demo import samples
from tests import mirrors, servers
from tests.browser.conftest import WIDTHS, Visit, Visiting
from tests.servers import Master

MARKUP = "<script>document.title = 'taken over'</script>\n<img src=x onerror=\"alert('taken over')\">\n</textarea>\n"
EVIL_JSON = json.dumps(
    [{"<b>key</b>": "<script>alert(1)</script>", "value": 0.5}, {"<b>key</b>": MARKUP, "value": 1.5}]
)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("writing")


@pytest.fixture
def master(folder: Path) -> Iterator[Master]:
    """A master with what detector experts store, and with what somebody may store who means ill."""
    files = folder / "files"
    samples.write(files)
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as running:
        writer = cdb.CalibrationSuperMouse(running.url, user=running.user, token=running.token)
        for device, kind, valid_from, name in samples.UPLOADS:
            writer.add_calibration(device, kind, valid_from, (files / name).read_bytes(), comment=f"from {name}")
        for kind, data in (("text", MARKUP.encode()), ("json", EVIL_JSON.encode()), ("bin", bytes(range(256)))):
            stored = writer.add_calibration("EVIL", kind, "2016-01-01", data, comment=MARKUP)
        writer.withdraw_calibration(stored.id, MARKUP)
        for number, start, stop in samples.RUNS:
            if start and stop >= start:
                writer.add_run(int(number), start, stop)
        yield running


def sign_in(page: Page, master: Master) -> None:
    page.get_by_label("User").fill(master.user)
    page.get_by_label("Token").fill(master.token)
    page.get_by_role("button", name="Sign in").click()


def fine(visit: Visit, name: str) -> None:
    """A picture for a person, and what a machine can see of a page."""
    visit.picture(name)
    assert visit.violations() == [], name
    assert not visit.is_too_wide(), name
    assert "taken over" not in visit.page.title()


PAGES = {
    "one-table": "/calibrations/17",
    "one-trackers": "/calibrations/14",
    "one-empty": "/calibrations/15",
    "one-list": "/calibrations/16",
    "one-evil-text": "/calibrations/18",
    "one-evil-json": "/calibrations/19",
    "one-withdrawn-bytes": "/calibrations/20",
    "one-missing": "/calibrations/999",
    "compare": "/compare",
    "compare-tables": "/compare?left=7&right=17",
    "compare-trackers": "/compare?left=10&right=14",
    "compare-lists": "/compare?left=12&right=16",
    "compare-unlike": "/compare?left=18&right=20",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contents_and_comparisons_are_accessible_fit_and_ask_nobody_else(
    master: Master, visiting: Visiting, scheme: str
) -> None:
    """On a desk and a phone; and what is stored is text, whatever it says."""
    for width in WIDTHS:
        visit = visiting(width, scheme)
        for name, path in PAGES.items():
            visit.page.goto(master.url + path)
            assert name == "one-missing" or "There is no such thing" not in visit.page.inner_text("main")
            fine(visit, f"{name}-{width}-{scheme}")
            assert visit.page.locator("main script, main img, main b").count() == 0
        assert all(address.startswith(master.url) for address in visit.asked)
        assert [each for each in visit.complaints if "the server responded with a status of 4" not in each] == []


@pytest.mark.parametrize(("width", "scripts"), [(1280, True), (390, True), (1280, False)])
def test_a_person_uploads_what_they_previewed_and_withdraws_it(
    master: Master, visiting: Visiting, folder: Path, width: int, scripts: bool
) -> None:
    """From what applied to a run, by the comparison with the one before, to upload, timeline and withdrawal.

    With JavaScript and without.
    """
    lines = (folder / "files" / "tof1_t0_2013.txt").read_text().split("\n")
    mended = re.sub(r"\S+(\s+\S+)$", r"-61234.5\1", lines[25])
    new = folder / "mended.txt"
    new.write_text("\n".join([*lines[:25], mended, *lines[26:]]))
    visit = visiting(width, scripts=scripts)
    page = visit.page
    look = fine if scripts else lambda visit, name: None

    page.goto(f"{master.url}/applies?run=8348")
    page.locator('main a[href$="calibrations/7"]').first.click()
    page.get_by_role("link", name="Compare with the one before, 1").click()
    assert page.inner_text("h1") == "1 and 7 compared"

    page.get_by_role("link", name="Upload").click()
    look(visit, f"sign-in-{width}")
    page.get_by_label("User").fill("alice")
    page.get_by_label("Token").fill("a guess")
    page.get_by_role("button", name="Sign in").click()
    assert "do not belong together" in page.inner_text("main")
    look(visit, f"sign-in-wrong-{width}")
    sign_in(page, master)

    look(visit, f"upload-{width}")
    page.get_by_label("Device").fill("TOF1")
    page.get_by_label("Calibration type").fill("t0")
    page.get_by_label("Valid from").fill("October 2016")
    page.get_by_label("File").set_input_files(new)
    page.get_by_label("Comment").fill("slab 5 mended <b>by hand</b>")
    page.get_by_role("button", name="Preview").click()
    assert "'October 2016' is no time" in page.inner_text("main")
    assert page.get_by_label("Valid from").get_attribute("aria-invalid") == "true"
    look(visit, f"upload-wrong-{width}")
    page.get_by_label("Valid from").fill("2016-10-01")
    page.get_by_role("button", name="Preview").click()

    told = page.inner_text("main")
    for words in ("mended.txt", "2017-09-20", "1 of 60 channels changed", "8348", "<b>by hand</b>"):
        assert words in told
    look(visit, f"preview-{width}")
    page.get_by_role("button", name="Store it").click()
    page.wait_for_url("**/calibrations/*#stored")
    assert "Stored as" in page.inner_text("main")
    look(visit, f"stored-{width}")
    id = re.sub(r".*/(\d+)#.*", r"\1", page.url)

    reader = cdb.Calibration(master.url)
    assert reader.get_calibration_for_run("TOF1", "t0", 8348).data == new.read_bytes()
    page.get_by_role("link", name="Timeline").click()
    assert page.locator(f'main a[href$="calibrations/{id}"]').count() > 0
    page.go_back()

    page.get_by_role("link", name="Withdraw").click()
    look(visit, f"withdraw-{width}")
    page.get_by_label("Reason").fill("the wrong slab")
    page.get_by_role("button", name=f"Withdraw {id}").click()
    page.wait_for_url("**/calibrations/*#withdrawn")
    assert "Withdrawn at" in page.inner_text("main")
    look(visit, f"withdrawn-{width}")
    assert reader.get_calibration_for_run("TOF1", "t0", 8348).id == 7

    page.get_by_role("link", name="Upload").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Upload").click()
    assert page.inner_text("h1") == "Sign in to write"
    assert [each for each in visit.complaints if "the server responded with a status of 4" not in each] == []


def test_values_are_read_off_a_plot_by_keyboard_and_pointer(master: Master, visiting: Visiting) -> None:
    """A slider beside it goes from channel to channel and says their values."""
    visit = visiting()
    page = visit.page
    page.goto(f"{master.url}/calibrations/17")
    plot = page.locator("figure.plot").first
    said = plot.locator("output")
    plot.get_by_role("slider").focus()
    page.keyboard.press("End")
    assert said.inner_text().startswith("2 1 9 1 tof2: ")
    assert said.inner_text().count("(") == 2
    picture = plot.locator("svg")
    box = picture.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 1, box["y"] + 5)
    assert said.inner_text().startswith("0 0 0 0 tof0: ")


def test_a_file_is_dropped_anywhere_on_the_form(master: Master, visiting: Visiting) -> None:
    """As it would be chosen."""
    visit = visiting()
    page = visit.page
    page.goto(f"{master.url}/upload")
    sign_in(page, master)
    # With all that the page loads.
    page.wait_for_url("**/upload", wait_until="load")
    page.evaluate(
        """() => {
            const carried = new DataTransfer();
            carried.items.add(new File(["1 2 3"], "dropped.txt"));
            const drop = new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true});
            document.querySelector("#comment").dispatchEvent(drop);
        }"""
    )
    assert page.evaluate("document.querySelector('#file').files[0].name") == "dropped.txt"


def test_another_site_cannot_write_with_a_person_s_browser(master: Master, visiting: Visiting, folder: Path) -> None:
    """A page elsewhere whose form is sent here by who is signed in: no cookie comes with it, and it is not taken."""
    visit = visiting()
    page = visit.page
    page.goto(f"{master.url}/upload")
    sign_in(page, master)
    elsewhere = master.url.replace("127.0.0.1", "localhost")
    form = (
        f'<form method="post" action="{master.url}/calibrations/7/withdraw"><input name="reason" value="evil"></form>'
    )
    page.route(f"{elsewhere}/evil", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(f"{elsewhere}/evil")
    page.evaluate("document.querySelector('form').submit()")
    page.wait_for_url(f"{master.url}/calibrations/7/withdraw")
    assert page.inner_text("h1") == "Not from here"
    assert not cdb.Calibration(master.url).get_calibration_for_id(7).record.withdrawn


def test_a_mirror_shows_contents_and_offers_no_way_to_write(master: Master, visiting: Visiting, folder: Path) -> None:
    """It says where one may."""
    with mirrors.mirror(master.url, f"sqlite:///{folder}/mirror.sqlite", folder) as mirror:
        servers.until(lambda: mirror.status().serial >= 21 and mirror.status().lag_entries == 0)
        visit = visiting()
        for path in PAGES.values():
            visit.page.goto(mirror.url + path)
            assert visit.page.get_by_role("link", name=master.url).is_visible()
            assert visit.page.locator("form[method=post]").count() == 0
            assert visit.page.get_by_role("link", name=re.compile("Upload|Withdraw")).count() == 0
