"""Carries TCP connections to a server and counts what passes in either direction."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit


class CountingRelay:
    """Listens on a free port of 127.0.0.1, as an asynchronous context manager.

    Counted is what TCP carries, without its own and IP's headers.

    Attributes:
        sent_bytes: from callers to the server, since `reset`.
        received_bytes: from the server to callers.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme, self._target = parts.scheme, (parts.hostname, parts.port)
        self._tasks: set[asyncio.Task[None]] = set()
        self.reset()

    @property
    def url(self) -> str:
        """Where it listens, with the server's scheme."""
        return f"{self._scheme}://127.0.0.1:{self._port}"

    def reset(self) -> None:
        self.sent_bytes = self.received_bytes = 0

    async def __aenter__(self) -> CountingRelay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._pump(reader, server_writer, True), self._pump(server_reader, writer, False))
        finally:
            for each in (writer, server_writer):
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if to_server:
                    self.sent_bytes += len(data)
                else:
                    self.received_bytes += len(data)
                writer.write(data)
                await writer.drain()
        # The other direction ends by itself once this one is told; without it neither would.
        with contextlib.suppress(OSError, RuntimeError):
            if writer.can_write_eof():
                writer.write_eof()
