"""`cdb` in a process of its own: with pipes, and under a terminal."""

import contextlib
import os
import pty
import subprocess
import sys

from tests.servers import Master


def shell(master: Master, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command between pipes."""
    return subprocess.run(
        [sys.executable, "-m", "cdb.cli", *arguments],
        env={**master.environment, **environment},
        capture_output=True,
        timeout=60,
    )


def said(master: Master, *arguments: str) -> str:
    """What a command that succeeds prints."""
    done = shell(master, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def under_a_terminal(
    master: Master, *arguments: str, typed: str = "", status: int = 0, stdin: int | None = None
) -> str:
    """All that a command shows a person, on a terminal of its own, until it ends with a status.

    `typed` is what the person answers; `stdin` another source than the terminal.
    """
    command = [sys.executable, "-m", "cdb.cli", *arguments]
    return on_a_terminal(command, master.environment, typed=typed, status=status, stdin=stdin)


def on_a_terminal(
    command: list[str], environment: dict[str, str], *, typed: str = "", status: int = 0, stdin: int | None = None
) -> str:
    """The same of any program."""
    leader, follower = pty.openpty()
    os.write(leader, typed.encode())
    environment = {**environment, "TERM": "xterm", "COLUMNS": "160"}
    source = follower if stdin is None else stdin
    with subprocess.Popen(command, env=environment, stdin=source, stdout=follower, stderr=follower) as process:
        os.close(follower)
        shown = b""
        # A terminal whose last program has ended answers with an error.
        with contextlib.suppress(OSError):
            while part := os.read(leader, 65536):
                shown += part
    os.close(leader)
    assert process.returncode == status, shown
    return shown.decode()
