"""The benchmarks' own parts that need no load: what the bulk path makes, what is asked, and what the figures say."""

import itertools
import json
import random
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from cdb_server.database.transactions import Database
from cdb_server.errors import CalibrationNotFound
from cdb_server.instants import MICROSECOND
from cdb_server.maintenance import verify
from cdb_server.repository.reader import Reader
from tests import servers
from tests.benchmarks import bare_drivers, correctness, loading, report, requests_sent
from tests.benchmarks.dataset import KEYS, Stock
from tests.benchmarks.load import Failure, Question, Server
from tests.benchmarks.processes import Processes
from tests.benchmarks.ratios import Figure, Rounds, Target, at_least, at_most
from tests.benchmarks.report import Outcome

STOCK = Stock(1_000, 200, payloads=300, runs=40)


def test_a_database_loaded_in_bulk_is_clean_and_answers_rightly(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each digest is right, over many transactions, and every answer is the one that arithmetic gives."""
    monkeypatch.setattr(loading, "ENTRIES_AT_ONCE", 170)
    told: list[tuple[int, int]] = []
    loading.load(database_url, STOCK, lambda done, of: told.append((done, of)))
    assert told[-1] == (1_040, 1_040)
    assert len(told) == 7
    with Database.open(database_url) as database:
        proof = verify(database)
        assert (proof.entries, proof.payloads, proof.problems) == (1_040, 300, ())
        reader = Reader(database)
        assert reader.status().serial == 1_040
        chance = random.Random(1)
        begin, end = STOCK.covered
        dates = [begin, end - MICROSECOND, *(STOCK.question(chance)[2] for _ in range(20))]
        for date in dates:
            for key in random.Random(2).sample(KEYS, 5):
                answer = reader.calibration_for_date(*key, date)
                assert (answer.id, answer.data) == (STOCK.in_force(*key, date), STOCK.data(answer.id))
                assert reader.calibration_for_date(*key, date, STOCK.as_of) == answer
        with pytest.raises(CalibrationNotFound):
            reader.calibration_for_date(*KEYS[-1], begin - STOCK.step - MICROSECOND)
        for number in (1, 40):
            assert reader.run(number).start_time == STOCK.run_start(number)
            ids = [record.id for record in reader.calibrations_for_run(number)]
            assert ids == sorted(STOCK.in_force(*key, STOCK.run_start(number)) for key in KEYS)


def test_all_payloads_are_hit_by_dates_by_chance() -> None:
    """So many questions cannot be answered from a few payloads."""
    stock, chance = Stock(100_000, 8), random.Random(1)
    hit = {(stock.in_force(*stock.question(chance)) - 1) % stock.payloads for _ in range(100_000)}
    assert len(hit) > 0.99 * stock.payloads


@pytest.mark.parametrize("stock", [STOCK, Stock(1_000, 8), Stock(100_000, 8)])
def test_the_answers_that_a_reference_is_given_are_all_there_are(stock: Stock) -> None:
    """Each has a payload of its own, and no payload is left out that can be."""
    asked = [stock.answered(number) for number in range(1, stock.answers + 1)]
    payloads = {(stock.in_force(*question) - 1) % stock.payloads for question in asked}
    assert len(payloads) == stock.answers == min(stock.payloads, stock.count - len(KEYS))


def test_questions_among_neighbours_are_about_no_others() -> None:
    """So many in the middle, all of them, and the same runs as without that."""
    whole = Stock(100_000, 8)
    stock, chance = replace(whole, among=1_000), random.Random(1)
    hit = {stock.in_force(*stock.question(chance)) for _ in range(50_000)}
    assert hit <= set(range(49_501, 50_501))
    assert len(hit) > 950
    assert stock.run_start(7) == whole.run_start(7)
    assert replace(whole, among=100_000).covered == whole.covered


def test_payloads_differ_and_have_their_size() -> None:
    """Of one byte as of many; equal ones would be stored once."""
    assert {len(Stock(100, size).payload(7)) for size in (1, 2, 3, 4)} == {1, 2, 3, 4}
    assert len({Stock(100, 1_000).payload(number) for number in range(100)}) == 100


def test_answers_are_held_against_what_is_stored(tmp_path: Path) -> None:
    """What a server answers is checked before it is timed, and another stock is not taken for its own."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    loading.load(url, STOCK)
    with servers.serving(url, tmp_path, "", "--workers", "1") as running:
        server = Server(running.url, STOCK, Processes(running.process.pid))
        server.processes.settle()
        for among in (0, 200):
            asked = replace(server, stock=replace(STOCK, among=among))
            correctness.look_ups(asked)
            correctness.lists(asked)
            correctness.runs(asked)
        assert correctness.serial(server) == 1_040
        begin, _ = STOCK.covered
        plain = requests_sent.plain("DEVICE1", "t0", begin, STOCK.as_of)
        correctness.same(server, plain, STOCK.data(STOCK.in_force("DEVICE1", "t0", begin)))
        with pytest.raises(Failure, match="other bytes"):
            correctness.same(server, plain, b"")
        with pytest.raises(Failure, match="status 404"):
            correctness.answer(server, Question("/nothing", method="GET"))
        other = Server(running.url, Stock(1_000, 200, payloads=299, runs=40), server.processes)
        with pytest.raises(Failure, match="or other bytes"):
            correctness.look_ups(other)
        assert server.processes.processor() > 0
        memory = server.processes.memory()[running.process.pid]
        assert memory.resident >= memory.proportional > 2**20


def test_the_bare_query_finds_what_is_stored(database_url: str) -> None:
    """The reference does the work that it stands for; it fails where it finds another calibration."""
    loading.load(database_url, STOCK)
    with contextmanager(bare_drivers._looking_up)(database_url, STOCK, 1) as look_up:
        for _ in range(100):
            look_up()
    with (
        contextmanager(bare_drivers._looking_up)(database_url, Stock(2_000, 200), 1) as look_up,
        pytest.raises(Failure),
    ):
        look_up()


@pytest.mark.parametrize("listing", [False, True])
def test_the_query_alone_is_the_services_own(tmp_path: Path, listing: bool) -> None:
    """It finds what the service finds, and fails where it does not."""
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    loading.load(url, STOCK)
    with contextmanager(bare_drivers._asking)(url, STOCK, listing, 1) as ask:
        for _ in range(100):
            ask()
    later = replace(STOCK, count=20 * STOCK.count, among=200)
    with contextmanager(bare_drivers._asking)(url, later, listing, 1) as ask, pytest.raises(Failure):
        ask()


def test_each_figure_is_the_median_of_ratios_of_one_round() -> None:
    """Contenders alternate; the spread is that of the ratios, not of the rates."""
    order: list[str] = []
    rates = {"ours": iter([10.0, 30.0, 8.0]), "nginx": iter([20.0, 30.0, 32.0])}

    def measure(name: str) -> float:
        order.append(name)
        return next(rates[name])

    rounds = Rounds.alternating(3, {name: partial(measure, name) for name in rates}, lambda number, name, sample: None)
    assert order == ["ours", "nginx"] * 3
    figure = Figure("x", "nginx", rounds.ratios("ours", "nginx", float), at_least(0.5))
    assert (figure.ratio, figure.spread, figure.holds) == (0.5, (0.25, 1.0), True)
    assert rounds.median("ours", float) == 10


@pytest.mark.parametrize(
    ("target", "below", "at", "above"), [(at_least(0.5), False, True, True), (at_most(0.5), True, True, False)]
)
def test_a_target_is_held_on_its_bound(target: Target, below: bool, at: bool, above: bool) -> None:
    """A hair below, at, and a hair above."""
    assert [target.holds(ratio) for ratio in (0.4999, 0.5, 0.5001)] == [below, at, above]


def test_the_table_and_the_json_tell_what_was_measured() -> None:
    """Each figure with ratio, spread, target and whether it holds; a line that failed says why, and is missed."""
    held = Figure("first", "nginx", [1.25, 0.5, 2.0], at_least(0.8), {"ours_rate": 1234.4, "reference_p99": 0.0021})
    missed = Figure("second", "spyne", [0.1], at_least(0.8))
    beside = Figure("third", "spyne", [0.1])
    outcomes = [
        Outcome("a", [held], None, 1.5),
        Outcome("b", [missed, beside], None, 1),
        Outcome("c", [], "refused", 1),
    ]
    assert [outcome.holds for outcome in outcomes] == [True, False, False]
    assert Outcome("d", [beside], None, 1).holds
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report.table(outcomes))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert ["a", "first", "nginx", "1.25", "0.5–2", "≥ 0.8", "yes"] in rows
    assert ["b", "second", "spyne", "0.1", "0.1–0.1", "≥ 0.8", "no"] in rows
    assert ["b", "third", "spyne", "0.1", "0.1–0.1", "", ""] in rows
    assert "ours 1,234/s; reference p99 2.1 ms" in capture.get()
    assert "failed: refused" in capture.get()
    told = json.loads(report.as_json({"Python": "3"}, {"rounds": 3}, outcomes))
    assert [line["failure"] for line in told["lines"]] == [None, None, "refused"]
    first = told["lines"][0]["figures"][0]
    assert (first["ratio"], first["ratios"], first["holds"], first["ours_rate"]) == (
        1.25,
        [1.25, 0.5, 2.0],
        True,
        1234.4,
    )


def test_a_figure_needs_a_measurement() -> None:
    """An empty one would hold or miss by nothing."""
    with pytest.raises(ValueError, match="nothing was measured"):
        Figure("x", "nginx", [])


def test_a_stock_spreads_its_times() -> None:
    """created strictly increases with the serial, and lies in the past, as valid_from does."""
    serials = range(1, STOCK.count + STOCK.runs + 1)
    created = [STOCK.created(serial) for serial in serials]
    assert all(later - earlier == timedelta(milliseconds=1) for earlier, later in itertools.pairwise(created))
    valid = [STOCK.valid_from(serial) for serial in range(1, STOCK.count + 1)]
    assert len(set(valid)) == STOCK.count
    assert max(valid) < min(created) < STOCK.as_of
