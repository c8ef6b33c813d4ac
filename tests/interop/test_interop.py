"""Real clients, from the WSDL alone: one scenario, a program of its own for each client.

A program prints `ok STEP` or `not ok STEP: why` for every step. What a client cannot do is in one table, below, and the
step must fail in the way written there. `tests/interop/install` brings and builds what the programs need; where it was
told to build elsewhere than beside it, INTEROP_BUILD names the folder.
"""

import os
import random
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest

from cdb_server.database.transactions import Database
from cdb_server.repository.reader import Reader
from tests.servers import Master

HERE = Path(__file__).parent
BUILD = Path(os.environ.get("INTEROP_BUILD", HERE / "build"))
DOCS = HERE.parents[1] / "docs" / "clients.md"

FILES = {"binary": bytes(range(256)), "megabyte": random.Random(3).randbytes(2**20), "empty": b""}

STEPS = (
    "wsdl",
    *(f"upload-{file}" for file in FILES),
    "upload-again",
    "add-run",
    *(f"get-{way}-{file}" for file in FILES for way in ("for-run", "for-date", "current", "for-id")),
    "upload-microseconds",
    "microsecond-before",
    "microsecond-at",
    "microsecond-after",
    "upload-offset",
    "offset-before",
    "offset-at",
    "no-offset",
    "valid-until",
    "get-ids",
    "get-ids-period",
    "list-devices",
    "as-of",
    "withdraw",
    "fault-calibration-not-found",
    "fault-invalid-argument",
    "fault-run-not-found",
    "no-token",
)

# Beyond the scenario, where a client's program has them too.
MORE = dict.fromkeys(("zeep", "suds", "PHP"), ("journal", "preview"))

AXIS_JARS = (
    "axis",
    "jaxrpc",
    "saaj",
    "commons-discovery",
    "commons-logging",
    "wsdl4j",
    "javax.mail",
    "javax.activation",
)


def java(client: str, *jars: str) -> list[str]:
    classpath = [*(f"/usr/share/java/{jar}.jar" for jar in jars), str(BUILD / client / "classes")]
    return ["java", "-classpath", ":".join(classpath), "Client"]


CLIENTS = {
    "zeep": [sys.executable, str(HERE / "zeep" / "client.py")],
    "suds": [sys.executable, str(HERE / "suds" / "client.py")],
    "gSOAP": [str(BUILD / "gsoap" / "client")],
    "PHP": ["php", str(HERE / "php" / "client.php")],
    "node": ["node", str(HERE / "node" / "client.js")],
    "Java": java("java", "jaxws-rt"),
    "SOAP::Lite": ["perl", str(HERE / "perl" / "client.pl")],
    "Axis": java("axis", *AXIS_JARS),
}


@dataclass(frozen=True)
class Limitation:
    """What a client cannot do. `evidence` is in the line that its program prints for the step, at the end."""

    client: str
    step: str
    what: str
    workaround: str
    evidence: str


LIMITATIONS = (
    Limitation(
        "zeep",
        "large-answer",
        "refuses an answer with a payload above 7.5 MB",
        "`zeep.Settings(xml_huge_tree=True)`",
        "try XML_PARSE_HUGE",
    ),
    Limitation(
        "suds",
        "own-time-type",
        "sends a `datetime` for a named type as Python prints it, with a space for the T",
        "give and take times as text",
        "'2016-03-01 00:00:00+00:00' is not accepted",
    ),
    Limitation(
        "suds",
        "raw-bytes",
        "sends bytes as Python prints them, and gives out base64 as it came",
        "encode and decode base64 oneself",
        "is not accepted: it must be base64",
    ),
    Limitation(
        "gSOAP",
        "own-time-type",
        "maps times to `time_t`, which ends at seconds",
        "map `xsd__dateTime` to `std::string` in `typemap.dat`",
        "2016-03-01T08:00:00Z instead of 2016-03-01T08:00:00.123456Z",
    ),
    Limitation(
        "PHP",
        "own-time-type",
        "sends a `DateTime` empty",
        "give and take times as text",
        "start_time '' is not accepted",
    ),
    Limitation(
        "node",
        "own-time-type",
        "sends a `Date` empty",
        "give and take times as text",
        "start_time '' is not accepted",
    ),
    Limitation(
        "node",
        "any-order",
        "sends arguments in the order of the caller's object, not of the WSDL",
        "write them in the order of the WSDL",
        "the argument start_time is out of order",
    ),
    Limitation(
        "node",
        "raw-bytes",
        "sends each byte of a `Buffer` as an element",
        "encode and decode base64 oneself",
        "the body is not well-formed XML",
    ),
    Limitation(
        "SOAP::Lite",
        "wsdl",
        "the client that `service()` makes of a WSDL loses the values of named types, and the namespace of arguments",
        "make the client by hand, with `proxy()` and the names in the WSDL",
        "carries xsi:nil",
    ),
    Limitation(
        "SOAP::Lite",
        "no-arguments",
        "a call without arguments says xsi:nil",
        "give it `SOAP::Data->type(xml => '')`",
        "carries xsi:nil",
    ),
    Limitation(
        "Axis",
        "wsdl",
        "writes a `Calendar` of a named type as a bean with an attribute, and a `Calendar` ends at milliseconds anyway",
        "before `WSDL2Java`, make times text in a copy of the WSDL",
        "The attribute 'calendarType' is not allowed",
    ),
    Limitation(
        "osa",
        "kept-wsdl",
        "knows no types but XML Schema's own",
        "`?wsdl=plain`",
        "KeyError: '{urn:mice:cdb:2}id'",
    ),
    Limitation(
        "PySimpleSOAP",
        "kept-wsdl",
        "gives times without their Z, as if they were in no time zone",
        "`?wsdl=plain`",
        "None",
    ),
    Limitation(
        "strong-soap",
        "no-token",
        "reports that user or token are refused, which is a line of text, as an error of XML",
        "compare user and token",
        "Text data outside of root node",
    ),
    Limitation(
        "KDSoap",
        "no-token",
        "reports that user or token are refused, which is a line of text, as an error of XML",
        "compare user and token",
        "XML error: [1:1]",
    ),
)


@dataclass(frozen=True)
class Report:
    """What a client printed, and under which device and run it worked."""

    client: str
    device: str
    steps: dict[str, str]
    output: str


@pytest.fixture(scope="module", params=CLIENTS)
def report(request: pytest.FixtureRequest, shared_master: Master, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Each client's program, once through the scenario."""
    client: str = request.param
    device = f"INTEROP {re.sub('[^A-Z]', '', client.upper())}"
    payloads = tmp_path_factory.mktemp("payloads")
    for name, data in FILES.items():
        (payloads / name).write_bytes(data)
    environment = {
        **shared_master.environment,
        "TZ": "Asia/Kolkata",  # a client that slips into local time must not pass by luck
        "INTEROP_DEVICE": device,
        "INTEROP_RUN": str(810_000 + 10 * list(CLIENTS).index(client)),
        "INTEROP_PAYLOADS": str(payloads),
        "NODE_PATH": str(BUILD / "node" / "node_modules"),
    }
    ended = subprocess.run(CLIENTS[client], env=environment, capture_output=True, text=True, timeout=120, check=False)
    output = f"{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, output
    lines = [re.fullmatch(r"(?:not )?ok ([a-z-]+)(?:: .*)?", line) for line in ended.stdout.splitlines()]
    assert all(lines), output
    names = [line[1] for line in lines if line]
    assert len(names) == len(set(names)), output
    return Report(client, device, {line[1]: line[0] for line in lines if line}, output)


def test_a_client_does_every_step_but_those_in_the_table(report: Report) -> None:
    """Every step of the list is there and ok; a client's limitation fails in the way that the table says."""
    limitations = {limit.step: limit for limit in LIMITATIONS if limit.client == report.client}
    assert set(report.steps) == {*STEPS, *MORE.get(report.client, ()), *limitations}, report.output
    unexpected = [
        line
        for step, line in report.steps.items()
        if not (
            line.startswith(f"not ok {step}: ") and limitations[step].evidence in line
            if step in limitations
            else line == f"ok {step}"
        )
    ]
    assert unexpected == [], report.output


def test_what_a_client_stored_is_what_it_was_given(report: Report, shared_master: Master) -> None:
    """Bytes and microseconds arrive: a program that compared wrongly would not notice by itself."""
    database = Database.open(shared_master.database)
    reader = Reader(database)
    for name, data in FILES.items():
        [stored] = reader.history(report.device, name)
        assert reader.calibration_for_id(stored.id).data == data
        assert stored.valid_from == datetime(2016, 1, 1, tzinfo=timezone.utc)
    precise, offset = reader.history(report.device, "instants")
    database.close()
    assert precise.valid_from == datetime(2016, 3, 1, 8, 0, 0, 123456, tzinfo=timezone.utc)
    assert offset.valid_from == datetime(2016, 3, 1, 10, 0, 0, 1, tzinfo=timezone.utc)
    assert (precise.withdrawn, offset.withdrawn) == (False, True)


@pytest.mark.parametrize("client", ["zeep", "suds", "gSOAP", "PHP", "node", "Java"])
def test_no_limitation_of_these_clients_is_in_the_scenario(client: str) -> None:
    """These six must pass all of it."""
    assert not [limit for limit in LIMITATIONS if limit.client == client and limit.step in STEPS]


def test_the_documentation_shows_the_programs() -> None:
    """Every block of code in docs/clients.md stands between the marks of a program, or of the script that builds it."""
    gsoap, jax_ws, axis, libxml2, xsdata = regions(HERE / "install")
    shown = [
        *regions(HERE / "zeep" / "client.py"),
        *regions(HERE / "suds" / "client.py"),
        *regions(HERE / "gsoap" / "typemap.dat"),
        gsoap,
        *regions(HERE / "gsoap" / "client.cpp"),
        *regions(HERE / "php" / "client.php"),
        *regions(HERE / "node" / "client.js"),
        jax_ws,
        *regions(HERE / "java" / "Client.java"),
        *regions(HERE / "perl" / "client.pl"),
        axis,
        *regions(HERE / "axis" / "Client.java"),
        *regions(HERE / "curl" / "client.sh"),
        libxml2,
        *regions(HERE / "libxml2" / "client.cpp"),
        *regions(HERE / "r" / "client.R"),
        *regions(HERE / "kdsoap" / "run"),
        *regions(HERE / "kdsoap" / "client.cpp"),
        *regions(HERE / "mono" / "run"),
        *regions(HERE / "mono" / "Client.cs"),
        xsdata,
        *(region for client in ("xsdata", "pysimplesoap", "osa") for region in regions(HERE / client / "client.py")),
        *regions(HERE / "strong-soap" / "client.js"),
    ]
    assert re.findall(r"^```\w+\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE) == shown


def test_the_readme_has_the_table_of_limitations() -> None:
    """The table in the README is the one above."""
    table = (HERE.parents[1] / "README.md").read_text().partition("| client | step |")[2]
    assert [line for line in table.splitlines() if line.startswith("|")][1:] == [
        f"| {limit.client} | {limit.step} | {limit.what} | {limit.workaround} | {limit.evidence} |"
        for limit in LIMITATIONS
    ]


def regions(program: Path) -> list[str]:
    """What stands between `docs: begin` and `docs: end`, without its indentation."""
    marked = re.findall(
        r"^ *(?:#|//) docs: begin\n(.*?)^ *(?:#|//) docs: end$", program.read_text(), re.DOTALL | re.MULTILINE
    )
    assert marked, program
    return [textwrap.dedent(region).strip("\n") + "\n" for region in marked]
