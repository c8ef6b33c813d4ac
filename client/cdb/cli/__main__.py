"""`python -m cdb.cli` is `cdb`."""

from cdb.cli import main

main(prog_name="cdb")
