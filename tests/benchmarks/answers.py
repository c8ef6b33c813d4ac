"""Whether a server answers rightly, asked by hand before anything is measured: speed counts for right answers only."""

import base64
import http.client
import random
from urllib.parse import urlsplit

from lxml import etree

from cdb_server.instants import spell
from tests.benchmarks import questions
from tests.benchmarks.load import Failure, Question
from tests.benchmarks.stock import KEYS, Stock

CONTRACT = {"cdb": questions.NAMESPACE}
# How many questions by chance are tried.
TRIED = 20


def answer(url: str, question: Question) -> bytes:
    """The body of an answer. Raises Failure unless its status is 200."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    try:
        body = None if question.body is None else question.body.encode()
        connection.request(question.method, question.path, body, dict(question.headers))
        got = connection.getresponse()
        content = got.read()
    finally:
        connection.close()
    if got.status != 200:
        raise Failure(f"{question.method} {url}{question.path}: status {got.status}, {content[:500]!r}")
    return content


def same(url: str, question: Question, expected: bytes) -> None:
    """Check that an answer has exactly these bytes. Raises Failure."""
    if answer(url, question) != expected:
        raise Failure(f"{question.method} {url}{question.path}: other bytes than expected")


def look_ups(url: str, stock: Stock) -> None:
    """Check the answers to some dates by chance: the id and the bytes. Raises Failure."""
    chance = random.Random(stock.count)
    for _ in range(TRIED):
        asked = stock.question(chance)
        root = etree.fromstring(answer(url, questions.for_date(*asked)), etree.XMLParser(huge_tree=True))
        id = stock.in_force(*asked)
        found = root.findtext(".//cdb:id", "", CONTRACT), root.findtext(".//cdb:data", "", CONTRACT)
        if found != (str(id), base64.b64encode(stock.data(id)).decode("ascii")):
            raise Failure(f"{url}: asked for {asked}, it answers {found[0]} instead of {id}, or other bytes")


def lists(url: str, stock: Stock) -> None:
    """Check some lists of 100. Raises Failure."""
    chance = random.Random(stock.count)
    begin, _ = stock.covered
    for _ in range(TRIED):
        slot = chance.randrange(stock.count - 2 * len(KEYS) - 1)
        start, stop = (spell(begin + stock.step * at) for at in (slot, slot + len(KEYS)))
        root = etree.fromstring(answer(url, questions.soap("get_ids", start_time=start, stop_time=stop)))
        ids = [int(id) for id in root.xpath("//cdb:id/text()", namespaces=CONTRACT)]
        if ids != list(range(slot + 2, slot + 2 + 2 * len(KEYS))):
            raise Failure(f"{url}: get_ids from {start} to {stop} gives {ids}")


def serial(url: str) -> int:
    """The last entry that a server holds."""
    root = etree.fromstring(answer(url, questions.soap("get_status")))
    return int(root.findtext(".//cdb:serial", "", CONTRACT))
