"""What the processes of a server take: processor time and memory, by what Linux says of them in /proc."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Linux counts processor time in ticks.
TICK = os.sysconf("SC_CLK_TCK")
# Seconds for which a server does nothing before it counts as started.
QUIET = 0.3


@dataclass(frozen=True)
class Memory:
    """Bytes in memory. A page that processes share counts in each one's `resident`, and once in all `proportional`."""

    resident: int
    proportional: int

    def __str__(self) -> str:
        return f"{self.resident / 1e6:.1f} MB resident, {self.proportional / 1e6:.1f} MB proportional"

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.resident + other.resident, self.proportional + other.proportional)


@dataclass(frozen=True)
class Processes:
    """A process and all that it began."""

    first: int

    def numbers(self) -> list[int]:
        """Their numbers, the first one's first."""
        return list(_tree(self.first))

    def processor(self) -> float:
        """Seconds of processor time, user and system, since they began."""
        return sum(_ticks(self.numbers())) / TICK

    def memory(self) -> dict[int, Memory]:
        """The memory of each."""
        return {number: _memory(number) for number in self.numbers()}

    def settle(self, patience: float = 60.0) -> None:
        """Wait until they have nothing more to do: a server has then loaded all its code in all its workers."""
        deadline = time.monotonic() + patience
        # What other processes do is no event here.
        before, since = -1.0, time.monotonic()
        while time.monotonic() < since + QUIET:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.first} is busy without end")
            now = self.processor()
            if now > before + 1 / TICK:
                before, since = now, time.monotonic()
            # The kernel counts in ticks: to look more often shows nothing more.
            time.sleep(0.02)


def _tree(number: int) -> Iterator[int]:
    yield number
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{number}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _ticks(numbers: Iterable[int]) -> Iterator[int]:
    for number in numbers:
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name of the program stands in parentheses, and may hold anything.
            told = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            yield int(told[11]) + int(told[12])


def _memory(number: int) -> Memory:
    told = dict(line.split(":", 1) for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()[1:])
    resident, proportional = (int(told[name].split()[0]) * 1024 for name in ("Rss", "Pss"))
    files = _files(number)
    return Memory(resident + files, proportional + files)


def _files(number: int) -> int:
    """Bytes of the answers that a process keeps in files in memory, which the kernel counts as nobody's."""
    held = 0
    for file in Path(f"/proc/{number}/fd").iterdir():
        with suppress(FileNotFoundError):
            if "/memfd:cdb-answer" in str(file.readlink()):
                held += file.stat().st_blocks * 512
    return held
