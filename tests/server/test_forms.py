"""A request of a known form is read as the gate reads it, or not at all."""

import random

import pytest

from cdb_server.errors import InvalidArgument
from cdb_server.soap import values
from cdb_server.soap.contract import Contract
from cdb_server.soap.endpoint import _given, _name
from cdb_server.soap.forms import LONGEST, MOST, Forms
from cdb_server.soap.gate import check_arguments, operation_of

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
ENVELOPES = (
    '<s:Envelope xmlns:s="{soap}"><s:Body>{call}</s:Body></s:Envelope>',
    "<?xml version='1.0' encoding='utf-8'?>\n"
    '<e:Envelope xmlns:e="{soap}"><e:Header/><e:Body>{call}</e:Body></e:Envelope>',
    '<Envelope xmlns="{soap}" x="a&gt;b>"><Body>\n{call}\n</Body></Envelope>\n',
    '\ufeff<s:Envelope xmlns:s="{soap}"><s:Header><h xmlns="urn:h" a=">"/></s:Header>'
    "<s:Body>{call}</s:Body></s:Envelope>",
)
CALLS = {
    "get_calibration_for_run": {"device_name": "TOF1", "calibration_type": "t0", "run_number": "7662"},
    "get_calibration_for_date": {
        "device_name": "CKOV A",
        "calibration_type": "t0",
        "date": "2016-03-01T08:00:00Z",
        "as_of": "2016-03-02T08:00:00.5+01:00",
    },
    "get_calibration_for_id": {"id": "12"},
    "get_journal": {"after_serial": "0", "limit": "1000"},
    "get_payload": {"sha256": "0f" * 32},
    "list_devices": {},
}
PIECES = (
    *(
        "<",
        ">",
        "&",
        "</",
        "/>",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "&#49;",
        "&lt;",
        "<?a?>",
        "\0",
        "é",
        "\x7f",
        "\ud800",
    ),
    *(" ", "\n", "\r", "\t", "0", "+", "-", "9" * 19, "T0", "x", '"', "'", "Z", ">x</", "<a/>", "2016-02-30T00:00:00Z"),
)


def body(envelope: str, operation: str, values: dict[str, str]) -> bytes:
    arguments = "".join(f"<t:{name}>{value}</t:{name}>" for name, value in values.items())
    call = f'<t:{operation} xmlns:t="urn:mice:cdb:2">{arguments}</t:{operation}>'
    return envelope.format(soap=SOAP, call=call).encode()


@pytest.fixture(scope="module")
def contract() -> Contract:
    """The reading service's."""
    return Contract("calibration.wsdl")


def learned(contract: Contract) -> tuple[Forms, list[bytes]]:
    """Forms of good requests, and these."""
    forms, bodies = Forms(), []
    for operation, given in CALLS.items():
        for envelope in ENVELOPES:
            made = body(envelope, operation, given)
            asked = operation_of(made, "", contract)
            check_arguments(asked, contract)
            forms.learn(made, "", asked, contract.operations[operation])
            bodies.append(made)
    return forms, bodies


def test_what_a_form_reads_the_gate_reads_likewise(contract: Contract) -> None:
    """Good requests with something put in, taken out or exchanged: the same operation and texts, or nothing.

    An instant that does not exist is one that whoever takes it for a value refuses, too.
    """
    forms, bodies = learned(contract)
    chance = random.Random(20161001)
    read = 0
    for _ in range(200_000):
        made = chance.choice(bodies)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            at = chance.randrange(len(made))
            piece = chance.choice((*PIECES, "")).encode("utf-8", "surrogatepass")
            made = made[:at] + piece + made[at + chance.choice((0, 1, 1, 5)) :]
        found = forms.read(made, "")
        if found is not None:
            read += 1
            operation = operation_of(made, "", contract)
            assert found == (_name(operation), _given(operation)), made
            try:
                check_arguments(operation, contract)
            except InvalidArgument as refused:
                argument = str(refused.asked["argument"])
                with pytest.raises(InvalidArgument):
                    values.instant(argument, found[1][argument])
    assert read > 500


def test_other_values_of_a_known_form_are_read(contract: Contract) -> None:
    """And a header SOAPAction that was not judged with it makes another form."""
    forms, _ = learned(contract)
    other = body(
        ENVELOPES[0], "get_calibration_for_run", {"device_name": "kl", "calibration_type": "gain", "run_number": "9"}
    )
    assert forms.read(other, "") == (
        "get_calibration_for_run",
        {"device_name": "kl", "calibration_type": "gain", "run_number": "9"},
    )
    assert forms.read(other, "urn:mice:cdb:2#get_run") is None


def test_forms_are_few_and_short(contract: Contract) -> None:
    """Who sends ever other forms does not fill the memory."""
    forms, operation = Forms(), "get_calibration_for_id"
    for number in range(MOST + 10):
        for length in (1, LONGEST):
            prefix = f'<s:Envelope xmlns:s="{{soap}}" xmlns:a{number}="{"u" * length}">'
            made = body(f"{prefix}<s:Body>{{call}}</s:Body></s:Envelope>", operation, {"id": "1"})
            forms.learn(made, "", operation_of(made, "", contract), contract.operations[operation])
    assert 0 < len(forms._known) <= MOST
    assert all(sum(map(len, form)) <= LONGEST for _, form in forms._known)
