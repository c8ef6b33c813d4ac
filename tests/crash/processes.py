"""Which worker process of a server holds a connection."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.fuzz import wire
from tests.fuzz.schema import NAMESPACE
from tests.fuzz.structure import SOAP
from tests.servers import Master

# What every worker answers.
STATUS = wire.request(
    wire.READING,
    f'<s:Envelope xmlns:s="{SOAP}" xmlns:t="{NAMESPACE}"><s:Body><t:get_status/></s:Body></s:Envelope>'.encode(),
)


@contextmanager
def peers(master: Master, count: int = 2) -> Iterator[dict[int, wire.Peer]]:
    """A connection to each of the workers, of which there are `count`, once each has answered."""
    found: dict[int, wire.Peer] = {}
    with ExitStack() as stack:
        while len(found) < count:
            # A connection goes to whichever worker takes it first: now and then to one that has many already.
            peer = stack.enter_context(wire.Peer(master.url))
            assert peer.ask(STATUS).status == 200
            found.setdefault(_holder(peer, master.workers()), peer)
        yield found


def _holder(peer: wire.Peer, candidates: set[int]) -> int:
    """The process at the other end of a connection on this machine."""
    port, server = peer.socket.getsockname()[1], peer.socket.getpeername()[1]
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if (int(fields[1].split(":")[1], 16), int(fields[2].split(":")[1], 16)) == (server, port):
            inode = f"socket:[{fields[9]}]"
    for number in candidates:
        for descriptor in Path(f"/proc/{number}/fd").iterdir():
            with suppress(FileNotFoundError):
                if os.readlink(descriptor) == inode:
                    return number
    raise AssertionError("no worker holds this connection")
