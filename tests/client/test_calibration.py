"""The client against a real master."""

import base64
import copy
import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from lxml import etree

import cdb
from tests.servers import Master

UTC = timezone.utc
EVERY_BYTE = bytes(range(256))


@pytest.fixture
def writer(shared_master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(shared_master.url, user=shared_master.user, token=shared_master.token)


def test_a_calibration_comes_back_in_each_of_the_five_ways(writer: cdb.CalibrationSuperMouse) -> None:
    """By run, by date, the current one, by id, and in get_ids."""
    stored = writer.add_calibration("five ways", "t0", "2016-03-01 08:00:00.000001", EVERY_BYTE, comment="all bytes")
    writer.add_run(501, "2016-03-01 08:00:00.000001")
    ways = [
        writer.get_calibration_for_run("Five Ways", "T0", 501),
        writer.get_calibration_for_date("five ways", "t0", datetime(2016, 3, 1, 8, 0, 0, 1)),
        writer.get_current_calibration("FIVE WAYS", "t0"),
        writer.get_calibration_for_id(stored.id),
    ]
    assert [text.data for text in ways] == [EVERY_BYTE] * 4
    assert {text.record for text in ways} == {stored}
    with pytest.raises(cdb.CalibrationNotFound):
        writer.get_calibration_for_date("five ways", "t0", "2016-03-01 08:00:00")
    assert writer.get_ids("2016-03-01 08:00:00.000001")[stored.id] == {
        "id": stored.id,
        "validFrom": stored.valid_from,
        "valid_from": stored.valid_from,
        "device": "FIVE WAYS",
        "device_name": "FIVE WAYS",
        "calibration_type": "t0",
        "valid_until": None,
        "created": stored.created,
        "author": "alice",
        "comment": "all bytes",
        "withdrawn": False,
        "withdrawn_at": None,
        "withdrawn_reason": None,
        "size": 256,
        "sha256": stored.sha256,
    }
    assert stored.id not in writer.get_ids("2016-03-01 08:00:00")


def test_the_content_is_a_str_that_knows_its_origin(writer: cdb.CalibrationSuperMouse) -> None:
    """UTF-8 as text, other bytes as surrogate escapes: nothing is lost, whatever is done with it."""
    for data in (EVERY_BYTE, b"", "é\r\n\x00".encode(), b"no newline at the end"):
        stored = writer.add_calibration("origin", "t0", "2016-03-01", data)
        text = writer.get_calibration_for_id(stored.id)
        for same in (text, pickle.loads(pickle.dumps(text)), copy.deepcopy(text)):
            assert isinstance(same, str)
            assert isinstance(same, cdb.CalibrationText)
            assert same.data == data == same.encode("utf-8", "surrogateescape")
            assert (same.id, same.valid_from, same.sha256, same.size) == (
                stored.id,
                stored.valid_from,
                stored.sha256,
                len(data),
            )


def test_what_is_said_survives_the_way(writer: cdb.CalibrationSuperMouse) -> None:
    """Comments and reasons come back to the character."""
    for comment in ("tabs\tand\nlines\r\n <&>'\" ]]> é 漢字 😀", " spaces ", "x" * 4096):
        stored = writer.add_calibration("said", "t0", "2016-03-01", comment, comment=comment)
        assert stored.comment == comment
        assert writer.withdraw_calibration(stored.id, comment).withdrawn_reason == comment
        assert writer.get_calibration_for_id(stored.id).withdrawn_reason == comment


def test_a_withdrawn_calibration_says_so_and_the_one_before_applies_again(writer: cdb.CalibrationSuperMouse) -> None:
    """Rule 8: by id it stays readable and says that, when and why it is withdrawn."""
    first = writer.add_calibration("mended", "t0", "2016-03-01", b"good")
    second = writer.add_calibration("mended", "t0", "2016-04-01", b"bad")
    assert writer.get_current_calibration("mended", "t0").id == second.id
    withdrawn = writer.withdraw_calibration(second.id, "measured with the wrong trigger")
    assert (withdrawn.withdrawn, withdrawn.valid_until) == (True, withdrawn.valid_from)
    assert writer.get_current_calibration("mended", "t0").id == first.id
    text = writer.get_calibration_for_id(second.id)
    assert (text.data, text.withdrawn, text.withdrawn_reason) == (b"bad", True, "measured with the wrong trigger")
    assert text.withdrawn_at is not None
    assert text.withdrawn_at > text.created
    assert [record.id for record in writer.get_history("mended", "t0")] == [first.id, second.id]
    serial = writer.get_status().serial
    assert writer.withdraw_calibration(second.id, "again").withdrawn_reason == "measured with the wrong trigger"
    assert writer.get_status().serial == serial


def test_runs_and_what_applies_to_them(writer: cdb.CalibrationSuperMouse) -> None:
    """A run's times, its correction, and everything that applies to it."""
    stored = writer.add_calibration("running", "t0", "1990-03-01", b"1")
    writer.add_calibration("running", "tw", "1990-03-03", b"2")
    run = writer.add_run(502, "1990-03-02 01:02:03.000004", "1990-03-02 02:00:00")
    assert writer.get_run(502) == run
    assert (run.start_time, run.stop_time, run.author) == (
        datetime(1990, 3, 2, 1, 2, 3, 4, UTC),
        datetime(1990, 3, 2, 2, tzinfo=UTC),
        "alice",
    )
    assert writer.get_runs("1990-03-02", "1990-03-03") == [run]
    assert writer.get_runs("1990-03-02 01:02:03.000004") == [run]
    assert writer.get_runs("1990-03-02 01:02:03.000005", "1990-03-03") == []
    assert writer.get_calibrations_for_run(502) == [stored]
    corrected = writer.add_run(502, "1990-03-04")
    assert (writer.get_run(502), corrected.stop_time) == (corrected, None)
    assert [record.calibration_type for record in writer.get_calibrations_for_run(502)] == ["t0", "tw"]
    assert writer.get_runs("1990-03-02", "1990-03-03") == []


def test_devices_are_listed_with_their_types(writer: cdb.CalibrationSuperMouse) -> None:
    """In alphabetical order, devices in upper case and types in lower."""
    for type_ in ("tw", "T0"):
        writer.add_calibration("listed", type_, "2016-03-01", b"1")
    assert cdb.Device("LISTED", ("t0", "tw")) in writer.list_devices()


def test_nothing_stored_is_an_empty_history(writer: cdb.CalibrationSuperMouse) -> None:
    """Lists may be empty."""
    assert writer.get_history("nobody stored this", "t0") == []
    assert writer.get_ids("0001-01-01") == {}
    assert writer.get_runs("0001-01-01") == []


def test_as_of_now_is_the_latest_instant_that_can_be_asked(writer: cdb.CalibrationSuperMouse) -> None:
    """Rule 7: "`now` given as as_of to client or shell means the server's `complete_until`"."""
    stored = writer.add_calibration("just now", "t0", "2016-03-01", b"1")
    assert writer.get_history("just now", "t0") == [stored]
    assert writer.get_history("just now", "t0", as_of="now") == []
    later = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(cdb.AsOfNotReached) as refused:
        writer.get_history("just now", "t0", as_of=later)
    assert refused.value.as_of == later
    assert refused.value.complete_until < datetime.now(UTC)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("device_name", lambda c: c.get_current_calibration("", "t0")),
        ("device_name", lambda c: c.get_current_calibration("TOF1 ", "t0")),
        ("device_name", lambda c: c.get_current_calibration("a\x00b", "t0")),
        ("device_name", lambda c: c.get_current_calibration("\ud800", "t0")),
        ("device_name", lambda c: c.get_current_calibration(None, "t0")),
        ("calibration_type", lambda c: c.get_current_calibration("TOF1", "0t")),
        ("calibration_type", lambda c: c.get_history("TOF1", "t" * 65)),
        ("run_number", lambda c: c.get_run(0)),
        ("run_number", lambda c: c.get_run(-1)),
        ("run_number", lambda c: c.get_run(2**63)),
        ("run_number", lambda c: c.get_run("7662")),
        ("run_number", lambda c: c.get_calibration_for_run("TOF1", "t0", 7662.5)),
        ("run_number", lambda c: c.get_calibrations_for_run(None)),
        ("date", lambda c: c.get_calibration_for_date("TOF1", "t0", "yesterday")),
        ("date", lambda c: c.get_calibration_for_date("TOF1", "t0", None)),
        ("as_of", lambda c: c.list_devices(as_of="then")),
        ("id", lambda c: c.get_calibration_for_id(0)),
        ("stop_time", lambda c: c.get_ids("2016-03-02", "2016-03-01")),
        ("stop_time", lambda c: c.get_runs("2016-03-02", "2016-03-01")),
        ("start_time", lambda c: c.get_ids(None)),
        ("valid_from", lambda c: c.add_calibration("TOF1", "t0", "2016-02-30", b"x")),
        ("device_name", lambda c: c.add_calibration("TÖF1", "t0", "2016-02-20", b"x")),
        ("comment", lambda c: c.add_calibration("TOF1", "t0", "2016-02-20", b"x", comment="x" * 4097)),
        ("comment", lambda c: c.add_calibration("TOF1", "t0", "2016-02-20", b"x", comment="\x07")),
        ("data", lambda c: c.add_calibration("TOF1", "t0", "2016-02-20", None)),
        ("data", lambda c: c.add_calibration("TOF1", "t0", "2016-02-20", 5)),
        ("data", lambda c: c.add_calibration("TOF1", "t0", "2016-02-20", "\ud800")),
        ("device_name", lambda c: c.add_calibration(5, "t0", "2016-02-20", b"x")),
        ("device_name", lambda c: c.get_current_calibration(b"TOF1", "t0")),
        ("device_name", lambda c: c.get_current_calibration(["TOF1"], "t0")),
        ("comment", lambda c: c.add_calibration("TOF1", "t0", "2016-02-20", b"x", comment=5)),
        ("reason", lambda c: c.withdraw_calibration(1, 5)),
        ("run_number", lambda c: c.get_run(True)),
        ("start_time", lambda c: c.add_run(7, "2016-03-01 00:00:00 +23:75")),
        ("stop_time", lambda c: c.add_run(7, "2016-03-02", "2016-03-01")),
        ("start_time", lambda c: c.add_run(7, None)),
        ("reason", lambda c: c.withdraw_calibration(1, "")),
        ("reason", lambda c: c.withdraw_calibration(1, " \n")),
        ("reason", lambda c: c.withdraw_calibration(1, None)),
        ("id", lambda c: c.withdraw_calibration(-5, "x")),
    ],
)
def test_a_wrong_argument_of_any_kind_is_named_and_nothing_is_stored(
    writer: cdb.CalibrationSuperMouse, argument: str, call: Callable[[Any], object]
) -> None:
    """A typed error that names the argument."""
    before = writer.get_status().serial
    with pytest.raises(cdb.InvalidArgument) as refused:
        call(writer)
    assert refused.value.argument == argument
    assert argument in refused.value.message
    assert writer.get_status().serial == before


def test_what_is_not_there_says_what_there_is(writer: cdb.CalibrationSuperMouse) -> None:
    """The error repeats the question and names the way on."""
    writer.add_calibration("not there", "t0", "2016-03-01", b"1")
    with pytest.raises(cdb.CalibrationNotFound, match="for this device there is t0") as missing:
        writer.get_current_calibration("not there", "tw")
    assert (missing.value.device_name, missing.value.calibration_type, missing.value.date) == ("NOT THERE", "tw", None)
    with pytest.raises(cdb.CalibrationNotFound, match="applies later") as missing:
        writer.get_calibration_for_date("not there", "t0", "2016-02-01")
    assert missing.value.date == datetime(2016, 2, 1, tzinfo=UTC)
    with pytest.raises(cdb.RunNotFound, match="run 503 is not registered: ask by date") as unregistered:
        writer.get_calibration_for_run("not there", "t0", 503)
    assert unregistered.value.run_number == 503
    with pytest.raises(cdb.CalibrationNotFound, match="no calibration with id 987654321") as missing:
        writer.get_calibration_for_id(987654321)
    assert missing.value.id == 987654321
    with pytest.raises(cdb.CalibrationNotFound):
        writer.withdraw_calibration(987654321, "not there")


def test_a_payload_over_the_limit_is_too_large(writer: cdb.CalibrationSuperMouse) -> None:
    """One byte more than 32 MiB is refused with the limit; 32 MiB come back byte for byte."""
    with pytest.raises(cdb.TooLarge) as refused:
        writer.add_calibration("large", "t0", "2016-03-01", bytes(32 * 2**20 + 1))
    assert refused.value.limit == 32 * 2**20
    with pytest.raises(cdb.TooLarge):
        writer.add_calibration("large", "t0", "2016-03-01", bytes(60 * 2**20))
    stored = writer.add_calibration("large", "t0", "2016-03-01", b"\xff" * 32 * 2**20)
    assert writer.get_calibration_for_id(stored.id).data == b"\xff" * 32 * 2**20


def test_no_payload_is_taken_for_markup(writer: cdb.CalibrationSuperMouse) -> None:
    """Bytes whose base64 spells an attribute's name again and again are a payload like any other."""
    data = base64.b64decode("xmlnsAAA" * 5000)
    stored = writer.add_calibration("spelling", "t0", "2016-03-01", data)
    assert writer.get_calibration_for_id(stored.id).data == data


def test_to_write_needs_user_and_token(shared_master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the arguments or from the environment; wrong ones are refused by the server."""
    monkeypatch.delenv("CDB_USER", raising=False)
    monkeypatch.delenv("CDB_TOKEN", raising=False)
    with pytest.raises(cdb.NotAuthorised, match="CDB_USER and CDB_TOKEN"):
        cdb.CalibrationSuperMouse(shared_master.url).add_run(504, "2016-03-01")
    with pytest.raises(cdb.NotAuthorised, match="HTTP 401"):
        cdb.CalibrationSuperMouse(shared_master.url, user="alice", token="wrong").add_run(504, "2016-03-01")
    monkeypatch.setenv("CDB_SERVER", shared_master.url)
    monkeypatch.setenv("CDB_USER", shared_master.user)
    monkeypatch.setenv("CDB_TOKEN", shared_master.token)
    assert cdb.CalibrationSuperMouse().add_run(504, "2016-03-01").author == "alice"


def _ask_of_its_own(question: tuple[cdb.Calibration, str, int]) -> list[int]:
    client, device_name, id = question
    return [client.get_current_calibration(device_name, "t0").id - id for _ in range(30)]


def test_a_client_made_before_a_fork_answers_each_process_its_own(writer: cdb.CalibrationSuperMouse) -> None:
    """Processes share no connection: each gets the answers to its own questions."""
    stored = [writer.add_calibration(f"forked {n}", "t0", "2016-03-01", b"%d" % n * 5000) for n in range(6)]
    assert writer.get_current_calibration("forked 0", "t0").id == stored[0].id
    questions = [(writer, record.device_name, record.id) for record in stored]
    with warnings.catch_warnings():
        # What Python warns of, threads in the parent, is no part of this.
        warnings.simplefilter("ignore", DeprecationWarning)
        processes = []
        for question in questions:
            if (process := os.fork()) == 0:
                os._exit(any(_ask_of_its_own(question)))
            processes.append(process)
    assert [os.waitpid(process, 0)[1] for process in processes] == [0] * len(questions)


@pytest.mark.parametrize(
    ("argument", "made"),
    [
        ("servers", lambda: cdb.Calibration("localhost:8080")),
        ("servers", lambda: cdb.Calibration(5)),  # type: ignore[arg-type]  # no address
        ("servers", lambda: cdb.Calibration([None])),  # type: ignore[list-item]  # no address
        ("timeout", lambda: cdb.Calibration(timeout=None)),  # type: ignore[arg-type]  # no number
        ("timeout", lambda: cdb.Calibration(timeout=0)),
        ("timeout", lambda: cdb.Calibration(timeout=float("inf"))),
        ("min_serial", lambda: cdb.Calibration(min_serial=-1)),
        ("min_serial", lambda: cdb.Calibration(min_serial="7")),  # type: ignore[arg-type]  # no number
        ("token", lambda: cdb.CalibrationSuperMouse(user="ä", token="x")),
    ],
)
def test_a_client_is_not_made_of_what_cannot_work(argument: str, made: Callable[[], object]) -> None:
    """The mistake is named where it is made."""
    with pytest.raises(cdb.InvalidArgument) as refused:
        made()
    assert refused.value.argument == argument


def test_what_every_server_said_is_told_with_its_type(shared_master: Master) -> None:
    """An error that all servers agree on stays that error, with its fields."""
    later = datetime.now(UTC) + timedelta(hours=1)
    for servers in ([shared_master.url] * 2, ["http://127.0.0.1:1", shared_master.url]):
        with pytest.raises(cdb.AsOfNotReached) as refused:
            cdb.Calibration(servers).list_devices(as_of=later)
        assert refused.value.as_of == later


def test_to_make_a_client_talks_to_nobody() -> None:
    """An address that does not exist is met at the first question, as a typed error."""
    client = cdb.Calibration("http://127.0.0.1:1 http://127.0.0.1:2", timeout=1)
    with pytest.raises(cdb.ServerUnreachable, match=r"http://127.0.0.1:1: .*; http://127.0.0.1:2: "):
        client.get_status()


def test_the_next_server_of_the_list_is_asked_when_one_is_away(shared_master: Master) -> None:
    """Servers are given in order of preference."""
    assert cdb.Calibration(["http://127.0.0.1:1", shared_master.url]).get_status().status == "OK"


def test_the_journal_tells_who_wrote_what_and_when(writer: cdb.CalibrationSuperMouse) -> None:
    """An entry has the fields of its kind, and None for those of the others."""
    after = writer.get_status().serial
    stored = writer.add_calibration("journal", "t0", "2016-03-01", b"1 2 3\n", comment="é")
    run = writer.add_run(505, "2016-03-01", "2016-03-02")
    withdrawn = writer.withdraw_calibration(stored.id, "wrong cable")
    entries = writer.get_journal(after)
    assert [entry.serial for entry in entries] == [stored.id, stored.id + 1, stored.id + 2]
    assert [entry.created for entry in entries] == [stored.created, run.created, withdrawn.withdrawn_at]
    assert {entry.author for entry in entries} == {"alice"}
    assert entries[-1].digest == writer.get_status().digest
    always = {"serial", "kind", "created", "author", "digest"}
    given = [
        {name: value for name, value in asdict(entry).items() if value is not None and name not in always}
        for entry in entries
    ]
    assert [(entry.kind, fields) for entry, fields in zip(entries, given, strict=True)] == [
        (
            "calibration",
            {
                "device_name": "JOURNAL",
                "calibration_type": "t0",
                "valid_from": stored.valid_from,
                "comment": "é",
                "size": 6,
                "sha256": stored.sha256,
            },
        ),
        ("run", {"run_number": 505, "start_time": run.start_time, "stop_time": run.stop_time}),
        ("withdrawal", {"calibration_id": stored.id, "reason": "wrong cable"}),
    ]


def test_on_the_wire_an_entry_has_the_fields_of_its_kind_alone(writer: cdb.CalibrationSuperMouse) -> None:
    """What an entry has not is left out, neither empty nor nil."""
    after = writer.get_status().serial
    writer.add_calibration("journal wire", "t0", "2016-03-01", b"1")
    writer.add_run(506, "2016-03-01")
    question = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><get_journal xmlns="urn:mice:cdb:2">'
        f"<after_serial>{after}</after_serial><limit>2</limit></get_journal></s:Body></s:Envelope>"
    )
    answer = requests.post(
        f"{writer._servers[0]}/cdb/v2/calibration", question, headers={"Content-Type": "text/xml"}, timeout=10
    )
    always = ["serial", "kind", "created", "author", "digest"]
    assert [[etree.QName(field).localname for field in entry] for entry in etree.fromstring(answer.content)[0][0]] == [
        [*always, "device_name", "calibration_type", "valid_from", "size", "sha256"],
        [*always, "run_number", "start_time"],
    ]


def test_the_journal_is_read_in_parts(writer: cdb.CalibrationSuperMouse) -> None:
    """A limit bounds the answer; a greater one than the server's is too large; 0 and less are invalid."""
    writer.add_calibration("journal parts", "t0", "2016-03-01", b"1")
    last = writer.get_status().serial
    assert [entry.serial for entry in writer.get_journal(last - 1, 1)] == [last]
    assert writer.get_journal(last) == []
    with pytest.raises(cdb.TooLarge) as caught:
        writer.get_journal(0, 1001)
    assert caught.value.limit == 1000
    for wrong, argument in (((0, 0), "limit"), ((0, -1), "limit"), ((-1, 1), "after_serial"), ((0, "1"), "limit")):
        with pytest.raises(cdb.InvalidArgument) as invalid:
            writer.get_journal(*wrong)
        assert invalid.value.argument == argument


def test_a_preview_tells_what_an_upload_would_change(writer: cdb.CalibrationSuperMouse) -> None:
    """And what is then stored changes that."""
    first = writer.add_calibration("preview", "t0", "1990-03-01", b"1")
    for number in (507, 508, 510):
        writer.add_run(number, f"1990-04-01 00:00:00.{number}")
    before = writer.get_status()
    told = writer.preview_calibration("Preview", "T0", "1990-04-01 00:00:00.508", "2", comment="c")
    assert told == cdb.Preview(
        stored_id=None,
        device_is_new=False,
        calibration_type_is_new=False,
        lies_in_future=False,
        lies_before_first_run=told.lies_before_first_run,
        valid_until=None,
        run_count=told.run_count,
        run_range=told.run_range,
        takes_over_from=first,
    )
    assert cdb.RunRange(508, 508) in told.run_range
    assert any(found.first_run == 510 for found in told.run_range)
    assert writer.get_status().digest == before.digest
    with pytest.raises(cdb.CalibrationNotFound):
        writer.get_calibration_for_id(before.serial + 1)
    stored = writer.add_calibration("preview", "t0", "1990-04-01 00:00:00.508", "2")
    assert writer.get_calibration_for_run("preview", "t0", 507).id == first.id
    assert writer.get_calibration_for_run("preview", "t0", 508).id == stored.id
    again = writer.preview_calibration("preview", "t0", "1990-04-01 00:00:00.508", "2")
    assert (again.stored_id, again.run_count, again.takes_over_from) == (stored.id, 0, stored)
    empty = writer.preview_calibration("preview", "new", "9999-12-31", b"")
    assert (empty.calibration_type_is_new, empty.lies_in_future, empty.run_range) == (True, True, ())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("", "t0", "2016-03-01", b"1"), cdb.InvalidArgument),
        (("TOF1 ", "t0", "2016-03-01", b"1"), cdb.InvalidArgument),
        (("TOF1", "0t", "2016-03-01", b"1"), cdb.InvalidArgument),
        (("TOF1", "t0", "2016-02-30", b"1"), cdb.InvalidArgument),
        (("TOF1", "t0", "2016-03-01", b"1", "x" * 4097), cdb.InvalidArgument),
        (("TOF1", "t0", "2016-03-01", b"1", "\x00"), cdb.CdbPermanentError),
        (("TOF1", "t0", "2016-03-01", bytes(32 * 2**20 + 1)), cdb.TooLarge),
        (("TOF1", "t0", "2016-03-01", None), cdb.InvalidArgument),
    ],
)
def test_a_preview_is_refused_as_the_upload_would_be(
    writer: cdb.CalibrationSuperMouse, arguments: tuple[Any, ...], error: type[cdb.CdbError]
) -> None:
    """With the same class, the same words and the same fields."""
    told = []
    for ask in (writer.preview_calibration, writer.add_calibration):
        with pytest.raises(error) as caught:
            ask(*arguments)
        told.append((type(caught.value), caught.value.message.replace("preview_", "add_"), caught.value._fields))
    assert told[0] == told[1]


def test_a_preview_needs_user_and_token(shared_master: Master) -> None:
    """As a write does, before anything is sent and when it is."""
    with pytest.raises(cdb.NotAuthorised):
        cdb.CalibrationSuperMouse(shared_master.url, user="", token="").preview_calibration(
            "A", "b", "2016-01-01", b"1"
        )
    with pytest.raises(cdb.NotAuthorised):
        cdb.CalibrationSuperMouse(shared_master.url, user="alice", token="wrong").preview_calibration(
            "A", "b", "2016-01-01", b"1"
        )
