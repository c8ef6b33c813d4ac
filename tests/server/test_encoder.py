"""Reading answered without spyne is answered in the very bytes that spyne would write, faults included."""

import hashlib
import itertools
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from cdb_server import instants
from cdb_server.database import nonblocking
from cdb_server.database.nonblocking import NonblockingConnection
from cdb_server.database.transactions import Database
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from cdb_server.soap.endpoint import Endpoint, SoapResult, reading_endpoint
from cdb_server.soap.operations import VALID_FOREVER, VALID_UNTIL_WRITE, Calibration
from tests.fuzz import schema
from tests.fuzz.generate import generate
from tests.server.oracle import Clock

SEED = 20260301
NAMESPACE = "urn:mice:cdb:2"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
BEGIN = datetime(2016, 3, 1, 8, tzinfo=UTC)
NOW = datetime(2017, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

# What XML escapes, loses or changes when it is not told, and what UTF-8 has four bytes for.
TEXTS = (
    "plain", " around ", "&", "&amp;", "<b>", "]]>", "\"'", "a\rb\r\nc\nd\te", "\r", "\n", "<![CDATA[x]]>",
    "<!-- x -->", "Käfig", "\u2028\x85\u00a0\ufffd\ue000", "🎯\U0010ffff", "&#13;", "x" * 4095, "%s %% {0}", "\x7f",
)  # fmt: skip
PAYLOADS = (b"", b"\0", b"1 2 3\n", b"\xff" * 100, bytes(range(256)) * 40)
SHA256S = [hashlib.sha256(data).hexdigest() for data in PAYLOADS]
DEVICES, TYPES = ("TOF1", "ckov A", "0.+-_"), ("t0", "T W")
STARTS = (FIRST, BEGIN, BEGIN, BEGIN + MICROSECOND, BEGIN + HOUR, NOW + 365 * 24 * HOUR, LAST)


@dataclass
class Ways:
    """One database, and every way to an answer about it: spyne's, that of a thread, and the one that never waits."""

    spyne: Endpoint
    direct: Endpoint
    as_ofs: list[datetime]
    ids: list[int]

    def agree(self, body: bytes, action: str, held: frozenset[str]) -> SoapResult:
        """The answer, which is the same by every way."""
        expected = self.spyne.answer(body, action, held_hashes=held)
        answer = self.direct.answer(body, action, held_hashes=held)
        assert (answer.fault, joined(answer)) == (expected.fault, joined(expected)), (body, action, held)
        at_once = self.direct.answer_nonblocking(body, action, held)
        if at_once is not None:
            assert not at_once.fault
            assert joined(at_once) == joined(answer), (body, action, held)
            assert at_once.cacheability == answer.cacheability
        return answer


def joined(answer: SoapResult) -> bytes:
    return b"".join(answer.parts)


def awkward(database: Database, clock: Clock, chance: random.Random) -> tuple[list[datetime], list[int]]:
    """Fill a database with what is hard to write; the instants at which that was done, and the calibrations' ids."""
    writer = Writer(database, clock=clock)
    texts = itertools.cycle(TEXTS)
    created, ids = [], []
    for number, (device, kind, start) in enumerate(itertools.product(DEVICES, TYPES, STARTS)):
        data = PAYLOADS[number % len(PAYLOADS)]
        comment = next(texts) if number % 3 else None
        upload = Upload.validated(
            device, kind, start, data, hashlib.sha256(data).hexdigest(), comment, max_payload=20_000
        )
        stored = writer.add_calibration(upload, next(texts))
        created.append(stored.created)
        ids.append(stored.id)
        clock.now += HOUR
    for id in chance.sample(ids, 12):
        writer.withdraw_calibration(id, next(texts) + "!", next(texts))
        clock.now += MICROSECOND
    for number, start in enumerate((*STARTS, *STARTS), 1):
        stop = (None, start, LAST)[number % 3]
        created.append(writer.add_run(number % 11 + 1, start, stop, next(texts)).created)
        clock.now += HOUR
    writer.add_run(2**63 - 1, BEGIN, None, "daq")
    return created, ids


@pytest.fixture
def ways(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    """An awkward database on each backend; the way that never waits is SQLite's only."""
    # On a busy machine a query may take longer than an event loop can spare.
    monkeypatch.setattr(nonblocking, "MAX_CPU_SECONDS", 60.0)
    monkeypatch.setattr(nonblocking, "MAX_WALL_SECONDS", 60.0)
    Database.create(database_url)
    with Database.open(database_url) as database:
        clock = Clock(NOW)
        created, ids = awkward(database, clock, random.Random(SEED))
        clock.now += HOUR
        reader = Reader(database, clock=clock, max_rows=60, max_entries=70)
        glance = NonblockingConnection(database) if database.supports_nonblocking else None
        glancing = Reader(glance, clock=clock, max_rows=60, max_entries=70) if glance else None
        complete = clock.now - timedelta(seconds=10)
        as_ofs = [*created[::7], created[3] - MICROSECOND, FIRST, LAST, complete, complete + MICROSECOND]
        direct = reading_endpoint(reader, glancing, reader)
        spyne = Endpoint(direct.wsdl, Calibration, reader=reader)
        spyne._fast_operations = {}
        yield Ways(spyne, direct, as_ofs, ids)
        if glance:
            glance.close()


def spelled(chance: random.Random, at: datetime) -> str:
    """One of the texts of an instant."""
    text = instants.format_instant(at)
    match chance.randrange(7):
        case 0:
            return text[:-1]
        case 1:
            return f"{text[:-1]}{'0' * chance.choice((1, 40))}Z"
        case 2 if at.microsecond == 0:
            return f"{text[:-8]}{chance.choice(('', '.0', '.00'))}{chance.choice(('', 'Z', '+00:00', '-00:00'))}"
        case 3:
            return chance.choice(" \t\n") + text + "\n "
        case 4 if FIRST + 14 * HOUR <= at <= LAST - 14 * HOUR:
            hours, minutes = chance.choice(((14, 0), (5, 30), (0, 1)))
            sign = chance.choice((1, -1))
            local = at + sign * timedelta(hours=hours, minutes=minutes)
            return f"{instants.format_instant(local)[:-1]}{'+' if sign > 0 else '-'}{hours:02}:{minutes:02}"
    return text


def numbered(chance: random.Random, number: int) -> str:
    """One of the texts of a whole number."""
    zeros = "0" * chance.choice((0, 0, 0, 1, 30, 5000))
    return (
        chance.choice(("", "", " ", "\n\t")) + chance.choice(("", "", "+")) + f"{zeros}{number}" + " " * (zeros == "0")
    )


def cased(chance: random.Random, name: str) -> str:
    return chance.choice((str, str.upper, str.lower, str.swapcase))(name)


def value(chance: random.Random, ways: Ways, argument: schema.Argument) -> str:
    """The text of an argument: mostly of what there is, in one of its spellings."""
    match argument.type.name:
        case "device_name":
            return cased(chance, chance.choice((*DEVICES, *DEVICES, "TOF9")))
        case "calibration_type":
            return cased(chance, chance.choice((*TYPES, *TYPES, "gain")))
        case "instant" if argument.name == "as_of":
            return spelled(chance, chance.choice(ways.as_ofs))
        case "instant":
            at = chance.choice(STARTS)
            return spelled(chance, chance.choice((at, max(at, FIRST + HOUR) - MICROSECOND, NOW)))
        case "run_number":
            return numbered(chance, chance.choice((*range(1, 14), 2**63 - 1)))
        case "id":
            return numbered(chance, chance.choice((*ways.ids[::4], len(ways.ids) + 3, 2**63 - 1)))
        case "serial":
            return numbered(chance, chance.choice((0, 1, 40, 60, 1000)))
        case "entry_limit":
            return numbered(chance, chance.choice((1, 7, 70, 71)))
        case "sha256":
            return cased(chance, chance.choice((*SHA256S, "0" * 64)))
    raise LookupError(argument)


def written(chance: random.Random, text: str) -> str:
    """One of the ways to write a text in XML."""
    at = chance.randint(0, len(text))
    match chance.randrange(8):
        case 0:
            return "".join(f"&#{ord(c)};" if chance.random() < 0.3 else c for c in text)
        case 1:
            return f"{text[:at]}<!-- {chance.choice(('a', '&', '<x/>'))} -->{text[at:]}"
        case 2:
            return f"<![CDATA[{text[:at]}]]>{text[at:]}"
        case 3:
            return f"{text[:at]}<![CDATA[]]><![CDATA[{text[at:]}]]><!---->"
    return text


def request(chance: random.Random, operation: str, arguments: list[tuple[str, str]]) -> bytes:
    """One of the documents that ask the same; a few of them the gate refuses."""
    soap, ours = chance.choice(("s", "soap-env", "é", "")), chance.choice(("t", "tns", "_", ""))
    ours = ours if soap or ours else "t"
    before, inner = (f"{prefix}:" if prefix else "" for prefix in (soap, ours))
    space = chance.choice(("", "", "\n  ", "<!-- & -->", "\r\n\t"))
    odd = chance.random()

    def element(name: str, text: str) -> str:
        attributes = ""
        if odd < 0.04:
            attributes = f" xmlns:i='{XSI}' i:" + chance.choice(('nil="true"', 'nil="false"', 'type="x"'))
        elif odd < 0.08:
            attributes = f' xmlns="urn:other" xmlns:o="{NAMESPACE}"'
        return f"<{inner}{name}{attributes}>{written(chance, text)}</{inner}{name}{chance.choice(('', ' '))}>"

    content = space.join(element(name, text) for name, text in arguments)
    call = f"<{inner}{operation}>{space}{content}{space}</{inner}{operation}>"
    if not content and not space:
        call = f"<{inner}{operation}/>"
    header = chance.choice(
        (
            "", "", "", f"<{before}Header/>", f"<{before}Header><o:a xmlns:o='urn:o'><o:b/>x</o:a></{before}Header>",
            f"<{before}Header><o:a xmlns:o='urn:o' xmlns:e='{SOAP}' e:mustUnderstand='{chance.choice('01')}'/>"
            f"</{before}Header>",
        )
    )  # fmt: skip
    names = " ".join(
        f'xmlns{":" if prefix else ""}{prefix}="{uri}"' for prefix, uri in ((soap, SOAP), (ours, NAMESPACE))
    )
    document = (
        f"<{before}Envelope {names}>{space}{header}{space}<{before}Body>{space}{call}{space}</{before}Body>"
        f"{space}</{before}Envelope>{space}"
    )
    prolog = chance.choice(("", "", "<?xml version='1.0'?>", '<?xml version="1.0" encoding="utf-8"?>\n', "<!-- a -->"))
    return (chance.choice(("", "", "", "\ufeff")) + prolog + document).encode()


def questions(chance: random.Random, ways: Ways, rounds: int) -> Iterator[tuple[str, bool, bytes, str, frozenset[str]]]:
    """Every reading operation with every choice of its optional arguments, so many times, disguised by chance.

    Each with its name, whether it has an as_of, its SOAPAction and the payloads that the caller has.
    """
    for _ in range(rounds):
        for name, arguments in schema.contract("reading").operations.items():
            optional = [argument.name for argument in arguments if not argument.required]
            for count in range(len(optional) + 1):
                for left_out in itertools.combinations(optional, count):
                    given = [
                        (argument.name, value(chance, ways, argument))
                        for argument in arguments
                        if argument.name not in left_out
                    ]
                    usual = f"{NAMESPACE}#{name}"
                    action = chance.choice((usual, f'"{usual}"', f' "{usual}" ', "", '""', "get_ids"))
                    held = frozenset(chance.choice(((), (), SHA256S[2:], SHA256S)))
                    yield name, "as_of" in dict(given), request(chance, name, given), action, held


def test_encoder_and_spyne_write_the_same_bytes(ways: Ways, backend: str) -> None:
    """Whatever is asked, however it is written: byte for byte the same, faults too; and nearly all without spyne."""
    chance = random.Random(SEED)
    answered, faults, at_once = Counter[str](), Counter[str](), Counter[str]()
    for name, is_pinned, body, action, held in questions(chance, ways, 30):
        answer = ways.agree(body, action, held)
        if answer.fault:
            faults[name] += 1
            assert answer.cacheability is None
            continue
        answered[name] += 1
        # What spyne answers does not say how long it lasts.
        assert (answer.cacheability is None) == (name == "get_status")
        if name == "get_payload" or is_pinned:
            assert answer.cacheability == VALID_FOREVER
        elif name not in ("get_status", "get_current_calibration"):
            assert answer.cacheability == VALID_UNTIL_WRITE
        at_once[name] += ways.direct.answer_nonblocking(body, action, held) is not None
    assert set(answered) == set(schema.contract("reading").operations)
    assert min(answered.values()) >= 10
    assert set(faults) == set(answered)
    del answered["get_status"], at_once["get_status"]
    assert at_once == (answered if backend == "sqlite" else Counter(dict.fromkeys(answered, 0)))


def test_encoder_and_spyne_write_the_same_bytes_under_fuzzing(ways: Ways) -> None:
    """The same for what the fuzzer makes of requests, most of it refused."""
    made = [made for made in (generate(SEED, number) for number in range(1500)) if made.side == "reading"]
    faults = [ways.agree(one.body, one.action or "", frozenset()).fault for one in made]
    assert 50 < faults.count("") < len(faults) / 2


def test_every_calibration_and_entry_is_written_alike(ways: Ways) -> None:
    """Each calibration alone, with its payload and without, and each entry of the journal."""
    chance = random.Random(SEED)
    for id, held in itertools.product(ways.ids, (frozenset[str](), frozenset(SHA256S))):
        answer = ways.agree(request(chance, "get_calibration_for_id", [("id", f"{id}")]), "", held)
        assert answer.fault or (b"<tns:data>" in joined(answer)) == (not held)
    for serial in range(0, 80, 5):
        asked = [("after_serial", f"{serial}"), ("limit", "5")]
        ways.agree(request(chance, "get_journal", asked), "", frozenset())


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("damage", ["data = x'00'", "data = 'text'", "data = x''"])
def test_a_damaged_payload_is_the_same_fault(ways: Ways, damage: str, database_url: str) -> None:
    """Rule 13: an error, never the data; by the way that never waits there is no answer at all."""
    chance = random.Random(SEED)
    body = request(chance, "get_payload", [("sha256", SHA256S[3])])
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.executescript("DROP TRIGGER payload_no_update")
        connection.execute(f"UPDATE payload SET {damage} WHERE sha256 = ?", (SHA256S[3],))
    answer = ways.agree(body, "", frozenset())
    assert answer.fault
    assert b"Server.Integrity" in joined(answer)
    assert ways.direct.answer_nonblocking(body, "", frozenset()) is None
