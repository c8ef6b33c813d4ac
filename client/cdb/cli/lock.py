"""`cdb lock`: the questions and answers of a lock file, held against the cache and the servers."""

import sys
from pathlib import Path
from typing import Any

import click

from cdb._answers import to_json
from cdb._cache import Cache
from cdb._exceptions import CdbError
from cdb._job import is_offline
from cdb._lockfile import LockFile
from cdb._questions import Question
from cdb.calibration import Calibration
from cdb.cli import fetching, shared
from cdb.records import CalibrationRecord

file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group()
def lock() -> None:
    """Show, verify or fetch what a lock file notes: the questions of a job and their answers.

    \b
    CDB_LOCK=run7662.lock python job.py     notes what the job asks; what is noted is not asked again
    cdb lock fetch run7662.lock             the payloads, into the cache
    CDB_LOCK=run7662.lock CDB_OFFLINE=1 python job.py     the same answers, without any network
    """


@lock.command(short_help="Show what a lock file notes.")
@file_argument
@shared.as_json
def show(file: Path, as_json: bool) -> None:
    """Show the questions that FILE notes, in the order in which they were asked, and their answers."""
    noted = LockFile(file).all()
    if as_json:
        shared.print_json([_as_json(question, answer) for question, answer in noted])
        return
    rows = []
    for question, answer in noted:
        if isinstance(answer, CalibrationRecord):
            rows.append([question, answer.id, answer.valid_from, answer.size, answer.sha256])
        elif isinstance(answer, CdbError):
            rows.append([question, type(answer).__name__, None, None, None])
        else:
            rows.append([question, f"{len(answer)} rows" if isinstance(answer, list) else "a run", None, None, None])
    shared.print_rows(("question", "id", "valid from", "bytes", "sha256"), rows)


@lock.command(short_help="Bring what it names into the cache.")
@file_argument
@shared.reads
def fetch(file: Path, client: Calibration) -> None:
    """Bring the payloads of all calibrations that FILE notes into the cache."""
    sizes = {record.sha256: record.size for record in _calibrations(file)}
    fetching.payloads(client, sizes)
    shared.tell(f"{len(sizes)} payloads, {sum(sizes.values()):,} bytes, are in the cache")


@lock.command(short_help="Compare it with the cache and the servers.")
@file_argument
@shared.as_json
@shared.reads
def verify(file: Path, as_json: bool, client: Calibration) -> None:
    """Compare FILE with the cache and, but for CDB_OFFLINE, with the servers.

    Exit status 1 when a payload is not in the cache, or a server knows a calibration by other fields. One that was
    withdrawn since is told, and stays what the job was answered.
    """
    calibrations = _calibrations(file)
    # The file is held against what is so now, and is not written to.
    shared.leave_job()
    keys = sorted({(record.device_name, record.calibration_type) for record in calibrations})
    histories: list[list[CalibrationRecord]] = []
    if not is_offline():
        histories = fetching.all_of("devices and types", lambda key: client.get_history(*key), keys)
    known = {record.id: record for history in histories for record in history}
    cache = Cache()
    rows = []
    good = True
    for record in calibrations:
        cached = cache.payload(record.sha256) is not None
        says = "not asked" if is_offline() else _compared(record, known.get(record.id))
        good = good and cached and says != DIFFERS
        rows.append([record.id, record.device_name, record.calibration_type, "yes" if cached else "no", says])
    columns = ("id", "device", "type", "in the cache", "the server says")
    if as_json:
        shared.print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        shared.print_rows(columns, rows)
    if any(row[3] == "no" for row in rows):
        shared.tell(f"cdb: payloads are missing: fetch them with 'cdb lock fetch {file}'")
    sys.exit(0 if good else 1)


DIFFERS = "another calibration"


def _compared(noted: CalibrationRecord, known: CalibrationRecord | None) -> str:
    """What a server says of a calibration that was noted."""
    if known is None or (noted.valid_from, noted.created, noted.sha256) != (
        known.valid_from,
        known.created,
        known.sha256,
    ):
        return DIFFERS
    if known.withdrawn and not noted.withdrawn:
        return f"withdrawn since: {known.withdrawn_reason}"
    return "the same"


def _calibrations(file: Path) -> list[CalibrationRecord]:
    """The calibrations of which a file notes that their content was asked for, each once."""
    answers = (answer for question, answer in LockFile(file).all() if question.is_of_content)
    found = (answer for answer in answers if isinstance(answer, CalibrationRecord))
    return list({(record.id, record.sha256): record for record in found}.values())


def _as_json(question: Question, answer: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"question": {question.operation: question.sent}}
    if isinstance(answer, CdbError):
        return said | {"fault": type(answer).__name__, "message": answer.message}
    return said | {"answer": to_json(answer)}
