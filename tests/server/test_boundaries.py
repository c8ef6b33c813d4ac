"""The rules at their edges: equal instants, one microsecond before and after, empty, first, last."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from cdb_server import arguments as arguments_module
from cdb_server import instants, model
from cdb_server.database.transactions import Database
from cdb_server.errors import (
    AsOfNotReached,
    CalibrationNotFound,
    DamagedPayload,
    Integrity,
    InvalidArgument,
    RunNotFound,
    TooLarge,
    Unavailable,
)
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.model import CalibrationRecord, Device, Preview, Run, RunRange
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests.server.oracle import Clock

MARCH = datetime(2016, 3, 1, 8, tzinfo=UTC)
OCTOBER = datetime(2016, 10, 1, tzinfo=UTC)
NOW = datetime(2017, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIRST_INSTANT = datetime(1, 1, 1, tzinfo=UTC)
KEYS = (("TOF1", "t0"), ("tof1", "T0"), ("tof1", "tw"), ("TOF2", "t0"))
LAST_INSTANT = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


class Master:
    """A database with its reader and writer under one clock, one second later at every write."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock(NOW)
        self.read = Reader(database, clock=self.clock)
        self.write = Writer(database, clock=self.clock)

    def store(
        self,
        valid_from: datetime,
        data: bytes = b"1 2 3\n",
        device_name: str = "TOF1",
        calibration_type: str = "t0",
        comment: str | None = None,
        sha256: str | None = None,
    ) -> CalibrationRecord:
        self.clock.now += SECOND
        upload = Upload.validated(device_name, calibration_type, valid_from, data, sha256, comment, max_payload=1000)
        return self.write.add_calibration(upload, "alice")

    def withdraw(self, id: int, reason: str = "the cable was swapped") -> CalibrationRecord:
        self.clock.now += SECOND
        return self.write.withdraw_calibration(id, reason, "bob")

    def register(self, run_number: int, start_time: datetime, stop_time: datetime | None = None) -> Run:
        self.clock.now += SECOND
        return self.write.add_run(run_number, start_time, stop_time, "daq")

    def preview(
        self,
        valid_from: datetime,
        data: bytes = b"new\n",
        device_name: str = "TOF1",
        calibration_type: str = "t0",
        **sent: str,
    ) -> Preview:
        upload = Upload.validated(
            device_name, calibration_type, valid_from, data, sent.get("sha256"), sent.get("comment"), max_payload=1000
        )
        return self.write.preview_calibration(upload)

    def settled(self) -> datetime:
        """The present instant, ten seconds later: all that was written may be asked for as of it."""
        now = self.clock.now
        self.clock.now += timedelta(seconds=10)
        return now

    def for_date(self, date: datetime, as_of: datetime | None = None) -> CalibrationRecord:
        return self.read.calibration_for_date("TOF1", "t0", date, as_of)

    def ids(self, start: datetime, stop: datetime | None = None, as_of: datetime | None = None) -> list[int]:
        return [found.id for found in self.read.ids(start, stop, as_of)]

    def rows(self, table: str) -> int:
        with self.database.read() as connection:
            count: int = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
            return count


@pytest.fixture
def cdb(database_url: str) -> Iterator[Master]:
    Database.create(database_url)
    database = Database.open(database_url)
    yield Master(database)
    database.close()


def id_of(record: CalibrationRecord | None) -> int | None:
    return None if record is None else record.id


class TestResolution:
    def test_a_calibration_applies_from_its_valid_from(self, cdb: Master) -> None:
        """At valid_from and one microsecond after, a calibration applies; one microsecond before, it does not."""
        cdb.store(MARCH)
        assert cdb.for_date(MARCH).id == 1
        assert cdb.for_date(MARCH + MICROSECOND).id == 1
        with pytest.raises(CalibrationNotFound):
            cdb.for_date(MARCH - MICROSECOND)

    def test_an_interval_is_half_open(self, cdb: Master) -> None:
        """One microsecond before the next valid_from the earlier applies, at that instant already the next."""
        cdb.store(MARCH, b"early")
        cdb.store(OCTOBER, b"late")
        assert cdb.for_date(OCTOBER - MICROSECOND).data == b"early"
        assert cdb.for_date(OCTOBER).data == b"late"
        assert cdb.for_date(MARCH).valid_until == cdb.for_date(OCTOBER).valid_from == OCTOBER

    def test_intervals_may_be_one_microsecond_long(self, cdb: Master) -> None:
        """Calibrations one microsecond apart each apply for that microsecond."""
        for step in range(3):
            cdb.store(MARCH + step * MICROSECOND)
        assert [cdb.for_date(MARCH + step * MICROSECOND).id for step in range(4)] == [1, 2, 3, 3]
        ends = [cdb.read.calibration_for_id(id).valid_until for id in (1, 2, 3)]
        assert ends == [MARCH + MICROSECOND, MARCH + 2 * MICROSECOND, None]

    def test_the_last_is_open_ended(self, cdb: Master) -> None:
        """What nothing takes over from applies for ever, and has no valid_until."""
        cdb.store(MARCH)
        assert cdb.for_date(LAST_INSTANT).valid_until is None

    def test_of_equals_the_later_applies(self, cdb: Master) -> None:
        """Of two stored under one valid_from the later applies; the earlier stays readable by id, never in force."""
        cdb.store(MARCH, b"first")
        cdb.store(MARCH, b"second")
        assert cdb.for_date(MARCH).data == b"second"
        superseded = cdb.read.calibration_for_id(1)
        assert (superseded.data, superseded.valid_until, superseded.withdrawn) == (b"first", MARCH, False)

    def test_order_of_upload_does_not_matter(self, cdb: Master) -> None:
        """A calibration stored later for an earlier time ends where the one stored before it begins."""
        cdb.store(OCTOBER)
        assert cdb.store(MARCH).valid_until == OCTOBER
        assert cdb.for_date(OCTOBER - MICROSECOND).id == 2
        assert cdb.for_date(OCTOBER).id == 1

    def test_the_first_and_last_instants_of_all(self, cdb: Master) -> None:
        """Calibrations may begin at the first and the last instant that there are."""
        cdb.store(FIRST_INSTANT)
        cdb.store(LAST_INSTANT)
        assert cdb.for_date(FIRST_INSTANT).valid_until == LAST_INSTANT
        assert cdb.for_date(LAST_INSTANT - MICROSECOND).id == 1
        assert cdb.for_date(LAST_INSTANT).id == 2
        assert cdb.ids(FIRST_INSTANT, LAST_INSTANT) == [1, 2]

    def test_any_offset_names_the_same_instant(self, cdb: Master) -> None:
        """A time with an offset is the instant that it names."""
        cdb.store(MARCH)
        east = timezone(timedelta(hours=14))
        assert cdb.for_date(MARCH.astimezone(east)).id == 1
        with pytest.raises(CalibrationNotFound):
            cdb.for_date((MARCH - MICROSECOND).astimezone(east))
        assert cdb.store(MARCH.astimezone(east)).id == 1

    def test_current_begins_with_the_instant(self, cdb: Master) -> None:
        """Rule 4: a calibration valid from the future is current from that instant and not before."""
        cdb.store(MARCH)
        tomorrow = NOW + timedelta(days=1)
        cdb.store(tomorrow)
        cdb.clock.now = tomorrow - MICROSECOND
        assert cdb.read.current_calibration("TOF1", "t0").id == 1
        cdb.clock.now = tomorrow
        assert cdb.read.current_calibration("TOF1", "t0").id == 2

    def test_devices_and_types_are_apart(self, cdb: Master) -> None:
        """A calibration takes over from its own device and type alone."""
        cdb.store(MARCH, device_name="TOF1", calibration_type="t0")
        cdb.store(MARCH, device_name="TOF1", calibration_type="tw")
        cdb.store(MARCH, device_name="TOF2", calibration_type="t0")
        assert [record.valid_until for record in cdb.read.ids(MARCH)] == [None, None, None]


class TestWithdrawal:
    def test_the_one_before_applies_again(self, cdb: Master) -> None:
        """Rule 8: withdrawn, a calibration is passed over, as though it had never been stored."""
        cdb.store(MARCH)
        cdb.store(OCTOBER)
        cdb.withdraw(2)
        assert cdb.for_date(OCTOBER).id == 1
        assert cdb.for_date(OCTOBER).valid_until is None

    def test_its_interval_is_empty(self, cdb: Master) -> None:
        """A withdrawn calibration has valid_until equal to valid_from, and says that, when and why."""
        cdb.store(MARCH)
        withdrawn = cdb.withdraw(1, "wrong cable")
        assert withdrawn == replace(cdb.read.calibration_for_id(1), data=None)
        assert withdrawn.valid_until == withdrawn.valid_from == MARCH
        assert (withdrawn.withdrawn, withdrawn.withdrawn_reason) == (True, "wrong cable")
        assert withdrawn.withdrawn_at == cdb.clock.now

    def test_the_only_one_leaves_nothing(self, cdb: Master) -> None:
        """Where the only calibration is withdrawn none applies; history and devices still know it."""
        cdb.store(MARCH)
        cdb.withdraw(1)
        with pytest.raises(CalibrationNotFound):
            cdb.for_date(OCTOBER)
        assert cdb.ids(MARCH, OCTOBER) == []
        assert [record.id for record in cdb.read.history("TOF1", "t0")] == [1]
        assert cdb.read.devices() == [Device("TOF1", ("t0",))]

    def test_the_earlier_of_equals_returns(self, cdb: Master) -> None:
        """Where the later of two equals is withdrawn the earlier is in force again."""
        cdb.store(MARCH, b"first")
        cdb.store(MARCH, b"second")
        cdb.withdraw(2)
        assert cdb.for_date(MARCH).data == b"first"
        assert cdb.read.calibration_for_id(1).valid_until is None

    @pytest.mark.parametrize("reason", ["", " \n", "x" * 4097, "bell\a"])
    def test_a_reason_is_needed(self, cdb: Master, reason: str) -> None:
        """A reason that is blank, too long or not fit for XML is refused, and nothing is withdrawn."""
        cdb.store(MARCH)
        with pytest.raises(InvalidArgument) as caught:
            cdb.withdraw(1, reason)
        assert caught.value.argument == "reason"
        assert cdb.rows("journal") == 1

    def test_an_unknown_id_cannot_be_withdrawn(self, cdb: Master) -> None:
        """To withdraw what there is not, or what is no calibration, is an error that writes nothing."""
        cdb.register(7662, MARCH)
        for id in (1, 2):
            with pytest.raises(CalibrationNotFound, match=f"there is no calibration with id {id}: "):
                cdb.withdraw(id)
        assert cdb.rows("journal") == 1


class TestPeriods:
    def test_an_empty_database_has_no_ids(self, cdb: Master) -> None:
        """Where nothing is stored there are no ids, no runs, no devices and no history."""
        assert cdb.ids(FIRST_INSTANT, LAST_INSTANT) == []
        assert cdb.read.runs(FIRST_INSTANT, LAST_INSTANT) == []
        assert cdb.read.devices() == []
        assert cdb.read.history("TOF1", "t0") == []

    def test_both_ends_belong_to_the_period(self, cdb: Master) -> None:
        """Rule 6: what begins at stop is in the list, what ends at start is not."""
        cdb.store(MARCH)
        cdb.store(OCTOBER)
        assert cdb.ids(MARCH, OCTOBER - MICROSECOND) == [1]
        assert cdb.ids(MARCH, OCTOBER) == [1, 2]
        assert cdb.ids(OCTOBER - MICROSECOND, OCTOBER) == [1, 2]
        assert cdb.ids(OCTOBER, LAST_INSTANT) == [2]
        assert cdb.ids(FIRST_INSTANT, MARCH - MICROSECOND) == []
        assert cdb.ids(FIRST_INSTANT, MARCH) == [1]

    def test_without_stop_the_start_alone(self, cdb: Master) -> None:
        """Rule 6: "Without stop: at start only."""
        cdb.store(MARCH)
        cdb.store(MARCH + MICROSECOND)
        assert cdb.ids(MARCH) == cdb.ids(MARCH, MARCH) == [1]

    def test_what_was_never_in_force_is_left_out(self, cdb: Master) -> None:
        """Rule 6: "Superseded and withdrawn ones are not in it", not even at their own valid_from."""
        cdb.store(MARCH, b"superseded at once")
        cdb.store(MARCH, b"in force")
        cdb.store(OCTOBER, b"withdrawn")
        cdb.withdraw(3)
        assert cdb.ids(MARCH) == cdb.ids(FIRST_INSTANT, LAST_INSTANT) == [2]

    def test_every_device_and_type_is_listed(self, cdb: Master) -> None:
        """The list is of all devices and types, by id."""
        for name, kind in [("TOF1", "t0"), ("KL", "gain"), ("TOF1", "tw"), ("CKOV A", "gain")]:
            cdb.store(MARCH, device_name=name, calibration_type=kind)
        assert cdb.ids(MARCH) == cdb.ids(MARCH, OCTOBER) == [1, 2, 3, 4]
        cdb.register(7662, MARCH)
        assert [record.id for record in cdb.read.calibrations_for_run(7662)] == [1, 2, 3, 4]
        assert cdb.read.devices() == [
            Device("CKOV A", ("gain",)),
            Device("KL", ("gain",)),
            Device("TOF1", ("t0", "tw")),
        ]

    def test_stop_before_start_is_refused(self, cdb: Master) -> None:
        """Rule 6: "stop < start is an error", by one microsecond too, for runs as for calibrations."""
        stop = MARCH - MICROSECOND
        for ask in (cdb.read.ids, cdb.read.runs, lambda start, stop: cdb.register(7662, start, stop)):
            with pytest.raises(InvalidArgument, match="lies before start_time") as caught:
                ask(MARCH, stop)
            assert caught.value.argument == "stop_time"
        assert cdb.rows("journal") == 0


class TestRuns:
    def test_a_run_gets_what_applies_at_its_start(self, cdb: Master) -> None:
        """Rule 5: what begins one microsecond after a run's start does not apply to it, though it lasts for hours."""
        cdb.store(MARCH, b"before")
        cdb.store(OCTOBER, b"during")
        cdb.register(7661, OCTOBER - MICROSECOND, OCTOBER + timedelta(hours=3))
        cdb.register(7662, OCTOBER)
        assert cdb.read.calibration_for_run("TOF1", "t0", 7661).data == b"before"
        assert cdb.read.calibration_for_run("TOF1", "t0", 7662).data == b"during"

    def test_a_run_registered_again_is_replaced(self, cdb: Master) -> None:
        """Rule 5: "A run registered again (a corrected time) replaces the earlier entry", in every list."""
        cdb.register(7662, MARCH, OCTOBER)
        corrected = cdb.register(7662, OCTOBER)
        assert cdb.read.run(7662) == corrected
        assert (corrected.start_time, corrected.stop_time, corrected.created) == (OCTOBER, None, cdb.clock.now)
        assert cdb.read.runs(MARCH, OCTOBER - MICROSECOND) == []
        assert cdb.read.runs(MARCH, OCTOBER) == [corrected]

    def test_runs_are_those_that_start_in_the_period(self, cdb: Master) -> None:
        """Both ends belong to the period; a run that only lasts into it does not; runs come by number."""
        for number, start in [(4, MARCH), (3, OCTOBER + MICROSECOND), (2, OCTOBER), (1, MARCH - MICROSECOND)]:
            cdb.register(number, start, LAST_INSTANT)
        assert [run.run_number for run in cdb.read.runs(MARCH, OCTOBER)] == [2, 4]
        assert [run.run_number for run in cdb.read.runs(MARCH)] == [4]

    def test_an_unknown_run_names_the_way_by_date(self, cdb: Master) -> None:
        """Rule 5: "An unknown run is an error that says so and names the way by date", whatever is asked of it."""
        for ask in (
            lambda: cdb.read.run(7662),
            lambda: cdb.read.calibrations_for_run(7662),
            lambda: cdb.read.calibration_for_run("TOF1", "t0", 7662),
        ):
            with pytest.raises(RunNotFound) as caught:
                ask()
            assert str(caught.value) == (
                "run 7662 is not registered: ask by date, with the time at which it started, or register it"
            )
            assert caught.value.details == {"run_number": 7662, "as_of": None}

    @pytest.mark.parametrize("number", [0, -1, 2**63])
    def test_a_number_is_from_1_in_63_bits(self, cdb: Master, number: int) -> None:
        """Other run numbers and ids are refused as such, not as unknown."""
        for argument, ask in (
            ("run_number", cdb.read.run),
            ("run_number", lambda number: cdb.register(number, MARCH)),
            ("id", cdb.read.calibration_for_id),
            ("id", cdb.withdraw),
        ):
            with pytest.raises(InvalidArgument) as caught:
                ask(number)
            assert caught.value.argument == argument

    def test_the_greatest_number_is_a_number(self, cdb: Master) -> None:
        """The last run number of all can be registered and found, the last id be asked for."""
        assert cdb.register(2**63 - 1, MARCH) == cdb.read.run(2**63 - 1)
        with pytest.raises(CalibrationNotFound):
            cdb.read.calibration_for_id(2**63 - 1)


class TestNotFound:
    def test_an_unknown_device(self, cdb: Master) -> None:
        """For a device without anything stored the error says so, and where the devices are listed."""
        cdb.store(MARCH)
        with pytest.raises(CalibrationNotFound) as caught:
            cdb.read.calibration_for_date("tof9", "T0", MARCH)
        assert str(caught.value) == (
            "no calibration of TOF9 t0 applies at 2016-03-01T08:00:00.000000Z: "
            "nothing is stored for this device; list_devices tells which there are"
        )
        assert isinstance(caught.value, LookupError)
        asked = {name: value for name, value in caught.value.details.items() if value is not None}
        assert asked == {"device_name": "TOF9", "calibration_type": "t0", "date": MARCH}

    def test_an_unknown_type(self, cdb: Master) -> None:
        """For a type without anything stored the error says which types there are."""
        cdb.store(MARCH, calibration_type="tw")
        cdb.store(MARCH, calibration_type="t0")
        with pytest.raises(CalibrationNotFound) as caught:
            cdb.read.current_calibration("TOF1", "gain")
        assert str(caught.value) == "no calibration of TOF1 gain applies now: for this device there is t0, tw"

    def test_too_early(self, cdb: Master) -> None:
        """Before the first valid_from the error says that there is something, and names the run where asked by run."""
        cdb.store(OCTOBER)
        cdb.register(7662, MARCH)
        with pytest.raises(CalibrationNotFound) as caught:
            cdb.read.calibration_for_run("TOF1", "t0", 7662)
        assert str(caught.value) == (
            "no calibration of TOF1 t0 applies at the start of run 7662, 2016-03-01T08:00:00.000000Z: "
            "all that is stored for it applies later or is withdrawn; get_history tells what there is"
        )
        assert caught.value.details["run_number"] == 7662
        assert caught.value.details["date"] is None

    def test_an_unknown_id(self, cdb: Master) -> None:
        """An id that is none, or the serial of another kind of entry, is an error that tells where to look."""
        cdb.register(7662, MARCH)
        for id in (1, 2):
            with pytest.raises(CalibrationNotFound) as caught:
                cdb.read.calibration_for_id(id)
            assert str(caught.value) == (
                f"there is no calibration with id {id}: get_ids and get_history tell which ids there are"
            )

    def test_as_of_is_named(self, cdb: Master) -> None:
        """Where as_of was asked the error names it, and speaks of what there was then."""
        before = cdb.settled()
        cdb.store(MARCH)
        cdb.register(7662, OCTOBER)
        ask: Any
        for ask, *arguments, text in (
            (cdb.for_date, OCTOBER, " at 2016-10-01T00:00:00.000000Z as of 2017-01-01T00:00:00.000000Z"),
            (cdb.read.current_calibration, "TOF1", "t0", " as of 2017-01-01T00:00:00.000000Z"),
            (
                *(cdb.read.calibration_for_run, "TOF1", "t0", 7662),
                " at the start of run 7662, 2016-10-01T00:00:00.000000Z as of 2017-01-01T00:00:00.000000Z",
            ),
        ):
            with pytest.raises(CalibrationNotFound) as caught:
                ask(*arguments, before)
            assert str(caught.value) == (
                f"no calibration of TOF1 t0 applies{text}: "
                "nothing is stored for this device; list_devices tells which there are"
            )
            assert caught.value.details["as_of"] == before


class TestNames:
    def test_case_does_not_matter(self, cdb: Master) -> None:
        """Rule 2: devices are stored and reported in upper, types in lower case, and matched without regard to it."""
        stored = cdb.store(MARCH, device_name="Ckov a", calibration_type="Gain")
        assert (stored.device_name, stored.calibration_type) == ("CKOV A", "gain")
        assert cdb.read.calibration_for_date("cKOV A", "GAIN", MARCH).id == 1
        assert [record.id for record in cdb.read.history("ckov a", "gain")] == [1]
        assert cdb.store(MARCH, device_name="CKOV A", calibration_type="gain").id == 1

    @pytest.mark.parametrize("name", ["T", "0", "TOF1", "CKOV A", "a_b.c+d-e", "x" * 64, "0 .", "A  B"])
    def test_devices_that_rule_2_admits(self, name: str) -> None:
        """Letters, digits, spaces and _ . + -, up to 64 of them, name a device."""
        assert arguments_module.normalised_device_name(name) == name.upper()

    @pytest.mark.parametrize(
        "name",
        ["", " ", " TOF1", "TOF1 ", "TOF1\n", "-1", "_x", ".", "x" * 65, "TOF/1", "TÖF", "TOF\t1", "ſ", "\u212a", "٣"],
    )
    def test_devices_that_rule_2_refuses(self, name: str) -> None:
        """Anything else is refused, in reading and writing alike, with the argument's name."""
        with pytest.raises(InvalidArgument) as caught:
            arguments_module.normalised_device_name(name)
        assert caught.value.argument == "device_name"

    @pytest.mark.parametrize("name", ["t", "t0", "Trigger", "a b", "x" * 64])
    def test_types_that_rule_2_admits(self, name: str) -> None:
        """A type is the same as a device, beginning with a letter."""
        assert arguments_module.normalised_calibration_type(name) == name.lower()

    @pytest.mark.parametrize("name", ["", "0t", "1", " t0", "t0 ", "t0\n", "x" * 65, "t:0", "é", "\u0130"])
    def test_types_that_rule_2_refuses(self, name: str) -> None:
        """A type that begins otherwise, or holds anything else, is refused."""
        with pytest.raises(InvalidArgument) as caught:
            arguments_module.normalised_calibration_type(name)
        assert caught.value.argument == "calibration_type"

    def test_a_bad_name_is_refused_by_every_question(self, cdb: Master) -> None:
        """No question and no upload takes a name that rule 2 refuses for one that is merely unknown."""
        ask: Callable[[str, str], object]
        for ask in (
            lambda name, kind: cdb.read.calibration_for_date(name, kind, MARCH),
            lambda name, kind: cdb.read.calibration_for_run(name, kind, 7662),
            cdb.read.current_calibration,
            cdb.read.history,
            lambda name, kind: cdb.store(MARCH, b"1", name, kind),
        ):
            for key in (("TOF1 ", "t0"), ("TOF1", "0t")):
                with pytest.raises(InvalidArgument):
                    ask(*key)
        assert cdb.rows("journal") == 0


class TestTime:
    def test_a_naive_datetime_has_no_instant(self) -> None:
        """A datetime without time zone is refused, not taken for local time or UTC."""
        with pytest.raises(ValueError, match="has no time zone"):
            instants.to_microseconds(datetime(2016, 3, 1))

    def test_a_naive_datetime_is_neither_asked_for_nor_stored(self, cdb: Master) -> None:
        """Reader and Writer refuse naive datetimes everywhere, and write nothing."""
        naive = datetime(2016, 3, 1)
        for ask in (
            lambda: cdb.for_date(naive),
            lambda: cdb.for_date(MARCH, naive),
            lambda: cdb.ids(naive),
            lambda: cdb.ids(naive, MARCH),
            lambda: cdb.read.runs(naive),
            lambda: cdb.store(naive),
            lambda: cdb.register(7662, naive),
            lambda: cdb.register(7662, MARCH, naive),
        ):
            with pytest.raises((TypeError, ValueError)):
                ask()
        assert cdb.rows("journal") == cdb.rows("payload") == 0

    @pytest.mark.parametrize(
        "instant", [FIRST_INSTANT, instants.EPOCH - MICROSECOND, instants.EPOCH, MARCH + MICROSECOND, LAST_INSTANT]
    )
    def test_microseconds_are_exact(self, instant: datetime) -> None:
        """Over the years 1 to 9999 an instant comes back from its microseconds and from its spelling as it was."""
        assert instants.from_microseconds(instants.to_microseconds(instant)) == instant
        assert instants.format_microseconds(instants.to_microseconds(instant)) == instants.format_instant(instant)
        assert instants.parse(instants.format_instant(instant)) == instant


class TestAsOf:
    def test_the_second_axis_is_closed(self, cdb: Master) -> None:
        """Rule 7: as of the very instant of its created an entry is seen, one microsecond earlier it is not."""
        created = cdb.store(MARCH).created
        cdb.settled()
        assert cdb.for_date(MARCH, created).id == 1
        with pytest.raises(CalibrationNotFound):
            cdb.for_date(MARCH, created - MICROSECOND)
        assert cdb.read.devices(created) == [Device("TOF1", ("t0",))]
        assert cdb.read.devices(created - MICROSECOND) == []

    def test_a_later_upload_is_not_seen(self, cdb: Master) -> None:
        """valid_until too is as of then."""
        before = cdb.store(MARCH).created
        after = cdb.store(OCTOBER).created
        cdb.settled()
        assert cdb.for_date(OCTOBER, before).id == 1
        assert cdb.for_date(MARCH, after - MICROSECOND).valid_until is None
        assert cdb.for_date(MARCH, after).valid_until == OCTOBER
        with pytest.raises(CalibrationNotFound):
            cdb.read.calibration_for_id(2, after - MICROSECOND)

    def test_a_later_withdrawal_is_not_seen(self, cdb: Master) -> None:
        """As of an instant before its withdrawal a calibration is in force, and not withdrawn."""
        cdb.store(MARCH)
        withdrawn = cdb.withdraw(1).withdrawn_at
        assert withdrawn is not None
        cdb.settled()
        standing = cdb.for_date(MARCH, withdrawn - MICROSECOND)
        assert (standing.withdrawn, standing.withdrawn_at, standing.withdrawn_reason) == (False, None, None)
        assert standing.valid_until is None
        assert cdb.read.calibration_for_id(1, withdrawn).withdrawn
        with pytest.raises(CalibrationNotFound):
            cdb.for_date(MARCH, withdrawn)

    def test_current_is_at_as_of(self, cdb: Master) -> None:
        """Rule 7: ""Current" with as_of is the resolution at as_of", though another has become current since."""
        cdb.store(MARCH)
        soon = cdb.clock.now + timedelta(minutes=1)
        cdb.store(soon)
        cdb.clock.now = soon + timedelta(minutes=1)
        assert cdb.read.current_calibration("TOF1", "t0").id == 2
        assert cdb.read.current_calibration("TOF1", "t0", soon - MICROSECOND).id == 1
        assert cdb.read.current_calibration("TOF1", "t0", soon).id == 2

    def test_a_later_correction_of_a_run_is_not_seen(self, cdb: Master) -> None:
        """A run is as it was registered as of then, one by one and in the list."""
        early = cdb.register(7662, MARCH)
        late = cdb.register(7662, OCTOBER)
        cdb.settled()
        before = late.created - MICROSECOND
        assert cdb.read.run(7662, before) == early
        assert cdb.read.run(7662, late.created) == late
        assert cdb.read.runs(MARCH, OCTOBER, before) == [early]
        assert cdb.read.runs(MARCH, OCTOBER, late.created) == [late]

    def test_a_run_first_registered_later_is_found(self, cdb: Master) -> None:
        """Rule 7: "a pinned release must be able to process new runs"; but a list as of then does not grow."""
        pinned = cdb.store(MARCH).created
        cdb.store(OCTOBER, b"not in the release")
        first = cdb.register(7662, OCTOBER)
        cdb.register(7662, MARCH)
        cdb.settled()
        assert cdb.read.run(7662, pinned) == first
        assert cdb.read.calibration_for_run("TOF1", "t0", 7662, pinned).id == 1
        assert [record.id for record in cdb.read.calibrations_for_run(7662, pinned)] == [1]
        assert cdb.read.runs(FIRST_INSTANT, LAST_INSTANT, pinned) == []

    def test_before_the_first_entry_there_is_nothing(self, cdb: Master) -> None:
        """As of an instant before the first entry, the database is empty."""
        cdb.store(MARCH)
        cdb.settled()
        for as_of in (FIRST_INSTANT, NOW):
            assert cdb.ids(FIRST_INSTANT, LAST_INSTANT, as_of) == []
            assert cdb.read.history("TOF1", "t0", as_of) == []
            assert cdb.read.devices(as_of) == []

    def test_what_is_not_complete_is_refused(self, cdb: Master) -> None:
        """Rule 7: as_of may be complete_until, ten seconds before now, and not one microsecond later."""
        cdb.store(MARCH)
        last = cdb.settled()
        assert cdb.read.status().complete_until == last
        assert cdb.for_date(MARCH, last).id == 1
        with pytest.raises(AsOfNotReached, match="is not reached: this server's journal is complete until") as caught:
            cdb.for_date(MARCH, last + MICROSECOND)
        assert caught.value.details == {"as_of": last + MICROSECOND, "complete_until": last}

    def test_every_question_refuses_the_future(self, cdb: Master) -> None:
        """No question answers as of an instant that is not complete, not even with nothing."""
        future = cdb.clock.now + timedelta(days=1)
        ask: Any
        for ask, *arguments in (
            (cdb.read.calibration_for_date, "TOF1", "t0", MARCH),
            (cdb.read.current_calibration, "TOF1", "t0"),
            (cdb.read.calibration_for_run, "TOF1", "t0", 7662),
            (cdb.read.calibration_for_id, 1),
            (cdb.read.ids, MARCH, None),
            (cdb.read.calibrations_for_run, 7662),
            (cdb.read.history, "TOF1", "t0"),
            (cdb.read.devices,),
            (cdb.read.run, 7662),
            (cdb.read.runs, MARCH, None),
        ):
            with pytest.raises(AsOfNotReached):
                ask(*arguments, future)


class TestLimits:
    def test_as_many_rows_as_allowed_and_one_more(self, cdb: Master) -> None:
        """A list of max_rows rows is given; one more is TooLarge, in every list."""
        for index in range(3):
            cdb.store(MARCH + index * MICROSECOND, calibration_type=f"type{index}")
            cdb.store(MARCH + index * MICROSECOND, str(index).encode())
            cdb.register(index + 1, MARCH)
        three, two = (Reader(cdb.database, clock=cdb.clock, max_rows=rows) for rows in (3, 2))
        for name, *arguments in (
            ("history", "TOF1", "t0"),
            ("ids", MARCH + MICROSECOND),
            ("runs", MARCH),
            ("calibrations_for_run", 1),
        ):
            expected = getattr(cdb.read, name)(*arguments)
            assert getattr(three, name)(*arguments) == expected
            limit = Reader(cdb.database, clock=cdb.clock, max_rows=len(expected) - 1)
            with pytest.raises(TooLarge, match=f"more than {len(expected) - 1} rows: ask for less") as caught:
                getattr(limit, name)(*arguments)
            assert caught.value.details == {"limit": len(expected) - 1}
        with pytest.raises(TooLarge):
            two.devices()

    def test_payloads_up_to_the_limit(self, cdb: Master) -> None:
        """A payload of exactly the limit is stored, one byte more is TooLarge."""
        assert cdb.store(MARCH, bytes(1000)).size == 1000
        with pytest.raises(TooLarge) as caught:
            cdb.store(MARCH, bytes(1001))
        assert caught.value.details == {"limit": 1000}

    def test_an_empty_payload_needs_its_sha256(self, cdb: Master) -> None:
        """An empty list of bad channels is real, an argument forgotten is not."""
        with pytest.raises(InvalidArgument, match="the payload is empty") as caught:
            cdb.store(MARCH, b"")
        assert caught.value.argument == "data"
        cdb.store(MARCH, b"", sha256="E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855")
        assert cdb.for_date(MARCH).data == b""

    def test_a_wrong_sha256_is_refused(self, cdb: Master) -> None:
        """Bytes that are not those of the sha256 sent with them are not stored."""
        with pytest.raises(Integrity):
            cdb.store(MARCH, b"1", sha256=model.sha256_of(b"2"))
        with pytest.raises(InvalidArgument):
            cdb.store(MARCH, b"1", sha256="6b86")
        assert cdb.rows("journal") == cdb.rows("payload") == 0

    def test_comments_up_to_the_limit(self, cdb: Master) -> None:
        """A comment of 4,096 characters is kept, an empty one is none, a longer one or one unfit for XML refused."""
        assert cdb.store(MARCH, comment="ü" * 4096).comment == "ü" * 4096
        assert cdb.store(OCTOBER, comment="").comment is None
        for comment in ("x" * 4097, "nul\0", "\ud800", "\uffff"):
            with pytest.raises(InvalidArgument) as caught:
                cdb.store(MARCH, comment=comment)
            assert caught.value.argument == "comment"


class TestRepeatedWrites:
    def test_equal_bytes_are_stored_once(self, cdb: Master) -> None:
        """Rule 9: the same upload again answers with the same calibration; neither author nor comment make it new."""
        first = cdb.store(MARCH, comment="by hand")
        assert cdb.store(MARCH, comment="by script") == first
        assert cdb.rows("journal") == 1

    def test_what_was_superseded_is_found_too(self, cdb: Master) -> None:
        """Rule 9: "even where another has since taken over"; to go back, the later one is withdrawn."""
        cdb.store(MARCH, b"first")
        cdb.store(MARCH, b"second")
        again = cdb.store(MARCH, b"first")
        assert (again.id, again.valid_until) == (1, MARCH)
        assert cdb.for_date(MARCH).data == b"second"
        cdb.withdraw(2)
        assert cdb.for_date(MARCH).data == b"first"

    def test_what_was_withdrawn_is_stored_anew(self, cdb: Master) -> None:
        """Bytes whose calibration is withdrawn are a new calibration when they are stored again."""
        cdb.store(MARCH)
        cdb.withdraw(1)
        assert cdb.store(MARCH).id == 3
        assert cdb.rows("payload") == 1

    def test_another_instant_device_or_type_is_another_calibration(self, cdb: Master) -> None:
        """Only exactly equal device, type and valid_from make an upload a repeated one; the bytes are kept once."""
        cdb.store(MARCH)
        assert cdb.store(MARCH + MICROSECOND).id == 2
        assert cdb.store(MARCH, device_name="TOF2").id == 3
        assert cdb.store(MARCH, calibration_type="tw").id == 4
        assert cdb.rows("payload") == 1

    def test_withdrawing_twice(self, cdb: Master) -> None:
        """Rule 9: what is withdrawn stays withdrawn as it was; the second reason is not kept."""
        cdb.store(MARCH)
        first = cdb.withdraw(1, "wrong cable")
        assert cdb.withdraw(1, "wrong day") == first
        assert cdb.rows("journal") == 2

    def test_registering_twice(self, cdb: Master) -> None:
        """Rule 9: "Registering a run as it already stands […] writes nothing"; any other time is a correction."""
        first = cdb.register(7662, MARCH, OCTOBER)
        assert cdb.register(7662, MARCH, OCTOBER) == first
        assert cdb.rows("journal") == 1
        cdb.register(7662, MARCH)
        cdb.register(7662, MARCH, OCTOBER)
        assert cdb.rows("journal") == 3


class TestClock:
    def test_created_increases_though_the_clock_stands_or_steps_back(self, cdb: Master) -> None:
        """Rule 10: created strictly increases with the serial, by one microsecond when the clock does not."""
        first = cdb.store(MARCH).created
        for step, seconds in enumerate((0, 1, 59, 0), start=1):
            cdb.clock.now = first - seconds * SECOND - SECOND  # store moves it on by one second
            assert cdb.store(MARCH + step * MICROSECOND).created == first + step * MICROSECOND

    def test_a_clock_far_behind_refuses_writes(self, cdb: Master) -> None:
        """Rule 10: a last entry 60 s ahead of the clock is followed; one microsecond more and nothing is written."""
        last = cdb.store(MARCH).created
        for write in (
            lambda: cdb.store(OCTOBER, b"new"),
            lambda: cdb.withdraw(1),
            lambda: cdb.register(7662, MARCH),
        ):
            cdb.clock.now = last - 61 * SECOND - MICROSECOND
            with pytest.raises(Unavailable, match="the master's clock stands behind its last entry"):
                write()
        assert (cdb.rows("journal"), cdb.rows("payload")) == (1, 1)
        assert not cdb.read.calibration_for_id(1).withdrawn
        cdb.clock.now = last - 61 * SECOND
        assert cdb.store(OCTOBER, b"new").created == last + MICROSECOND

    def test_a_write_that_takes_too_long_is_given_up(self, cdb: Master) -> None:
        """A write that lasts longer than four seconds leaves nothing behind; one of four seconds is done."""
        upload = Upload.validated("TOF1", "t0", MARCH, b"1", None, None, max_payload=10)

        def writer(lasting: float) -> Writer:
            """A writer whose clock goes on by so much between its readings, at created and before the commit."""
            readings = itertools.count(NOW.timestamp(), lasting)
            return Writer(cdb.database, clock=lambda: datetime.fromtimestamp(next(readings), UTC))

        with pytest.raises(Unavailable, match="the write took too long and was given up: try again later"):
            writer(4.000001).add_calibration(upload, "alice")
        assert [cdb.rows(table) for table in ("journal", "calibration", "payload")] == [0, 0, 0]
        assert writer(4).add_calibration(upload, "alice").created == NOW


class TestDamage:
    def damage(self, url: str, backend: str, sqlite: str, postgresql: str) -> None:
        """Do to the payloads what the triggers forbid."""
        if backend == "sqlite":
            connection = sqlite3.connect(url.removeprefix("sqlite:///"))
            connection.executescript(f"DROP TRIGGER payload_no_update; DROP TRIGGER payload_no_delete; {sqlite}")
            connection.close()
        else:
            with psycopg.connect(url) as session:
                session.execute("SET session_replication_role = replica")
                session.execute(postgresql)

    @pytest.mark.parametrize(
        ("sqlite", "postgresql"),
        [
            ("UPDATE payload SET data = x'32'", r"UPDATE payload SET data = '\x32'"),
            ("UPDATE payload SET data = x''", "UPDATE payload SET data = ''"),
            # In SQLite one bit on the disk makes text of bytes.
            ("UPDATE payload SET data = '2'", "UPDATE payload SET data = '2'"),
            ("DELETE FROM payload", "DELETE FROM payload"),
        ],
        ids=["altered", "emptied", "made text", "missing"],
    )
    def test_a_damaged_payload_is_never_given(
        self, cdb: Master, backend: str, database_url: str, sqlite: str, postgresql: str
    ) -> None:
        """Rule 13: "On mismatch: an error, never the data"; what needs no data is still answered."""
        stored = cdb.store(MARCH, b"1")
        cdb.register(7662, MARCH)
        self.damage(database_url, backend, sqlite, postgresql)
        ask: Callable[[], CalibrationRecord]
        for ask in (
            lambda: cdb.for_date(MARCH),
            lambda: cdb.read.current_calibration("TOF1", "t0"),
            lambda: cdb.read.calibration_for_run("TOF1", "t0", 7662),
            lambda: cdb.read.calibration_for_id(1),
        ):
            with pytest.raises(DamagedPayload) as caught:
                ask()
            assert (caught.value.side, caught.value.details) == ("Server", {"sha256": stored.sha256})
        assert cdb.read.ids(MARCH) == [stored]

    def test_other_payloads_are_still_given(self, cdb: Master, backend: str, database_url: str) -> None:
        """Damage to one payload does not touch another."""
        cdb.store(MARCH, b"1")
        cdb.store(OCTOBER, b"2")
        update = f"UPDATE payload SET data = '' WHERE sha256 = '{model.sha256_of(b'1')}'"
        self.damage(database_url, backend, update.replace("''", "x''"), update)
        with pytest.raises(DamagedPayload):
            cdb.for_date(MARCH)
        assert cdb.for_date(OCTOBER).data == b"2"


class TestPreview:
    def test_of_the_first_upload_of_all(self, cdb: Master) -> None:
        """In an empty database device and type are new, nothing is taken over from, and no run is there to get it."""
        assert cdb.preview(MARCH) == Preview(None, True, True, False, False, None, 0, (), None)
        assert cdb.preview(cdb.clock.now + MICROSECOND).lies_in_future
        assert not cdb.preview(cdb.clock.now).lies_in_future

    def test_a_type_may_be_new_where_the_device_is_not(self, cdb: Master) -> None:
        """Upper and lower case make nothing new, and what is withdrawn was stored all the same."""
        cdb.withdraw(cdb.store(MARCH).id)
        told = [cdb.preview(MARCH, device_name=device, calibration_type=type_) for device, type_ in KEYS]
        found = [(preview.device_is_new, preview.calibration_type_is_new) for preview in told]
        assert found == [(False, False), (False, False), (False, True), (True, True)]

    def test_beside_an_equal_valid_from(self, cdb: Master) -> None:
        """Under the same valid_from it takes over at once, a microsecond later from then, a microsecond earlier until
        then."""
        first, second = cdb.store(MARCH, b"first"), cdb.store(OCTOBER, b"second")
        at, after, before = (cdb.preview(instant) for instant in (MARCH, MARCH + MICROSECOND, MARCH - MICROSECOND))
        assert (id_of(at.takes_over_from), at.valid_until) == (first.id, OCTOBER)
        assert (id_of(after.takes_over_from), after.valid_until) == (first.id, OCTOBER)
        assert (before.takes_over_from, before.valid_until) == (None, MARCH)
        assert (id_of(cdb.preview(OCTOBER).takes_over_from), cdb.preview(OCTOBER).valid_until) == (second.id, None)
        # As it stands now, so that one sees until when it would have been.
        assert at.takes_over_from == replace(cdb.read.calibration_for_id(first.id), data=None)

    def test_the_runs_that_start_while_it_applies_get_it(self, cdb: Master) -> None:
        """From valid_from, included, until the next, excluded, to the microsecond; whatever they got before."""
        cdb.store(OCTOBER)
        starts = [MARCH - MICROSECOND, MARCH, MARCH + MICROSECOND, OCTOBER - MICROSECOND, OCTOBER]
        for number, start in enumerate(starts, start=100):
            cdb.register(number, start)
        told = cdb.preview(MARCH)
        assert (told.run_count, told.run_range) == (3, (RunRange(101, 103),))
        assert cdb.preview(OCTOBER).run_range == (RunRange(104, 104),)
        assert cdb.preview(OCTOBER + MICROSECOND).run_count == 0

    def test_numbers_make_ranges_not_times(self, cdb: Master) -> None:
        """Runs are told by number, however they follow in time; a number that is none of them parts two ranges."""
        for number, start in [
            (5, MARCH),
            (4, OCTOBER),
            (3, MARCH + SECOND),
            (7, MARCH),
            (9, MARCH - SECOND),
            (8, MARCH),
        ]:
            cdb.register(number, start)
        assert cdb.preview(MARCH).run_range == (RunRange(3, 5), RunRange(7, 8))

    def test_a_corrected_run_counts_where_it_now_starts(self, cdb: Master) -> None:
        """A run whose time was corrected is one run, at its last time alone."""
        cdb.register(7662, MARCH)
        cdb.register(7662, OCTOBER)
        cdb.store(OCTOBER, b"later")
        assert cdb.preview(MARCH).run_count == 0
        assert cdb.preview(MARCH).lies_before_first_run
        assert cdb.preview(OCTOBER).run_count == 1
        cdb.register(7662, MARCH)
        assert cdb.preview(MARCH).run_range == (RunRange(7662, 7662),)
        assert not cdb.preview(MARCH).lies_before_first_run

    def test_what_is_withdrawn_does_not_stand_in_the_way(self, cdb: Master) -> None:
        """Neither does it take over, nor is it taken over from, nor is it found stored."""
        good, wrong, later = cdb.store(MARCH), cdb.store(MARCH + SECOND, b"new\n"), cdb.store(OCTOBER)
        cdb.register(7662, OCTOBER)
        assert cdb.preview(MARCH + SECOND).stored_id == wrong.id
        cdb.withdraw(wrong.id)
        cdb.withdraw(later.id)
        told = cdb.preview(MARCH + SECOND)
        assert (told.stored_id, id_of(told.takes_over_from), told.valid_until) == (None, good.id, None)
        assert told.run_count == 1

    def test_what_is_stored_changes_nothing(self, cdb: Master) -> None:
        """Bytes that are there under this valid_from are told by their id; superseded ones are in force at no time."""
        first, second = cdb.store(MARCH, b"first"), cdb.store(MARCH, b"second")
        cdb.register(7662, MARCH)
        again = cdb.preview(MARCH, b"second")
        assert (again.stored_id, again.run_count, again.run_range, again.valid_until) == (second.id, 0, (), None)
        superseded = cdb.preview(MARCH, b"first", "tof1", "T0")
        assert (superseded.stored_id, superseded.valid_until, superseded.run_count) == (first.id, MARCH, 0)
        assert id_of(superseded.takes_over_from) == second.id
        assert cdb.store(MARCH, b"first").valid_until == superseded.valid_until

    def test_before_the_first_run_is_before_every_start(self, cdb: Master) -> None:
        """At the first start it is not, a microsecond earlier it is; runs are counted by their times, not numbers."""
        cdb.register(1, OCTOBER)
        cdb.register(2, MARCH)
        assert not cdb.preview(MARCH).lies_before_first_run
        assert cdb.preview(MARCH - MICROSECOND).lies_before_first_run

    def test_of_many_ranges_a_thousand_are_told(self, cdb: Master) -> None:
        """All runs are counted, and the first thousand ranges given."""
        with cdb.database.write() as connection:
            for number in range(1, 1002):
                values = f"{number}, 'run', {number}, 'daq', '{number:064x}'"
                connection.exec_driver_sql(f"INSERT INTO journal VALUES ({values})")
                start = instants.to_microseconds(MARCH) - number
                connection.exec_driver_sql(f"INSERT INTO run VALUES ({number}, {number * 2}, {start}, NULL)")
        told = cdb.preview(FIRST_INSTANT)
        assert (told.run_count, len(told.run_range)) == (1001, 1000)
        assert (told.run_range[0], told.run_range[-1]) == (RunRange(2, 2), RunRange(2000, 2000))

    def test_the_ends_of_time(self, cdb: Master) -> None:
        """The first and the last instant are instants like others."""
        cdb.register(1, FIRST_INSTANT)
        cdb.register(2, LAST_INSTANT)
        assert cdb.preview(FIRST_INSTANT).run_range == (RunRange(1, 2),)
        assert cdb.preview(LAST_INSTANT).run_range == (RunRange(2, 2),)

    def test_it_writes_nothing(self, cdb: Master) -> None:
        """Not even the payload: every table has as many rows as before, and the journal its digest."""
        cdb.store(MARCH)
        tables = ("journal", "calibration", "withdrawal", "run", "payload")
        before = [cdb.rows(table) for table in tables], cdb.read.status().digest
        cdb.preview(OCTOBER, b"never stored")
        cdb.preview(MARCH)
        assert ([cdb.rows(table) for table in tables], cdb.read.status().digest) == before

    def test_it_waits_for_no_writer(self, cdb: Master) -> None:
        """A preview only reads: while another holds the lock of writers it answers at once."""
        with cdb.database.write():
            assert cdb.preview(MARCH).device_is_new


class TestPlace:
    """Where a calibration stands among those of its device and type."""

    def beside(self, cdb: Master, id: int, as_of: datetime | None = None) -> tuple[int | None, int | None]:
        place = cdb.read.neighbours(id, as_of)
        assert place.calibration.id == id
        return id_of(place.predecessor), id_of(place.successor)

    def test_among_equal_starts_and_withdrawn_ones(self, cdb: Master) -> None:
        """Rule 3's order, by valid_from and then by id; what is withdrawn is passed over, and has its place."""
        first, second, again = (
            cdb.store(at, data).id for at, data in ((MARCH, b"1"), (OCTOBER, b"2"), (OCTOBER, b"3"))
        )
        earlier = cdb.store(MARCH - MICROSECOND, b"4").id
        cdb.store(MARCH, b"5", calibration_type="tw")
        assert self.beside(cdb, earlier) == (None, first)
        assert self.beside(cdb, first) == (earlier, second)
        assert self.beside(cdb, second) == (first, again)
        then = cdb.settled()
        cdb.withdraw(second)
        assert self.beside(cdb, second) == (first, again)
        assert self.beside(cdb, again) == (first, None)
        assert self.beside(cdb, again, then) == (second, None)

    def test_of_an_id_that_is_none(self, cdb: Master) -> None:
        """As by id: a run's serial is no calibration."""
        cdb.register(7661, MARCH)
        with pytest.raises(CalibrationNotFound, match="id 1"):
            cdb.read.neighbours(1)
        with pytest.raises(InvalidArgument):
            cdb.read.neighbours(0)


class TestPreviewOfWithdrawal:
    def test_the_runs_in_its_interval_change(self, cdb: Master) -> None:
        """Both ends counted as rule 3 counts them; and nothing is written."""
        before, meant = cdb.store(MARCH, b"1").id, cdb.store(MARCH + SECOND, b"2").id
        cdb.store(OCTOBER, b"3")
        for number, start in ((1, MARCH), (2, MARCH + SECOND), (3, OCTOBER - MICROSECOND), (4, OCTOBER)):
            cdb.register(number, start)
        told = cdb.write.preview_withdrawal(meant)
        assert (told.neighbours.calibration.id, id_of(told.neighbours.predecessor)) == (meant, before)
        assert (told.run_count, told.run_range) == (2, (RunRange(2, 3),))
        assert not cdb.read.neighbours(meant).calibration.withdrawn

    def test_what_is_in_force_nowhere_changes_nothing(self, cdb: Master) -> None:
        """Withdrawn before, or superseded at once."""
        one, other = cdb.store(MARCH, b"1").id, cdb.store(MARCH, b"2").id
        cdb.register(1, MARCH)
        assert cdb.write.preview_withdrawal(one).run_count == 0
        assert cdb.write.preview_withdrawal(other).run_count == 1
        cdb.withdraw(other)
        assert cdb.write.preview_withdrawal(other).run_count == 0

    def test_of_an_id_that_is_none(self, cdb: Master) -> None:
        """As the withdrawal itself."""
        with pytest.raises(CalibrationNotFound, match="id 1"):
            cdb.write.preview_withdrawal(1)
