"""A way to a real server that counts what is asked of it and what it gives."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress


class CountingProxy:
    """Passes everything on; `asked` counts the requests by operation, `given` the bytes of the answers."""

    def __init__(self, port: int) -> None:
        """The door to a port of this machine; its own is `port`."""
        self.asked: Counter[str] = Counter()
        self.given = 0
        self._to = port
        self._writers: list[asyncio.StreamWriter] = []
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def __enter__(self) -> "CountingProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._enter, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._end.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        # The event loop closes what is aborted in its next turn.
        await asyncio.sleep(0)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            inside, outside = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        self._writers.append(outside)
        await asyncio.gather(self._in(reader, outside), self._out(inside, writer))

    async def _in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def count(data: bytes) -> None:
            # A request's headers come in one piece from a client on this machine.
            self.asked.update(name.decode() for name in re.findall(rb"SOAPAction: \"[^#]*#(\w+)\"", data))

        await _pass(reader, writer, count)

    async def _out(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def count(data: bytes) -> None:
            self.given += len(data)

        await _pass(reader, writer, count)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[bytes], None]) -> None:
    # One side went away: the other is told.
    with suppress(OSError):
        while data := await reader.read(2**16):
            count(data)
            writer.write(data)
            await writer.drain()
    writer.close()
