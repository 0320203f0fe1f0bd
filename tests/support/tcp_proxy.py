"""A TCP proxy that delays, cuts and swallows: what a network does to a connection, and stopping a process does not."""

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from scripts.stack.server import free_port

_READ_BYTES: Final = 65_536
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class _Turn:
    """Whose turn it is on a connection: the client's, or the server's, which is to answer."""

    is_answered = True


class TcpProxy:
    """Passes bytes on between ``port`` and ``target_port``, both on 127.0.0.1. Use it as a context manager.

    ``port`` is a free one unless given. ``delay_s`` is what each piece of data is late by, in either direction. While
    ``is_cutting``, every connection is reset in the middle of the next answer.
    """

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.delay_s = 0.0
        self.is_cutting = False
        self.cuts = 0
        """How many answers were cut."""
        self.round_trips = 0
        """How often clients asked, over all connections: data without an answer in between counts once."""
        self._target_port = target_port
        self._listens = threading.Event()
        self._stop = asyncio.Event()
        self._requests_pass = asyncio.Event()
        self._answers_pass = asyncio.Event()
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

    def swallow(self, *, requests: bool = True, answers: bool = True) -> None:
        """Become a black hole: connections are accepted and kept, and no byte, no end and no reset gets through.

        In one direction or both. What was on its way arrives after ``heal``, as what TCP sends again does.
        """
        self._set((self._requests_pass, not requests), (self._answers_pass, not answers))

    def heal(self) -> None:
        """Pass everything on at once."""
        self.delay_s, self.is_cutting = 0.0, False
        self._set((self._requests_pass, True), (self._answers_pass, True))

    def _set(self, *choices: tuple[asyncio.Event, bool]) -> None:
        assert self._loop is not None, "not started"
        done = threading.Event()

        def choose() -> None:
            for event, is_set in choices:
                (event.set if is_set else event.clear)()
            done.set()

        self._loop.call_soon_threadsafe(choose)
        assert done.wait(10), "the proxy is stuck"

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests_pass.set()
        self._answers_pass.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._listens.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            await self._requests_pass.wait()
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except (OSError, asyncio.CancelledError):
            to_client.transport.abort()
            return
        turn = _Turn()
        try:
            pumps = [self._pump(client, to_server, turn), self._pump(server, to_client, turn, is_answer=True)]
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
                # Reset, not closed in order. The other side may have closed it already.
                with suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER
                    )
                writer.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        turn: _Turn,
        *,
        is_answer: bool = False,
    ) -> None:
        may_pass = self._answers_pass if is_answer else self._requests_pass
        try:
            while data := await reader.read(_READ_BYTES):
                self.round_trips += turn.is_answered and not is_answer
                turn.is_answered = is_answer
                if self.delay_s > 0:
                    await asyncio.sleep(self.delay_s)
                await may_pass.wait()
                is_cut = is_answer and self.is_cutting
                writer.write(data[: len(data) // 2] if is_cut else data)
                await writer.drain()
                if is_cut:
                    self.cuts += 1
                    # Time to arrive: a reset overtakes what is still on its way.
                    await asyncio.sleep(0.01)
                    return
            # The end does not get through either.
            await may_pass.wait()
        except OSError:
            return
