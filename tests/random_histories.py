"""Histories by chance, and every question that there is about them."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import cdb
from cdb_server import instants
from cdb_server.database.transactions import Database
from cdb_server.repository.writer import Upload, Writer

DEVICES, TYPES = ("TOF1", "TOF 2", "KL"), ("t0", "tw")
FIRST_RUN = 7661
# What XML could lose on its way.
COMMENTS = (
    None,
    "plain",
    " leading and trailing ",
    "two\nlines",
    "a tab\tand\r\nits end\r",
    "Käfig <3> & ]]> 🎯",
    "\u2028",
)
DAY = timedelta(days=1)
START = instants.parse("2016-03-01T00:00:00Z")


def write(url: str, count: int, seed: int = 1, ago: timedelta = DAY) -> None:
    """Add entries to a database, stored some time ago: every as_of since the first of them can be asked."""
    chance = random.Random(seed)
    with Database.open(url) as database:
        clock = _Clock(instants.now() - ago)
        writer = Writer(database, clock=clock)
        ids: list[int] = []
        for number in range(count):
            clock.now += timedelta(seconds=chance.randrange(1, 100))
            start = START + timedelta(hours=chance.randrange(48))
            kind = chance.choice(["calibration"] * 4 + ["run"] * 2 + ["withdrawal"])
            if kind == "withdrawal" and ids:
                writer.withdraw_calibration(ids.pop(chance.randrange(len(ids))), f"wrong: {number}", "bob")
            elif kind == "run":
                stop = chance.choice([None, start + timedelta(minutes=number)])
                writer.add_run(FIRST_RUN + chance.randrange(8), start, stop, "daq")
            else:
                # Of few different contents: some are known already.
                data = random.Random(chance.randrange(count)).randbytes(chance.choice([1, 100, 3000]))
                upload = Upload.validated(
                    chance.choice(DEVICES),
                    chance.choice(TYPES),
                    start,
                    data,
                    None,
                    chance.choice(COMMENTS),
                    max_payload=10_000,
                )
                ids.append(writer.add_calibration(upload, chance.choice(["alice", "bob"])).id)


class _Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def answers(client: cdb.Calibration, as_of: datetime | None, serials: int) -> Iterator[tuple[Any, ...]]:
    """Every question once, with what was answered: values, or the error's kind and words."""
    start, stop = START, START + 2 * DAY
    runs = range(FIRST_RUN, FIRST_RUN + 9)
    questions: list[tuple[Any, ...]] = [("list_devices",), ("get_ids", start, stop), ("get_runs", start, stop)]
    questions += [("get_calibration_for_id", id) for id in range(1, serials + 2, 7)]
    questions += [(method, run) for run in runs for method in ("get_run", "get_calibrations_for_run")]
    for key in [(device, kind) for device in DEVICES for kind in TYPES]:
        questions += [("get_history", *key), ("get_current_calibration", *key)]
        questions += [("get_calibration_for_run", *key, run) for run in runs[::3]]
        questions += [("get_calibration_for_date", *key, start + timedelta(hours=hour)) for hour in range(0, 48, 11)]
    for method, *arguments in questions:
        try:
            answer = getattr(client, method)(*arguments, as_of=as_of)
            if isinstance(answer, cdb.CalibrationText):
                answer = vars(answer) | {"data": answer.data}
        except cdb.CdbError as error:
            answer = type(error), error.message
        yield method, arguments, as_of, answer
