"""What a benchmark's database holds, by arithmetic: any number of calibrations, and the right answer to any question.

Calibration `serial` belongs to the next device and type in turn, applies one step of time after the calibration before
it, and has one of `payloads` payloads. So each date has an answer of its own, and dates by chance hit all payloads.
"""

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from cdb_server import model, schema
from cdb_server.instants import MICROSECOND, UTC
from cdb_server.model import Entry, NewCalibration, RunTimes

DEVICES = tuple(f"DEVICE{number}" for number in range(10))
TYPES = ("cabling", "gain", "t0", "trigger", "tw")
KEYS = tuple((device, kind) for device in DEVICES for kind in TYPES)
PAYLOADS = 10_000
RUNS = 10_000

BEGIN, END = datetime(2010, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
# When the first entry was created; the others follow, a millisecond each. All lie in the past.
CREATED = datetime(2020, 1, 1, tzinfo=UTC)
AUTHOR = "alice"


@dataclass(frozen=True)
class Stock:
    """`count` calibrations of `size` bytes, and runs after them.

    Questions are about `among` of them, neighbours in the middle; where that is 0, about all.
    """

    count: int
    size: int
    payloads: int = PAYLOADS
    runs: int = RUNS
    among: int = 0

    def __post_init__(self) -> None:
        if min(self.count, self.asked) < 2 * len(KEYS):
            raise ValueError(f"a stock holds {2 * len(KEYS)} calibrations at least, two of each device and type")

    @property
    def name(self) -> str:
        """What it is called on disk, where it is kept for as long as the tables are made like this."""
        return f"cdb_v{schema.SCHEMA_VERSION}_{self.count}_{self.size}"

    @cached_property
    def step(self) -> timedelta:
        """From one calibration's valid_from to the next one's."""
        return (END - BEGIN) // self.count

    @property
    def answers(self) -> int:
        """How many answers with other payloads there are to dates that are covered, at most one of each payload."""
        return min(self.payloads, self.count - len(KEYS))

    def answered(self, number: int) -> tuple[str, str, datetime]:
        """A question that has one of these answers; they are counted from 1."""
        serial = self.count - self.answers + number
        return *KEYS[(serial - 1) % len(KEYS)], self.valid_from(serial)

    @property
    def asked(self) -> int:
        """How many calibrations questions are about."""
        return self.among or self.count

    @property
    def before(self) -> int:
        """How many calibrations lie before those that questions are about."""
        return (self.count - self.asked) // 2

    @property
    def covered(self) -> tuple[datetime, datetime]:
        """The period that questions are about: its begin, and its end, which is not in it.

        In all of it, every device and type has a calibration that is one of those.
        """
        return self._covered(self.before, self.asked)

    @property
    def as_of(self) -> datetime:
        """When all of it was there."""
        return self.created(self.count + self.runs)

    def created(self, serial: int) -> datetime:
        """When an entry was accepted."""
        return CREATED + timedelta(milliseconds=serial)

    def valid_from(self, serial: int) -> datetime:
        """From when on a calibration applies."""
        return BEGIN + self.step * (serial - 1)

    def in_force(self, device_name: str, calibration_type: str, instant: datetime) -> int:
        """Rule 3: the id of the calibration in force at an instant that is covered."""
        slot = min((instant - BEGIN) // self.step, self.count - 1)
        return slot - (slot - KEYS.index((device_name, calibration_type))) % len(KEYS) + 1

    def run_start(self, number: int) -> datetime:
        """When a run starts; they are counted from 1, and spread over the covered period."""
        begin, end = self._covered(0, self.count)
        return begin + (end - begin) // self.runs * (number - 1)

    def data(self, serial: int) -> bytes:
        """The bytes of a calibration: text that no database can compress."""
        return self.payload((serial - 1) % self.payloads)

    def payload(self, number: int) -> bytes:
        """The bytes of a payload."""
        return base64.b64encode(random.Random(number).randbytes(self.size * 3 // 4 + 3))[: self.size]

    def question(self, chance: random.Random) -> tuple[str, str, datetime]:
        """A device, a type and a covered date by chance."""
        begin, end = self.covered
        return *chance.choice(KEYS), begin + chance.randrange((end - begin) // MICROSECOND) * MICROSECOND

    def _covered(self, before: int, count: int) -> tuple[datetime, datetime]:
        return BEGIN + self.step * (before + len(KEYS)), BEGIN + self.step * (before + count)

    def entries(self) -> Iterator[tuple[Entry, bytes | None]]:
        """The journal: each entry, and the bytes of a payload that is new in it."""
        sha256s: list[str] = []
        for serial in range(1, self.count + 1):
            data = None
            if serial <= self.payloads:
                data = self.data(serial)
                sha256s.append(model.sha256_of(data))
            device_name, calibration_type = KEYS[(serial - 1) % len(KEYS)]
            content = NewCalibration(
                device_name,
                calibration_type,
                self.valid_from(serial),
                None,
                self.size,
                sha256s[(serial - 1) % self.payloads],
            )
            yield Entry(serial, self.created(serial), AUTHOR, content), data
        for number in range(1, self.runs + 1):
            serial, start = self.count + number, self.run_start(number)
            yield Entry(serial, self.created(serial), AUTHOR, RunTimes(number, start, start + timedelta(hours=1))), None
