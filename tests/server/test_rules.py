"""Rules 3 to 7 and 9 on both databases, against the oracle and against each other.

All that happens lies within a few microseconds, so that valid_from, created, starts of runs and as_of meet, pass and
miss each other by one microsecond all the time.
"""

import itertools
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound, CdbError
from cdb_server.instants import UTC
from cdb_server.model import CalibrationRecord, Preview
from cdb_server.repository.reader import Reader
from cdb_server.repository.writer import Upload, Writer
from tests.server.oracle import MICROSECOND, Clock, Oracle

START = datetime(2016, 3, 1, 8, tzinfo=UTC)
FAR = START + timedelta(days=1)
KEYS = [("TOF1", "t0"), ("TOF1", "tw"), ("KL", "t0")]
RUNS = [7661, 7662, 7663, 7665]  # with a gap in their numbers
Step = tuple[Any, ...]

# A history to be asked everything: (microseconds that the clock moves, method, arguments). Times are microseconds too.
HISTORY: list[Step] = [
    (0, "add_run", 7661, 2, None),
    (1, "add_calibration", "TOF1", "t0", 0, b"a"),
    (1, "add_calibration", "TOF1", "t0", 4, b"b"),
    (2, "add_calibration", "TOF1", "t0", 4, b"c"),  # at the same instant: takes over at once
    (0, "add_calibration", "TOF1", "tw", 3, b"a"),  # while the clock stands
    (1, "add_run", 7661, 4, 9),  # corrected
    (1, "add_calibration", "TOF1", "t0", 4, b"b"),  # nothing new (rule 9)
    (1, "withdraw_calibration", 4, "the cable was swapped"),
    (-3, "add_calibration", "KL", "t0", 5, b"c"),  # the clock stepped back
    (9, "add_calibration", "TOF1", "t0", 2, b"d"),  # ends an interval that began earlier
    (1, "add_run", 7662, 0, None),
    (1, "add_calibration", "KL", "t0", 86_400_000_000, b"a"),  # not current for a day
    (1, "withdraw_calibration", 4, "twice"),
    (1, "add_calibration", "TOF1", "t0", 4, b"c"),  # what is withdrawn may be stored again
    (1, "add_run", 7661, 2, None),  # as it was at first
]

instants = st.one_of(st.integers(0, 6), st.just(86_400_000_000))
steps = st.tuples(
    st.sampled_from([0, 1, 1, 2, 3, -1]),
    st.one_of(
        *[
            st.tuples(
                st.just("add_calibration"),
                st.sampled_from(devices),
                st.sampled_from(["t0", "T0", "tw"]),
                instants,
                st.sampled_from([b"a", b"b"]),
            )
            for devices in (["TOF1", "tof1"], ["TOF1"], ["TOF1", "KL"])
        ],
        st.tuples(st.just("withdraw_calibration"), st.integers(1, 12), st.just("a mistake")),
        st.tuples(
            st.just("add_run"), st.sampled_from(RUNS), st.integers(-1, 7), st.one_of(st.none(), st.integers(7, 9))
        ),
    ),
)
histories = st.lists(steps.map(lambda step: (step[0], *step[1])), min_size=4, max_size=14)


class Server:
    """Reader and Writer as one, with the oracle's methods."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._reader = Reader(database, clock=clock)
        self._writer = Writer(database, clock=clock)

    def add_calibration(
        self,
        device_name: str,
        calibration_type: str,
        valid_from: datetime,
        data: bytes,
        comment: str | None,
        author: str,
    ) -> CalibrationRecord:
        upload = Upload.validated(device_name, calibration_type, valid_from, data, None, comment, max_payload=100)
        return self._writer.add_calibration(upload, author)

    def preview_calibration(
        self, device_name: str, calibration_type: str, valid_from: datetime, data: bytes
    ) -> Preview:
        upload = Upload.validated(device_name, calibration_type, valid_from, data, None, None, max_payload=100)
        return self._writer.preview_calibration(upload)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer if hasattr(self._writer, name) else self._reader, name)


class Both:
    """The server beside the oracle, under one clock: what is done to one is done to the other and must answer alike."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock(START)
        self.oracle = Oracle(self.clock)
        self.server = Server(database, self.clock)

    def play(self, history: Iterable[Step]) -> None:
        for tick, method, *arguments in history:
            self.clock.now += tick * MICROSECOND
            if method == "add_calibration":
                device_name, calibration_type, valid_from, data = arguments
                comment = f"on {valid_from}" if valid_from % 2 else None
                arguments = [device_name, calibration_type, at(valid_from), data, comment]
            elif method == "add_run":
                run_number, start, stop = arguments
                arguments = [run_number, at(start), None if stop is None else at(stop)]
            self.ask(method, *arguments, f"user {len(self.oracle.created())}")

    def ask(self, method: str, *arguments: Any) -> Any:
        expected = outcome(getattr(self.oracle, method), *arguments)
        assert outcome(getattr(self.server, method), *arguments) == expected, (method, *arguments)
        return expected

    def settle(self) -> None:
        """Let the clock go on until every entry may be asked for as of."""
        self.clock.now = max([self.clock.now, *self.oracle.created()]) + timedelta(seconds=10) + 2 * MICROSECOND

    def points(self) -> list[datetime]:
        """Everything that begins, and one microsecond either side."""
        return sorted({instant + side * MICROSECOND for instant in self.oracle.instants() for side in (-1, 0, 1)})

    def second_axis(self) -> list[datetime | None]:
        """As it stands, and as of every entry and one microsecond either side of it, so between any two as well."""
        created = {instant + side * MICROSECOND for instant in self.oracle.created() for side in (-1, 0, 1)}
        return [None, *sorted(created)]

    def questions(self) -> Iterator[tuple[Any, ...]]:
        """Everything that can be asked at the points, but for as_of; of periods, those of the neighbouring points."""
        points = self.points()
        periods: list[tuple[datetime, datetime | None]] = [(point, None) for point in points]
        periods += [*itertools.pairwise(points), (points[0], points[-1])]
        yield ("devices",)
        for key in KEYS:
            yield from (("calibration_for_date", *key, point) for point in points)
            yield from (("calibration_for_run", *key, number) for number in RUNS)
            yield ("current_calibration", *key)
            yield ("history", *key)
        for number in RUNS:
            yield from (("run", number), ("calibrations_for_run", number))
        for id in range(1, len(self.oracle.created()) + 2):
            yield ("calibration_for_id", id)
        for start, stop in periods:
            yield from (("ids", start, stop), ("runs", start, stop))

    def previews(self) -> Iterator[tuple[Any, ...]]:
        """Every upload at the points: to keys that there are and that there are not, of bytes known and unknown."""
        for key in [*KEYS, ("tof1", "T0"), ("KL", "tw"), ("TOF2", "t0")]:
            for point in [*self.points(), self.clock.now, self.clock.now + MICROSECOND]:
                yield from (("preview_calibration", *key, point, data) for data in (b"a", b"b", b"c", b"new"))


def at(microseconds: int) -> datetime:
    return START + microseconds * MICROSECOND


def outcome(ask: Callable[..., Any], *arguments: Any) -> Any:
    """An answer, or the class of an error and what it says was asked."""
    try:
        return ask(*arguments)
    except CdbError as error:
        return type(error), error.details


def id_of(ask: Callable[..., Any], *arguments: Any) -> int | None:
    """The id of an answer, None where no calibration applies."""
    try:
        id: int = ask(*arguments).id
    except CalibrationNotFound:
        return None
    return id


def every_row(database: Database) -> dict[str, Sequence[Any]]:
    """All that the database holds."""
    with database.read() as connection:
        return {
            table: connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").all()
            for table in ("journal", "calibration", "withdrawal", "run", "payload")
        }


@pytest.fixture
def empty_database(backend: str, database_url: str, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """A function that gives an empty database each time; one at a time, made anew or emptied past the triggers."""
    Database.create(database_url)
    opened: list[Database] = []

    def copied() -> Database:
        while opened:
            opened.pop().close()
        path = shutil.copy(database_url.removeprefix("sqlite:///"), tmp_path / "copy.sqlite")
        opened.append(Database.open(f"sqlite:///{path}"))
        return opened[0]

    def emptied() -> Database:
        if not opened:
            opened.append(Database.open(database_url))
        with psycopg.connect(database_url) as connection:
            connection.execute("SET session_replication_role = replica")
            for table in ("journal", "calibration", "withdrawal", "run", "payload"):
                connection.execute(f"DELETE FROM {table}")
        return opened[0]

    yield copied if backend == "sqlite" else emptied
    for database in opened:
        database.close()


# The fixture is one for all examples, and what it gives is empty for each.
generated = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(generated, max_examples=40)
@given(history=histories, seed=st.integers(0, 2**32))
def test_any_history_is_answered_as_the_rules_say(
    empty_database: Callable[[], Database], history: list[Step], seed: int
) -> None:
    """On generated histories, writes and a sample of all questions, as of any instant, answer as the oracle does."""
    both = Both(empty_database())
    both.play(history)
    both.settle()
    chance = random.Random(seed)
    as_ofs = [None, *chance.sample(both.second_axis(), 3)]
    questions = list(both.questions())
    for as_of in as_ofs:
        for question in chance.sample(questions, 15):
            both.ask(*question, as_of)


@settings(generated, max_examples=25)
@given(history=histories, seed=st.integers(0, 2**32))
def test_a_preview_of_any_upload_says_what_really_changes(
    empty_database: Callable[[], Database], history: list[Step], seed: int
) -> None:
    """On generated histories, a preview tells what an upload to a copy changes for every run; and writes nothing."""
    database = empty_database()
    both = Both(database)
    both.play(history)
    before = every_row(database)
    for preview in random.Random(seed).sample(list(both.previews()), 20):
        both.ask(*preview)
    assert every_row(database) == before


@settings(generated, max_examples=10)
@given(before=histories, after=histories, seed=st.integers(0, 2**32))
def test_an_answer_as_of_an_instant_never_changes(
    empty_database: Callable[[], Database], before: list[Step], after: list[Step], seed: int
) -> None:
    """Rule 7: "An answer once given to a question with as_of never changes", whatever is written afterwards."""
    both = Both(empty_database())
    both.play(before)
    both.settle()
    registered = {run.run_number for run in both.server.runs(both.points()[0], both.points()[-1])}
    chance = random.Random(seed)
    asked = [
        (*question, as_of)
        for question in both.questions()
        for as_of in both.second_axis()[1:]
        # A run first registered later comes into being for every as_of.
        if "run" not in question[0] or question[0] == "runs" or question[-1] in registered
    ]
    asked = chance.sample(asked, 40)
    answers = [outcome(getattr(both.server, method), *arguments) for method, *arguments in asked]
    both.play(after)
    both.settle()
    assert [outcome(getattr(both.server, method), *arguments) for method, *arguments in asked] == answers


def test_a_history_is_answered_as_of_everywhere(empty_database: Callable[[], Database]) -> None:
    """One history is asked everything, as of every instant at and beside an entry, and answers as the oracle does."""
    both = Both(empty_database())
    both.play(HISTORY)
    both.settle()
    questions = list(both.questions())
    for turn, as_of in enumerate(both.second_axis()):
        # For the sake of time each instant gets a third of the questions, and its neighbours the others.
        for question in questions[turn % 3 :: 3]:
            both.ask(*question, as_of)


def test_every_preview_on_a_history_says_what_really_changes(empty_database: Callable[[], Database]) -> None:
    """One history is asked for the preview of every upload at and beside everything that begins; so is none at all."""
    both = Both(empty_database())
    for preview in both.previews():
        both.ask(*preview)
    both.play(HISTORY)
    asked = [both.ask(*preview) for preview in both.previews()]
    assert {preview.run_count for preview in asked} >= {0, 1, 2}
    assert any(preview.stored_id and preview.takes_over_from.id != preview.stored_id for preview in asked)
    assert any(preview.lies_in_future for preview in asked)
    assert any(preview.lies_before_first_run for preview in asked)


def test_the_future_becomes_current(empty_database: Callable[[], Database]) -> None:
    """Rule 4: a calibration becomes current at its valid_from and not a microsecond before, without any write."""
    both = Both(empty_database())
    both.play(HISTORY)
    for moment in (FAR - MICROSECOND, FAR, FAR + MICROSECOND):
        both.clock.now = moment
        for key in KEYS:
            both.ask("current_calibration", *key)
    assert both.server.current_calibration("KL", "t0").valid_from == FAR


def test_answers_agree_with_each_other(empty_database: Callable[[], Database]) -> None:
    """ids is the union of the answers by date, an answer by run is that at its start, and intervals are half-open."""
    both = Both(empty_database())
    both.play(HISTORY)
    both.settle()
    server, points = both.server, both.points()
    for as_of in (None, both.oracle.created()[8]):
        applying = {(key, t): id_of(server.calibration_for_date, *key, t, as_of) for key in KEYS for t in points}
        for start, stop in itertools.combinations_with_replacement(points, 2):
            union = {id for (_, t), id in applying.items() if id is not None and start <= t <= stop}
            assert [found.id for found in server.ids(start, stop, as_of)] == sorted(union)
        for run in server.runs(points[0], points[-1], as_of):
            number, start = run.run_number, run.start_time
            for_run = {key: id_of(server.calibration_for_run, *key, number, as_of) for key in KEYS}
            assert for_run == {key: applying[key, start] for key in KEYS}
            listed = {found.id for found in server.calibrations_for_run(number, as_of)}
            assert listed == set(for_run.values()) - {None}
        for key in KEYS:
            for stored in server.history(*key, as_of):
                applied = {t for t in points if applying[key, t] == stored.id}
                until = stored.valid_until or points[-1] + MICROSECOND
                assert applied == {t for t in points if stored.valid_from <= t < until}


def test_writing_again_writes_nothing(empty_database: Callable[[], Database]) -> None:
    """Rule 9: a history played again, as far as it then stands, adds no entry."""
    both = Both(empty_database())
    both.play(step for step in HISTORY if step[1] != "add_run")
    entries = len(both.oracle.created())
    both.play(step for step in HISTORY if step[1] == "withdraw_calibration")
    both.play([(1, "add_calibration", "TOF1", "t0", valid_from, data) for valid_from, data in [(0, b"a"), (4, b"b")]])
    assert len(both.oracle.created()) == entries
    assert both.server.status().serial == entries
