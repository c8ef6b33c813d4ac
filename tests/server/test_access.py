"""Who may write, and from where."""

import base64
from pathlib import Path

import pytest
import requests

import cdb
from cdb_server.repository import Database, Tokens
from cdb_server.settings import contains, networks
from tests import servers
from tests.servers import Master

ADD_RUN = (
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><add_run xmlns="urn:mice:cdb:2">'
    "<run_number>601</run_number><start_time>2016-03-01T00:00:00Z</start_time></add_run></s:Body></s:Envelope>"
)


def write(master: Master, **headers: str) -> requests.Response:
    return requests.post(
        f"{master.url}/cdb/v2/calibrationSuperMouse",
        data=ADD_RUN,
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
    assert contains(networks("127.0.0.0/8, ::1/128 10.1.0.0/16"), peer) is inside


def test_only_the_hash_of_a_token_is_kept(shared_master: Master) -> None:
    """Who reads the database cannot write."""
    with Database.open(shared_master.database) as database:
        token = Tokens(database).add("dave")
    assert token.encode() not in Path(shared_master.database.removeprefix("sqlite:///")).read_bytes()
