"""The line of pages: each view of the web interface on the largest database, as a browser asks for it."""

import time
import urllib.request
from collections.abc import Iterator

from tests.benchmarks.dataset import Stock
from tests.benchmarks.harness import BACKENDS, Bench, Served, beside
from tests.benchmarks.ratios import Figure, Rounds, at_most

# Seconds that a page may take.
LONGEST = 0.3
# How often each is asked in a round; the longest counts.
TIMES = 5
# With what a stock holds of any size: DEVICE1, t0, runs, and ids around the middle.
PAGES = (
    "/",
    "/?from=2015-01-01&to=2015-02-01",
    "/?q=gain",
    "/timeline/DEVICE1/t0",
    "/timeline/DEVICE1/t0?from=2015-01-01&to=2016-01-01",
    "/timeline/DEVICE1/t0?from=2015-01-01&to=2015-01-08",
    "/applies?run=5000",
    "/applies?date=2015-03-01",
    "/applies.zip?run=5000",
    "/journal",
    "/journal?device=DEVICE1&type=t0",
    "/journal?author=nobody",
    "/calibrations/{middle}",
    "/compare?left={middle}&right={later}",
)


def pages(bench: Bench) -> Iterator[Figure]:
    """A server that has just begun is asked for each page in turn; the greatest time of each counts."""
    stock = Stock(bench.large, 1_000)
    paths = [path.format(middle=stock.count // 2, later=stock.count // 2 + 50) for path in PAGES]
    for kind in BACKENDS:
        found: dict[str, list[float]] = {path: [] for path in paths}
        for number in range(bench.rounds):
            with bench.serve(kind, stock) as server:
                for path, times in found.items():
                    times.append(max(_seconds(server, path) for _ in range(TIMES)))
            longest = max(found, key=lambda path: found[path][-1])
            bench.tell(
                f"pages{beside(kind)}, round {number + 1} of {bench.rounds}: {longest} {found[longest][-1]:.3f} s"
            )
        measured = Rounds(found)
        for path, times in found.items():
            yield Figure(
                f"page {path} at N = {stock.count:,}{beside(kind)}",
                f"{LONGEST} s",
                [each / LONGEST for each in times],
                at_most(1),
                {"ours_seconds": measured.median(path, lambda seconds: seconds)},
            )


def _seconds(server: Served, path: str) -> float:
    asked = urllib.request.Request(f"{server.url}{path}", headers={"Accept": "text/html"})
    begin = time.perf_counter()
    with urllib.request.urlopen(asked, timeout=30) as answer:
        answer.read()
    return time.perf_counter() - begin
