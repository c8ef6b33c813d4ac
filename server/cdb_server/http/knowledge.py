"""What an answer says of the server's knowledge: how far it knows the journal and, on a copy, how old that is."""

import asyncio
import math
import time
from contextlib import suppress

from cdb_server import instants
from cdb_server.errors import Unavailable
from cdb_server.http.looks import Looks
from cdb_server.http.threads import Threads
from cdb_server.model import Knowledge
from cdb_server.repository import Busy, Glance, Reader

# Seconds after which what is still to be looked for in a turn of the event loop gets another transaction: who commits
# waits for the end of the one that is under way.
LONGEST_TURN = 0.001


def known(reader: Reader) -> Knowledge | None:
    """What the server knows; None when the database cannot be read. Blocks."""
    try:
        return reader.knowledge()
    except Unavailable:
        return None


class Glancing:
    """The same, at once, from a `reader` on a glance; remembered for as long as nothing is written.

    What comes in one turn of the event loop is looked for in one transaction of the glance: beginning and ending one
    takes longer than to find a calibration. Meanwhile nobody can commit, so that nothing known becomes untrue.
    """

    def __init__(self, glance: Glance, reader: Reader) -> None:
        self._glance = glance
        self._reader = reader
        self._version = -1
        self._known = Knowledge(0, "", None)
        self._until = -math.inf

    def known(self) -> Knowledge:
        """What the server knows. Raises Busy."""
        if not self._glance.begun:
            asyncio.get_running_loop().call_soon(self._end)
        elif time.monotonic() < self._until:
            return self._known
        # Nothing is known until all of it is.
        self._until = -math.inf
        version = self._glance.begin()
        if version != self._version:
            self._known = self._reader.knowledge()
            self._version = version
        self._until = time.monotonic() + LONGEST_TURN
        return self._known

    def _end(self) -> None:
        with suppress(Busy):
            self._glance.end()


class Watch:
    """What the server knows now, for whoever answers: at once where that is possible, else by a look in a thread."""

    def __init__(self, reader: Reader, glancing: Glancing | None, threads: Threads) -> None:
        self._reader = reader
        self._glancing = glancing
        self._threads = threads
        self._looks = Looks(self._look)

    def at_once(self) -> Knowledge | None:
        """What the server knows; None where that cannot be said at once."""
        if self._glancing is None:
            return None
        try:
            return self._glancing.known()
        except Busy:
            return None

    async def now(self) -> Knowledge | None:
        """What the server knows now or later; None when the database cannot be read."""
        return self.at_once() or await self._looks.seen()

    async def _look(self) -> Knowledge | None:
        try:
            return await self._threads.do(lambda: known(self._reader))
        except Unavailable:
            return None


def headers(knowledge: Knowledge | None) -> list[tuple[bytes, bytes]]:
    """`cdb-serial`: the answer knows the journal at least up to there. `cdb-age`, on a copy: seconds since the master
    was heard. Neither when nothing is known."""
    if knowledge is None:
        return []
    told = [(b"cdb-serial", b"%d" % knowledge.serial)]
    if knowledge.heard is not None:
        told.append((b"cdb-age", b"%d" % max(0, (instants.now() - knowledge.heard).total_seconds())))
    return told
