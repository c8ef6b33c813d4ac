"""Whether a server answers rightly, asked by hand before anything is measured: speed counts for right answers only."""

import base64
import http.client
import random
from urllib.parse import urlsplit

from lxml import etree

from cdb_server.instants import format_instant
from tests.benchmarks import requests_sent
from tests.benchmarks.dataset import KEYS
from tests.benchmarks.load import Failure, Question, Server

CONTRACT = {"cdb": requests_sent.NAMESPACE}
# How many questions by chance are tried.
TRIED = 20


def answer(server: Server, question: Question) -> bytes:
    """The body of an answer. Raises Failure unless its status is 200."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    try:
        body = None if question.body is None else question.body.encode()
        connection.request(question.method, question.path, body, dict(question.headers))
        got = connection.getresponse()
        content = got.read()
    finally:
        connection.close()
    if got.status != 200:
        raise Failure(f"{question.method} {server.url}{question.path}: status {got.status}, {content[:500]!r}")
    return content


def same(server: Server, question: Question, expected: bytes) -> None:
    """Check that an answer has exactly these bytes. Raises Failure."""
    if answer(server, question) != expected:
        raise Failure(f"{question.method} {server.url}{question.path}: other bytes than expected")


def look_ups(server: Server) -> None:
    """Check the answers to some dates by chance: the id and the bytes. Raises Failure."""
    stock, chance = server.stock, random.Random(server.stock.count)
    for _ in range(TRIED):
        asked = stock.question(chance)
        root = etree.fromstring(answer(server, requests_sent.for_date(*asked)), etree.XMLParser(huge_tree=True))
        id = stock.in_force(*asked)
        found = root.findtext(".//cdb:id", "", CONTRACT), root.findtext(".//cdb:data", "", CONTRACT)
        if found != (str(id), base64.b64encode(stock.data(id)).decode("ascii")):
            raise Failure(f"{server.url}: asked for {asked}, it answers {found[0]} instead of {id}, or other bytes")


def lists(server: Server) -> None:
    """Check some lists of 100. Raises Failure."""
    stock, chance = server.stock, random.Random(server.stock.count)
    begin, _ = stock.covered
    for _ in range(TRIED):
        slot = chance.randrange(stock.asked - 2 * len(KEYS) - 1)
        start, stop = (format_instant(begin + stock.step * at) for at in (slot, slot + len(KEYS)))
        root = etree.fromstring(answer(server, requests_sent.soap("get_ids", start_time=start, stop_time=stop)))
        ids = [int(id) for id in root.xpath("//cdb:id/text()", namespaces=CONTRACT)]
        first = stock.before + slot + 2
        if ids != list(range(first, first + 2 * len(KEYS))):
            raise Failure(f"{server.url}: get_ids from {start} to {stop} gives {ids}")


def runs(server: Server) -> None:
    """Check what applies to some runs. Raises Failure."""
    stock, chance = server.stock, random.Random(server.stock.count)
    for _ in range(TRIED):
        number = chance.randint(1, stock.runs)
        root = etree.fromstring(answer(server, requests_sent.soap("get_calibrations_for_run", run_number=str(number))))
        ids = [int(id) for id in root.xpath("//cdb:id/text()", namespaces=CONTRACT)]
        if ids != sorted(stock.in_force(*key, stock.run_start(number)) for key in KEYS):
            raise Failure(f"{server.url}: get_calibrations_for_run {number} gives {ids}")


def serial(server: Server) -> int:
    """The last entry that a server holds."""
    root = etree.fromstring(answer(server, requests_sent.soap("get_status")))
    return int(root.findtext(".//cdb:serial", "", CONTRACT))
