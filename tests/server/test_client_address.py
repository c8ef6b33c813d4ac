"""Whose request it is, behind proxies: whom X-Forwarded-For may name, and that garbage lets nobody write."""

from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from cdb_server.http.auth import UNKNOWN_ADDRESS, client_address_of
from cdb_server.settings import is_in_networks, parse_networks
from tests import servers
from tests.fuzz import wire
from tests.server.test_write_access import ADD_RUN

TRUSTED = parse_networks("127.0.0.1/32 10.9.0.0/16 fd00::/8")


def peer(socket_peer: str, *forwarded: str) -> str:
    """The peer of a request with these headers."""
    headers = [(b"x-forwarded-for", header.encode("latin-1")) for header in forwarded]
    scope = {"type": "http", "headers": headers, "client": (socket_peer, 1)}
    return client_address_of(Request(scope), TRUSTED)


@pytest.mark.parametrize(
    ("socket_peer", "forwarded", "expected"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        # The rightmost that is not a trusted proxy: what stands to its left was claimed by anybody.
        ("127.0.0.1", ["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["198.51.100.1, 192.0.2.1, 10.9.0.1"], "192.0.2.1"),
        ("127.0.0.1", ["nonsense, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", [" \t192.0.2.1\t"], "192.0.2.1"),
        # Several headers are one, in their order.
        ("127.0.0.1", ["127.0.0.1", "192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1", "10.9.0.1"], "192.0.2.1"),
        # All are trusted proxies: the one that was asked first.
        ("127.0.0.1", ["10.9.0.2, 10.9.0.1"], "10.9.0.2"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        # Whoever is no trusted proxy is who it is.
        ("192.0.2.7", ["127.0.0.1"], "192.0.2.7"),
        ("192.0.2.7", ["nonsense"], "192.0.2.7"),
        ("127.0.0.2", ["192.0.2.1"], "127.0.0.2"),
        # IPv6, IPv4 as IPv6, ports, and interfaces.
        ("fd00::1", ["2001:DB8::0:1"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["::ffff:192.0.2.1, ::ffff:10.9.0.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1:4711, 10.9.0.1:80"], "192.0.2.1"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("fe80::1%eth0", ["192.0.2.1"], "fe80::1"),
    ],
)
def test_the_peer_is_whom_the_last_trusted_proxy_names(socket_peer: str, forwarded: list[str], expected: str) -> None:
    """A proxy appends whom it was asked by; only trusted ones are believed."""
    assert peer(socket_peer, *forwarded) == expected


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        " ",
        ",",
        "192.0.2.1,",
        "unknown",
        "_hidden",
        "localhost",
        "127.0.0.1.",
        "127.0.0.01",
        "127.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.1/32",
        "127.0.0.1%eth0",
        "::1%eth0",
        "::1%\x1b[2J",
        "127.0.0.1 127.0.0.1",
        "127.0.0.1;",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:+5",
        "[::1]:http",
        "[::1",
        "::1]",
        "[[::1]]",
        "[127.0.0.1]:80:80",
        '"127.0.0.1"',
        "for=127.0.0.1",
        "12\xb2.0.0.1",
        "127.0.0.1\x0b",
        "x" * 60_000,
    ],
)
def test_garbage_is_nobody(garbage: str) -> None:
    """Not the proxy, which may write, nor what stands to the garbage's left."""
    assert peer("127.0.0.1", garbage) == UNKNOWN_ADDRESS
    assert peer("127.0.0.1", f"127.0.0.1, {garbage}") == UNKNOWN_ADDRESS
    assert peer("127.0.0.1", "127.0.0.1", garbage) == UNKNOWN_ADDRESS
    assert peer("127.0.0.1", f"{garbage}, 10.9.0.1") == UNKNOWN_ADDRESS
    assert not is_in_networks(parse_networks("0.0.0.0/0 ::/0"), UNKNOWN_ADDRESS)


@given(st.lists(st.text(st.characters(max_codepoint=255)), min_size=1))
def test_whatever_is_sent_to_a_proxy_does_not_change_whom_it_names(claimed: list[str]) -> None:
    """It appends the address of whom it was asked by."""
    assert peer("127.0.0.1", *claimed[:-1], f"{claimed[-1]}, 192.0.2.1") == "192.0.2.1"


def test_a_proxy_is_believed_by_the_server_only_where_it_is_trusted(tmp_path: Path) -> None:
    """With CDB_TRUSTED_PROXIES the writer is judged and logged; from elsewhere, the socket's peer is."""

    def write(master: servers.Master, forwarded: str) -> int:
        headers = {"Content-Type": "text/xml", "X-Forwarded-For": forwarded, "X-Forwarded-Proto": "gopher"}
        return requests.post(
            f"{master.url}{wire.WRITING}",
            data=ADD_RUN,
            headers={**headers, "Authorization": wire.basic(master.user, master.token)},
            timeout=10,
        ).status_code

    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    may_write = ("--write-networks", "192.0.2.0/24 127.0.0.0/8", "--workers", "1")
    with servers.master(url, tmp_path, *may_write, "--trusted-proxies", "127.0.0.1/32") as master:
        assert write(master, "192.0.2.1") == 200
        assert write(master, "192.0.2.1, 198.51.100.1") == 403
        assert write(master, "192.0.2.1, \x9bnonsense") == 403
        assert write(master, "") == 403
        wsdl = requests.get(
            f"{master.url}{wire.READING}?wsdl",
            headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example"},
            timeout=10,
        )
        assert f'location="{master.url}{wire.READING}"' in wsdl.text
    log = master.log.read_text()
    assert "refused to write: 198.51.100.1 is outside the allowed networks, as user 'alice'" in log
    assert log.count(f"refused to write: {UNKNOWN_ADDRESS} is outside") == 2
    elsewhere = ("--write-networks", "192.0.2.0/24", "--trusted-proxies", "192.0.2.0/24", "--workers", "1")
    with servers.serving(url, tmp_path, master.token, *elsewhere) as again:
        assert write(again, "192.0.2.1") == 403
    assert "refused to write: 127.0.0.1 is outside" in again.log.read_text()
