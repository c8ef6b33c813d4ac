"""All that applies as one zip archive: the files, the lock file, and how to use it; written while it is sent.

No more than one payload is in memory at once. When one cannot be read the archive breaks off, and no program takes what
came for a whole one.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO, NamedTuple, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cdb_server.model import Applied, CalibrationRecord
from cdb_server.pages import lockfile, words
from cdb_server.pages.asking import Question
from cdb_server.pages.rendering import PAGE_HEADERS
from cdb_server.pages.site import Do

# Bytes of a file.
MOST_PACKED = 2**20

# Of a device and a type rule 2 admits names of so many characters.
_LONGEST_PART = 64
_UNFIT = re.compile("[^A-Za-z0-9_.+-]")


class File(NamedTuple):
    """A file of the archive: its name, when it was made, and how to get its bytes."""

    name: str
    made: datetime
    data: Callable[[], bytes]


def name_of(calibration: CalibrationRecord) -> str:
    """A file's name, which no other has: `TOF1_t0_12.dat`. What shells stumble over, a space, becomes a line.

    So does whatever else is no letter, digit or one of `_.+-`, so that no file is ever unpacked outside the archive's
    folder. No name of rule 2 holds any; a database that was changed may.
    """
    parts = (calibration.device_name[:_LONGEST_PART], calibration.calibration_type[:_LONGEST_PART])
    return _UNFIT.sub("_", f"{'_'.join(parts).lstrip('.-')}_{calibration.id}.dat")


def files(question: Question, applied: Applied, payload: Callable[[str], bytes], server: str) -> list[File]:
    """What the archive to a question holds, below a folder of its own."""
    folder = question.name
    calibrations = [each.calibration for each in applied.applying]
    made = max((each.created for each in calibrations), default=applied.instant)
    lock = lockfile.text(applied, question.as_of).encode()
    guide = _guide(question, applied, server).encode()
    return [
        File(f"{folder}/README.txt", made, lambda: guide),
        File(f"{folder}/{folder}.lock", made, lambda: lock),
        *(_file(f"{folder}/{name_of(each)}", each, payload) for each in calibrations),
    ]


def _file(name: str, calibration: CalibrationRecord, payload: Callable[[str], bytes]) -> File:
    return File(name, calibration.created, lambda: payload(calibration.sha256))


class Archive(Response):
    """The archive as an answer. Nothing of it is read before it is sent; `largest` is the size of its largest file."""

    def __init__(self, name: str, files: list[File], largest: int, do: Do) -> None:
        super().__init__(
            headers={**PAGE_HEADERS, "Content-Disposition": f'attachment; filename="{name}.zip"'},
            media_type="application/zip",
        )
        del self.headers["Content-Length"]
        self.largest = largest
        # What is to be held for as long as it is sent.
        self.holds: object = None
        self._files = files
        self._do = do

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # Who asks for the head alone is not read to.
        written = _written(self._files if scope["method"] == "GET" else [])
        while piece := await self._do(lambda: next(written, b"")):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Sink:
    """What a zip file is written to, and from where it is taken: without a place to go back to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """There is nothing behind it."""

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _written(files: list[File]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(cast(BinaryIO, sink), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            # What zip files can say begins in 1980, ends in 2107, and knows no zone.
            made = min(max(file.made.timetuple()[:6], (1980, 1, 1, 0, 0, 0)), (2107, 12, 31, 23, 59, 58))
            info = zipfile.ZipInfo(file.name, made)
            info.external_attr = 0o644 << 16
            data = file.data()
            # What is large is not packed: that takes a second for the largest.
            info.compress_type = zipfile.ZIP_DEFLATED if len(data) <= MOST_PACKED else zipfile.ZIP_STORED
            archive.writestr(info, data)
            yield sink.taken()
    yield sink.taken()


def _guide(question: Question, applied: Applied, server: str) -> str:
    """What lies beside the files, for whoever finds them in ten years."""
    if applied.run is None:
        what = f"at {words.instant(applied.instant)}"
    else:
        what = f"to run {applied.run.run_number}, which starts at {words.instant(applied.instant)}"
    lock = f"{question.name}.lock"
    lines = [f"The calibrations that apply {what} (UTC), from {server}", ""]
    if question.as_of is not None:
        lines += [f"As of {words.instant(question.as_of)}: jobs must set CDB_AS_OF={words.exact(question.as_of)}", ""]
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
        f"{each.calibration.sha256}  {name_of(each.calibration)}  ({each.calibration.size} bytes)"
        for each in applied.applying
    ]
    return "\n".join(lines) + "\n"
