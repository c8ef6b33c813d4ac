"""A way to a real server that counts what is asked of it and what it gives."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress


class Door:
    """Passes everything on; `asked` counts the requests by operation, `given` the bytes of the answers."""

    def __init__(self, port: int) -> None:
        """The door to a port of this machine; its own is `port`."""
        self.asked: Counter[str] = Counter()
        self.given = 0
        self._to = port
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._enter, "127.0.0.1", 0, backlog=4096))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inside, outside = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
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
