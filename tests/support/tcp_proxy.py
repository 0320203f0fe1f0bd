"""A TCP proxy that delays and cuts: what a network does to a connection, and stopping a process does not."""

import asyncio
import socket
import struct
import threading
from types import TracebackType
from typing import Final, Self

from scripts.stack.server import free_port

_READ_BYTES: Final = 65_536
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class TcpProxy:
    """Passes bytes on between ``port`` and ``target_port``, both on 127.0.0.1. Use it as a context manager.

    ``delay_s`` is what each piece of data is late by, in either direction. While ``is_cutting``, every connection
    is reset in the middle of the next answer.
    """

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.delay_s = 0.0
        self.is_cutting = False
        self.cuts = 0
        """How many answers were cut."""
        self._target_port = target_port
        self._listens = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name=f"proxy-{self.port}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listens.wait(10), "the proxy does not listen"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, ex: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def heal(self) -> None:
        """Pass everything on at once."""
        self.delay_s, self.is_cutting = 0.0, False

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._listens.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            to_client.transport.abort()
            return
        try:
            pumps = [self._pump(client, to_server), self._pump(server, to_client, is_answer=True)]
            _, others = await asyncio.wait(
                [asyncio.ensure_future(pump) for pump in pumps], return_when=asyncio.FIRST_COMPLETED
            )
            for other in others:
                other.cancel()
        except asyncio.CancelledError:
            # The loop ends, and asyncio would report each connection as a mistake.
            return
        finally:
            for writer in (to_client, to_server):
                # Reset, not closed in order.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        try:
            while data := await reader.read(_READ_BYTES):
                if self.delay_s > 0:
                    await asyncio.sleep(self.delay_s)
                is_cut = is_answer and self.is_cutting
                writer.write(data[: len(data) // 2] if is_cut else data)
                await writer.drain()
                if is_cut:
                    self.cuts += 1
                    # Time to arrive: a reset overtakes what is still on its way.
                    await asyncio.sleep(0.01)
                    return
        except OSError:
            return
