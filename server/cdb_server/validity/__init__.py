"""Rules 3 to 7 as SQL: which calibration applies, until when, and what the database was as of an instant.

Rule 3: "For (device, type, instant t): of the calibrations not withdrawn with valid_from <= t, the one with the
greatest valid_from; of equals, the greatest id." It is written once, in `in_force`; when another takes over
follows from the same order, in `_takes_over_from`.

The second time axis is a serial: because `created` strictly increases with the serial (rule 10), the database as of an
instant is the journal up to one serial, here `upto`. None is the database as it stands. Every query is bounded by an
index; with `upto` or withdrawals it passes over as many entries of the key as are hidden, no more.
"""

from cdb_server.validity.calibrations import (
    beginning,
    candidates,
    equal_calibration,
    extent,
    extent_of_key,
    in_force,
    in_force_at_steps,
    in_force_during,
    in_force_everywhere,
    keys,
    next_valid_from,
    records,
    serial_as_of,
    standing_after,
    standing_before,
)
from cdb_server.validity.runs import (
    first_run_start,
    run_count,
    run_entry,
    run_ranges,
    run_start,
    runs_at_steps,
    runs_by_start,
    runs_starting,
)

__all__ = [
    "beginning",
    "candidates",
    "equal_calibration",
    "extent",
    "extent_of_key",
    "first_run_start",
    "in_force",
    "in_force_at_steps",
    "in_force_during",
    "in_force_everywhere",
    "keys",
    "next_valid_from",
    "records",
    "run_count",
    "run_entry",
    "run_ranges",
    "run_start",
    "runs_at_steps",
    "runs_by_start",
    "runs_starting",
    "serial_as_of",
    "standing_after",
    "standing_before",
]
