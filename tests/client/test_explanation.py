"""What is said of an answer is so: against the oracle, on histories within a few microseconds."""

from dataclasses import astuple
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

import cdb
from cdb.cli.explanation import ExplainedQuery, Explanation, explain
from cdb_server.errors import CdbError
from cdb_server.instants import UTC
from cdb_server.model import CalibrationRecord
from tests.server.oracle import MICROSECOND, Clock, Oracle

START = datetime(2016, 3, 1, 8, tzinfo=UTC)
KEY = ("TOF1", "t0")
RUN = 7662

# A microsecond each: what is stored from when, which id is withdrawn, when the run starts.
entries = st.one_of(
    st.tuples(st.just("calibration"), st.integers(0, 4)),
    st.tuples(st.just("calibration"), st.integers(0, 4)),
    st.tuples(st.just("withdrawal"), st.integers(1, 10)),
    st.tuples(st.just("run"), st.integers(0, 5)),
)


class Played:
    """An oracle to which entries were written one after another, and the run's entries as they came."""

    def __init__(self, written: list[tuple[str, int]]) -> None:
        self.clock = Clock(START)
        self.oracle = Oracle(self.clock)
        self.runs: list[cdb.Run] = []
        for number, (kind, value) in enumerate(written):
            self.clock.now += MICROSECOND
            try:
                if kind == "calibration":
                    self.oracle.add_calibration(*KEY, START + value * MICROSECOND, b"%d" % number, None, "alice")
                elif kind == "withdrawal":
                    self.oracle.withdraw_calibration(value, f"reason {number}", "bob")
                else:
                    run = cdb.Run(*astuple(self.oracle.add_run(RUN, START + value * MICROSECOND, None, "daq")))
                    self.runs += [run] if run not in self.runs[-1:] else []
            except CdbError:
                pass
        self.clock.now = max([START, *self.oracle.created()]) + 20_000_000 * MICROSECOND

    def explained(self, instant: datetime, as_of: datetime | None = None) -> Explanation:
        """The explanation of the question by date."""
        return explain(ExplainedQuery(*KEY, instant), self.history(as_of))

    def history(self, as_of: datetime | None = None) -> list[cdb.CalibrationRecord]:
        """The history as the client has it."""
        return [cdb.CalibrationRecord(*astuple(record)[:-1]) for record in self.oracle.history(*KEY, as_of)]

    def answer(self, method: str, argument: object, as_of: datetime | None = None) -> int | None:
        """The id that the oracle answers with, None for none."""
        try:
            found: CalibrationRecord = getattr(self.oracle, method)(*KEY, argument, as_of)
            return found.id
        except CdbError:
            return None


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(written=st.lists(entries, max_size=12), microseconds=st.integers(-1, 6))
def test_every_step_is_the_answer_as_of_then(written: list[tuple[str, int]], microseconds: int) -> None:
    """By date and by run, the timeline read at any instant is the answer with it as as_of, and its end the answer now;
    a step changes it, and begins where the one before it ended."""
    played = Played(written)
    instant = START + microseconds * MICROSECOND
    questions: list[tuple[ExplainedQuery, str, datetime | int]] = [
        (ExplainedQuery(*KEY, instant), "calibration_for_date", instant)
    ]
    if played.runs:
        by_run = ExplainedQuery(*KEY, played.runs[-1].start_time, tuple(played.runs))
        questions.append((by_run, "calibration_for_run", RUN))
    for question, method, argument in questions:
        explained = explain(question, played.history())
        steps = explained.timeline
        answers = [None, *(step.after for step in steps)]
        assert [step.before for step in steps] == answers[:-1]
        assert all(step.before != step.after for step in steps)
        assert answers[-1] == played.answer(method, argument)
        assert answers[-1] == (explained.winner.id if explained.winner else None)
        for as_of in {created + side * MICROSECOND for created in played.oracle.created() for side in (-1, 0, 1)}:
            known = [step.after for step in steps if step.at <= as_of]
            assert (known[-1] if known else None) == played.answer(method, argument, as_of)


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(written=st.lists(entries, max_size=12), microseconds=st.integers(-1, 6))
def test_its_neighbours_are_the_answers_of_other_instants(written: list[tuple[str, int]], microseconds: int) -> None:
    """What it took over from is the answer a microsecond before its valid_from; what comes next, the first other one
    later; and each withdrawn one that is named would apply without its withdrawal, no other would."""
    played = Played(written)
    instant = START + microseconds * MICROSECOND
    explained = played.explained(instant)
    history = played.history()
    winner = played.answer("calibration_for_date", instant)
    later = [START + n * MICROSECOND for n in range(6) if START + n * MICROSECOND > instant]
    others = [played.answer("calibration_for_date", at) for at in later]
    follows = next((other for other in others if other != winner), None)
    assert (explained.next.id if explained.next else None) == follows
    if explained.winner is not None:
        assert winner is not None
        before = played.answer("calibration_for_date", explained.winner.valid_from - MICROSECOND)
        assert (explained.took_over_from.id if explained.took_over_from else None) == before
        assert [record.id for record in explained.superseded] == [
            record.id
            for record in reversed(history)
            if record.valid_from == explained.winner.valid_from and record.id < winner and not record.withdrawn
        ]
    named = {record.id for record in explained.withdrawn}
    for record in history:
        if record.withdrawn:
            restored = [
                other
                for other in history
                if (not other.withdrawn or other.id == record.id) and other.valid_from <= instant
            ]
            first = max(restored, key=lambda other: (other.valid_from, other.id), default=None)
            assert (first == record) == (record.id in named)


def test_as_of_is_taken_from_the_history() -> None:
    """A history as of an instant gives the explanation of then: what was withdrawn later applies."""
    played = Played([("calibration", 0), ("calibration", 1), ("withdrawal", 2)])
    instant = START + 3 * MICROSECOND
    now = played.explained(instant)
    assert now.winner is not None
    assert (now.winner.id, [record.id for record in now.withdrawn]) == (1, [2])
    before = played.explained(instant, START + 2 * MICROSECOND)
    assert before.winner is not None
    assert (before.winner.id, before.withdrawn) == (2, ())
