"""Clients that write as fast as they can and remember what was sent, what was acknowledged and what is in doubt."""

import base64
import contextlib
import hashlib
import random
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from xml.sax.saxutils import escape

from tests.fuzz import wire
from tests.fuzz.schema import NAMESPACE
from tests.fuzz.structure import SOAP

# Bytes of a payload; most are small, so that a database of thousands of cycles stays handy.
SIZES = (0, 1, 100, 4_000, 4_096, 5_000, 20_000, 70_000, 400_000)
OFTEN = (4, 4, 20, 8, 8, 8, 4, 2, 1)
DEVICES = ("TOF1", "CKOV A", "KL")
FIRST = datetime(2016, 1, 1)

# What an entry says, as kept in the database: its kind and the columns of its row but the serial.
Content = tuple[object, ...]


@dataclass(frozen=True)
class Write:
    """One request to write. `data` is the payload of an upload."""

    content: Content
    data: bytes = b""

    def body(self) -> bytes:
        """The request's envelope."""
        kind, *values = self.content
        if kind == "calibration":
            device_name, calibration_type, valid_from, comment, _, sha256 = values
            operation = "add_calibration"
            fields = {
                "device_name": device_name,
                "calibration_type": calibration_type,
                "valid_from": spelled(valid_from),
                "data": base64.b64encode(self.data).decode("ascii"),
                "sha256": sha256,
                "comment": comment,
            }
        elif kind == "withdrawal":
            operation, fields = "withdraw_calibration", dict(zip(("id", "reason"), values, strict=True))
        else:
            number, start, stop = values
            operation = "add_run"
            fields = {"run_number": number, "start_time": spelled(start), "stop_time": spelled(stop)}
        inner = "".join(f"<t:{name}>{escape(str(value))}</t:{name}>" for name, value in fields.items())
        return (
            f'<s:Envelope xmlns:s="{SOAP}" xmlns:t="{NAMESPACE}"><s:Body>'
            f"<t:{operation}>{inner}</t:{operation}></s:Body></s:Envelope>"
        ).encode()


def microseconds(instant: datetime) -> int:
    """Since 1970, as the database keeps an instant."""
    return (instant - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def spelled(instant: object) -> str:
    """An instant of the database as requests and answers write it."""
    return (datetime(1970, 1, 1) + timedelta(microseconds=int(str(instant)))).isoformat(timespec="microseconds") + "Z"


def upload(device_name: str, calibration_type: str, valid_from: datetime, data: bytes, comment: str = "c") -> Write:
    """A request to store a calibration."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Write(
        ("calibration", device_name, calibration_type, microseconds(valid_from), comment, len(data), sha256), data
    )


@dataclass(frozen=True)
class Acknowledged:
    """What a server said of a write that it took: the id of a calibration, 0 for a run, and when it was created."""

    content: Content
    id: int
    created: str


class Refused(Exception):
    """The server answered, with a fault: its name and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def send(peer: wire.Peer, write: Write, credentials: tuple[str, str]) -> Acknowledged:
    """Write, over an open connection. Raises Refused, and wire.Broken when no whole answer came."""
    reply = peer.ask(wire.request(wire.WRITING, write.body(), credentials=credentials))
    text = reply.body.decode("utf-8")
    if reply.status != 200:
        named = re.search(r"faultcode>[\w-]+:(?:Client|Server)\.(\w+)<", text)
        raise Refused(named[1] if named else f"HTTP {reply.status}", text[:1000])
    found = re.search(r"<(?:\w+:)?id>(\d+)<", text)
    created = re.findall(r"<(?:\w+:)?created>([^<]+)<", text)
    return Acknowledged(write.content, int(found[1]) if found else 0, created[0])


@dataclass
class Traffic:
    """Some clients of one database, through all restarts of its server."""

    seed: str
    clients: int
    credentials: tuple[str, str]
    # All that was ever sent, and the number of times that a server said no, by name.
    sent: set[Content] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    # Since the last look.
    acknowledged: list[Acknowledged] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    # Of each client: the write whose answer never came, which it sends again first.
    in_doubt: dict[int, Write] = field(default_factory=dict)
    # Calibrations that may be withdrawn, or uploaded again.
    _stored: list[tuple[int, Write]] = field(default_factory=list)
    _made: Counter[int] = field(default_factory=Counter)

    def run(self, url: str, cycle: int, answered: threading.Event, over: threading.Event) -> list[threading.Thread]:
        """Start the clients of a cycle, which go on until `over` is set. `answered` is set whenever a write is done."""
        threads = [
            threading.Thread(target=self._client, args=(url, client, cycle, answered, over))
            for client in range(self.clients)
        ]
        for thread in threads:
            thread.start()
        return threads

    def taken(self) -> list[Acknowledged]:
        """What was acknowledged since this was last asked; no client is running."""
        taken, self.acknowledged = self.acknowledged, []
        return taken

    def _client(self, url: str, client: int, cycle: int, answered: threading.Event, over: threading.Event) -> None:
        chance = random.Random(f"{self.seed} {cycle} {client}")
        try:
            while not over.is_set():
                # A connection may be closed with an answer; when the server is killed, what is in doubt stays so.
                with contextlib.suppress(wire.Broken, OSError), wire.Peer(url) as peer:
                    while not over.is_set():
                        self._write(peer, client, chance)
                        answered.set()
        except Exception as error:
            # Whatever else ends a client would be lost with its thread.
            self.unexpected.append(repr(error))

    def _write(self, peer: wire.Peer, client: int, chance: random.Random) -> None:
        write = self.in_doubt.get(client) or self._next(chance, client)
        self.sent.add(write.content)
        self.in_doubt[client] = write
        while True:
            try:
                answer = send(peer, write, self.credentials)
            except Refused as refused:
                self.refused[refused.name] += 1
                if refused.name == "Unavailable":
                    continue
                self.unexpected.append(str(refused))
            else:
                self.acknowledged.append(answer)
                if write.content[0] == "calibration":
                    self._stored.append((answer.id, write))
                    del self._stored[:-50]
            del self.in_doubt[client]
            return

    def _next(self, chance: random.Random, client: int) -> Write:
        """Another write. No two clients register the same run, so that the last one of a client stands."""
        self._made[client] += 1
        number = self._made[client]
        instant = FIRST + timedelta(minutes=number, microseconds=client)
        kind = chance.choices(("upload", "again", "withdraw", "run"), (70, 10, 8, 12))[0]
        stored = self._stored
        if kind == "again" and stored:
            return chance.choice(stored)[1]
        if kind == "withdraw" and stored:
            return Write(("withdrawal", chance.choice(stored)[0], "stored by mistake"))
        if kind == "run":
            start = microseconds(instant)
            return Write(("run", 1 + client + 100 * chance.randrange(5), start, start + 10**6))
        size = chance.choices(SIZES, OFTEN)[0]
        # Some payloads are those of other calibrations, under another key.
        data = chance.choice(stored)[1].data if stored and chance.random() < 0.1 else chance.randbytes(size)
        return upload(chance.choice(DEVICES), chance.choice(("t0", "pedestal")), instant, data)
