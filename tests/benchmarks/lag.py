"""`python -m tests.benchmarks.lag [--seconds N] [--rate N]`: how soon an upload can be read on a mirror.

Prints the median, the 99th percentile and the longest time from a write's acknowledgement to the mirror's first answer
that has it.
"""

import statistics
import tempfile
import threading
import time
from pathlib import Path

import click

import cdb
from tests import mirrors, servers


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=30.0, show_default=True)
@click.option("--rate", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Uploads a second.")
def main(seconds: float, rate: float) -> None:
    """Upload at an even rate, and ask the mirror all the time how far it is."""
    stored: dict[int, float] = {}
    seen: dict[int, float] = {}
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            servers.master(f"sqlite:///{folder}/master.sqlite", folder) as master,
            mirrors.mirror(master.url, f"sqlite:///{folder}/mirror.sqlite", folder) as mirror,
        ):

            def look() -> None:
                client, last = mirror.client, 0
                while not ended.is_set():
                    serial = client.get_status().serial
                    now = time.monotonic()
                    seen.update(dict.fromkeys(range(last + 1, serial + 1), now))
                    last = serial
                    ended.wait(0.01)

            looking = threading.Thread(target=look)
            looking.start()
            client = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
            # The following process takes a while to start.
            first = client.add_calibration("TOF1", "t0", "2016-03-01", b"first").id
            servers.until(lambda: first in seen)
            begun = time.monotonic()
            for number in range(int(seconds * rate)):
                # An even rate, however long each upload took.
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
                id = client.add_calibration("TOF1", "t0", "2016-03-01", f"{number} {begun}".encode()).id
                stored[id] = time.monotonic()
            took = time.monotonic() - begun
            servers.until(lambda: max(seen, default=0) >= max(stored))
            ended.set()
            looking.join()
    lags = sorted(max(0.0, seen[id] - at) for id, at in stored.items())
    click.echo(
        f"{len(lags)} uploads, {len(lags) / took:.1f} a second: readable on the mirror after "
        f"{statistics.median(lags):.2f} s (median), {lags[int(len(lags) * 0.99)]:.2f} s (99 of 100), {lags[-1]:.2f} s "
        "at most"
    )


if __name__ == "__main__":
    main()
