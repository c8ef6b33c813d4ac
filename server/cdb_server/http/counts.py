"""What a server's workers count, in memory that they share: a row of numbers each, which outlives its process."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

# Upper bounds of the buckets of durations, in nanoseconds; a last bucket holds what took longer.
BOUNDS = tuple(
    microseconds * 1_000
    for microseconds in (
        *(100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000),
        *(100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000),
    )
)
BUCKETS = len(BOUNDS) + 1
# Of an operation: the buckets of answers that were ready, of those that were found, and of what went wrong; the sum of
# all durations; then what went wrong, by outcome. What went well is in one bucket, and counted nowhere else.
READY, FOUND, FAILED, SUM, OUTCOMES = 0, BUCKETS, 2 * BUCKETS, 3 * BUCKETS, 3 * BUCKETS + 1
# Of a row: whether it was ever used, answers that were not ready and might have been, and the first operation.
USED, MISSES, OPERATIONS = 0, 1, 2
NUMBER = 8


@dataclass(frozen=True)
class Layout:
    """Where a row has what: `operations` and `outcomes` are all that are told apart, the last of each standing for any
    other."""

    operations: tuple[str, ...]
    outcomes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Numbers in a row."""
        return OPERATIONS + len(self.operations) * self._of_operation

    def places(self) -> dict[str, int]:
        """Where the numbers of each operation begin."""
        return {name: OPERATIONS + at * self._of_operation for at, name in enumerate(self.operations)}

    @property
    def _of_operation(self) -> int:
        return OUTCOMES + len(self.outcomes)


class Counts:
    """Made before the workers, which begin as copies of their parent: the same in all of them.

    Each number is written by one process alone, so that none is lost and there is no lock that a process could take
    with it. Whoever comes after one that died counts on in its row.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        file = os.memfd_create("cdb-counts")
        os.ftruncate(file, layout.length * rows * NUMBER)
        self._file = file
        self.layout = layout
        self._number_of_rows = rows
        self._numbers = memoryview(mmap.mmap(file, layout.length * rows * NUMBER)).cast("Q")

    def row(self) -> "memoryview[int]":
        """This process's own, until it ends; for one thread."""
        *rows, last = self._rows()
        for number, row in enumerate(rows):
            try:
                # The kernel gives it back when the process ends, however that is.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                continue
            row[USED] = 1
            return row
        # More processes than ever were meant, which share it and may miss some: better than not to serve.
        last[USED] = 1
        return last

    def totals(self) -> list[int]:
        """The sums over all processes that ever were."""
        used = [row for row in self._rows() if row[USED]]
        return [sum(numbers) for numbers in zip(*used, strict=True)] or [0] * self.layout.length

    def _rows(self) -> "Iterator[memoryview[int]]":
        length = self.layout.length
        return (self._numbers[at : at + length] for at in range(0, length * self._number_of_rows, length))
