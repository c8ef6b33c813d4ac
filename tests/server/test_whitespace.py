"""White space between the elements of a request means nothing: programs that write XML for people to read send it."""

import re

import pytest
from lxml import etree

from cdb_server.soap.legacy_operations import LEGACY_SERVICES
from cdb_server.soap.wsdl import Wsdl
from tests.fuzz import wire
from tests.server.test_bad_input import CONTRACTS, READ, SOAP, WRITE, Side, element, envelope
from tests.servers import Master

SPACES = ("\n", " ", "\t\t", "\r\n  ", "&#32;", "&#10;\n&#x9;")
SIDES = {wire.READING: READ, wire.WRITING: WRITE}
OPERATIONS = [(SIDES[path], name) for path, contract in CONTRACTS.items() for name in contract.operations]
# What differs from one answer to the next, whatever is asked.
CHANGING = re.compile(rb"complete_until>[^<]*<|withdrawn_at>[^<]*<|created>[^<]*<")


def spaced(request: bytes, space: str) -> bytes:
    """The same with white space before, between and behind the elements of Envelope, Header, Body and operation."""
    root = etree.fromstring(request)
    operation = root[-1][0]
    for holding in (root, *root, operation):
        holding.text = "@"
        for child in holding:
            child.tail = "@"
    return etree.tostring(root).replace(b"@", space.encode())


def ask(master: Master, path: str, body: bytes) -> tuple[int, bytes]:
    """The status and the answer, without what changes by itself."""
    credentials = (master.user, master.token) if path == wire.WRITING else None
    with wire.Peer(master.url) as peer:
        reply = peer.ask(wire.request(path, body, credentials=credentials))
    return reply.status, CHANGING.sub(b"", reply.body)


@pytest.mark.parametrize(("side", "operation"), OPERATIONS, ids=str)
def test_white_space_changes_no_answer(side: Side, operation: str, shared_master: Master) -> None:
    """Of any operation of the contract, with arguments or without, asked for the first time or again."""
    changes = {"device_name": "WHITE SPACE", "run_number": "818181"}
    known = {argument.name for argument in CONTRACTS[side.path].operations[operation]}
    call = side.call(operation, **{name: text for name, text in changes.items() if name in known})
    request = envelope(call, element("header"))
    # What a write stores, it stores once.
    ask(shared_master, side.path, request)
    asked = ask(shared_master, side.path, request)
    assert b"MalformedRequest" not in asked[1]
    for space in SPACES:
        for _ in range(2):
            assert ask(shared_master, side.path, spaced(request, space)) == asked


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "x", " x ", "<![CDATA[x]]>", "&#160;"])
def test_other_characters_in_an_operation_without_arguments_are_malformed(space: str, shared_master: Master) -> None:
    """They are no white space to XML."""
    for operation in ("get_status", "list_devices"):
        status, answer = ask(shared_master, wire.READING, envelope(element(operation, space)))
        assert (status, b"MalformedRequest" in answer) == (500, True)


@pytest.mark.parametrize("path", LEGACY_SERVICES)
def test_white_space_changes_no_answer_of_the_earlier_services(path: str, shared_master: Master) -> None:
    """Around arguments that stand by position, and where there are none."""
    for operation, arguments in Wsdl(LEGACY_SERVICES[path]).operations.items():
        values = "".join(f"<a{place}>1</a{place}>" for place, _ in enumerate(arguments))
        request = (
            f'<s:Envelope xmlns:s="{SOAP}"><s:Header><h/></s:Header>'
            f"<s:Body><{operation}>{values}</{operation}></s:Body></s:Envelope>"
        ).encode()
        asked = ask(shared_master, path, request)
        assert asked[0] == 200
        for space in SPACES:
            assert ask(shared_master, path, spaced(request, space)) == asked
