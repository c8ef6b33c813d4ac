"""`python -m tests.benchmarks`: how fast the service is, as ratios to references measured in the same run.

docs/performance.md says what each line measures, and how.
"""

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from tests.benchmarks import report
from tests.benchmarks.harness import Bench
from tests.benchmarks.load import Failure
from tests.benchmarks.report import Outcome
from tests.benchmarks.suite import LINES


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(LINES)), help="This line alone; may be repeated.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each side is measured.")
@click.option("--seconds", type=click.IntRange(1), default=2, show_default=True, help="Of each side in a round.")
@click.option(
    "--count",
    "counts",
    type=click.IntRange(1_000),
    nargs=3,
    default=(1_000, 100_000, 1_000_000),
    show_default=True,
    help="How many calibrations: few, some, many.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=Path("bench-data"),
    show_default=True,
    help="Where databases are made, and found by the next run.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where the results go; by default into --data.")
def main(
    only: Sequence[str], rounds: int, seconds: int, counts: tuple[int, int, int], data: Path, file: Path | None
) -> None:
    """Measure, print a table, and write JSON. Exit status 1 when a target is missed, 2 when a line failed."""
    outcomes = []
    with Bench(data, counts, rounds, seconds) as bench:
        for name in only or LINES:
            outcomes.append(_measured(bench, name))
    machine = report.machine()
    report.show(machine, outcomes)
    file = file or data / "results.json"
    how = {"rounds": rounds, "seconds": seconds, "counts": counts}
    file.write_text(report.as_json(machine, how, outcomes) + "\n")
    click.echo(f"written: {file}", err=True)
    if any(outcome.failure for outcome in outcomes):
        sys.exit(2)
    sys.exit(not all(outcome.holds for outcome in outcomes))


def _measured(bench: Bench, name: str) -> Outcome:
    begun, figures, failure = time.monotonic(), [], None
    try:
        for figure in LINES[name](bench):
            figures.append(figure)
    except Exception as error:
        # Whatever it is, it is this line's failure, and is told; the others go on.
        failure = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
        bench.tell("".join(traceback.format_exception(error)))
    return Outcome(name, figures, failure, time.monotonic() - begun)


if __name__ == "__main__":
    main()
