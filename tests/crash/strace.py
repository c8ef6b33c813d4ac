"""strace on running processes: their system calls written down, made to fail, or the last thing that they do."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Injection:
    """What happens at which call: `what` in strace's words, such as signal=KILL or error=EIO.

    `when` is the number of the call, counted in each thread and for each system call; 3+ is the third and all later.
    With `path`, only calls on that file count.
    """

    calls: str
    what: str
    when: str = "1"
    path: Path | None = None


@contextlib.contextmanager
def attached(
    processes: Iterable[int],
    written: Path,
    injection: Injection | None = None,
    *,
    calls: str = "",
    threads: bool = True,
) -> Iterator["subprocess.Popen[str]"]:
    """Watch processes, with all their threads or the first alone, until the block ends; what they do is `written`."""
    program = shutil.which("strace")
    assert program, "strace is missing: run tests/crash/install, or install the package strace"
    command = [program, "-y", "-s", "200", "-o", str(written)]
    if threads:
        command.append("-f")
    if injection is not None:
        calls = injection.calls
        command += ["-e", f"inject={calls}:{injection.what}:when={injection.when}"]
        if injection.path is not None:
            command += ["-P", str(injection.path)]
    numbers = sorted(processes)
    command += ["-e", f"trace={calls}", *(f"--attach={number}" for number in numbers)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        try:
            for _ in numbers:
                # Said once a process and all its threads are held.
                said = strace.stderr.readline()
                assert "attached" in said, f"strace cannot look at the server: {said}{strace.stderr.read()}"
            yield strace
        finally:
            # Told to end, it lets go of the processes first; of one that dies at that moment it never hears again.
            strace.terminate()
            try:
                strace.wait(5)
            except subprocess.TimeoutExpired:
                strace.kill()


def injected(written: Path) -> int:
    """How many calls were made to fail."""
    return written.read_text().count("(INJECTED)")
