"""What a shell completes, tried in a real bash on a terminal."""

import os
import pty
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

import cdb
from cdb.cli import main, options
from tests import servers
from tests.servers import Master

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
[IN_BASH] = re.findall(r'^eval "\$\(_CDB_COMPLETE=bash_source cdb\)"(?= )', README, re.MULTILINE)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    folder = tmp_path_factory.mktemp("completion")
    with servers.master(f"sqlite:///{folder}/cdb.sqlite", folder) as running:
        client = cdb.CalibrationSuperMouse(running.url, user=running.user, token=running.token)
        for device, kind in (("TOF1", "t0"), ("TOF1", "tw"), ("CKOV A", "gain"), ("CKOV A", "t0"), ("KL", "gain")):
            client.add_calibration(device, kind, "2016-03-01", b"1")
        yield running


class Bash:
    """An interactive bash that has read what the README says."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def read(self, until: str, seconds: float = 20) -> str:
        """What it shows until some text comes."""
        shown, deadline = "", time.monotonic() + seconds
        while until not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([self._terminal], [], [], 0.1)[0]:
                shown += os.read(self._terminal, 65536).decode()
        return shown

    def completed(self, typed: str) -> str:
        """The line after the tabulator was pressed at the end of what was typed."""
        os.write(self._terminal, f"{typed}\t\x07".encode())
        return self.read("<end>").rpartition("<begin>")[2].partition("<end>")[0]

    def listed(self, typed: str) -> str:
        """What is shown where more than one name begins so, and the tabulator is pressed twice."""
        os.write(self._terminal, f"{typed}\t\t\x07".encode())
        return self.read("<end>").partition("<begin>")[0]


@contextmanager
def bash(environment: dict[str, str], tmp_path: Path) -> Iterator[Bash]:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cdb").write_text(f'#!/bin/sh\nexec {sys.executable} -m cdb.cli "$@"\n')
    (folder / "cdb").chmod(0o755)
    environment = {**environment, "PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
    leader, follower = pty.openpty()
    command = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(
        command, env=environment, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    ) as process:
        os.close(follower)
        shell = Bash(leader)
        # Ctrl-G shows the line as it stands, and begins another.
        show = """bind -x '"\\C-g": printf "<begin>%s<end>\\n" "$READLINE_LINE"; READLINE_LINE='"""
        os.write(leader, f"{IN_BASH}; {show}; echo rea''dy\n".encode())
        try:
            shell.read("ready")
            yield shell
        finally:
            process.kill()
    os.close(leader)


def test_names_are_completed_in_bash(master: Master, tmp_path: Path) -> None:
    """Commands, devices and the types of the device, however they are spelled; a name with a space as one word."""
    with bash(master.environment, tmp_path) as shell:
        for typed, completed in (
            ("cdb wi", "cdb withdraw "),
            ("cdb get K", "cdb get KL "),
            ("cdb get kl", "cdb get KL "),
            ("cdb get ck", r"cdb get CKOV\ A "),
            (r"cdb get CKOV\ ", r"cdb get CKOV\ A "),
            ('cdb get "CK', 'cdb get "CKOV A" '),
            ("cdb get 'CKOV ", "cdb get 'CKOV A' "),
            (r"cdb get CKOV\ A g", r"cdb get CKOV\ A gain "),
            ("cdb get 'ckov a' t", "cdb get 'ckov a' t0 "),
            ("cdb add TOF1 T", "cdb add TOF1 t"),
            ("cdb why KL ", "cdb why KL gain "),
            ("cdb diff KL g", "cdb diff KL gain "),
            ("cdb log --device TO", "cdb log --device TOF1 "),
            ("cdb log --device CKOV\\ A --type g", "cdb log --device CKOV\\ A --type gain "),
            ("cdb get NOBODY ", "cdb get NOBODY "),
        ):
            assert shell.completed(typed) == completed
        assert "t0  tw" in shell.listed("cdb get TOF1 t")


def test_a_server_that_cannot_be_asked_is_passed_over_in_silence(master: Master, tmp_path: Path) -> None:
    """Nothing is completed and nothing shown, at once where there is none, in some two seconds where it is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for server in ("http://127.0.0.1:1", "nonsense", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            command = [sys.executable, "-m", "cdb.cli"]
            words = {"COMP_WORDS": "cdb\nget\nT", "COMP_CWORD": "2", "_CDB_COMPLETE": "bash_complete"}
            began = time.monotonic()
            environment = {**master.environment, **words, "CDB_SERVER": server}
            done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
            assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")
            # The client's own patience is thirty; a busy machine takes some seconds to start.
            assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("shell", "words", "completed"),
    [
        ("zsh", {"COMP_WORDS": "cdb get ck", "COMP_CWORD": "2"}, "plain\nCKOV A\n_\n"),
        ("fish", {"COMP_WORDS": "cdb get ck", "COMP_CWORD": "ck"}, "plain,CKOV A\n"),
    ],
)
def test_zsh_and_fish_are_told_names_as_they_are(
    master: Master, tmp_path: Path, shell: str, words: dict[str, str], completed: str
) -> None:
    """They quote by themselves. What is typed is not noted in the lock file of a job."""
    command = [sys.executable, "-m", "cdb.cli"]
    lock = tmp_path / "lock"
    environment = {**master.environment, **words, "_CDB_COMPLETE": f"{shell}_complete", "CDB_LOCK": str(lock)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, lock.exists()) == (completed, "", False)
    assert f"_CDB_COMPLETE={shell}_source cdb" in README


def test_a_server_cannot_put_words_into_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no name by rule 2 is not offered."""
    names = ["TOF1", "T$(id)", "T`id`", "T;id", "T\nid", "T*", "T|", "T\x1b"]
    monkeypatch.setattr(
        cdb.Calibration, "list_devices", lambda client, with_cabling: [cdb.Device(name, ("t0",)) for name in names]
    )
    command = main.commands["get"]
    with click.Context(command) as context:
        assert options.complete_devices(context, command.params[0], "t") == ["TOF1"]
