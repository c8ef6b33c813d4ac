"""Names, comments, times and numbers at the ends of what may be stored: every page that a link leads to is there."""

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pytest
import requests

import cdb
from tests import servers
from tests.pages.test_pages import HTML, Read
from tests.servers import Master

FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
LONGEST = 4_096
DEVICES = ("A" * 64, "A", "0 _.+-0", "+".join("A" * 32) + "-")
COMMENTS = (
    "x" * LONGEST,
    "\u202e\u2066\u200b\ufeff" * (LONGEST // 4),
    "\U0010ffff" * LONGEST,
    "</td><script>alert(1)</script>" * (LONGEST // 30),
    "%s{{7*7}}{% raw %}&#0;&amp;",
    "e" + "\u0301" * (LONGEST - 1),
    "\n\t" * (LONGEST // 2 - 1) + ".",
)
MAX_RUN = 2**31 - 1


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master that holds all of them."""
    folder = tmp_path_factory.mktemp("extremes")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", Path(folder)) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        for device in DEVICES:
            for valid_from in (FIRST, LAST):
                writer.add_calibration(device, "t" * 64, valid_from, "0 1e308\n-1e308 5e-324\n")
        for number, comment in enumerate(COMMENTS):
            stored = writer.add_calibration("TOF1", "t0", f"2016-03-01T00:00:0{number}", str(number), comment=comment)
            if number % 2:
                writer.withdraw_calibration(stored.id, comment)
        writer.add_run(1, FIRST, LAST)
        writer.add_run(MAX_RUN, LAST, LAST)
        writer.add_run(7662, FIRST)
        yield master


def test_every_page_that_a_link_leads_to_is_there(master: Master) -> None:
    """All links from the start page are followed, and those from there; none fails, and each comes within seconds."""
    found = [f"{master.url}/", *(f"{master.url}{path}" for path in STARTS)]
    seen: dict[str, int] = {}
    while found and len(seen) < 400:
        address = found.pop(0)
        if address in seen or urlsplit(address).netloc != urlsplit(master.url).netloc:
            continue
        answer = requests.get(address, headers=HTML, timeout=5)
        seen[address] = answer.status_code
        if answer.headers["Content-Type"].startswith("text/html"):
            found += sorted(urljoin(address, each.split("#")[0]) for each in Read(answer).addresses)
    assert {address: status for address, status in seen.items() if status != 200} == {}
    assert len(seen) > 60


STARTS = [
    *(f"/applies?date={quote(when)}" for when in (FIRST, LAST)),
    *(f"/applies?run={run}" for run in (1, 7662, MAX_RUN)),
    *(f"/timeline/{quote(device)}/{'t' * 64}" for device in DEVICES),
    "/timeline/TOF1/t0",
    f"/timeline/TOF1/t0?from={quote(FIRST)}&to={quote(LAST)}",
    "/compare?left=1&right=2",
    "/journal?before=3",
]


@pytest.mark.parametrize("question", [f"date={quote(FIRST)}", f"date={quote(LAST)}", f"run={MAX_RUN}"])
def test_an_archive_has_all_of_them(question: str, master: Master) -> None:
    """Zip files begin in 1980 and have short names; these are none of the archive's concern."""
    answer = requests.get(f"{master.url}/applies.zip?{question}", timeout=5)
    assert answer.status_code == 200
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert len([name for name in names if "t" * 64 in name]) == len(DEVICES)
    assert len(set(names)) == len(names)
