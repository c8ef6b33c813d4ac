"""A request by a known template is read as the gate reads it, or not at all."""

import random
from pathlib import Path

import pytest

from cdb_server import arguments as arguments_module
from cdb_server.errors import InvalidArgument, MalformedRequest
from cdb_server.http.request_templates import MAX_TEMPLATE_BYTES, MAX_TEMPLATES, RequestTemplateCache
from cdb_server.soap.endpoint import _arguments_of, _local_name
from cdb_server.soap.request_parser import parse_operation, validate_arguments
from cdb_server.soap.wsdl import Wsdl
from tests.hostile import template_equivalence as compared

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
ENVELOPES = (
    '<s:Envelope xmlns:s="{soap}"><s:Body>{call}</s:Body></s:Envelope>',
    "<?xml version='1.0' encoding='utf-8'?>\n"
    '<e:Envelope xmlns:e="{soap}"><e:Header/><e:Body>{call}</e:Body></e:Envelope>',
    '<Envelope xmlns="{soap}" x="\'"><Body>\n{call}\n</Body>!5</Envelope>\n',
    '\ufeff<s:Envelope xmlns:s="{soap}"><s:Header><h xmlns="urn:h" a="5"/></s:Header>'
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
def contract() -> Wsdl:
    """The reading service's."""
    return Wsdl("calibration.wsdl")


def learned(contract: Wsdl) -> tuple[RequestTemplateCache, list[bytes]]:
    """Templates of good requests, and these."""
    templates, bodies = RequestTemplateCache(), []
    for operation, given in CALLS.items():
        for envelope in ENVELOPES:
            made = body(envelope, operation, given)
            asked = parse_operation(made, "", contract)
            validate_arguments(asked, contract)
            templates.learn(made, "", asked, contract.operations[operation])
            bodies.append(made)
    return templates, bodies


def test_template_and_request_parser_read_the_same(contract: Wsdl) -> None:
    """Good requests with something put in, taken out or exchanged: the same operation and texts, or nothing.

    An instant that does not exist is one that whoever takes it for a value refuses, too.
    """
    templates, bodies = learned(contract)
    chance = random.Random(20161001)
    read = 0
    for _ in range(100_000):
        made = chance.choice(bodies)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            at = chance.randrange(len(made))
            piece = chance.choice((*PIECES, "")).encode("utf-8", "surrogatepass")
            made = made[:at] + piece + made[at + chance.choice((0, 1, 1, 5)) :]
        found = templates.match(made, "")
        if found is not None:
            read += 1
            operation = parse_operation(made, "", contract)
            assert found == (_local_name(operation), _arguments_of(operation)), made
            try:
                validate_arguments(operation, contract)
            except InvalidArgument as refused:
                argument = str(refused.details["argument"])
                with pytest.raises(InvalidArgument):
                    arguments_module.parse_instant(argument, str(found[1][argument]))
    assert read > 250


def test_other_values_are_read_with_a_cached_template(contract: Wsdl) -> None:
    """And a header SOAPAction that was not judged with it makes another template."""
    templates, _ = learned(contract)
    other = body(
        ENVELOPES[0], "get_calibration_for_run", {"device_name": "kl", "calibration_type": "gain", "run_number": "9"}
    )
    assert templates.match(other, "") == (
        "get_calibration_for_run",
        {"device_name": "kl", "calibration_type": "gain", "run_number": "9"},
    )
    assert templates.match(other, "urn:mice:cdb:2#get_run") is None


# Of each, what is around the value of get_calibration_for_id's argument.
NOT_PLAIN = {
    "a reference elsewhere": '<s:Envelope xmlns:s="{soap}"><s:Body>{call}&#32;</s:Body></s:Envelope>',
    "a comment": '<s:Envelope xmlns:s="{soap}"><s:Body>{call}<!-- --></s:Body></s:Envelope>',
    "a section": '<s:Envelope xmlns:s="{soap}"><s:Body>{call}<![CDATA[]]></s:Body></s:Envelope>',
    "a bracket in an attribute": '<s:Envelope xmlns:s="{soap}" a=">"><s:Body>{call}</s:Body></s:Envelope>',
    "two brackets": '<s:Envelope xmlns:s="{soap}" a="><"><s:Body>{call}</s:Body></s:Envelope>',
    "text behind": '<s:Envelope xmlns:s="{soap}"><s:Body>{call}5</s:Body></s:Envelope>',
    "text before": '<s:Envelope xmlns:s="{soap}">5<s:Body>{call}</s:Body></s:Envelope>',
    "another encoding": '<?xml version="1.0" encoding="latin-1"?><s:Envelope xmlns:s="{soap}"><s:Body>{call}</s:Body>'
    "</s:Envelope>",
}


@pytest.mark.parametrize("envelope", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_nothing_is_learned_from_what_is_not_plain(contract: Wsdl, envelope: str) -> None:
    """Where the places of arguments are not certain, the parser is asked each time."""
    templates, operation = RequestTemplateCache(), "get_calibration_for_id"
    for value in ("5", "&#53;"):
        made = body(envelope, operation, {"id": value})
        try:
            asked = parse_operation(made, "", contract)
        except MalformedRequest:
            assert "><" in envelope
            continue
        templates.learn(made, "", asked, contract.operations[operation])
    assert not templates._templates


def test_an_attribute_of_an_argument_is_for_the_schema(contract: Wsdl) -> None:
    """By xsi:type it may be of another type than its declaration says."""
    templates, operation = RequestTemplateCache(), "get_calibration_for_id"
    made = body(ENVELOPES[0], operation, {"id": "5"}).replace(b"<t:id>", b'<t:id xmlns:x="urn:x" x:any="">')
    templates.learn(made, "", parse_operation(made, "", contract), contract.operations[operation])
    assert not templates._templates


def test_templates_are_few_and_short(contract: Wsdl) -> None:
    """Who sends ever other requests does not fill the memory."""
    templates, operation = RequestTemplateCache(), "get_calibration_for_id"
    for number in range(MAX_TEMPLATES + 10):
        for length in (1, MAX_TEMPLATE_BYTES):
            prefix = f'<s:Envelope xmlns:s="{{soap}}" xmlns:a{number}="{"u" * length}">'
            made = body(f"{prefix}<s:Body>{{call}}</s:Body></s:Envelope>", operation, {"id": "1"})
            templates.learn(made, "", parse_operation(made, "", contract), contract.operations[operation])
    assert 0 < len(templates._templates) <= MAX_TEMPLATES
    assert all(sum(map(len, template)) <= MAX_TEMPLATE_BYTES for _, template in templates._templates)


def test_an_answer_is_that_of_an_endpoint_that_was_asked_nothing() -> None:
    """Whatever was asked before. A longer run of it is in `make hostile`."""
    outcome = compared.in_process(1, range(300))
    assert not outcome.findings
    assert outcome.counts["by a template"] > 300


def test_an_answer_is_that_of_a_server_that_was_asked_nothing(tmp_path: Path) -> None:
    """Over HTTP, where heads and answers are remembered, too. A longer run of it is in `make hostile`."""
    database_url = f"sqlite:///{tmp_path}/cdb.sqlite"
    compared.fill(database_url)
    with compared.both(database_url, tmp_path) as urls:
        outcome = compared.over_http(urls, 1, range(40))
        ready = [compared.hits(url) for url in urls]
    assert not outcome.findings
    assert outcome.counts["HTTP 200"] > 80
    assert ready[0] > 20
    assert ready[1] == 0
