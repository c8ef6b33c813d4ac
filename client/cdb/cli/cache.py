"""Fill, show, verify and empty the cache: `cdb prefetch`, `cdb cache`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import click

from cdb._arguments import server_urls
from cdb._exceptions import CdbPermanentError, RunNotFound, ServerUnreachable
from cdb._instants import format_instant, instant
from cdb._resolver import job
from cdb._resolver.cache import Cache
from cdb._resolver.job import job_as_of, temporary_environment
from cdb.calibration import Calibration
from cdb.cli import options, printing
from cdb.records import CalibrationRecord


@click.group()
def cache() -> None:
    """Show, verify or empty the cache: payloads, and answers to queries with as_of.

    It is the folder that CDB_CACHE names, else one of yours. Each file is verified when it is read.
    """


@cache.command(short_help="Show where the cache is and how much it holds.")
@options.cache_folder
@options.as_json
def show(as_json: bool) -> None:
    """Show where the cache is and how much it holds."""
    kept = Cache()
    files = kept.store.files()
    payloads = [file for file in files if kept.is_payload(file)]
    said = {
        "folder": str(kept.store.folder),
        "payloads": len(payloads),
        "payload_bytes": sum(file.size for file in payloads),
        "answers": len(files) - len(payloads),
        "bytes": sum(file.size for file in files),
        "most_bytes": kept.store.limit,
        "longest_unused": datetime.fromtimestamp(files[0].used, timezone.utc) if files else None,
        "put_aside_as_wrong": len(kept.store.quarantined()),
    }
    rows = [(name.replace("_", " "), value) for name, value in said.items()]
    printing.print_answer(said, ("cache", ""), rows, as_json=as_json)


@cache.command(short_help="Verify every file of the cache.")
@options.cache_folder
def verify() -> None:
    """Verify every file of the cache. Exit status 1 when one is damaged: it goes to quarantine, and is fetched anew."""
    kept = Cache()
    files = kept.store.files()
    wrong = 0
    with printing.progress("files") as bar:
        for file in bar.track(files, description="verify"):
            if not kept.check(file):
                wrong += 1
                printing.print_above_bar(bar, f"cdb: {file.path.name} is damaged")
    printing.print_line(f"{len(files) - wrong} files are intact, {wrong} damaged")
    sys.exit(1 if wrong else 0)


@cache.command(short_help="Remove everything from the cache.")
@options.cache_folder
@click.option("--yes", is_flag=True, help="Do not ask.")
def empty(yes: bool) -> None:
    """Remove everything from the cache. Asks on a terminal."""
    kept = Cache()
    files = kept.store.files()
    if not yes and sys.stdin.isatty():
        size = sum(file.size for file in files)
        if not printing.confirm(f"remove {len(files)} files of {size:,} bytes from {kept.store.folder}?"):
            raise click.Abort
    kept.store.remove_all()
    printing.print_note(f"{len(files)} files removed from {kept.store.folder}")


MAX_PREFETCHED_RUNS = 100_000


class Runs(click.ParamType[Any]):
    """Accepts run numbers and ranges, both ends included, with commas between."""

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
            if len(runs) + last - first >= MAX_PREFETCHED_RUNS:
                self.fail(f"more than {MAX_PREFETCHED_RUNS} runs: prefetch them in parts", param, ctx)
            runs.extend(range(first, last + 1))
        return runs


@click.command(short_help="Fetch into the cache what jobs will ask for.")
@click.option("--run", "runs", type=Runs(), multiple=True, metavar="RUNS", help="Runs: 7662, 7661-7664 or 7661,7664.")
@click.option("--date", "dates", type=options.Time(), multiple=True, help="Fetch what applies at this time.")
@options.as_of
@options.as_json
@options.with_reader
def prefetch(runs: Any, dates: Any, as_of: Any, as_json: bool, client: Calibration) -> None:
    """Fetch all that applies to runs, or at times, into the cache: jobs with CDB_OFFLINE=1 then need no network.

    --run and --date may be given several times. Prints the as_of as a setting: with it, jobs that use the network get
    the same answers.
    """
    numbers = sorted({number for given in runs for number in given})
    if not numbers and not dates:
        raise click.UsageError("name runs with --run, or times with --date")
    asked = as_of or job_as_of() or "now"
    # These answers must come from the servers, not from the lock file of a job.
    job.clear_job()
    moment = client.get_status().complete_until if asked == "now" else instant("as_of", asked)

    def of_run(number: int) -> list[CalibrationRecord] | None:
        try:
            client.get_run(number, moment)
            return client.get_calibrations_for_run(number, moment)
        except RunNotFound:
            return None

    client.list_devices(moment)
    answers = dict(zip(numbers, printing.in_parallel("runs", of_run, numbers), strict=True))
    missing = [number for number, answer in answers.items() if answer is None]
    applying = {record.id: (record.sha256, record.size) for answer in answers.values() for record in answer or ()}
    for at_date in printing.in_parallel("times", lambda date: client.get_ids(date, as_of=moment), dates):
        applying |= {id: (fields["sha256"], fields["size"]) for id, fields in at_date.items()}
    sizes = dict(applying.values())
    fetch_payloads(client, sizes)
    server = server_urls(click.get_current_context().params["server"])[0]
    Cache().store_prefetch(server, format_instant(moment))
    registered = [number for number, answer in answers.items() if answer is not None]
    try:
        # Ask as jobs will.
        with temporary_environment(CDB_OFFLINE="1"):
            for number in registered:
                client.get_calibrations_for_run(number)
            for date in dates:
                client.get_ids(date)
    except ServerUnreachable:
        raise cache_error(Cache()) from None
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
        printing.print_json(said)
    else:
        printing.print_line(f"CDB_AS_OF={format_instant(moment)}")
        columns = ("runs", "times", "calibrations", "payloads", "bytes")
        printing.print_rows(columns, [[said[column] for column in columns]], err=True)
    if missing:
        printing.print_note(f"cdb: not registered: {', '.join(map(str, missing[:20]))}{' …' * (len(missing) > 20)}")
    if not applying:
        sys.exit(1)


def fetch_payloads(client: Calibration, sizes: Mapping[str, int]) -> None:
    """Fetch payloads into the cache; `sizes` has their bytes by sha256.

    Raises CdbPermanentError where the cache is too small for them, or cannot be written.
    """
    cache = Cache()
    if (needed := sum(sizes.values())) > cache.store.limit:
        raise CdbPermanentError(
            f"the payloads are {needed:,} bytes, and the cache {cache.store.folder} holds {cache.store.limit:,} at "
            "most: fetch fewer at a time"
        )

    printing.in_parallel("bytes", client.get_payload, list(sizes), list(sizes.values()))
    for sha256 in sizes:
        if cache.payload(sha256) is None:
            raise cache_error(cache)


def cache_error(cache: Cache) -> CdbPermanentError:
    """Make the error of a cache that does not store what was fetched."""
    return CdbPermanentError(
        f"the cache {cache.store.folder} did not store what was fetched: is it writable, and is there room?"
    )
