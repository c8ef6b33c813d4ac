"""Show, verify and fetch a lock file: `cdb lock`."""

import sys
from pathlib import Path
from typing import Any

import click

from cdb._exceptions import CdbError
from cdb._resolver import job
from cdb._resolver.answers import to_json
from cdb._resolver.cache import Cache
from cdb._resolver.job import is_offline
from cdb._resolver.lock_file import LockFile
from cdb._resolver.query import Query
from cdb.calibration import Calibration
from cdb.cli import cache, options, printing
from cdb.records import CalibrationRecord

file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group()
def lock() -> None:
    """Show, verify or fetch what a lock file records: the queries of a job and their answers.

    \b
    CDB_LOCK=run7662.lock python job.py     records the job's queries; answers recorded ones from it
    cdb lock fetch run7662.lock             fetches the payloads into the cache
    CDB_LOCK=run7662.lock CDB_OFFLINE=1 python job.py     the same answers, without any network
    """


@lock.command(short_help="Show what a lock file records.")
@file_argument
@options.as_json
def show(file: Path, as_json: bool) -> None:
    """Show the queries that FILE records, in their order, and their answers."""
    noted = LockFile(file).entries()
    rows = []
    for query, answer in noted:
        if isinstance(answer, CalibrationRecord):
            rows.append([query, answer.id, answer.valid_from, answer.size, answer.sha256])
        elif isinstance(answer, CdbError):
            rows.append([query, type(answer).__name__, None, None, None])
        else:
            rows.append([query, f"{len(answer)} rows" if isinstance(answer, list) else "a run", None, None, None])
    said = [_as_json(query, answer) for query, answer in noted]
    printing.print_answer(said, ("question", "id", "valid from", "bytes", "sha256"), rows, as_json=as_json)


@lock.command(short_help="Fetch its payloads into the cache.")
@file_argument
@options.with_reader
def fetch(file: Path, client: Calibration) -> None:
    """Fetch the payloads of all calibrations that FILE records into the cache."""
    sizes = {record.sha256: record.size for record in _calibrations(file)}
    cache.fetch_payloads(client, sizes)
    printing.print_note(f"{len(sizes)} payloads, {sum(sizes.values()):,} bytes, are in the cache")


@lock.command(short_help="Compare it with the cache and the servers.")
@file_argument
@options.as_json
@options.with_reader
def verify(file: Path, as_json: bool, client: Calibration) -> None:
    """Compare FILE with the cache and, unless CDB_OFFLINE is set, with the servers.

    Exit status 1 when a payload is not in the cache, or a calibration differs on the server. A calibration withdrawn
    since is reported, and remains the recorded answer.
    """
    calibrations = _calibrations(file)
    # Compare with the present state, and do not write to the file.
    job.clear_job()
    keys = sorted({(record.device_name, record.calibration_type) for record in calibrations})
    histories: list[list[CalibrationRecord]] = []
    if not is_offline():
        histories = printing.in_parallel("devices and types", lambda key: client.get_history(*key), keys)
    known = {record.id: record for history in histories for record in history}
    cache = Cache()
    rows = []
    good = True
    for record in calibrations:
        cached = cache.payload(record.sha256) is not None
        says = "not asked" if is_offline() else _compare(record, known.get(record.id))
        good = good and cached and says != DIFFERS
        rows.append([record.id, record.device_name, record.calibration_type, "yes" if cached else "no", says])
    columns = ("id", "device", "type", "in the cache", "the server says")
    printing.print_answer([dict(zip(columns, row, strict=True)) for row in rows], columns, rows, as_json=as_json)
    if any(row[3] == "no" for row in rows):
        printing.print_note(f"cdb: payloads are missing: fetch them with 'cdb lock fetch {file}'")
    sys.exit(0 if good else 1)


DIFFERS = "another calibration"


def _compare(noted: CalibrationRecord, known: CalibrationRecord | None) -> str:
    """Compare a recorded calibration with the server's."""
    if known is None or any(
        getattr(noted, field) != getattr(known, field) for field in ("valid_from", "created", "sha256")
    ):
        return DIFFERS
    if known.withdrawn and not noted.withdrawn:
        return f"withdrawn since: {known.withdrawn_reason}"
    return "the same"


def _calibrations(file: Path) -> list[CalibrationRecord]:
    """List the calibrations whose content a file records, each once."""
    answers = (answer for query, answer in LockFile(file).entries() if query.returns_content)
    found = (answer for answer in answers if isinstance(answer, CalibrationRecord))
    return list({(record.id, record.sha256): record for record in found}.values())


def _as_json(query: Query, answer: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"question": {query.operation: query.wire_arguments}}
    if isinstance(answer, CdbError):
        return said | {"fault": type(answer).__name__, "message": answer.message}
    return said | {"answer": to_json(answer)}
