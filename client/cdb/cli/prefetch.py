"""`cdb prefetch`: what a job will ask, asked beforehand, so that it runs without any network."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from cdb._arguments import addresses
from cdb._cache import Cache
from cdb._exceptions import RunNotFound, ServerUnreachable
from cdb._instants import instant, spell
from cdb._job import as_of_job
from cdb._recording import environment
from cdb.calibration import Calibration
from cdb.cli import fetching, shared
from cdb.records import CalibrationRecord

MOST_RUNS = 100_000


class Runs(click.ParamType[Any]):
    """Run numbers: one, a range with both ends, or several of these with commas between."""

    name = "runs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        runs: list[int] = []
        for part in value.split(","):
            match = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", part)
            if match is None:
                self.fail(f"{part!r} is no run number and no range like 7661-7664", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"the range {part} ends before it begins", param, ctx)
            if len(runs) + last - first >= MOST_RUNS:
                self.fail(f"more than {MOST_RUNS} runs: prefetch them in parts", param, ctx)
            runs.extend(range(first, last + 1))
        return runs


@click.command(short_help="Bring what jobs will ask for into the cache.")
@click.option("--run", "runs", type=Runs(), multiple=True, metavar="RUNS", help="Runs: 7662, 7661-7664 or 7661,7664.")
@click.option("--date", "dates", type=shared.Time(), multiple=True, help="What applies at this time.")
@shared.as_of
@shared.as_json
@shared.reads
def prefetch(runs: Any, dates: Any, as_of: Any, as_json: bool, client: Calibration) -> None:
    """Bring all that applies to runs, or at times, into the cache: jobs with CDB_OFFLINE=1 then need no network.

    --run and --date may be given several times. Prints the as_of of the answers as a setting: with it, jobs that use
    the network get the same ones.
    """
    numbers = sorted({number for given in runs for number in given})
    if not numbers and not dates:
        raise click.UsageError("name runs with --run, or times with --date")
    asked = as_of or as_of_job() or "now"
    # What a job notes is another matter.
    shared.leave_job()
    moment = client.get_status().complete_until if asked == "now" else instant("as_of", asked)

    def of_run(number: int) -> list[CalibrationRecord] | None:
        try:
            client.get_run(number, moment)
            return client.get_calibrations_for_run(number, moment)
        except RunNotFound:
            return None

    client.list_devices(moment)
    answers = dict(zip(numbers, fetching.all_of("runs", of_run, numbers), strict=True))
    missing = [number for number, answer in answers.items() if answer is None]
    applying = {record.id: (record.sha256, record.size) for answer in answers.values() for record in answer or ()}
    for at_date in fetching.all_of("times", lambda date: client.get_ids(date, as_of=moment), dates):
        applying |= {id: (fields["sha256"], fields["size"]) for id, fields in at_date.items()}
    sizes = dict(applying.values())
    fetching.payloads(client, sizes)
    server = addresses(click.get_current_context().params["server"])[0]
    Cache().keep_prefetched(server, spell(moment))
    registered = [number for number, answer in answers.items() if answer is not None]
    try:
        # As jobs will ask.
        with environment(CDB_OFFLINE="1"):
            for number in registered:
                client.get_calibrations_for_run(number)
            for date in dates:
                client.get_ids(date)
    except ServerUnreachable:
        raise fetching.not_kept(Cache()) from None
    said = {
        "as_of": moment,
        "runs": len(numbers) - len(missing),
        "runs_not_registered": missing,
        "times": len(dates),
        "calibrations": len(applying),
        "payloads": len(sizes),
        "bytes": sum(sizes.values()),
    }
    if as_json:
        shared.print_json(said)
    else:
        shared.out(f"CDB_AS_OF={spell(moment)}")
        shared.print_rows(
            ("runs", "times", "calibrations", "payloads", "bytes"),
            [[said[column] for column in ("runs", "times", "calibrations", "payloads", "bytes")]],
            err=True,
        )
    if missing:
        shared.tell(f"cdb: not registered: {', '.join(map(str, missing[:20]))}{' …' * (len(missing) > 20)}")
    if not applying:
        sys.exit(1)
