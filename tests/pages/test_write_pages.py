"""The pages that write, over a real socket: who may, what is shown before, what is stored, what is kept meanwhile."""

import base64
import hashlib
import html
from pathlib import Path
from typing import Any

import pytest

import cdb
from cdb_server.database.transactions import Database
from cdb_server.pages.views.upload import MAX_CARRIED_BYTES
from cdb_server.repository.tokens import Tokens
from tests import mirrors, servers
from tests.pages.browser_session import Form, Visitor, hidden, signed_in
from tests.servers import Master

TABLE = b"\n".join(b"TOFChannelKey 1 0 %d 0 tof1 %d 3" % (slab, -60000 + slab) for slab in range(10))
FILLED: Form = {
    "step": "preview",
    "device_name": "TOF1",
    "calibration_type": "t0",
    "valid_from": "2016-10-01",
    "comment": "",
}


def preview(visitor: Visitor, data: bytes, status: int = 200, **filled: Any) -> str:
    return visitor.send("upload", status, file=("new.txt", data), **{**FILLED, **filled})


def store(visitor: Visitor, page: str, **more: Any) -> str:
    return visitor.send("upload", step="store", **{**hidden(page), **more})


@pytest.fixture
def backend() -> str:
    """One is enough here: that both store alike is shown below the pages."""
    return "sqlite"


@pytest.fixture
def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)


@pytest.fixture
def visitor(master: Master) -> Visitor:
    return signed_in(master)


class TestUpload:
    def test_it_is_previewed_and_then_stored(self, visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
        """What it takes over from, which runs change, how its numbers differ: then a button, then its own page."""
        first = writer.add_calibration("TOF1", "t0", "2016-03-01", TABLE, comment="before").id
        for number, start in ((7661, "2016-09-30"), (7662, "2016-10-01"), (7663, "2016-10-02")):
            writer.add_run(number, start)
        page = preview(visitor, TABLE.replace(b"-59995", b"-59000"), device_name="tof1", valid_from="2016-10-01 00:00")
        for told in (f'<a href="./calibrations/{first}">{first}</a>', "7662–7663", "1 of 10 channels changed", "+995"):
            assert told in page
        assert writer.get_history("TOF1", "t0")[-1].id == first
        page = store(visitor, page)
        assert "In force now" in page
        stored = writer.get_current_calibration("TOF1", "t0")
        assert (stored.id, stored.author, stored.data) == (first + 4, "alice", TABLE.replace(b"-59995", b"-59000"))
        assert str(stored.valid_from) == "2016-10-01 00:00:00+00:00"

    def test_what_is_stored_already_is_not_stored_again(
        self, visitor: Visitor, writer: cdb.CalibrationSuperMouse
    ) -> None:
        """Rule 9: the preview leads to it, and has no button."""
        stored = writer.add_calibration("TOF1", "t0", "2016-10-01", TABLE).id
        page = preview(visitor, TABLE)
        assert f"these bytes are stored as {stored}" in page
        assert "Store it" not in page

    @pytest.mark.parametrize(
        ("filled", "told"),
        [
            ({"device_name": "TOF\n1"}, "cannot name a device"),
            ({"device_name": ""}, "Name the device."),
            ({"calibration_type": "0"}, "cannot name a calibration type"),
            ({"valid_from": "October"}, "is no time"),
            ({"valid_from": "2016-02-30"}, "is no time"),
            ({"comment": "a" * 4097}, "4097 characters"),
            ({"comment": "\x01"}, "control character"),
        ],
    )
    def test_what_is_wrong_is_said_at_its_field_and_nothing_is_lost(
        self, visitor: Visitor, filled: dict[str, str], told: str
    ) -> None:
        """Not even the file."""
        page = preview(visitor, TABLE, 400, **{"comment": "<b>", **filled})
        [field] = filled
        assert f'id="{field}-problem"' in page
        assert told in html.unescape(page)
        assert base64.b64decode(hidden(page)["carried"]) == TABLE
        assert "<strong>new.txt</strong>" in page
        mended = {**FILLED, **hidden(page), "step": "preview"}
        assert "Store it" in visitor.send("upload", **mended)

    def test_a_file_is_asked_for(self, visitor: Visitor) -> None:
        """With all else kept."""
        page = visitor.send("upload", 400, **FILLED)
        assert "Choose the file." in page
        assert 'value="2016-10-01"' in page

    def test_an_empty_file_must_be_meant(self, visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
        """And is, once that is ticked."""
        page = preview(visitor, b"", 400)
        assert "new.txt is empty: if that is meant, say so below." in page
        page = visitor.send("upload", **{**FILLED, **hidden(page), "empty": "yes"})
        store(visitor, page)
        assert writer.get_current_calibration("TOF1", "t0").data == b""

    def test_bytes_are_kept_as_they_are(self, visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
        """Through both steps: no newline added, none changed, no boundary mistaken."""
        data = bytes(range(256)) + b"\r\n--\r\n\r--" * 100 + b"\r"
        store(visitor, preview(visitor, data))
        assert writer.get_current_calibration("TOF1", "t0").data == data

    def test_a_large_file_is_chosen_again_and_compared_with_its_preview(
        self, visitor: Visitor, writer: cdb.CalibrationSuperMouse
    ) -> None:
        """It does not come back with the page; another file in its place is not stored."""
        data = bytes(MAX_CARRIED_BYTES) + b"\n"
        page = preview(visitor, data)
        assert "carried" not in hidden(page)
        assert len(page) < 20_000
        refused = visitor.send("upload", 400, **{**hidden(page), "step": "store", "file": ("other.txt", b"other")})
        assert "other.txt is not the file of the preview" in refused
        store(visitor, page, file=("new.txt", data))
        assert writer.get_current_calibration("TOF1", "t0").data == data

    def test_something_can_be_changed_after_the_preview(self, visitor: Visitor) -> None:
        """The form comes back as it was filled in, with its file."""
        page = visitor.send("upload", **{**hidden(preview(visitor, TABLE, comment="why")), "step": "change"})
        assert "Upload a calibration" in page
        assert ">why</textarea>" in page
        assert base64.b64decode(hidden(page)["carried"]) == TABLE

    def test_a_preview_that_no_longer_holds_is_shown_again(
        self, visitor: Visitor, writer: cdb.CalibrationSuperMouse
    ) -> None:
        """Something else was stored between the preview and the button."""
        page = preview(visitor, TABLE)
        other = writer.add_calibration("TOF1", "t0", "2016-09-01", b"other").id
        page = store(visitor, page)
        assert "Not stored yet" in page
        assert len(writer.get_history("TOF1", "t0")) == 1
        store(visitor, page)
        assert [each.id for each in writer.get_history("TOF1", "t0")] == [other, other + 1]

    def test_a_slip_of_a_name_is_seen(self, visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
        """A new device is said to be one, with those whose names are alike."""
        writer.add_calibration("TOF1", "trigger", "2016-03-01", b"1")
        assert "Is TOF1 meant?" in preview(visitor, TABLE, device_name="TOFI")
        assert "Is trigger meant?" in preview(visitor, TABLE, calibration_type="triger")

    def test_markup_is_text_all_the_way(self, visitor: Visitor) -> None:
        """In the file, its name, the comment and the fields."""
        evil = "<script>alert(1)</script>"
        name = '"><b>.txt'
        page = visitor.send("upload", **{**FILLED, "comment": evil, "file": (name, evil.encode())})
        assert evil not in page
        assert "<b>" not in page
        page = visitor.send("upload", 400, **{**FILLED, "device_name": evil, "valid_from": evil})
        assert evil not in page

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("text/plain", b"step=store"),
            ("multipart/form-data", b"--x"),
            ("multipart/form-data; boundary=x", b"no boundary"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
            ),
            ("application/x-www-form-urlencoded", b"step=store&carried=!!!!"),
            ("", b""),
        ],
    )
    def test_what_is_no_form_is_refused(self, visitor: Visitor, content_type: str, body: bytes) -> None:
        """On a page that says so."""
        answer = visitor.session.post(
            f"{visitor.server.url}/upload",
            data=body,
            headers={"Content-Type": content_type, "Origin": visitor.server.url},
            timeout=20,
        )
        assert answer.status_code == 400, answer.text
        assert "<h1>" in answer.text


class TestWithdrawal:
    def test_it_says_what_would_change_and_asks_why(self, visitor: Visitor, writer: cdb.CalibrationSuperMouse) -> None:
        """A blank reason is none; with one it is done, and done once."""
        first = writer.add_calibration("TOF1", "t0", "2016-03-01", b"1").id
        second = writer.add_calibration("TOF1", "t0", "2016-04-01", b"2").id
        writer.add_run(7661, "2016-05-01")
        page = visitor.see(f"calibrations/{second}/withdraw")
        for told in (f">{first}</a> from", "<strong>1 run</strong>: 7661"):
            assert told in page
        page = visitor.send(f"calibrations/{second}/withdraw", 400, reason=" ")
        assert "the reason is blank" in page
        page = visitor.send(f"calibrations/{second}/withdraw", reason="the <b>cable</b>\r\nwas swapped")
        assert "the &lt;b&gt;cable&lt;/b&gt;\nwas swapped" in page
        assert writer.get_current_calibration("TOF1", "t0").id == first
        assert "Nothing would change" in visitor.see(f"calibrations/{second}/withdraw")

    def test_what_is_not_there_is_not_withdrawn(self, visitor: Visitor) -> None:
        """It is said."""
        visitor.see("calibrations/7/withdraw", 404)
        visitor.send("calibrations/7/withdraw", 404, reason="none")


class TestWhoMayWrite:
    def test_who_is_not_signed_in_is_led_there_and_back(self, master: Master) -> None:
        """Whoever they say they are."""
        visitor = Visitor(master)
        page = visitor.see("calibrations/7/withdraw")
        assert "Sign in to write" in page
        page = visitor.send("sign-in", 401, user="alice", token="wrong", **hidden(page))
        assert "do not belong together" in page
        assert 'value="alice"' in page
        assert "wrong" not in page.replace("notice wrong", "")
        assert visitor.see("upload").count("Sign in to write") == 1
        answer = visitor.post("sign-in", follow=False, user="alice", token=master.token, **hidden(page))
        assert (answer.status_code, answer.headers["Location"]) == (303, "./calibrations/7/withdraw")
        assert "Upload a calibration" in visitor.see("upload")
        assert "no valid token of user 'alice'" in master.log.read_text()

    @pytest.mark.parametrize(
        "elsewhere", ["https://evil.example", "//evil.example", "../..", "javascript:alert(1)", ""]
    )
    def test_signing_in_leads_nowhere_else(self, master: Master, elsewhere: str) -> None:
        """Whatever an address says."""
        answer = Visitor(master).post("sign-in", follow=False, user="alice", token=master.token, next=elsewhere)
        assert answer.headers["Location"] == "./upload"

    def test_the_proof_is_kept_from_scripts_and_other_sites(self, master: Master) -> None:
        """And from plain HTTP where the site has a public address by https."""
        answer = Visitor(master).post("sign-in", follow=False, user="alice", token=master.token)
        told = answer.headers["Set-Cookie"]
        assert all(word in told for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"))
        assert "Secure" not in told

    def test_a_revoked_token_is_worth_nothing_at_once(self, master: Master, visitor: Visitor) -> None:
        """In every worker: nothing is kept there."""
        with Database.open(master.database) as database:
            Tokens(database).revoke(master.user)
        assert "Sign in to write" in visitor.see("upload")
        assert "nothing was changed" in visitor.send("upload", 401, **FILLED)

    def test_who_signs_out_is_out(self, visitor: Visitor) -> None:
        """The browser forgets."""
        visitor.send("sign-out")
        assert "Sign in to write" in visitor.see("upload")

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "SELF"},
            {"Referer": "SELF"},
        ],
    )
    def test_a_form_of_another_site_is_refused(
        self, master: Master, visitor: Visitor, writer: cdb.CalibrationSuperMouse, headers: dict[str, str]
    ) -> None:
        """Even with the cookie; before it is received. It is logged."""
        told = {name: value.replace("SELF", master.url) for name, value in headers.items()}
        stored = writer.add_calibration("TOF1", "t0", "2016-03-01", b"1").id
        form = hidden(preview(visitor, TABLE))
        for path, sent in (
            ("upload", {**form, "step": "store"}),
            (f"calibrations/{stored}/withdraw", {"reason": "why not"}),
            ("sign-in", {"user": "alice", "token": master.token}),
            ("sign-out", {"no": "thing"}),
        ):
            answer = visitor.post(path, headers=told, **sent)
            assert answer.status_code == 403, path
            assert "page of another site" in answer.text
            assert "Set-Cookie" not in answer.headers
        assert [each.withdrawn for each in writer.get_history("TOF1", "t0")] == [False]
        assert "a form not of this site's pages, from 127.0.0.1" in master.log.read_text()

    @pytest.mark.parametrize("fetched", ["same-origin", "none"])
    def test_a_form_of_this_site_is_taken(self, visitor: Visitor, fetched: str) -> None:
        """As browsers say it."""
        told = {"Sec-Fetch-Site": fetched}
        assert visitor.post("upload", headers=told, **{**FILLED, "file": ("new.txt", TABLE)}).status_code == 200


def test_nobody_writes_from_outside_the_networks(tmp_path: Path) -> None:
    """Network before token: said on the page, and logged."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, "--write-networks", "192.0.2.0/24") as master:
        visitor = Visitor(master)
        assert "not allowed from this address" in visitor.see("upload", 403)
        answer = visitor.post("sign-in", user="alice", token=master.token)
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers
        assert "outside the allowed networks" in master.log.read_text()
        visitor.see("compare")


def test_a_form_is_bounded(tmp_path: Path) -> None:
    """A payload too large is refused at its field; what is longer than any form is not even received."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, "--max-payload", "100000") as master:
        visitor = signed_in(master)
        page = preview(visitor, bytes(100_001), 413)
        assert "at most 100000" in page
        assert 'id="file-problem"' in page
        page = preview(visitor, bytes(1_000_000), 413)
        assert "Too much at once" in page
        assert visitor.post("sign-in", user="a" * 100_000, token="b").status_code == 413


def test_a_mirror_has_no_way_to_write(tmp_path: Path) -> None:
    """No page, no link, no form; each page says where writing is possible."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path) as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        writer.add_calibration("TOF1", "t0", "2016-03-01", TABLE)
        with mirrors.mirror(master.url, f"sqlite:///{tmp_path}/mirror.sqlite", tmp_path) as mirror:
            servers.until(lambda: mirror.status().serial == 1)
            visitor = Visitor(mirror)
            for path in ("", "calibrations/1", "compare", "compare?left=1&right=1", "applies", "journal"):
                page = visitor.see(path)
                assert f'Writing is possible at <a href="{master.url}">' in page
                assert 'method="post"' not in page
                for way in ("upload", 'withdraw"', "sign-in", "sign-out"):
                    assert way not in page
            for path in ("upload", "calibrations/1/withdraw", "sign-in", "sign-out"):
                assert visitor.post(path, user=master.user, token=master.token).status_code == 404
                assert visitor.session.get(f"{mirror.url}/{path}", timeout=20).status_code == 404


def test_the_sum_shown_is_that_of_the_file(shared_master: Master) -> None:
    """So that who stores can hold it against their own."""
    page = preview(signed_in(shared_master), b"summed")
    assert hashlib.sha256(b"summed").hexdigest() in page
