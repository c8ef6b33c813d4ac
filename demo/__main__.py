"""The main job, from nothing to answers, in a folder of its own: `python -m demo [FOLDER]`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import cdb
from demo import samples

DATE = "2016-12-24"
RUN = 7662


def main(folder: Path) -> None:
    """Make a database, serve it, load the samples, ask the five ways, and say how to go on."""
    console = Console(highlight=False)
    if folder.exists():
        if not (folder / "samples" / "uploads.csv").exists():
            raise SystemExit(f"{folder} is there already, and not from an earlier demo: name another folder")
        shutil.rmtree(folder)
    samples.write(folder / "samples")
    database = f"sqlite:///{folder}/cdb.sqlite"
    server = [sys.executable, "-m", "cdb_server"]
    subprocess.run([*server, "init", "--database", database], check=True, stderr=subprocess.DEVNULL)
    token = subprocess.run(
        [*server, "token", "add", "--database", database, "demo"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout.strip()
    (folder / "token").write_text(f"{token}\n")
    with (folder / "server.log").open("wb") as log:
        master = subprocess.Popen(
            [*server, "serve", "--database", database, "--bind", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert master.stdout is not None  # noqa: S101 - it is a pipe
        # What a server says once it listens ends in its address.
        url = master.stdout.readline().split()[-1]
        console.print(f"[bold]A master on SQLite[/] at {url}, with two worker processes.\n")
        environment = {**os.environ, "CDB_SERVER": url, "CDB_USER": "demo", "CDB_TOKEN": token}
        console.print("[bold]Store[/] the sample calibrations and runs; two of the runs are wrong on purpose:")
        # On a terminal `cdb add` would ask.
        for command in (["add", "--yes"], ["run", "add"]):
            table = "runs.csv" if command[0] == "run" else "uploads.csv"
            console.print(f"$ cdb {' '.join(command)} --from samples/{table}", style="cyan")
            loading = [sys.executable, "-m", "cdb.cli", *command, "--from", str(folder / "samples" / table)]
            if subprocess.run(loading, env=environment).returncode not in (0, 1):
                raise SystemExit("the samples could not be loaded")
        console.print()
        ask(console, cdb.Calibration(url))
    finally:
        master.terminate()
        master.wait()
    say_how_to_go_on(console, folder)


def ask(console: Console, client: cdb.Calibration) -> None:
    """Ask the five ways through `import cdb`, and print what was found."""
    found = [
        ("get_calibration_for_run", f"TOF1 t0, run {RUN}", client.get_calibration_for_run("TOF1", "t0", RUN)),
        ("get_calibration_for_date", f"KL gain, {DATE}", client.get_calibration_for_date("KL", "gain", DATE)),
        ("get_current_calibration", "TOF1 trigger", client.get_current_calibration("TOF1", "trigger")),
        ("get_calibration_for_id", "id 1", client.get_calibration_for_id(1)),
    ]
    ids = client.get_ids("2016-01-01", "2016-12-31")
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False, title="What was found")
    for column in ("asked", "about", "id", "valid from", "valid until", "bytes"):
        table.add_column(column, no_wrap=True)
    for method, question, text in found:
        until = f"{text.valid_until:%Y-%m-%d}" if text.valid_until else "open"
        table.add_row(method, question, str(text.id), f"{text.valid_from:%Y-%m-%d}", until, str(text.size))
    console.print(table)
    console.print(f"get_ids, for the year 2016: {', '.join(map(str, ids))}\n")


def say_how_to_go_on(console: Console, folder: Path) -> None:
    """The commands that continue from here."""
    console.print("[bold]How to go on[/]: the database stays.")
    for command in (
        f"export PATH={Path(sys.executable).parent}:$PATH",
        f"cdb-server serve --database sqlite:///{folder}/cdb.sqlite &",
        "cdb devices",
        f"cdb get TOF1 t0 --run {RUN}",
        f"cdb run show {RUN}",
        f"CDB_USER=demo CDB_TOKEN=$(cat {folder}/token) cdb withdraw 1 --reason 'only a try'",
        'python -c "import cdb; help(cdb)"',
    ):
        console.print(f"$ {command}", style="cyan", soft_wrap=True)


if __name__ == "__main__":
    if sys.argv[2:] or sys.argv[-1].startswith("-"):
        raise SystemExit("usage: python -m demo [FOLDER]")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-data").absolute())
