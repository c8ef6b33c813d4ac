"""Explain by rule 3 why a calibration applies, from its history alone (no requests).

Rule 3: "of the calibrations not withdrawn with valid_from <= t, the one with the greatest valid_from; of equals, the
greatest id."
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cdb._instants import display_instant
from cdb.records import CalibrationRecord, Run

# Greater than every id.
_LAST = float("inf")


@dataclass(frozen=True, slots=True)
class ExplainedQuery:
    """The query to explain: which calibration of a device and type applies at an instant.

    By run, `registrations` has its entries, the earliest first, and `instant` is the start in the last of them.
    `present` means that the instant is now.
    """

    device_name: str
    calibration_type: str
    instant: datetime
    registrations: tuple[Run, ...] = ()
    present: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the journal that changed the answer, from the calibration `before` to `after`; None is no answer.

    `id` is the calibration that was stored or withdrawn; None where a run was registered again, with `start_time`. For
    a withdrawal `author` is None, because the history does not have it.
    """

    at: datetime
    kind: Literal["calibration", "withdrawal", "run"]
    id: int | None
    start_time: datetime | None
    author: str | None
    why: str | None
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to a query, `winner`, or None, with the calibrations that are next to it.

    `superseded` have the winner's valid_from and smaller ids, the greatest first. `took_over_from` is in force just
    before the winner's valid_from. `next` replaces the winner or, where nothing applies, is the first to apply later.
    Each of `withdrawn` would be the answer if it alone were not withdrawn, and the first if none were. `considered`
    counts the calibrations that are not withdrawn and whose valid_from is not after the instant.
    """

    question: ExplainedQuery
    stored: int
    considered: int
    winner: CalibrationRecord | None
    superseded: tuple[CalibrationRecord, ...]
    took_over_from: CalibrationRecord | None
    next: CalibrationRecord | None
    withdrawn: tuple[CalibrationRecord, ...]
    timeline: tuple[Step, ...]


def explain(question: ExplainedQuery, history: Sequence[CalibrationRecord]) -> Explanation:
    """Explain the answer to a query. `history` is all that was ever stored for its device and type."""
    standing = sorted((record for record in history if not record.withdrawn), key=_order)
    begun = [record for record in standing if record.valid_from <= question.instant]
    later = standing[len(begun) :]
    winner = begun[-1] if begun else None
    equal = [record for record in begun[:-1] if winner is not None and record.valid_from == winner.valid_from]
    earlier = begun[: len(begun) - 1 - len(equal)] if begun else []
    withdrawn = [
        record
        for record in history
        if record.withdrawn
        and record.valid_from <= question.instant
        and (winner is None or _order(record) > _order(winner))
    ]
    return Explanation(
        question=question,
        stored=len(history),
        considered=len(begun),
        winner=winner,
        superseded=tuple(reversed(equal)),
        took_over_from=earlier[-1] if earlier else None,
        next=max((r for r in later if r.valid_from == later[0].valid_from), key=_order) if later else None,
        withdrawn=tuple(sorted(withdrawn, key=_order, reverse=True)),
        timeline=timeline(question, history),
    )


def timeline(question: ExplainedQuery, history: Sequence[CalibrationRecord]) -> tuple[Step, ...]:
    """List the entries that changed the answer, the earliest first.

    `after` of a step is the answer with the step's instant as as_of. A run counts with the start that it had then:
    rule 7, "corrections of runs created later do not exist […] (a run first registered later does)".
    """
    entries: list[tuple[datetime, CalibrationRecord | Run]] = [(record.created, record) for record in history]
    entries += [(record.withdrawn_at, record) for record in history if record.withdrawn_at is not None]
    entries += [(run.created, run) for run in question.registrations[1:]]
    instant = question.registrations[0].start_time if question.registrations else question.instant
    standing: list[tuple[datetime, int]] = []
    steps: list[Step] = []
    before = None
    for at, entry in sorted(entries, key=lambda dated: dated[0]):
        if isinstance(entry, Run):
            instant = entry.start_time
        elif at == entry.withdrawn_at:
            del standing[bisect_left(standing, _order(entry))]
        else:
            insort(standing, _order(entry))
        begun = bisect_right(standing, (instant, _LAST))
        after = standing[begun - 1][1] if begun else None
        if after != before:
            steps.append(_step(at, entry, before, after))
        before = after
    return tuple(steps)


def sentences(explained: Explanation) -> list[str]:
    """Tell in sentences by which rule the winner is the answer, and what comes before and after it."""
    question, winner = explained.question, explained.winner
    told = [_describe_query(question)]
    if winner is None:
        left = explained.stored - explained.considered
        told.append(
            f"nothing applies: of {left} stored, none is both not withdrawn and valid from that time or earlier"
            if left
            else "nothing applies: nothing is stored for this device and type"
        )
        if explained.next is not None:
            told.append(f"the first to apply is {explained.next.id}, from {display_instant(explained.next.valid_from)}")
        elif explained.stored:
            told.append("nothing applies later either")
    else:
        whose = "of those not withdrawn and valid from that time or earlier"
        rule = f"{winner.id} applies: {whose} ({explained.considered}), it has the greatest valid from"
        if explained.superseded:
            rule += f"; {len(explained.superseded) + 1} have that valid from, and of these it has the greatest id"
        told.append(rule)
        if explained.took_over_from is None:
            told.append("before its valid from, nothing applies")
        if explained.next is None:
            told.append("it is valid until replaced")
        else:
            told.append(f"{explained.next.id} replaces it from {display_instant(explained.next.valid_from)}")
    if explained.withdrawn:
        ids = [str(record.id) for record in explained.withdrawn]
        which = "it" if len(ids) == 1 else f"{', '.join(ids[:-1])} and {ids[-1]}"
        told.append(f"{ids[0]} would apply{'' if winner is None else ' instead'} were {which} not withdrawn")
    return told


def _describe_query(question: ExplainedQuery) -> str:
    name, registrations = f"{question.device_name} {question.calibration_type}", question.registrations
    if question.present:
        return f"{name} now"
    if not registrations:
        return f"{name} at {display_instant(question.instant)}"
    last = registrations[-1]
    registered = f"registered {display_instant(last.created)} by {last.author}"
    if len(registrations) > 1:
        before = registrations[-2].start_time
        had = "the same start" if before == last.start_time else f"the start {display_instant(before)}"
        registered = f"last {registered}, {len(registrations)} times in all; before that with {had}"
    return f"{name} at {display_instant(question.instant)}, the start of run {last.run_number} ({registered})"


def _order(record: CalibrationRecord) -> tuple[datetime, int]:
    return record.valid_from, record.id


def _step(at: datetime, entry: CalibrationRecord | Run, before: int | None, after: int | None) -> Step:
    if isinstance(entry, Run):
        return Step(at, "run", None, entry.start_time, entry.author, None, before, after)
    if at == entry.withdrawn_at:
        return Step(at, "withdrawal", entry.id, None, None, entry.withdrawn_reason, before, after)
    return Step(at, "calibration", entry.id, None, entry.author, entry.comment, before, after)
