"""`python -m tests.fuzz --seed N (--count N | --seconds N | --only I) [--in-process | --url URL]`: fuzz the service."""

import signal
import sys
from pathlib import Path

import click

from tests.fuzz.run import Plan, Report, run


@click.command(context_settings={"max_content_width": 100})
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same inputs.")
@click.option("--count", type=click.IntRange(1), help="How many inputs.")
@click.option("--seconds", type=click.FloatRange(1), help="How long, if not how many.")
@click.option("--only", type=click.IntRange(0), metavar="NUMBER", help="Replay one input.")
@click.option("--in-process", is_flag=True, help="Hand the inputs to the service, without server and socket.")
@click.option("--url", help="A running server's base URL; without it, one is started for this.")
@click.option("--user", help="A user who may write there; without one, writes are refused.")
@click.option("--token", help="The user's token.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--save", type=click.Path(path_type=Path), help="Where failing inputs are kept.")
def main(
    seed: int,
    count: int | None,
    seconds: float | None,
    only: int | None,
    in_process: bool,
    url: str | None,
    user: str | None,
    token: str | None,
    processes: int,
    save: Path | None,
) -> None:
    """Send generated requests, valid and mutated, and check every answer. Exit status 1 when one fails."""
    if only is not None:
        count = 1
    elif count is None and seconds is None:
        seconds = 60.0
    credentials = (user, token) if user and token else None
    plan = Plan(seed, count, seconds, only or 0, in_process, url, credentials, processes)
    if save is not None:
        plan = Plan(**{**vars(plan), "save": save})
    # Ended from outside, it ends its server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = run(plan, _progress)
    click.echo(err=True)
    click.echo(summary(plan, report))
    sys.exit(1 if report.failures else 0)


def _progress(report: Report) -> None:
    rate = report.inputs / report.seconds if report.seconds else 0
    click.echo(f"\r{report.inputs:,} inputs, {rate:,.0f} a second, {len(report.failures)} failures", nl=False, err=True)


def summary(plan: Plan, report: Report) -> str:
    """What came of it, in lines."""
    lines = [
        f"seed {plan.seed}: {report.inputs:,} inputs in {report.seconds:,.0f} s, "
        f"{report.inputs / max(report.seconds, 0.001):,.0f} a second; slowest answer {report.slowest * 1000:.0f} ms; "
        f"growth of memory {report.growth / 2**20:.0f} MiB; failures {len(report.failures)}",
        *(f"{count:>10,} {name}" for name, count in report.outcomes.most_common()),
        *report.failures,
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
