"""Whatever was asked before, an answer is that of a server that was asked nothing: in process, and over HTTP."""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cdb_server.database.transactions import Database
from cdb_server.http.request_templates import RequestTemplateCache
from cdb_server.instants import UTC
from cdb_server.repository.writer import Upload, Writer
from cdb_server.soap.endpoint import Endpoint, ParsedRequest
from cdb_server.soap.operations import (
    VALID_FOREVER,
    Cacheability,
    Calibration,
    FastOperation,
    OperationContext,
)
from cdb_server.soap.wsdl import Wsdl
from tests import servers
from tests.fuzz import wire
from tests.hostile.request_families import REQUESTS, Asked, families
from tests.in_process_server import raw_reply

FIRST_DAY = datetime(2016, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
# Differences that are told of.
MOST_FINDINGS = 20
HELD = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


@dataclass
class Compared:
    """How many requests were compared, what came of them, and where answers differ."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, other: "Compared") -> None:
        """Put two together."""
        self.counts += other.counts
        self.findings += other.findings


def fill(database_url: str) -> None:
    """Make a database in which each id, each run and each instant of the families has another answer."""
    Database.create(database_url)
    with Database.open(database_url) as database:
        writer = Writer(database)
        keys = ("TOF1", "t0"), ("TOF2", "tw"), ("TOF1", "t0"), ("KL", "t"), ("T", "t0"), ("5", "t"), ("TOF1", "tw")
        for number, (device, kind) in enumerate(keys, 1):
            data = str(number).encode()
            upload = Upload.validated(device, kind, FIRST_DAY + number * DAY, data, None, None, max_payload=100)
            writer.add_calibration(upload, "alice")
        for number in range(1, 7):
            writer.add_run(number, FIRST_DAY + (number + 1) * DAY, None, "daq")


class _Counting(RequestTemplateCache):
    """Tells how often a template was of use."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def match(self, body: bytes, soap_action: str) -> ParsedRequest | None:
        found = super().match(body, soap_action)
        self.used += found is not None
        return found


class _Echo(FastOperation):
    """Answers a question with the question, read as the operation reads it: its answer depends on nothing else."""

    def answer(
        self, context: OperationContext, given: dict[str, str | bytes]
    ) -> tuple[tuple[bytes, bytes, bytes], Cacheability]:
        """The name, the arguments, and what they say. Raises InvalidArgument."""
        asked = repr(given).encode()
        return (self.name.encode(), asked, repr(self.parse(given, 0)).encode()), VALID_FOREVER


def _endpoint() -> Endpoint:
    endpoint = Endpoint(Wsdl("calibration.wsdl"), Calibration)
    endpoint._fast_operations = {
        name: _Echo(found) for name, found in Calibration.public_methods.items() if found.udd.fast
    }
    endpoint._nonblocking_reader = endpoint  # type: ignore[assignment]  # it is asked for nothing
    return endpoint


def in_process(seed: int, numbers: range) -> Compared:
    """Ask one endpoint for all families, and another that forgets its templates before each request."""
    compared = Compared()
    warm, fresh = _endpoint(), _endpoint()
    counting = warm._templates = _Counting()
    for number, family in zip(numbers, families(warm.wsdl, seed, numbers), strict=True):
        for asked in family.requests():
            fresh._templates = RequestTemplateCache()
            found, expected = (
                endpoint.answer_nonblocking(asked.body, asked.soap_action, frozenset()) for endpoint in (warm, fresh)
            )
            compared.counts["accepted" if expected else "refused"] += 1
            if found != expected and len(compared.findings) < MOST_FINDINGS:
                compared.findings.append(f"family {number}: {asked}: {found} is not {expected}")
    compared.counts["by a template"] = counting.used
    return compared


@contextmanager
def both(database_url: str, folder: Path) -> Iterator[tuple[str, str]]:
    """A server as it is and a forgetful one, on one database; their addresses."""
    usual = servers.command("serve", database_url, "--workers", "1")
    forgetful = (sys.executable, "-m", "tests.hostile.uncached_server", *usual[3:])
    with (
        servers.running(usual, database_url, folder / "usual.log") as first,
        servers.running(forgetful, database_url, folder / "forgetful.log") as second,
    ):
        yield first.url, second.url


def over_http(urls: tuple[str, str], seed: int, numbers: range) -> Compared:
    """Ask two servers the same, on connections that are kept for as long as both keep them."""
    compared = Compared()
    contract = Wsdl("calibration.wsdl")
    # It says when it was asked.
    del contract.operations["get_status"]
    peers: list[wire.Peer] = []
    for number, family in zip(numbers, families(contract, seed, numbers), strict=True):
        chance = random.Random(f"http {seed} {number}")
        heads = _Heads(chance)
        waiting: list[bytes] = []
        for at, asked in enumerate(family.requests(), 1):
            waiting.append(heads.around(asked))
            # Some come several at once.
            if at < REQUESTS and chance.random() < 0.1:
                continue
            if not peers:
                peers = [wire.Peer(url) for url in urls]
            replies = [_replies(peer, waiting, chance) for peer in peers]
            if replies[0] != replies[1] and len(compared.findings) < MOST_FINDINGS:
                compared.findings.append(f"family {number}: {waiting}: {replies[0]} is not {replies[1]}")
            for reply in replies[1]:
                compared.counts[f"HTTP {reply[9:12].decode()}"] += 1
            if not replies[1] or b"\r\nconnection: close\r\n" in replies[1][-1] or replies[0] != replies[1]:
                _close(peers)
            waiting = []
    _close(peers)
    return compared


def _close(peers: list[wire.Peer]) -> None:
    while peers:
        peers.pop().socket.close()


def hits(url: str) -> int:
    """How many answers of a server were ready, as its metrics say."""
    with wire.Peer(url) as peer:
        reply = peer.ask(wire.request("/metrics", method="GET"))
    found = re.search(rb"^cdb_cache_hits_total (\d+)", reply.body, re.MULTILINE)
    assert found, reply
    return int(found[1])


class _Heads:
    """Heads of one family's requests: mostly the same, spelled in one of many ways."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._usual = self._any() if chance.random() < 0.3 else []

    def around(self, asked: Asked) -> bytes:
        """A request."""
        chance = self._chance
        headers = self._any() if chance.random() < 0.1 else self._usual
        action = [("SOAPAction", asked.soap_action)] if asked.soap_action else []
        if chance.random() < 0.02:
            body = wire.chunked(asked.body, 100)
            headers = [*headers, ("Content-Length", None), ("Transfer-Encoding", "chunked")]
        else:
            body = asked.body
        return wire.request(wire.READING, body, headers=[*action, *headers])

    def _any(self) -> list[tuple[str, str | bytes | None]]:
        chance = self._chance
        kinds: tuple[tuple[str, str], ...] = (
            ("Content-Type", "text/xml"),
            ("content-type", 'text/xml; charset="UTF-8"'),
            ("Content-Type", "text/xml;charset=us-ascii"),
            ("Content-Type", "text/xml; charset=utf-16"),
            ("CDB-Have", HELD),
            ("CDB-Have", HELD),
            ("cdb-have", f"{'0' * 64}, {HELD}"),
            ("SOAPAction", '"urn:mice:cdb:2#get_run"'),
            ("soapaction", ""),
            ("Connection", "keep-alive"),
            ("Connection", "close"),
            *[("X-Any", value) for value in ("", "a", "b", "5", ">5</")],
        )
        return list(chance.sample(kinds, chance.choice((1, 1, 2))))


def _replies(peer: wire.Peer, requests: list[bytes], chance: random.Random) -> list[bytes]:
    """What comes of requests that are sent together, until the connection is closed."""
    sent = b"".join(requests)
    cut = random.Random(len(sent)).randrange(len(sent)) if len(sent) % 20 == 0 else len(sent)
    for piece in (sent[:cut], sent[cut:]):
        peer.socket.sendall(piece)
    replies: list[bytes] = []
    for _ in requests:
        try:
            replies.append(raw_reply(peer))
        except wire.Broken:
            break
        if b"\r\nconnection: close\r\n" in replies[-1]:
            break
    return replies
