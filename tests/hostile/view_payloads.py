"""Payloads that nobody meant, stored and looked at on a running server: `python -m tests.hostile.view_payloads`."""

import sys
import tempfile
from pathlib import Path

import click

from tests import servers
from tests.hostile import odd_payloads
from tests.hostile.payload_viewer import SECONDS, Viewer


@click.command()
@click.option("--count", default=20_000, show_default=True, help="How many are made, beside those with a name.")
@click.option("--seed", default=0, show_default=True, help="The number of the first one that is made.")
def main(count: int, seed: int) -> None:
    """Look at all payloads that have a name, then at others; exit status 1 when one cannot be looked at, or late."""
    with tempfile.TemporaryDirectory() as folder:
        with servers.master(f"sqlite:///{folder}/cdb.sqlite", Path(folder), "--workers", "1") as master:
            viewer = Viewer(master)
            for name, make in odd_payloads.NAMED.items():
                viewer.view(name, make(), comparisons=5)
            for number in range(seed, seed + count):
                viewer.view(f"payload {number}", odd_payloads.generated(number))
        if "Traceback" in master.log.read_text():
            viewer.findings.append("a traceback is in the log")
    took, what = viewer.slowest
    click.echo(f"{len(viewer.ids)} payloads, {viewer.answers} answers, each within {SECONDS} s of the server's time")
    click.echo(f"slowest: {took:.2f} s, {what}")
    for finding in viewer.findings[:50]:
        click.echo(finding)
    sys.exit(1 if viewer.findings else 0)


if __name__ == "__main__":
    main()
