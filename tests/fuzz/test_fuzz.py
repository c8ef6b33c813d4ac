"""A short run of the fuzzer at every test; `python -m tests.fuzz` runs it for as long as one likes."""

import random
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.fuzz import oracle, schema
from tests.fuzz.generate import generate
from tests.fuzz.oracle import Call
from tests.fuzz.run import Plan, Report, run

# The seed is fixed: a test that fails today failed yesterday. Longer runs take others.
SEED = 20260301


def _assert_sound(report: Report, count: int) -> None:
    assert report.failures == []
    assert report.inputs == count
    assert {"Client.MalformedRequest", "Client.InvalidArgument", "VersionMismatch", "MustUnderstand"} <= set(
        report.outcomes
    )


def test_nothing_that_is_generated_harms_the_service(tmp_path: Path) -> None:
    """Thousands of requests, mutated in structure, text and bytes, are each answered as an independent reading says."""
    report = run(Plan(SEED, 4000, in_process=True, batch=1000, save=tmp_path))
    _assert_sound(report, 4000)
    done = {name.removeprefix("done ") for name in report.outcomes if name.startswith("done ")}
    assert done == {operation for side in schema.FILES for operation in schema.contract(side).operations}


def test_nothing_that_is_generated_harms_the_server(tmp_path: Path) -> None:
    """The same over kept-alive connections, with HTTP itself mutated too."""
    report = run(Plan(SEED, 1200, batch=300, save=tmp_path))
    _assert_sound(report, 1200)
    assert {"400", "401", "404", "405", "415"} <= set(report.outcomes)
    assert {f"done {operation}" for operation in schema.contract("writing").operations} <= set(report.outcomes)


def test_the_same_seed_gives_the_same_inputs() -> None:
    """An input is known by its seed and number alone."""
    for number in range(200):
        first, again = (generate(SEED, number, http=True) for _ in range(2))
        assert first.around.request(None) == again.around.request(None)
        assert first.mutations == again.mutations
        assert generate(SEED, number).body == first.body
    assert generate(SEED, 1).body != generate(SEED + 1, 1).body


def test_what_is_not_mutated_is_in_order() -> None:
    """A generated request that nothing was done to is a call, by the independent reading too, of every operation."""
    untouched = [made for made in (generate(SEED, number) for number in range(8000)) if not made.mutations]
    for made in untouched:
        call = oracle.read(made.body, made.action, made.side)
        assert isinstance(call, Call), (call, made.body)
        assert call.operation == made.operation
    assert {made.operation for made in untouched} == {
        operation for side in schema.FILES for operation in schema.contract(side).operations
    }


def test_most_inputs_are_not_in_order() -> None:
    """Mutation does what it is for, and leaves enough in order to get past the gate."""
    read = [
        oracle.read(made.body, made.action, made.side) for made in (generate(SEED, number) for number in range(2000))
    ]
    assert 0.1 < sum(isinstance(call, Call) for call in read) / len(read) < 0.5


@pytest.mark.parametrize(
    "pattern",
    [
        r"[A-Za-z0-9]([A-Za-z0-9 _.+\-]{0,62}[A-Za-z0-9_.+\-])?",
        r"[0-9A-Fa-f]{64}",
        r"[0-9]{4}-[0-9]{2}T([01][0-9]|2[0-3])(\.[0-9]{1,6}0*)?(Z|[+\-][0-9]{2}:[0-9]{2})?",
        r"a|b+|(cd)*",
        r"x{2,}",
    ],
)
def test_a_pattern_gives_texts_that_match_it(pattern: str) -> None:
    """The generator of a pattern makes different texts, and nothing that the pattern refuses."""
    make, chance = schema.pattern(pattern), random.Random(SEED)
    texts = {make(chance) for _ in range(300)}
    assert len(texts) > 5
    assert [text for text in texts if not re.fullmatch(pattern, text)] == []


def test_the_oracle_reads_values_as_they_are_meant() -> None:
    """Offsets, fractions, white space, signs, line breaks in base64 and references give the values they stand for."""
    body = (
        '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>'
        '<add_calibration xmlns="urn:mice:cdb:2">'
        "<device_name>Ckov&#x20;a</device_name><calibration_type><![CDATA[t0]]></calibration_type>"
        "<valid_from> 2016-03-01T08:00:00.5000000+01:30\n</valid_from><data>YW\r\nJj</data><comment>a&#13;b</comment>"
        "</add_calibration></e:Body></e:Envelope>"
    )
    assert oracle.read(body.encode(), None, "writing") == Call(
        "add_calibration",
        {
            "device_name": "Ckov a",
            "calibration_type": "t0",
            "valid_from": datetime(2016, 3, 1, 6, 30, 0, 500000, timezone.utc),
            "data": b"abc",
            "comment": "a\rb",
        },
    )
