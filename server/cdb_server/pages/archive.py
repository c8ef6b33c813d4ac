"""All that applies as one zip archive: the files, the lock file, and how to use it; written while it is sent.

No more than one payload is in memory at once. When one cannot be read the archive breaks off, and no program takes what
came for a whole one.
"""

import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import BinaryIO, NamedTuple, cast

from cdb_server.model import Applied, CalibrationRecord
from cdb_server.pages import lockfile, words
from cdb_server.pages.asking import Question
from cdb_server.pages.site import Do


class File(NamedTuple):
    """A file of the archive: its name, when it was made, and how to get its bytes."""

    name: str
    made: datetime
    data: Callable[[], bytes]


def name_of(calibration: CalibrationRecord) -> str:
    """A file's name, which no other has: `TOF1_t0_12.dat`. A space, which shells stumble over, becomes a line."""
    name = f"{calibration.device_name}_{calibration.calibration_type}_{calibration.id}"
    return f"{name.replace(' ', '_')}.dat"


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


async def pieces(files: list[File], do: Do) -> AsyncIterator[bytes]:
    """The archive, piece by piece."""
    written = _written(files)
    while piece := await do(lambda: next(written, b"")):
        yield piece


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
            # What zip files can say begins in 1980, and knows no zone.
            made = max(file.made.timetuple()[:6], (1980, 1, 1, 0, 0, 0))
            info = zipfile.ZipInfo(file.name, made)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.data())
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
