"""Mutations of what HTTP puts around a body: method, address, headers, lengths, chunks."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz import wire

Header = tuple[str, str | bytes | None]


@dataclass
class Http:
    """The HTTP around a body. `framed` is what is sent for the body; `whole`: the request surely has an end."""

    path: str
    body: bytes
    method: str = "POST"
    headers: list[Header] = field(default_factory=list)
    framed: bytes | None = None
    whole: bool = True
    with_credentials: bool = True

    def request(self, credentials: tuple[str, str] | None) -> bytes:
        """The bytes on the socket."""
        named = {name for name, _ in self.headers}
        length: list[Header] = [] if "Content-Length" in named else [("Content-Length", str(len(self.body)))]
        return wire.request(
            self.path,
            self.body if self.framed is None else self.framed,
            method=self.method,
            headers=[*length, *self.headers],
            credentials=credentials if self.with_credentials else None,
        )


ACTIONS = (
    '"urn:mice:cdb:2#get_status"', "urn:mice:cdb:2#add_run", '"urn:mice:cdb:2#"', "x", '"', "''",
    '"urn:mice:cdb:2#get_ids', "#", "a" * 20_000, "é\x80", '"URN:MICE:CDB:2#GET_IDS"',
)  # fmt: skip
CONTENT_TYPES = (
    None, "", "text/xml", "text/plain", "application/soap+xml", "text/xml; charset=utf-16", "text/xml; charset=nope",
    'text/xml; charset="utf-8"', "text/xml; charset=", "TEXT/XML", "text/xml;" * 1000,
    'text/xml; charset="' + ";" * 5000, "multipart/related", "text/xml, text/xml", "text/xml; charset=us-ascii",
    b"\xff", "text/xml; charset*0=utf; charset*1=-8",
)  # fmt: skip


def method(chance: random.Random, http: Http) -> None:
    http.method = chance.choice(("GET", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "get", "POSTS", "CONNECT", "é"))


PATHS = (
    "{}?wsdl", "{}/", "{}?x=%ff", "/", "*", "//", "{}%00", "/é", "{} x", "/" + "a" * 50_000, "http://evil.example{}",
    "/../..", "{}#x", "{}?WSDL=", "{}?é",
)  # fmt: skip


def path(chance: random.Random, http: Http) -> None:
    http.path = chance.choice(PATHS).format(http.path)


def content_type(chance: random.Random, http: Http) -> None:
    http.headers.append(("Content-Type", chance.choice(CONTENT_TYPES)))


ODD: tuple[Header, ...] = (
    ("Content-Encoding", "gzip"), ("Content-Encoding", "identity"), ("Expect", "100-continue"), ("Expect", "x"),
    ("Connection", "close"), ("Upgrade", "h2c"), ("Host", "evil.example"), ("Host", "[::1"), ("Host", "é"), ("", "x"),
    ("X-Forwarded-For", "1.2.3.4"), ("X" * 1000, "y"), ("X", "y" * 60_000), ("X", b"\xff\x80"), ("X", b"a\x00b"),
    ("X Y", "z"), ("Accept", "application/json"), ("Accept-Encoding", "x"), ("Cookie", "a" * 9000), ("Trailer", "X"),
    ("Range", "bytes=0-1"), ("If-None-Match", "*"), ("TE", "trailers"), ("Max-Forwards", "0"), ("SOAPAction", "second"),
)  # fmt: skip


def odd_header(chance: random.Random, http: Http) -> None:
    http.headers.append(chance.choice(ODD))


def credentials(chance: random.Random, http: Http) -> None:
    http.with_credentials = False
    http.headers.append(
        (
            "Authorization",
            chance.choice((None, "", "Basic", "Basic !", "Basic YTpi", "Bearer x", "Basic é", b"Basic \xff")),
        )
    )


def chunked(chance: random.Random, http: Http) -> None:
    http.headers += [
        ("Content-Length", None),
        ("Transfer-Encoding", chance.choice(("chunked", "Chunked", "CHUNKED"))),
    ]
    http.framed = wire.chunked(http.body, max(len(http.body) // 20, chance.choice((1, 2, 100, 100_000))))


def broken_chunks(chance: random.Random, http: Http) -> None:
    http.headers += [("Content-Length", None), ("Transfer-Encoding", "chunked")]
    framed = bytearray(wire.chunked(http.body, max(len(http.body) // 20, 100)))
    for _ in range(chance.choice((1, 2))):
        framed[chance.choice((0, 1, 2, 3, chance.randrange(len(framed))))] ^= 1 << chance.randrange(8)
    http.framed = bytes(framed)
    http.whole = False


def length(chance: random.Random, http: Http) -> None:
    true = len(http.body)
    announced = chance.choice(
        (
            str(true + 1),
            str(max(true - 1, 0)),
            "0",
            "-1",
            "abc",
            "",
            f"+{true}",
            f"0{true}",
            "9" * 30,
            str(2**40),
            f"{true}, {true}",
        )
    )
    http.headers.append(("Content-Length", announced))
    http.whole = False


def encoding_of_transfer(chance: random.Random, http: Http) -> None:
    http.headers.append(("Transfer-Encoding", chance.choice(("gzip", "identity", "chunked", "x", "gzip, chunked"))))
    http.whole = False


HTTP: list[Callable[[random.Random, Http], None]] = [
    method, path, content_type, content_type, odd_header, odd_header, odd_header, credentials, chunked, broken_chunks,
    length, encoding_of_transfer,
]  # fmt: skip
