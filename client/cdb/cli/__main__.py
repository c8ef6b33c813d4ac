"""Run `cdb` as `python -m cdb.cli`."""

from cdb.cli import main

main(prog_name="cdb")
