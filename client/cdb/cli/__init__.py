"""Assemble the command `cdb`."""

from importlib.metadata import version

import click

from cdb.cli import add, cache, copy, diff, lock, log, read, run, why, withdraw
from cdb.cli.errors import CdbGroup


@click.group(cls=CdbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("mice-cdb"), prog_name="cdb")
def main() -> None:
    """The calibration database of the MICE experiment.

    \b
    cdb get TOF1 t0 --run 7662                  the calibration that applies to a run
    cdb get TOF1 t0 -o t0.txt                   the current one, to a file
    cdb devices                                 the devices and their calibration types
    cdb add TOF1 t0 t0.txt --valid-from 2016-10-01
                                                shows what would change, and asks
    cdb why TOF1 t0 --run 7662                  why this one applies, and since when
    cdb diff TOF1 t0 --run 7661 --run 7662      what differs between two
    cdb log --since 2016-10-01                  who wrote what, when and why
    cdb prefetch --run 7661-7664                all that applies to runs, for work without a network
    cdb copy --from http://cdb.example          copies the calibrations of an earlier CDB

    Times are UTC: 2016-03-01, "2016-03-01 08:00:00" or 2016-03-01T08:00:00.123456Z. Exit status: 0 done, 1 the
    service refused, 2 wrong usage, 3 no server could be reached.
    """


for command in (
    read.get,
    read.ids,
    read.devices,
    read.status,
    run.run,
    log.log,
    why.why,
    diff.diff,
    cache.prefetch,
    cache.cache,
    lock.lock,
    add.add,
    withdraw.withdraw,
    copy.copy,
):
    main.add_command(command)
