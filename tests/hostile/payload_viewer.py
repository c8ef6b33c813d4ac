"""A viewer of payloads: stores each, asks for everything that is made of it, and tells what is wrong or late."""

import random
import re
import zipfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import requests

import cdb
from tests.pages.browser_session import Form, Visitor, signed_in
from tests.servers import Master, spawned

# Of the server's processes, for one answer.
SECONDS = 0.5
TRIES = 3
PATIENCE = 60
START = datetime(2000, 1, 1, tzinfo=timezone.utc)
TICKS = 100
# Where something is drawn.
DRAWN = re.compile(r"<(?:svg|line|circle|text|path)\b[^>]*>")
PLACE = re.compile(r' (?:x|y|x1|x2|y1|y2|cx|cy|r|dy|width|height)="([^"]*)"')
NUMBER = re.compile(r"-?\d+(\.\d+)?(%|em)?")


@dataclass
class Viewer:
    """One for a master, on which nobody else works. `findings` say what was wrong, `slowest` what took how long."""

    master: Master
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    answers: int = 0
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._writer = cdb.CalibrationSuperMouse(
            self.master.url, user=self.master.user, token=self.master.token, timeout=PATIENCE
        )
        self._visitor: Visitor = signed_in(self.master)
        self._chance = random.Random(1)

    def view(self, name: str, data: bytes, comparisons: int = 2) -> None:
        """Preview a payload, store it, and look at its page, at its comparison with others, and at archives of it."""
        number = len(self.ids) + 1
        valid_from = START + timedelta(seconds=number)
        told = self._writer.preview_calibration("PAYLOADS", "any", valid_from, data, name)
        if told.stored_id is not None:
            return
        form = {"device_name": "PAYLOADS", "calibration_type": "any", "valid_from": valid_from.isoformat()}
        empty = {} if data else {"empty": "yes"}
        self._ask(f"{name}: its preview", "upload", {**form, **empty, "step": "preview"}, data)
        stored = self._writer.add_calibration("PAYLOADS", "any", valid_from, data, name).id
        self._writer.add_run(number, valid_from)
        self._ask(f"{name}: its page", f"calibrations/{stored}")
        others = [*self.ids[-1:], *self._chance.sample(self.ids, min(len(self.ids), comparisons - 1))]
        for other in others:
            left, right = self._chance.sample((stored, other), 2)
            self._ask(f"{name}: compared, {left} and {right}", f"compare?left={left}&right={right}")
        for query in ("run={number}", "date={date}", "date=2030-01-01"):
            asked = query.format(number=number, date=valid_from.strftime("%Y-%m-%dT%H:%M:%SZ"))
            archive = self._ask(f"{name}: its archive by {asked}", f"applies.zip?{asked}")
            self._look_into(archive, name, data)
        self.ids.append(stored)

    def _ask(self, what: str, path: str, form: Form | None = None, data: bytes = b"") -> bytes:
        """The answer; another is asked for where it took too long, for something else may have had the processor."""
        for attempt in range(TRIES):
            before = self._used()
            try:
                answer = self._visitor.post(path, file=("a.dat", data), **form) if form else self._get(path)
            except requests.RequestException as error:
                self.findings.append(f"{what}: {type(error).__name__}")
                return b""
            took = self._used() - before
            if took <= SECONDS:
                break
            if attempt == TRIES - 1:
                self.findings.append(f"{what}: took {took:.2f} s of the server")
        self.answers += 1
        self.slowest = max(self.slowest, (took, what))
        if answer.status_code != 200:
            self.findings.append(f"{what}: {answer.status_code} {answer.text[:300]!r}")
        elif not path.startswith("applies.zip"):
            self.findings += [f"{what}: {place!r} in a drawing" for place in _misplaced(answer.text)]
        return answer.content

    def _get(self, path: str) -> requests.Response:
        return self._visitor.session.get(f"{self.master.url}/{path}", timeout=PATIENCE)

    def _look_into(self, archive: bytes, name: str, data: bytes) -> None:
        try:
            with zipfile.ZipFile(BytesIO(archive)) as files:
                held = [files.read(each) for each in files.namelist() if each.endswith(".dat")]
        except zipfile.BadZipFile as error:
            self.findings.append(f"{name}: its archive is none: {error}")
        else:
            if held != [data]:
                self.findings.append(f"{name}: its archive holds something else")

    def _used(self) -> float:
        """Seconds of a processor that the processes of the server have used."""
        found = {self.master.process.pid}
        waiting = [*found]
        while waiting:
            begun = spawned(Path(f"/proc/{waiting[-1]}/task/{waiting.pop()}")) - found
            found |= begun
            waiting += begun
        ticks = 0
        for process in found:
            # Behind the name, which may hold anything: user and system time are the 12th and 13th.
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS


def _misplaced(page: str) -> list[str]:
    """Places in drawings that are none."""
    places = (place for tag in DRAWN.findall(page) for place in PLACE.findall(tag))
    return [place for place in places if not NUMBER.fullmatch(place)]
