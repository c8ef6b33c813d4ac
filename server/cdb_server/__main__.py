"""Runs `cdb-server` as `python -m cdb_server`, and names the package to install when a library is missing."""

import sys


def main() -> None:
    """Run the command line, or end with a line that says what is missing."""
    try:
        from cdb_server.cli import main as run

        # A command imports what it alone needs when it runs.
        run(prog_name="cdb-server")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("cdb", "cdb_server"):
            raise
        sys.exit(
            f"cdb-server: {error.name} is not installed: pip install 'mice-cdb[server]' brings what the server needs"
        )


if __name__ == "__main__":
    main()
