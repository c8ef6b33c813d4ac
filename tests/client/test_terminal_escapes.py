"""What others wrote does not act on the terminal that shows it: names, comments, errors of servers, names of files."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

import cdb
from tests.client.cdb_process import on_a_terminal, shell
from tests.client.damaging_proxy import faulty
from tests.client.test_credentials import soap
from tests.client.test_invalid_responses import http
from tests.servers import Master

CLI = Path(cdb.__file__).parent / "cli"
# Titles and colours, the cursor, a C1 control, words turned about, a surrogate as of a name that is no text.
WILD = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\r\x08\x7f\u2028\x00"
# In XML there are fewer.
WILD_IN_XML = "".join(character for character in WILD if character >= " ") + "\x9b31m"
FAULT = "500 Internal Server Error"

# What rich and click send a terminal themselves: colours, the cursor of a bar, and its lines.
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\x1b\[1A|\x1b\[2K|\r")


def wild(text: str) -> list[str]:
    """What of a text would act on a terminal."""
    return re.findall(r"[^\t\n -~\xa1-\u2027\u2030-\u205f\u2190-\ud7ff\ufffd]", text)


def record(**fields: object) -> str:
    named = {
        "id": 1,
        "device_name": WILD_IN_XML,
        "calibration_type": WILD_IN_XML,
        "valid_from": "2016-03-01T00:00:00.000000Z",
        "created": "2016-03-01T00:00:00.000000Z",
        "author": WILD_IN_XML,
        "comment": WILD_IN_XML,
        "withdrawn": "true",
        "withdrawn_at": "2016-03-01T00:00:00.000000Z",
        "withdrawn_reason": WILD_IN_XML,
        "size": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        **fields,
    }
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in named.items())


ENTRY = (
    "<entry><serial>1</serial><kind>calibration</kind><created>2016-03-01T00:00:00.000000Z</created>"
    f"<author>{WILD_IN_XML}</author><digest>{'0' * 64}</digest><device_name>{WILD_IN_XML}</device_name>"
    f"<calibration_type>{WILD_IN_XML}</calibration_type><valid_from>2016-03-01T00:00:00.000000Z</valid_from>"
    f"<comment>{WILD_IN_XML}</comment><size>0</size><sha256>{'0' * 64}</sha256></entry>"
)
STATUS = (
    f"<status><status>{WILD_IN_XML}</status><role>{WILD_IN_XML}</role><serial>1</serial><digest>{WILD_IN_XML}</digest>"
    f"<complete_until>2017-03-01T00:00:00.000000Z</complete_until><version>{WILD_IN_XML}</version></status>"
)
RUN = (
    "<run><run_number>1</run_number><start_time>2016-03-01T00:00:00.000000Z</start_time>"
    f"<created>2016-03-01T00:00:00.000000Z</created><author>{WILD_IN_XML}</author></run>"
)
PREVIEW = (
    "<preview><device_is_new>true</device_is_new><calibration_type_is_new>true</calibration_type_is_new>"
    "<lies_in_future>false</lies_in_future><lies_before_first_run>false</lies_before_first_run><run_count>0</run_count>"
    f"<takes_over_from>{record(withdrawn='false')}</takes_over_from></preview>"
)
DEVICE = f"<device><device_name>{WILD_IN_XML}</device_name><calibration_type>{WILD_IN_XML}</calibration_type></device>"
ANSWERS = {
    "get_status": STATUS,
    "get_journal": ENTRY,
    "get_run": RUN,
    "get_runs": RUN,
    "list_devices": DEVICE,
    "preview_calibration": PREVIEW,
    "add_run": RUN,
}
LISTS = ("get_ids", "get_history", "get_calibrations_for_run", "withdraw_calibration", "add_calibration")


def forged(request: bytes) -> bytes:
    """An answer of the right form to any question, with wild texts."""
    (operation,) = re.findall(rb"urn:mice:cdb:2#(\w+)", request)
    name = operation.decode()
    content = ANSWERS.get(name)
    if content is None:
        data = "" if name in LISTS else "<data></data>"
        content = f"<calibration>{record()}{data}</calibration>"
    return http(soap(f'<{name}Response xmlns="urn:mice:cdb:2">{content}</{name}Response>'))


def fault(kind: str) -> Callable[[bytes], bytes]:
    _code, _, name = kind.partition(".")
    return lambda _: http(
        soap(
            f"<s:Fault><faultcode>s:{kind}</faultcode><faultstring>{WILD_IN_XML}</faultstring><detail>"
            f'<{name or "Other"} xmlns="urn:mice:cdb:2"><message>{WILD_IN_XML}</message>'
            f"<argument>{WILD_IN_XML}</argument><device_name>{WILD_IN_XML}</device_name>"
            f"<calibration_type>{WILD_IN_XML}</calibration_type></{name or 'Other'}></detail></s:Fault>"
        ),
        FAULT,
    )


def plainly(status: str, content_type: str = "text/plain") -> Callable[[bytes], bytes]:
    return lambda _: http(WILD.encode(), status, content_type)


SERVERS: dict[str, Callable[[bytes], bytes]] = {
    "answers": forged,
    **{
        kind: fault(kind)
        for kind in ("Client.CalibrationNotFound", "Client.InvalidArgument", "Server.Unavailable", "Server")
    },
    **{status: plainly(status) for status in ("400 No", "401 No", "404 No", "413 No", "503 No", f"503 {WILD[1:9]}")},
    "HTML": plainly("200 OK", "text/html"),
    "a damaged head": lambda _: f"HTTP/1.1 200 {WILD}\r\nX: {WILD}\n\n{WILD}\r\n\r\n".encode(),
}
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("get", "TOF1", "t0"),
    ("get", "--id", "1", "-o", f"{WILD[:-1]}.txt"),
    ("get", "--id", "1", "--json"),
    ("ids", "2016-03-01"),
    ("devices",),
    ("status",),
    ("log",),
    ("log", "--json"),
    ("run", "show", "1"),
    ("run", "add", "1", "--start", "2016-03-01"),
    ("why", "TOF1", "t0"),
    ("diff", "1", "1"),
    ("prefetch", "--run", "1"),
    ("withdraw", "1", "--reason", "wrong"),
    ("withdraw", "1", "--reason", "wrong", "--dry-run"),
    ("add", "TOF1", "t0", "empty", "--valid-from", "2016-03-01", "--dry-run"),
    ("add", "TOF1", "t0", "empty", "--valid-from", "2016-03-01", "--yes"),
    ("add", "--from", "table.csv", "--dry-run"),
    ("lock", "verify", "run.lock"),
)
LOCAL: tuple[tuple[str, ...], ...] = (("lock", "show", "run.lock"), ("cache", "verify"))
SHORT = ("--timeout", "0.5")
# What repeats what was typed.
MISTAKES: tuple[tuple[str, ...], ...] = (
    (WILD[:-1],),
    (f"--{WILD[:-1]}",),
    ("get", f"--{WILD[:-1]}"),
    ("get", "TOF1", "t0", "--date", WILD[:-1]),
    ("get", "TOF1", "t0", "--run", WILD[:-1]),
    ("get", "--id", "1", "-o", f"missing/{WILD[:-1]}"),
    ("get", "TOF1", "t0", "--server", WILD[:-1]),
    ("get", "TOF1", "t0", "--server", f"http://127.0.0.1:1/{WILD[:-1]}", "--timeout", "0.2"),
    ("get", "TOF1", "t0", "--client-cert", WILD[:-1], "--server", "https://127.0.0.1:1", "--timeout", "0.2"),
    ("add", "TOF1", "t0", WILD[:-1], "--valid-from", "2016-03-01"),
    ("add", "--from", WILD[:-1]),
    ("lock", "show", WILD[:-1]),
    ("lock", "show", os.fsdecode(b"\x9b\xff.lock")),
    ("cache", "show", "--cache", WILD[:-1]),
    ("cache", "empty", "--cache", WILD[:-1]),
    ("prefetch", "--run", WILD[:-1]),
    ("copy", "--from", WILD[:-1]),
)


@pytest.fixture
def typed(shared_master: Master, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the commands, in a folder with the files that they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "table.csv").write_text(
        f"device_name,calibration_type,valid_from,file\n{WILD[1:9]},t0,2016-03-01,empty\nTOF1,t0,{WILD[1:9]},empty\n"
    )
    noted = {
        "question": {"get_run": {"run_number": 1}},
        "fault": {"name": "RunNotFound", "message": WILD, "run_number": 1},
    }
    (tmp_path / "run.lock").write_text(json.dumps(noted) + "\n")
    return {**shared_master.environment, "CDB_CACHE": str(tmp_path / "cache"), "COLUMNS": "160"}


# The commands one after another in one process, for each takes a while to begin.
DRIVER = """
import json, os, sys
from cdb.cli import main

environment = dict(os.environ)
for arguments in json.loads(os.environ["COMMANDS"]):
    os.environ.clear()
    os.environ.update(environment)
    try:
        main([os.fsdecode(bytes.fromhex(argument)) for argument in arguments], prog_name="cdb")
    except SystemExit:
        sys.stdout.flush()
"""


def commands(*each: tuple[str, ...]) -> dict[str, str]:
    return {"COMMANDS": json.dumps([[os.fsencode(argument).hex() for argument in arguments] for arguments in each])}


def assert_tame(said: str) -> None:
    assert wild(said) == [], said
    assert "Traceback" not in said, said


@pytest.mark.parametrize("said", SERVERS)
def test_what_a_server_says_does_not_act_on_a_terminal(said: str, typed: dict[str, str]) -> None:
    """Every command, whatever it is answered, into pipes and on a terminal, with its tables and bars."""
    asked = [(*arguments, *SHORT) for arguments in (COMMANDS if said == "answers" else COMMANDS[:2])]
    with faulty(SERVERS[said]) as way:
        environment = {**typed, **commands(*asked, *LOCAL), "CDB_SERVER": way.url}
        run = [sys.executable, "-c", DRIVER]
        done = subprocess.run(run, env=environment, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
        assert_tame(done.stdout.decode() + done.stderr.decode())
        with open(os.devnull) as nothing:
            shown = on_a_terminal(run, environment, stdin=nothing.fileno())
        assert_tame(OURS.sub("", shown))
    # What is told is told, in another spelling.
    assert "\\x9b" in shown or said in ("400 No", "401 No", "404 No", "413 No", "HTML", "a damaged head")


def test_what_was_typed_does_not_act_on_a_terminal(typed: dict[str, str]) -> None:
    """Names of files, addresses and arguments stand in messages as nothing but text."""
    environment = {**typed, **commands(*MISTAKES)}
    shown = on_a_terminal([sys.executable, "-c", DRIVER], environment, typed="n\n")
    assert_tame(OURS.sub("", shown))
    assert shown.count("\\x1b") >= len(MISTAKES) - 1


def test_the_bytes_of_a_calibration_go_out_as_they_are(shared_master: Master) -> None:
    """Whatever they would do: they are what was asked for."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    writer.add_calibration("wild", "t0", "2016-01-01", WILD)
    assert shell(shared_master, "get", "wild", "t0").stdout == WILD.encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_a_terminal_that_knows_few_characters_is_shown_the_others_spelled(shared_master: Master, encoding: str) -> None:
    """A comment in any language ends no command."""
    writer = cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)
    writer.add_calibration("letters", "t0", "2016-01-01", "1", comment="µ – \u6e2c")
    done = shell(shared_master, "ids", "2016-01-01", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "LETTERS" in done.stdout.decode(encoding)
    assert ("\\u6e2c" in done.stdout.decode(encoding)) == (encoding != "utf-16")


def test_one_module_of_the_shell_prints() -> None:
    """All others print by its functions, which know what a terminal may be shown."""
    printing = []
    for path in sorted(CLI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.search(
                r"^print$|click\.(echo|secho|confirm|prompt|pager)|std(out|err)\.(buffer\.)?write|\bconsole\.", name
            ):
                printing.append(path.name)
    assert set(printing) == {"printing.py"}
