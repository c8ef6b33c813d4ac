"""View: what applies to a run or at a date, with reasons; the zip archive and lock file of it.

A job that runs with it gets these answers, and needs no server but for the bytes.

No more than one payload is in memory at once. When one cannot be read the archive breaks off, and no program takes what
came for a whole one.
"""

import dataclasses
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cdb_server import arguments, errors, instants
from cdb_server.errors import InvalidArgument
from cdb_server.model import CalibrationRecord, ResolutionSet, Run
from cdb_server.pages import context
from cdb_server.pages.context import PAGE_HEADERS, Page, PageContext, RunInThread
from cdb_server.repository.explanations import Explanations


@dataclass(frozen=True, slots=True)
class ResolutionQuery:
    """What was typed, what it means, and what is wrong with it: by field, in words."""

    inputs: dict[str, str]
    run_number: int | None = None
    date: datetime | None = None
    as_of: datetime | None = None
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether there is something to answer."""
        return not self.problems and (self.run_number is not None or self.date is not None)

    @property
    def name(self) -> str:
        """The question as the name of a file: `run7662`, `2016-03-01T08.00.00Z`."""
        if self.run_number is not None:
            return f"run{self.run_number}"
        return "" if self.date is None else context.format_exact(self.date).replace(":", ".").replace(".000000Z", "Z")

    @property
    def query(self) -> str:
        """The question as the query of an address."""
        return self.query_as_of(self.as_of)

    def query_as_of(self, as_of: datetime | None) -> str:
        """The same with another as_of."""
        what = {"date": context.format_exact(self.date)} if self.date is not None else {"run": str(self.run_number)}
        return urlencode(what | ({} if as_of is None else {"as_of": context.format_exact(as_of)}))

    def answer(self, explaining: Explanations) -> ResolutionSet:
        """All that applies. Raises CdbError."""
        if self.problems:
            raise InvalidArgument(next(iter(self.problems)), "; ".join(self.problems.values()))
        if self.run_number is not None:
            return explaining.for_run(self.run_number, self.as_of)
        if self.date is not None:
            return explaining.for_date(self.date, self.as_of)
        raise InvalidArgument("run", "nothing is asked: give a run number or a date")

    def with_problem(self, argument: str, problem: str) -> "ResolutionQuery":
        """The same, with what is wrong with one of its fields."""
        return ResolutionQuery(self.inputs, problems={argument: problem})


def query_from(query: Mapping[str, str]) -> ResolutionQuery:
    """The question of an address."""
    given = {name: query.get(name, "").strip() for name in ("run", "date", "as_of")}
    wrong: dict[str, str] = {}
    run_number, date, as_of = None, None, None
    try:
        run_number = arguments.parse_typed_number(given["run"]) if given["run"] else None
    except ValueError as error:
        wrong["run"] = str(error)
    try:
        date = arguments.parse_typed_instant(given["date"]) if given["date"] else None
    except ValueError as error:
        wrong["date"] = str(error)
    try:
        as_of = arguments.parse_typed_instant(given["as_of"]) if given["as_of"] else None
    except ValueError as error:
        wrong["as_of"] = str(error)
    if given["run"] and given["date"]:
        wrong["date"] = "a run and a date exclude each other: leave one of them empty"
    if given["as_of"] and not given["run"] and not given["date"]:
        wrong["run"] = "give a run number or a date"
    return ResolutionQuery(given, run_number, date, as_of, wrong)


def lock_file_text(applied: ResolutionSet, as_of: datetime | None) -> str:
    """The lock file of all that applies: to the run that was asked about, if one was, else at the instant."""
    pinned = {} if as_of is None else {"as_of": instants.format_instant(as_of)}
    calibrations = [each.calibration for each in applied.resolutions]
    by_id = [_object(each) for each in sorted(calibrations, key=lambda each: each.id)]
    if applied.run is None:
        when: dict[str, Any] = {"date": instants.format_instant(applied.instant)}
        of_one = "get_calibration_for_date"
        lines = [_line("get_ids", {"start_time": when["date"]} | pinned, by_id)]
    else:
        when = {"run_number": applied.run.run_number}
        of_one = "get_calibration_for_run"
        lines = [
            _line("get_run", when | pinned, _object(applied.run)),
            _line("get_calibrations_for_run", when | pinned, by_id),
        ]
    for each in calibrations:
        key = {"device_name": each.device_name, "calibration_type": each.calibration_type}
        lines.append(_line(of_one, key | when | pinned, _object(each)))
    return "".join(lines)


def _line(operation: str, asked: dict[str, Any], answer: Any) -> str:
    return json.dumps({"question": {operation: asked}, "answer": answer}, ensure_ascii=False) + "\n"


def _object(record: CalibrationRecord | Run) -> dict[str, Any]:
    """The contract's fields that are not absent, instants as their text."""
    fields = ((field.name, getattr(record, field.name)) for field in dataclasses.fields(record))
    return {
        name: instants.format_instant(value) if isinstance(value, datetime) else value
        for name, value in fields
        if value is not None
    }


# Bytes of a file.
MAX_COMPRESSED_BYTES = 2**20

# Of a device and a type rule 2 admits names of so many characters.
_MAX_NAME_CHARACTERS = 64

_UNFIT = re.compile("[^A-Za-z0-9_.+-]")


class ArchiveFile(NamedTuple):
    """A file of the archive: its name, when it was made, and how to get its bytes."""

    name: str
    modified: datetime
    data: Callable[[], bytes]


def payload_file_name(calibration: CalibrationRecord) -> str:
    """A file's name, which no other has: `TOF1_t0_12.dat`. What shells stumble over, a space, becomes a line.

    So does whatever else is no letter, digit or one of `_.+-`, so that no file is ever unpacked outside the archive's
    folder. No name of rule 2 holds any; a database that was changed may.
    """
    parts = (calibration.device_name[:_MAX_NAME_CHARACTERS], calibration.calibration_type[:_MAX_NAME_CHARACTERS])
    return _UNFIT.sub("_", f"{'_'.join(parts).lstrip('.-')}_{calibration.id}.dat")


def archive_files(
    question: ResolutionQuery, applied: ResolutionSet, payload: Callable[[str], bytes], server: str
) -> list[ArchiveFile]:
    """What the archive to a question holds, below a folder of its own."""
    folder = question.name
    calibrations = [each.calibration for each in applied.resolutions]
    made = max((each.created for each in calibrations), default=applied.instant)
    lock = lock_file_text(applied, question.as_of).encode()
    guide = _readme(question, applied, server).encode()
    return [
        ArchiveFile(f"{folder}/README.txt", made, lambda: guide),
        ArchiveFile(f"{folder}/{folder}.lock", made, lambda: lock),
        *(_payload_file(f"{folder}/{payload_file_name(each)}", each, payload) for each in calibrations),
    ]


def _payload_file(name: str, calibration: CalibrationRecord, payload: Callable[[str], bytes]) -> ArchiveFile:
    return ArchiveFile(name, calibration.created, lambda: payload(calibration.sha256))


class Archive(Response):
    """The archive as an answer. Nothing of it is read before it is sent; `largest` is the size of its largest file."""

    def __init__(self, name: str, files: list[ArchiveFile], largest: int, do: RunInThread) -> None:
        super().__init__(
            headers={**PAGE_HEADERS, "Content-Disposition": f'attachment; filename="{name}.zip"'},
            media_type="application/zip",
        )
        del self.headers["Content-Length"]
        self.largest = largest
        # What is to be held for as long as it is sent.
        self.reservation: object = None
        self._files = files
        self._run = do

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # Who asks for the head alone is not read to.
        written = _zip_pieces(self._files if scope["method"] == "GET" else [])
        while piece := await self._run(lambda: next(written, b"")):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _ZipBuffer:
    """What a zip file is written to, and from where it is taken: without a place to go back to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """There is nothing behind it."""

    def take_written(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _zip_pieces(files: list[ArchiveFile]) -> Iterator[bytes]:
    sink = _ZipBuffer()
    with zipfile.ZipFile(cast(BinaryIO, sink), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            # What zip files can say begins in 1980, ends in 2107, and knows no zone.
            made = min(max(file.modified.timetuple()[:6], (1980, 1, 1, 0, 0, 0)), (2107, 12, 31, 23, 59, 58))
            info = zipfile.ZipInfo(file.name, made)
            info.external_attr = 0o644 << 16
            data = file.data()
            # What is large is not packed: that takes a second for the largest.
            info.compress_type = zipfile.ZIP_DEFLATED if len(data) <= MAX_COMPRESSED_BYTES else zipfile.ZIP_STORED
            archive.writestr(info, data)
            yield sink.take_written()
    yield sink.take_written()


def _readme(question: ResolutionQuery, applied: ResolutionSet, server: str) -> str:
    """What lies beside the files, for whoever finds them in ten years."""
    if applied.run is None:
        what = f"at {context.format_for_page(applied.instant)}"
    else:
        what = f"to run {applied.run.run_number}, which starts at {context.format_for_page(applied.instant)}"
    lock = f"{question.name}.lock"
    lines = [f"The calibrations that apply {what} (UTC), from {server}", ""]
    if question.as_of is not None:
        lines += [
            f"As of {context.format_for_page(question.as_of)}: "
            f"jobs must set CDB_AS_OF={context.format_exact(question.as_of)}",
            "",
        ]
    lines += [
        f"{lock} notes for each its number, its sha256 and all else that is known of it. With it,",
        "",
        f"    cdb lock fetch {lock}",
        f"    CDB_LOCK={lock} CDB_OFFLINE=1 python job.py",
        "",
        "a job is given exactly these. The files, by the bytes that they have and their sha256:",
        "",
    ]
    lines += [
        f"{each.calibration.sha256}  {payload_file_name(each.calibration)}  ({each.calibration.size} bytes)"
        for each in applied.resolutions
    ]
    return "\n".join(lines) + "\n"


# The field of the form that an error is about.
_FIELD_OF_ERROR: dict[type[errors.CdbError], str] = {errors.RunNotFound: "run", errors.AsOfNotReached: "as_of"}


def applies_page(site: PageContext) -> Page:
    """The form and, once something is asked, the answer."""

    def answer(request: Request) -> Response:
        question = query_from(request.query_params)
        applied, status = None, 200
        if question.is_complete:
            try:
                applied = question.answer(site.explanations)
            except (errors.RunNotFound, errors.AsOfNotReached) as error:
                question = question.with_problem(_FIELD_OF_ERROR[type(error)], error.message)
                status = 404 if isinstance(error, errors.RunNotFound) else 503
        elif question.problems:
            status = 400
        return site.render(
            request,
            "applies.html",
            status,
            question=question,
            applied=applied,
            name_of=payload_file_name,
            bytes=sum(each.calibration.size for each in applied.resolutions) if applied else 0,
        )

    return site.page("/applies", "page_applies", answer)


def archive_page(site: PageContext) -> Page:
    """The same as a zip archive."""

    def answer(request: Request) -> Response:
        question = query_from(request.query_params)
        applied = question.answer(site.explanations)
        files = archive_files(question, applied, site.reader.payload, str(request.base_url))
        largest = max((each.calibration.size for each in applied.resolutions), default=0)
        return Archive(question.name, files, largest, site.run_payload_page)

    return site.page("/applies.zip", "page_archive", answer, shows_payloads=True)
