"""What stands before a write by a page: the proof of who one is, where a form comes from, what is received of it."""

from collections.abc import Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response

from cdb_server.errors import MalformedRequest
from cdb_server.pages import auth
from cdb_server.pages.auth import AuthCookie
from tests import in_process_server
from tests.fuzz import wire

PUBLIC = "https://cdb.example.org/mice"


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/upload", "headers": raw})


def test_behind_https_the_proof_goes_by_nothing_else() -> None:
    """And to no other host, nor from one: what its name's prefix asks of a browser."""
    response = Response()
    AuthCookie(PUBLIC).issue(response, "alice@mice, of the TOF", "token:with colon")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-cdb=")
    assert all(word in cookie for word in ("Secure", "HttpOnly", "SameSite=strict", "Path=/"))
    assert "Domain" not in cookie
    assert AuthCookie(PUBLIC).read(request(cookie=cookie.partition(";")[0])) == (
        "alice@mice, of the TOF",
        "token:with colon",
    )
    assert AuthCookie("http://cdb.example.org").read(request(cookie=cookie.partition(";")[0])) == ("", "")


@pytest.mark.parametrize("value", ["", "!!!!", "/w==", "YWxpY2U=", "\u00e9"])
def test_an_invalid_auth_cookie_is_ignored(value: str) -> None:
    """Whatever it is, it is not an error, and shows no token."""
    assert AuthCookie(PUBLIC).read(request(cookie=f"__Host-cdb={value}"))[1] == ""


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site", "origin": "http://inside:8080", "host": "inside:8080"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": ""}, False),
        ({"origin": "http://inside:8080", "host": "inside:8080"}, True),
        ({"origin": "https://cdb.example.org", "host": "inside:8080"}, True),
        ({"origin": "http://inside", "host": "inside:8080"}, False),
        ({"origin": "https://cdb.example.org.evil.example", "host": "inside:8080"}, False),
        ({"origin": "null", "host": "null"}, False),
        ({"origin": "", "host": ""}, False),
        ({"host": "inside:8080"}, False),
        ({}, False),
    ],
)
def test_a_form_comes_from_this_site_or_not(headers: dict[str, str], own: bool) -> None:
    """By the name that the request gives the site, or by its public one; in doubt it does not."""
    assert auth.is_same_origin(request(**headers), PUBLIC) is own


def test_forms_are_read_as_browsers_send_them() -> None:
    """Spaces, plus signs, line breaks and names of files."""
    form = auth.parse_form("application/x-www-form-urlencoded", b"user=a+b%2Bc&reason=one%0D%0Atwo+&empty=")
    assert (form.text("user"), form.text("reason"), form.text("empty"), form.text("none")) == (
        "a b+c",
        "one\ntwo",
        "",
        "",
    )
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a \\"b\\".txt"\r\n\r\n\r\n--y\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file2"; filename=""\r\n\r\n\r\n--x--\r\n'
    )
    form = auth.parse_form("multipart/form-data; boundary=x", body)
    assert {name: file.data for name, file in form.files.items()} == {"file": b"\r\n--y"}


def test_forms_of_endless_fields_are_refused() -> None:
    """No form here has more than a few."""
    with pytest.raises(MalformedRequest):
        auth.parse_form("application/x-www-form-urlencoded", b"a=b&" * 200)


def test_who_falls_silent_within_a_form_is_let_go(new_database_url: Callable[[str], str]) -> None:
    """At the deadline of all that is received, and is told so; who sends too much is told at once."""
    with in_process_server.watched(new_database_url("sqlite"), stall_seconds=0.3) as running:
        headers = [("Origin", running.url), ("Content-Type", "application/x-www-form-urlencoded")]
        with running.peer() as peer:
            asked = wire.request("/sign-in", b"user=", headers=[*headers, ("Content-Length", "100")])
            assert peer.ask(asked).status == 408
        with running.peer() as peer:
            asked = wire.request("/sign-in", b"user=", headers=[*headers, ("Content-Length", "1000000000")])
            assert peer.ask(asked).status == 413
