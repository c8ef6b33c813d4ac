"""`python -m tests.crash --cycles N [--database sqlite|postgresql|both] [--seed N]`: kill the server, N times."""

import signal
import sys
import time

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.crash.cycles import Plan, Report, run

# Two on each side: while the server of one lane starts, another is under load.
LANES = {
    "sqlite": ("sqlite",) * 2,
    "postgresql": ("postgresql",) * 2,
    "both": ("sqlite", "postgresql"),
}


@click.command(context_settings={"max_content_width": 100})
@click.option("--cycles", type=click.IntRange(1), default=2000, show_default=True, help="How many kills, in all.")
@click.option("--database", type=click.Choice(tuple(LANES)), default="both", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same writes and moments.")
def main(cycles: int, database: str, seed: int) -> None:
    """Kill the whole server at chosen moments while clients write, and look at what is left. Status 1 on a loss."""
    # Ended from outside, it ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    start = time.monotonic()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=cycles)
        report = run(
            Plan(cycles, LANES[database], seed),
            lambda so_far: progress.update(task, completed=so_far.cycles, description=str(so_far)),
        )
    click.echo(summary(report, seed, time.monotonic() - start))
    sys.exit(1 if report.findings or report.cycles < cycles else 0)


def summary(report: Report, seed: int, seconds: float) -> str:
    """What came of it, in lines; the first says it all."""
    each = report.cycles or 1
    return "\n".join(
        [
            f"seed {seed}: {report} ({seconds:,.0f} s)",
            *(f"{count:>10,} killed {name}" for name, count in report.kills.most_common()),
            *(f"{count:>10,} answered {name}" for name, count in report.refused.most_common()),
            *(f"{spent / each:>7,.0f} ms {name}" for name, spent in report.milliseconds.most_common()),
            *([str(report.findings)] if report.findings else []),
        ]
    )


if __name__ == "__main__":
    main()
