"""An upload whose payload is put aside while it is parsed is answered as one that is parsed whole."""

import base64
import dataclasses
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cdb_server.database.transactions import Database
from cdb_server.repository.writer import Writer
from cdb_server.soap import endpoint
from cdb_server.soap.endpoint import Endpoint, SoapResult, writing_endpoint
from cdb_server.soap.request_parser import MIN_EXTRACTED_BYTES, extract_payload

MOST = 20_000
DATA = bytes(random.Random(7).randbytes(MIN_EXTRACTED_BYTES))
TEXT = base64.b64encode(DATA).decode()
# Of a payload that is nearly too large; with its lines ended as some write them, more characters than it has base64.
REFERRED = "&#13;\n".join(re.findall(".{1,76}", base64.b64encode(bytes(MOST - 100)).decode()))
ACTION = "urn:mice:cdb:2#add_calibration"
MUTATIONS = 1_500
PIECES = (
    b"<", b">", b"/", b"&", b"&amp;", b"&#65;", b"]]>", b"<!--", b"-->", b"<![CDATA[", b"data>", b"<data>", b"</data>",
    b"<data/>", b' x="data>', b'"', b"'", b"=", b"==", b" ", b"\n", b"\t", b"\r", b"\0", b"\xff", b"\xc3\xa4", b"-",
    b"_", b"<?x?>", b"<!DOCTYPE a>", b' xsi:nil="true"', b"metadata>",
    b'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"',
)  # fmt: skip


def envelope(data: str = f"<data>{TEXT}</data>", before: str = "", after: str = "", tail: str = "") -> bytes:
    return (
        f'{before}<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        '<add_calibration xmlns="urn:mice:cdb:2"><device_name>TOF1</device_name><calibration_type>t0</calibration_type>'
        f"<valid_from>2016-03-01T00:00:00Z</valid_from>{data}{after}</add_calibration></s:Body></s:Envelope>{tail}"
    ).encode()


@dataclass
class Ways:
    """Two services on databases that are written alike: one that puts payloads aside, and one that does not."""

    aside: Endpoint
    whole: Endpoint
    monkeypatch: pytest.MonkeyPatch

    def agree(self, body: bytes) -> SoapResult:
        """The answer of both, apart from the instants of their writes."""
        answer = self.aside.answer(body, ACTION, "alice")
        with self.monkeypatch.context() as patch:
            patch.setattr(endpoint, "extract_payload", lambda _: None)
            expected = self.whole.answer(body, ACTION, "alice")
        assert told(answer) == told(expected), body
        return answer


def told(answer: SoapResult) -> tuple[object, ...]:
    text = re.sub(rb"<tns:created>[^<]*", b"<tns:created>", b"".join(answer.parts))
    serial = answer.position.serial if answer.position else None
    return dataclasses.astuple(dataclasses.replace(answer, parts=(text, b"", b""), position=None)), serial


@pytest.fixture
def ways(database_url: str, monkeypatch: pytest.MonkeyPatch, new_database_url: Callable[[str], str]) -> Iterator[Ways]:
    urls = [database_url, new_database_url("sqlite")]
    for url in urls:
        Database.create(url)
    with Database.open(urls[0]) as one, Database.open(urls[1]) as other:
        yield Ways(writing_endpoint(Writer(one), MOST), writing_endpoint(Writer(other), MOST), monkeypatch)


def test_long_payloads_are_extracted_before_parsing() -> None:
    """Below it there is nothing to gain."""
    text = "A" * (MIN_EXTRACTED_BYTES - 4)
    assert extract_payload(envelope(f"<data>{text}</data>")) is None
    found = extract_payload(envelope(f"<data>{text}AAAA</data>"))
    assert found is not None
    assert (len(found.base64), found.request) == (MIN_EXTRACTED_BYTES, envelope(f"<data>{found.placeholder}</data>"))
    assert extract_payload(b"nothing here") is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (f"<data>{TEXT}</data>", ""),
        (f"<data >{TEXT}</data>", ""),
        (f"<data xmlns:a='b'>{TEXT}</data >", ""),
        (f'<t:data xmlns:t="urn:mice:cdb:2">{TEXT}</t:data>', ""),
        ("<data>\n" + "\n".join(re.findall(".{1,76}", TEXT)) + "\r\n\t</data>", ""),
        (f"<data>{TEXT[:-4]}<![CDATA[{TEXT[-4:]}]]></data>", ""),
        (f"<data>{TEXT[:-4]}<!-- data>{TEXT} -->{TEXT[-4:]}</data>", ""),
        (f"<!-- <data>{TEXT}</data> --><data>{TEXT[:400]}</data>", ""),
        (f"<data>&#{ord(TEXT[0])};{TEXT[1:]}</data>", ""),
        (f"<data>{REFERRED}</data>", ""),
        (f"<data>{REFERRED}", "MalformedRequest"),
        (f"<data>{TEXT[:400]}</data><comment>data&gt;{'x' * MIN_EXTRACTED_BYTES}</comment>", "InvalidArgument"),
        (f"<data>{TEXT[:400]}</data><comment>metadata>{'x' * 4000}</comment>", ""),
        (f"<data>{TEXT[:-1]}</data>", "InvalidArgument"),
        (f"<data>{TEXT}!</data>", "InvalidArgument"),
        (f"<data>{TEXT}=</data>", "InvalidArgument"),
        (f"<data>{TEXT}ä</data>", "InvalidArgument"),
        (f"<data>{'A' * (MOST + 4) * 2}</data>", "TooLarge"),
        (f"<data>{TEXT}</data><data>{TEXT}</data>", "MalformedRequest"),
        (f"<data>{TEXT}<x/></data>", "MalformedRequest"),
        (f"<data>{TEXT}]]></data>", "MalformedRequest"),
        (f"<data>{TEXT}", "MalformedRequest"),
        (f"<data>{TEXT}</data><sha256>{'0' * 64}</sha256>", "Integrity"),
        (f"<metadata>{TEXT}</metadata>", "MalformedRequest"),
        (f"<data>{TEXT}</data><comment>{'x' * 5000}</comment>", "InvalidArgument"),
    ],
)  # fmt: skip
def test_however_a_payload_is_written_the_answer_is_the_same(ways: Ways, data: str, fault: str) -> None:
    """The fault too, and its words."""
    assert ways.agree(envelope(data)).fault == fault


def test_whatever_is_changed_in_a_request_the_answer_is_the_same(ways: Ways) -> None:
    """By chance, where its tags are, and the ends of its payload; some are taken all the same."""
    chance = random.Random(11)
    taken = 0
    for _ in range(MUTATIONS):
        body = bytearray(envelope(before=chance.choice(("", "<?xml version='1.0'?>", "<!-- data>" + TEXT + "-->"))))
        for _ in range(chance.choice((1, 1, 2))):
            tags = [match.start() for match in re.finditer(rb"[<>]", body)]
            at = chance.choice(tags) + chance.randrange(-3, 4)
            at = min(max(at, 0), len(body))
            removed = chance.choice((0, 0, 1, 2, 40))
            body[at : at + removed] = chance.choice((b"", *PIECES))
        taken += not ways.agree(bytes(body)).fault
    assert MUTATIONS // 100 < taken < MUTATIONS
