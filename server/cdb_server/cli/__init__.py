"""`cdb-server`: makes a database, serves it, keeps it safe, and keeps the tokens of those who may write."""

import click

from cdb_server import __version__
from cdb_server.cli import maintenance, mirroring, serving, shared, tokens


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cdb-server")
def main() -> None:
    """The server of the MICE calibration database.

    \b
    cdb-server init                      make the database
    cdb-server token add alice           print alice's token, once
    cdb-server serve                     take questions and writes
    cdb-server verify                    prove that nothing is damaged
    cdb-server backup FILE               while serving
    """
    shared.tell_unknown_settings(main)


for command in (
    serving.init,
    serving.serve_command,
    mirroring.mirror_command,
    maintenance.verify_command,
    maintenance.backup_command,
    maintenance.restore_command,
    mirroring.compare_command,
    tokens.token,
):
    main.add_command(command)
