"""Who may write, and from where."""

import base64
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

import cdb
from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from cdb_server.schema import token
from cdb_server.settings import is_in_networks, parse_networks
from tests import servers
from tests.in_process_server import envelope
from tests.servers import Master

ADD_RUN = envelope("add_run", "<run_number>601</run_number><start_time>2016-03-01T00:00:00Z</start_time>")
UPLOAD = (
    "<device_name>TOF1</device_name><calibration_type>t0</calibration_type>"
    "<valid_from>2016-03-01T00:00:00Z</valid_from><data>YWJj</data>"
)
CALLS = {
    "add_calibration": envelope("add_calibration", UPLOAD),
    "preview_calibration": envelope("preview_calibration", UPLOAD),
    "withdraw_calibration": envelope("withdraw_calibration", "<id>1</id><reason>wrong</reason>"),
    "add_run": ADD_RUN,
}
# What comes to nothing before anything is looked for.
WRONG = {
    "no XML": b"add_calibration",
    "no operation": envelope("add_detector"),
    "a wrong argument": envelope("add_run", "<run_number>1</run_number><start_time>yesterday</start_time>"),
    "a wrong sha256": envelope("add_calibration", f"{UPLOAD}<sha256>{'0' * 64}</sha256>"),
}


def write(master: Master, call: bytes = ADD_RUN, /, **headers: str) -> requests.Response:
    return requests.post(
        f"{master.url}/cdb/v2/calibrationSuperMouse",
        data=call,
        headers={"Content-Type": "text/xml", **headers},
        timeout=10,
    )


def basic(user: str, token: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()


def test_the_user_of_the_token_becomes_the_author(shared_master: Master) -> None:
    """HTTP Basic, with user and token."""
    answer = write(shared_master, Authorization=basic(shared_master.user, shared_master.token))
    assert answer.status_code == 200
    assert "<tns:author>alice</tns:author>" in answer.text


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic", "Basic !!!!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Bearer x", basic("alice", "")],
)
def test_what_shows_no_valid_token_is_refused(shared_master: Master, authorization: str) -> None:
    """401, one line of plain text, and a challenge that says how to ask."""
    before = cdb.Calibration(shared_master.url).get_status().serial
    answer = write(shared_master, **({"Authorization": authorization} if authorization else {}))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.count("\n") == 1
    assert cdb.Calibration(shared_master.url).get_status().serial == before


def test_a_token_is_valid_for_its_user_alone(shared_master: Master) -> None:
    """Another's name with a valid token is refused."""
    assert write(shared_master, Authorization=basic("bob", shared_master.token)).status_code == 401
    assert write(shared_master, Authorization=basic("Alice", shared_master.token)).status_code == 401


def test_a_revoked_token_is_refused_at_once(shared_master: Master) -> None:
    """By every worker, without a restart; the user can then be given a new one."""
    with Database.open(shared_master.database) as database:
        tokens = Tokens(database)
        first = tokens.add("carol")
        assert write(shared_master, Authorization=basic("carol", first)).status_code == 200
        tokens.revoke("carol")
        for _ in range(6):
            assert write(shared_master, Authorization=basic("carol", first)).status_code == 401
        second = tokens.add("carol")
        assert write(shared_master, Authorization=basic("carol", second)).status_code == 200
        assert write(shared_master, Authorization=basic("carol", first)).status_code == 401


@pytest.mark.parametrize("operation", CALLS)
def test_a_token_revoked_while_a_write_waits_is_refused(database_url: str, operation: str, tmp_path: Path) -> None:
    """It was valid when the request came, and is not when its turn to write comes: 401, and nothing is written."""
    with servers.master(database_url, tmp_path) as master, Database.open(database_url) as database:
        shown = {"Authorization": basic(master.user, master.token)}
        # Both workers know the token.
        for _ in range(20):
            assert write(master, **shown).status_code == 200
        before = cdb.Calibration(master.url).get_status().serial
        with ThreadPoolExecutor() as pool:
            with database.write() as connection:
                waiting = [pool.submit(write, master, CALLS[operation], **shown) for _ in range(4)]
                if operation != "preview_calibration":
                    assert not wait(waiting, 1).done
                connection.execute(token.update().values(revoked=datetime.now(timezone.utc)))
            for _ in range(4):
                waiting.append(pool.submit(write, master, CALLS[operation], **shown))
            answers = [each.result() for each in waiting]
        # A preview does not wait for those who write.
        late = answers if operation != "preview_calibration" else answers[4:]
        assert {answer.status_code for answer in late} == {401}
        assert all("do not belong together" in answer.text for answer in late)
        assert cdb.Calibration(master.url).get_status().serial == before
        assert master.log.read_text().count("no valid token of user 'alice'") == sum(
            answer.status_code == 401 for answer in answers
        )


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_revoked_token_is_told_so_whatever_it_asks(shared_master: Master, call: bytes) -> None:
    """Also what would be a fault; and by workers that knew the token."""
    with Database.open(shared_master.database) as database:
        shown = {"Authorization": basic("dora", Tokens(database).add("dora"))}
        for _ in range(20):
            assert write(shared_master, call, **shown).status_code == 500
        Tokens(database).revoke("dora")
        assert {write(shared_master, call, **shown).status_code for _ in range(20)} == {401}


def test_the_network_is_judged_before_the_token_and_by_the_socket(tmp_path: Path) -> None:
    """403 with a valid token, and whatever a header claims."""
    with servers.master(f"sqlite:///{tmp_path}/cdb.sqlite", tmp_path, "--write-networks", "10.1.0.0/16") as master:
        for headers in ({}, {"X-Forwarded-For": "10.1.2.3"}, {"Forwarded": "for=10.1.2.3"}, {"X-Real-IP": "10.1.2.3"}):
            answer = write(master, Authorization=basic(master.user, master.token), **headers)
            assert answer.status_code == 403
            assert answer.text.count("\n") == 1
        with pytest.raises(cdb.NotAuthorised, match="HTTP 403"):
            cdb.CalibrationSuperMouse(master.url, user="alice", token="x").add_run(1, "2016-03-01")
        assert cdb.Calibration(master.url).get_status().serial == 0


@pytest.mark.parametrize(
    ("peer", "inside"),
    [
        ("127.0.0.1", True),
        ("127.255.255.255", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.1.2.3", True),
        ("10.2.0.0", False),
        ("::ffff:10.2.0.0", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_a_peer_is_inside_or_outside_the_networks(peer: str, inside: bool) -> None:
    """An IPv4 peer on an IPv6 socket counts as what it is."""
    assert is_in_networks(parse_networks("127.0.0.0/8, ::1/128 10.1.0.0/16"), peer) is inside


def test_only_the_hash_of_a_token_is_kept(shared_master: Master) -> None:
    """Who reads the database cannot write."""
    with Database.open(shared_master.database) as database:
        token = Tokens(database).add("dave")
    assert token.encode() not in Path(shared_master.database.removeprefix("sqlite:///")).read_bytes()
