"""Spoil one answer in many ways, ask through that, and judge what the client makes of it."""

import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import cdb
from tests.client.damaging_proxy import CHUNK, Fault, Kind, faulty

# Enough for an answer that stalls and another try; and what a busy machine may add.
SECONDS = 3.0
SLACK = 1.0
WAITING = 8


@dataclass(frozen=True)
class Recorded:
    """What a real server answered to a question, to the byte, and what a client made of it, unspoiled."""

    answer: bytes
    id: int
    expected: cdb.CalibrationText

    def __call__(self, request: bytes) -> bytes:
        """The same to every question."""
        return self.answer

    @property
    def head(self) -> int:
        """The bytes before the body."""
        return self.answer.index(b"\r\n\r\n") + 4


@dataclass
class Outcome:
    """How often what came of a fault, how long the longest call took, and what must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    findings: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Put two together."""
        self.counts += other.counts
        self.longest = max(self.longest, other.longest)
        self.findings += other.findings


def record(server: str, id: int) -> Recorded:
    """Ask a real server for a calibration, and keep its answer."""
    answers: list[bytes] = []

    def ask(request: bytes) -> bytes:
        address = urlsplit(server)
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as connection:
            connection.sendall(request)
            received = b""
            while b"\r\n\r\n" not in received or len(received) < _length(received):
                received += connection.recv(CHUNK)
        answers.append(received)
        return received

    with faulty(ask) as proxy:
        text = cdb.Calibration(proxy.url).get_calibration_for_id(id)
    return Recorded(answers[0], id, text)


def sample(recorded: Recorded, kind: Kind) -> list[Fault]:
    """A fault for every byte of the head, the first and last 200 of the body, and every 500th between."""
    size, head = len(recorded.answer), recorded.head
    places = {*range(head + 200), *range(head, size, 500), *range(size - 200, size)}
    return [Fault(kind, at, 1 << at % 8) for at in sorted(places)]


def spoiled(recorded: Recorded, faults: Iterable[Fault], times: int = 1, seconds: float = SECONDS) -> Outcome:
    """Ask once for each fault, on one client, whose connection is that of the question before."""
    outcome = Outcome()
    with faulty(recorded) as proxy:
        client = cdb.Calibration(proxy.url, timeout=seconds)
        client.get_calibration_for_id(recorded.id)
        for fault in faults:
            proxy.spoil(fault, times)
            began = time.monotonic()
            came = _asked(client, recorded)
            took = time.monotonic() - began
            outcome.longest = max(outcome.longest, took)
            if took > seconds + SLACK:
                came = f"late: {came}"
            outcome.counts[came] += 1
            if came.startswith(("wrong", "late", "untyped")):
                outcome.findings.append(f"{fault}: {came}, after {took:.2f} s")
    return outcome


def waiting(recorded: Recorded, faults: Sequence[Fault], times: int = 1, seconds: float = SECONDS) -> Outcome:
    """The same for faults for which calls wait: some calls at a time."""
    outcome = Outcome()
    with ThreadPoolExecutor(WAITING) as threads:
        # Neighbours are waited for alike: each thread gets some of everywhere.
        parts = [faults[start::WAITING] for start in range(min(WAITING, len(faults)))]
        for done in threads.map(lambda part: spoiled(recorded, part, times, seconds), parts):
            outcome.add(done)
    return outcome


def _asked(client: cdb.Calibration, recorded: Recorded) -> str:
    try:
        text = client.get_calibration_for_id(recorded.id)
    except cdb.CdbError as error:
        return type(error).__name__
    except Exception as error:
        # Just that is what must not come.
        return f"untyped: {error!r}"
    right = text.data == recorded.expected.data and text.record == recorded.expected.record
    return "right" if right else "wrong: another answer"


def _length(received: bytes) -> int:
    head = received.index(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", received[:head])
    assert found is not None
    return head + 4 + int(found[1])


def shares(faults: Sequence[Fault], size: int) -> list[Sequence[Fault]]:
    """The faults in parts, for processes to share."""
    return [faults[start : start + size] for start in range(0, len(faults), size)]
