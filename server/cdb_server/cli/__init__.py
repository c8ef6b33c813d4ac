"""Assembles the command `cdb-server` from its subcommands."""

import click

from cdb_server import __version__
from cdb_server.cli import commands, options


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
    options.warn_of_unknown_settings(main)


for command in (
    commands.init,
    commands.serve_command,
    commands.mirror_command,
    commands.verify_command,
    commands.backup_command,
    commands.restore_command,
    commands.compare_command,
    commands.token,
):
    main.add_command(command)
