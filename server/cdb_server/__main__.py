"""`python -m cdb_server` is `cdb-server`."""

from cdb_server.cli import main

main(prog_name="cdb-server")
