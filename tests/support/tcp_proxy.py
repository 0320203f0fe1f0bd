"""A TCP proxy that makes a network bad: delays, cuts, swallows. One thread, 127.0.0.1 only."""

import asyncio
import random
import threading
from types import TracebackType
from typing import Self


class TcpProxy:
    """Passes ``port`` on to ``target_port``. Use it as a context manager; change it at any time from any thread."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self._target_port = target_port
        self._delay_s = (0.0, 0.0)
        self._swallows = False
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def delay(self, least_s: float, most_s: float) -> None:
        """Hold each piece back for a random time, in both directions; order is kept."""
        self._delay_s = (least_s, most_s)

    def swallow(self) -> None:
        """Be a black hole: connections stand, nothing arrives."""
        self._swallows = True

    def refuse(self) -> None:
        """Cut every connection and each new one at once."""
        self._refuses = True
        self.cut()

    def cut(self) -> None:
        """Reset every connection there is."""
        self._loop.call_soon_threadsafe(self._cut)

    def heal(self) -> None:
        """Pass on again. What was swallowed is lost, so connections that missed something are cut."""
        self._delay_s = (0.0, 0.0)
        if self._swallows:
            self.cut()
        self._swallows = self._refuses = False

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, ex: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        for pair in ((reader, there[1]), (there[0], writer)):
            self._writers.add(pair[1])
            task = asyncio.ensure_future(self._pump(*pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                if self._delay_s[1]:
                    await asyncio.sleep(random.uniform(*self._delay_s))
                if not self._swallows:
                    writer.write(piece)
                    await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
