"""The pages as a browser gets them: over a real socket, what stands on them, and what comes with them."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest
import requests

import cdb
from cdb_server.instants import format_instant
from tests import mirrors, servers
from tests.servers import Master

MARKUP = "<script>alert(1)</script>&amp;\"'<img src=x onerror=alert(2)>"
START = "2016-03-02T00:00:00"
HTML = {"Accept": "text/html"}


class Read(HTMLParser):
    """A page: its elements, the links and files that it names, and its text."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(answer.text)
        base = answer.url
        self.addresses = {
            urljoin(base, value or "")
            for _, held in self.tags
            for name, value in held.items()
            if name in ("href", "src", "action")
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All of it, in single spaces."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of a kind."""
        return [held for name, held in self.tags if name == tag]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master with hostile comments, a withdrawal, a superseded calibration, and runs."""
    folder = tmp_path_factory.mktemp("pages")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder, "--workers", "1") as running:
        writer = cdb.CalibrationSuperMouse(running.url, user=running.user, token=running.token)
        writer.add_calibration("TOF1", "t0", "2016-01-01", b"1\n", comment="the first survey")
        writer.add_calibration("TOF1", "t0", "2016-03-01", b"2\n", comment=MARKUP)
        mistake = writer.add_calibration("TOF1", "t0", "2016-03-01 12:00", b"3\n", comment="too early")
        writer.withdraw_calibration(mistake.id, reason=f"wrong runs {MARKUP}")
        writer.add_calibration("KL A", "gain.v2", "2016-03-02", b"", comment="an empty list")
        writer.add_calibration("KL A", "gain.v2", "2016-03-02", bytes(range(256)), comment="mended")
        writer.add_calibration("EMR", "map", "2999-01-01", b"later", comment="for the upgrade")
        writer.add_run(7662, START, "2016-03-02T01:00:00")
        yield running


def get(server: servers.Server, path: str, **how: str) -> requests.Response:
    return requests.get(server.url + path, headers={**HTML, **how}, timeout=30)


def page(server: servers.Server, path: str, status: int = 200) -> Read:
    answer = get(server, path)
    assert answer.status_code == status, answer.text
    return Read(answer)


PAGES = (
    "/",
    "/?q=tof1",
    "/?q=nothing",
    "/?from=2016-03-01&to=2016-03-02",
    "/timeline/TOF1/t0",
    "/timeline/kl%20a/GAIN.V2?from=2016-01-01",
    "/applies",
    "/applies?run=7662",
    "/applies?date=2016-03-01",
    "/journal",
    "/journal?kind=withdrawal&device=tof1",
)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_and_obeys_nobody_else(master: Master, path: str) -> None:
    """One h1, a title, landmarks, labels; no style, script or address of another server; the headers that see to it."""
    answer = get(master, path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-cache, private"
    read = Read(answer)
    assert [len(read.of(tag)) for tag in ("h1", "main")] == [1, 1]
    assert re.search("<title>.+ – MICE calibrations</title>", answer.text)
    assert read.of("html")[0]["lang"] == "en"
    assert not [held for _, held in read.tags if "style" in held or any(name.startswith("on") for name in held)]
    assert not read.of("script")
    assert all(address.startswith(master.url) for address in read.addresses)
    ids = [held["id"] for _, held in read.tags if "id" in held]
    assert len(ids) == len(set(ids))
    labelled = {held.get("for") for held in read.of("label")}
    assert {held["id"] for tag in ("input", "select") for held in read.of(tag)} <= labelled
    assert all(
        held.get("aria-label") or held.get("aria-hidden") for held in read.of("svg") if held.get("role") == "img"
    )
    head = requests.head(master.url + path, headers=HTML, timeout=30)
    assert (head.status_code, head.content) == (200, b"")


def test_links_lead_somewhere(master: Master) -> None:
    """Every address that these pages give is answered, but for those of pages that are not theirs."""
    others = re.compile(r"/(calibrations/|compare|upload|withdraw|sign-)")
    seen: set[str] = set()
    for path in PAGES:
        seen |= page(master, path).addresses
    for address in seen:
        if not others.search(address):
            assert requests.get(address, headers=HTML, timeout=30).status_code == 200, address


def test_markup_is_shown_as_text(master: Master) -> None:
    """In comments and reasons, in what is searched for, and in addresses that name nothing."""
    for path in ("/", "/timeline/TOF1/t0", "/applies?run=7662", "/journal"):
        read = page(master, path)
        assert MARKUP in read.text or "&amp;\"'" in read.text
        assert {held.get("src") for held in read.of("img")} == {read.of("link")[0]["href"]}
    hostile = quote(MARKUP)
    for path, status in (
        (f"/?q={hostile}", 200),
        (f"/applies?run={hostile}&date={hostile}&as_of={hostile}", 400),
        (f"/journal?device={hostile}&author={hostile}", 200),
        (f"/journal?kind={hostile}", 400),
        (f"/timeline/{hostile.replace('/', '%2F')}/t0", 404),
        (f"/timeline/TOF1/{quote('<script>')}", 400),
        (f"/{quote('<script>')}", 404),
    ):
        answer = get(master, path)
        assert answer.status_code == status, path
        assert "<script" not in answer.text
        assert "onerror=alert(2)>" not in answer.text


def test_the_overview_shows_what_is_in_force_and_since_when(master: Master) -> None:
    """By device and type; what begins in the future is not in force; a search narrows it and says what it searched."""
    text = page(master, "/").text
    assert "3 devices and types" in text
    assert re.search(r"KL A gain\.v2 .*Number 6 mended 2016-03-02 00:00:00 for \d+ years .*alice", text)
    assert re.search(r"TOF1 t0 .*Number 2 ", text)
    assert re.search(r"EMR map .*nothing is in force now", text)
    assert "Master: 8 entries in the journal" in text
    for sought, found in (("kl", "KL A"), ("MENDED", "KL A"), ("alice tof", "TOF1"), ("emr", "EMR")):
        text = page(master, f"/?q={quote(sought)}").text
        assert found in text
    assert "Nothing in force has “early”" in page(master, "/?q=early").text


def test_the_timeline_draws_what_is_and_quietly_what_is_not(master: Master) -> None:
    """In force as bars, withdrawn and superseded ones as marks, runs on the axis; all in the table too."""
    read = page(master, "/timeline/TOF1/t0")
    classes = [held.get("class") for _, held in read.tags]
    assert [classes.count(name) for name in ("bar", "bar second")] == [2, 2]
    assert "2 calibrations in force" in str([held.get("aria-label") for held in read.of("svg")])
    assert ", 1 withdrawn." in str([held.get("aria-label") for held in read.of("svg")])
    assert "run 7662, 2016-03-02 00:00:00" in page(master, "/timeline/TOF1/t0?from=2016-03-01&to=2016-03-03").text
    assert "Number 3 2016-03-01 12:00:00 withdrawn: wrong runs" in read.text
    assert "Number 5 2016-03-02 00:00:00 superseded at once" in page(master, "/timeline/KL A/gain.v2").text
    assert "nothing is stored" not in read.text
    assert "There is no such thing here" in page(master, "/timeline/TOF9/t0", 404).text
    assert "it ends before it begins" not in read.text
    assert "the period ends before it begins" in page(master, "/timeline/TOF1/t0?from=2017-01-01&to=2016-01-01").text


def test_what_applies_comes_with_its_reason(master: Master) -> None:
    """Each file of the run, why it and no other, and what applies for nothing."""
    text = page(master, "/applies?run=7662").text
    assert "Run 7662 starts at 2016-03-02 00:00:00 and stops at 2016-03-02 01:00:00" in text
    assert "2 files apply, 258 bytes together." in text
    assert "The latest that begins by then, 1 day before." in text
    assert "It took over from number 1 , valid from 2016-01-01 00:00:00" in text
    assert "Passed over is number 3 , withdrawn: “wrong runs" in text
    assert "The latest that begins by then, at that very instant. Nothing was in force before it." in text
    assert "Passed over is number 5 , stored earlier under the same date." in text
    assert "Nothing applies for EMR map" in text
    assert "1 file applies" in page(master, "/applies?date=2016-02-01 08:00").text
    assert "Nothing applies." in page(master, "/applies?date=2000-01-01").text


@pytest.mark.parametrize(
    ("query", "status", "field", "told"),
    [
        ("run=seven", 400, "run", "digits alone"),
        ("date=yesterday", 400, "date", "write it as 2016-03-01"),
        ("as_of=2016-01-01", 400, "run", "give a run number or a date"),
        ("run=7662&date=2016-01-01", 400, "date", "exclude each other"),
        ("run=99", 404, "run", "run 99 is not registered"),
        ("run=7662&as_of=2999-01-01", 503, "as_of", "is not reached"),
        ("run=7662&as_of=soon", 400, "as_of", "is no time"),
    ],
)
def test_what_is_typed_wrong_is_told_at_its_field(
    master: Master, query: str, status: int, field: str, told: str
) -> None:
    """The form again, with what was typed; the archive to the same is a page that says it."""
    read = page(master, f"/applies?{query}", status)
    wrong = [held for held in read.of("input") if held.get("aria-invalid")]
    assert [held["id"] for held in wrong] == [field]
    assert f"{field}-problem" in str(wrong[0]["aria-describedby"])
    assert told in read.text
    assert told in page(master, f"/applies.zip?{query}", status).text


def test_a_question_as_of_an_instant_stays_as_it_was(master: Master) -> None:
    """The link that the page offers to send answers the same after a withdrawal."""
    client = cdb.Calibration(master.url)
    stored = client.get_history("TOF1", "t0")[-1]
    servers.until(lambda: client.get_status().complete_until > stored.created + timedelta(seconds=1), 30)
    offered = next(address for address in page(master, "/applies?date=2016-01-15").addresses if "as_of=" in address)
    told = requests.get(offered, headers=HTML, timeout=30)
    assert "this answer will never change" in told.text
    assert "the first survey" in told.text


@pytest.mark.parametrize(
    "when", ["run=7662", "date=2016-03-02", "run=7662&as_of={as_of}", "date=2016-03-02&as_of={as_of}"]
)
def test_the_archive_holds_the_files_and_a_lock_file_that_the_client_takes(
    master: Master, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names are safe, its bytes are those stored; a job with the lock file and no server gets them."""
    client = cdb.Calibration(master.url)
    last = client.get_journal(after_serial=0, limit=1000)[-1].created
    servers.until(lambda: client.get_status().complete_until >= last, 30)
    as_of = format_instant(last)
    answer = get(master, f"/applies.zip?{when.format(as_of=as_of)}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/zip"
    name = re.fullmatch(r'attachment; filename="([A-Za-z0-9.-]+)\.zip"', answer.headers["Content-Disposition"])
    assert name
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        folder = name[1]
        assert archive.namelist() == [
            f"{folder}/README.txt",
            f"{folder}/{folder}.lock",
            f"{folder}/KL_A_gain.v2_6.dat",
            f"{folder}/TOF1_t0_2.dat",
        ]
        assert archive.read(f"{folder}/KL_A_gain.v2_6.dat") == bytes(range(256))
        assert archive.read(f"{folder}/TOF1_t0_2.dat") == b"2\n"
        guide = archive.read(f"{folder}/README.txt").decode()
        lock = tmp_path / "job.lock"
        lock.write_bytes(archive.read(f"{folder}/{folder}.lock"))
    assert ("CDB_AS_OF" in guide) == ("as_of" in when)
    for line in lock.read_text().splitlines():
        assert set(json.loads(line)) == {"question", "answer"}
    # The bytes, into the cache, as `cdb lock fetch` brings them.
    for id in (2, 6):
        client.get_calibration_for_id(id)
    monkeypatch.setenv("CDB_LOCK", str(lock))
    monkeypatch.setenv("CDB_OFFLINE", "1")
    if "as_of" in when:
        monkeypatch.setenv("CDB_AS_OF", as_of)
    job = cdb.Calibration("http://127.0.0.1:9")
    if when.startswith("run"):
        assert job.get_calibration_for_run("tof1", "t0", 7662).data == b"2\n"
        assert job.get_run(7662).run_number == 7662
        assert [each.id for each in job.get_calibrations_for_run(7662)] == [2, 6]
    else:
        assert job.get_calibration_for_date("KL A", "gain.v2", "2016-03-02").data == bytes(range(256))
        assert list(job.get_ids("2016-03-02")) == [2, 6]


def test_the_head_of_an_archive_is_given_alone(master: Master) -> None:
    """As GET would give it, with nothing behind it."""
    head = requests.head(f"{master.url}/applies.zip?run=7662", headers=HTML, timeout=30)
    assert (head.status_code, head.headers["Content-Type"], head.content) == (200, "application/zip", b"")
    assert requests.head(f"{master.url}/applies.zip?run=99", headers=HTML, timeout=30).status_code == 404


def test_large_files_are_in_the_archive_whole(shared_master: Master) -> None:
    """Several archives at once wait for each other's room, and each is whole."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    data = bytes(range(256)) * 2**16
    for number in range(3):
        writer.add_calibration("LARGE", f"part{number}", "0001-06-01", data + bytes([number]))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: get(shared_master, "/applies.zip?date=0001-06-01"), range(4)))
    for answer in answers:
        assert answer.status_code == 200
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            parts = [archive.read(name) for name in archive.namelist() if "LARGE" in name]
        assert parts == [data + bytes([number]) for number in range(3)]


def test_the_journal_shows_who_did_what(master: Master) -> None:
    """All kinds, the latest first, narrowed by any of its fields; an entry is an address."""
    text = page(master, "/journal").text
    assert text.index("registered run 7662") < text.index("stored KL A gain.v2") < text.index("withdrew number 3")
    assert "8 entries" in text
    assert "1 entry" in page(master, "/journal?kind=withdrawal").text
    assert "4 entries" in page(master, "/journal?device=Tof1&type=T0").text
    assert "No such entry" in page(master, "/journal?author=nobody").text
    assert "3 entries before entry 4" in page(master, "/journal?before=4").text
    assert "is no kind of entry" in page(master, "/journal?kind=x", 400).text
    assert "digits alone" in page(master, "/journal?before=x", 400).text


def test_an_address_that_names_nothing_is_told_to_each_in_its_way(master: Master) -> None:
    """A page for who asks for HTML, a line of text for programs; below a folder too, links lead home."""
    read = page(master, "/no/such/page", 404)
    assert "There is no such thing here" in read.text
    assert f"{master.url}/" in read.addresses
    for accept in ("*/*", "application/json"):
        answer = requests.get(master.url + "/no/such/page", headers={"Accept": accept}, timeout=30)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")


def test_files_of_pages_may_be_kept_for_ever_under_their_version(master: Master) -> None:
    """Named with another version, or none, they are asked for again; nothing else of the folder is given."""
    sheet = next(str(held["href"]) for held in page(master, "/").of("link") if held.get("rel") == "stylesheet")
    answer = get(master, "/" + sheet.removeprefix("./"))
    assert answer.headers["Content-Type"].startswith("text/css")
    assert "immutable" in answer.headers["Cache-Control"]
    assert get(master, "/static/site.css?v=1").headers["Cache-Control"] == "no-cache"
    for name in ("nothing.css", "..%2Fsite.py", "__init__.py"):
        assert get(master, f"/static/{name}").status_code == 404


def test_each_page_is_counted_under_its_name(master: Master) -> None:
    """And no name is one that a caller could make up."""
    get(master, "/timeline/TOF1/t0")
    get(master, "/timeline/NOBODY/x")
    text = requests.get(master.url + "/metrics", timeout=30).text
    assert 'cdb_requests_total{operation="page_timeline",outcome="ok"}' in text
    assert 'cdb_requests_total{operation="page_timeline",outcome="404"}' in text
    assert "NOBODY" not in text


def test_a_mirror_shows_all_and_says_where_writing_is_possible(
    master: Master, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same pages, how old its knowledge is, and no link to a page that writes."""
    folder = tmp_path_factory.mktemp("mirror")
    with mirrors.mirror(master.url, f"sqlite:///{folder}/cdb.sqlite", folder) as mirror:
        servers.until(lambda: mirror.status().serial == 8)
        for path in PAGES:
            read = page(mirror, path)
            assert "Mirror, read only: 8 entries in the journal" in read.text
            assert re.search(r"Its master was heard (a moment|\d+ seconds?) ago", read.text)
            assert f"Writing is possible at {master.url}" in read.text
            assert not [held for held in read.of("form") if (held.get("method") or "get").lower() != "get"]
            assert not [address for address in read.addresses if re.search("/(upload|withdraw|sign)", address)]
