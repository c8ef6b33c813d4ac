"""What pages ask of the database, held against rule 3 worked out by hand, on both databases."""

import hashlib
import random
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from cdb_server.database.transactions import Database
from cdb_server.errors import RunNotFound
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.model import Entry, NewCalibration, RunTimes, TimeRange, Withdrawal
from cdb_server.repository import journal_entries
from cdb_server.repository.explanations import Explanations, Timelines
from cdb_server.repository.journal_entries import EntryFilter, JournalSearch
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests.server.oracle import Clock

DAY = timedelta(days=1)
START = datetime(2016, 3, 1, tzinfo=UTC)
KEYS = [("KL A", "gain"), ("TOF1", "t0"), ("TOF1", "tw")]


def upload(key: tuple[str, str], valid_from: datetime, data: bytes) -> Upload:
    sha256 = hashlib.sha256(data).hexdigest()
    return Upload.validated(*key, valid_from, data, sha256, "by chance", max_payload=100)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A journal made by chance: uploads under few dates, withdrawals, runs registered and corrected."""
    chance = random.Random(3)
    clock = Clock(START)
    Database.create(database_url)
    with Database.open(database_url) as opened:
        writer = Writer(opened, clock=clock)
        stored: list[int] = []
        for number in range(120):
            clock.now += timedelta(minutes=1)
            at = START + chance.randrange(40) * DAY
            match chance.randrange(8):
                case 0 if stored:
                    writer.withdraw_calibration(chance.choice(stored), f"mistake {number}", author="bob")
                case 1:
                    writer.add_run(chance.randrange(1, 9), at, None, author="carol")
                case _:
                    made = upload(chance.choice(KEYS), at, str(number).encode())
                    stored.append(writer.add_calibration(made, author="Alice").id)
        yield opened


def everything(database: Database) -> list[Entry]:
    return [entry for entry, _ in Reader(database).journal(0, 1000)]


def standing(entries: list[Entry], key: tuple[str, str]) -> list[tuple[datetime, int]]:
    """What is not withdrawn, in the order of rule 3."""
    gone = {entry.content.calibration_id for entry in entries if isinstance(entry.content, Withdrawal)}
    return sorted(
        (entry.content.valid_from, entry.serial)
        for entry in entries
        if isinstance(entry.content, NewCalibration)
        and (entry.content.device_name, entry.content.calibration_type) == key
        and entry.serial not in gone
    )


def in_force(stands: list[tuple[datetime, int]], instant: datetime) -> int | None:
    return max((each for each in stands if each[0] <= instant), default=(None, None))[1]


def test_a_lane_is_rule_3_at_every_instant(database: Database) -> None:
    """Drawn exactly, what a lane shows at any instant is in force then; drawn by steps, at every step."""
    entries = everything(database)
    survey = Timelines(database)
    for first, last in ((-5, 50), (3, 20), (7, 8)):
        period = TimeRange(START + first * DAY, START + last * DAY)
        step = (period.stop - period.start) / 60
        for most, times in (
            (500, [START + hours * timedelta(hours=12) for hours in range(first * 2, last * 2 + 1)]),
            (0, [period.start + number * step for number in range(61)]),
        ):
            for lane in survey.lanes(KEYS, period, most, 60):
                key = (lane.device_name, lane.calibration_type)
                stands = standing(entries, key)
                begins = [each.valid_from for each in lane.in_force]
                assert begins == sorted(set(begins))
                drawn = [(each.valid_from, each.id) for each in lane.in_force]
                assert lane.complete or not most
                for instant in times:
                    assert in_force(drawn, instant) == in_force(stands, instant), (key, instant)


def test_a_whole_lane_tells_of_all_that_never_was_in_force(database: Database) -> None:
    """Withdrawn and superseded ones are drawn too: nothing that begins in the period is left out."""
    entries = everything(database)
    period = TimeRange(START - DAY, START + 50 * DAY)
    for lane in Timelines(database).lanes(KEYS, period, 500, 10):
        key = (lane.device_name, lane.calibration_type)
        stored = {
            entry.serial
            for entry in entries
            if isinstance(entry.content, NewCalibration)
            and (entry.content.device_name, entry.content.calibration_type) == key
        }
        drawn = [each.id for part in (lane.in_force, lane.withdrawn, lane.superseded) for each in part]
        assert sorted(drawn) == sorted(stored)
        assert {each.id for each in lane.superseded} <= {id for _, id in standing(entries, key)}
        assert lane.withdrawn
        assert lane.superseded


def test_runs_are_all_drawn_or_one_a_step(database: Database) -> None:
    """A corrected run stands where it was corrected to, and only there."""
    entries = everything(database)
    starts = {
        entry.content.run_number: entry.content.start_time for entry in entries if isinstance(entry.content, RunTimes)
    }
    period = TimeRange(START - DAY, START + 50 * DAY)
    found, whole = Timelines(database).runs(period, 100, 10)
    assert whole
    assert dict(found) == starts
    few, whole = Timelines(database).runs(period, 1, 2)
    assert not whole
    assert set(few) <= set(found)
    assert few[0] == found[0]


def test_the_extent_is_from_the_first_to_the_last(database: Database) -> None:
    """Of all, and of one device and type; of none there is none."""
    entries = everything(database)
    begins = [entry.content.valid_from for entry in entries if isinstance(entry.content, NewCalibration)]
    starts = [entry.content.start_time for entry in entries if isinstance(entry.content, RunTimes)]
    survey = Timelines(database)
    assert survey.time_range() == TimeRange(min(begins + starts), max(begins + starts))
    assert survey.time_range(("NOBODY", "t0")) is None
    assert survey.keys(2) == KEYS[:2]


def test_what_applies_is_explained(database: Database) -> None:
    """For every day: what rule 3 gives, what it gave an instant before that began, and what it passed over."""
    entries = everything(database)
    explaining = Explanations(database)
    stored = {entry.serial: entry.content for entry in entries if isinstance(entry.content, NewCalibration)}
    seen_passed_over = 0
    for days in range(-1, 42):
        instant = START + days * DAY
        applied = explaining.for_date(instant)
        told = {(each.calibration.device_name, each.calibration.calibration_type): each for each in applied.resolutions}
        assert sorted([*told, *applied.unresolved]) == KEYS
        for key in KEYS:
            stands = standing(entries, key)
            id = in_force(stands, instant)
            assert (told[key].calibration.id if key in told else None) == id
            if id is None:
                continue
            begins = stored[id].valid_from
            before = told[key].predecessor
            assert (before and before.id) == in_force(stands, begins - MICROSECOND)
            others = sorted(
                (
                    (content.valid_from, serial)
                    for serial, content in stored.items()
                    if (content.device_name, content.calibration_type) == key
                    and begins <= content.valid_from <= instant
                    and serial != id
                ),
                reverse=True,
            )
            assert [each.id for each in told[key].skipped] == [serial for _, serial in others[:3]]
            assert told[key].more_skipped == (len(others) > 3)
            seen_passed_over += len(others)
    assert seen_passed_over > 50


def test_a_run_is_explained_by_its_start_and_as_of_an_instant(database: Database) -> None:
    """Rule 5; and with as_of the journal up to then, no more."""
    entries = everything(database)
    explaining = Explanations(database)
    run = next(entry.content for entry in reversed(entries) if isinstance(entry.content, RunTimes))
    applied = explaining.for_run(run.run_number)
    assert applied.run is not None
    assert applied.instant == run.start_time
    assert applied.resolutions == explaining.for_date(run.start_time).resolutions
    with pytest.raises(RunNotFound):
        explaining.for_run(99)
    for cut in (10, 50, 100):
        applied = explaining.for_date(START + 30 * DAY, entries[cut - 1].created)
        for each in applied.resolutions:
            key = (each.calibration.device_name, each.calibration.calibration_type)
            assert each.calibration.id == in_force(standing(entries[:cut], key), START + 30 * DAY)
            assert all(other.id <= cut for other in each.skipped)


@pytest.mark.parametrize("window", [7, 1000])
def test_the_journal_is_found_by_any_filter(database: Database, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page, whatever the window: exactly the entries that match, the latest first."""
    monkeypatch.setattr(journal_entries, "MAX_SEARCHED_ENTRIES", window)
    entries = everything(database)
    about = {entry.serial: entry.content for entry in entries if isinstance(entry.content, NewCalibration)}

    def matches(entry: Entry, wanted: EntryFilter) -> bool:
        content = entry.content
        if isinstance(content, Withdrawal):
            device, kind = about[content.calibration_id].device_name, about[content.calibration_id].calibration_type
        elif isinstance(content, NewCalibration):
            device, kind = content.device_name, content.calibration_type
        else:
            device, kind = "", ""
        asked = (
            (wanted.kind, content.kind),
            (wanted.author, entry.author),
            (wanted.device_name, device),
            (wanted.calibration_type, kind),
        )
        return all(value is None or value.lower() == found.lower() for value, found in asked)

    history = JournalSearch(database)
    some = 0
    for kind in (None, "calibration", "withdrawal", "run"):
        for author in (None, "alice", "BOB"):
            for device in (None, "tof1", "nobody"):
                for type_ in (None, "T0"):
                    wanted = EntryFilter(kind, author, device, type_)
                    found, before = [], 10**9
                    while before > 1:
                        page = history.search(wanted, before, 5)
                        found += [line.entry for line in page.entries]
                        assert page.searched_from < before
                        before = page.searched_from
                    assert found == [entry for entry in reversed(entries) if matches(entry, wanted)], wanted
                    some += bool(found)
    assert some > 20
