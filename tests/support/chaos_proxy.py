"""A TCP proxy that resets, delays and cuts the connections it carries; also one that ends TLS before a server."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Mischief:
    """How likely each of the things is that go wrong, for each piece of data carried (up to 64 KiB)."""

    reset: float = 0.0
    cut: float = 0.0
    delay: float = 0.0
    longest_delay_seconds: float = 0.05
    resets_forgotten: bool = False  # as some balancers answer to a flow that they have forgotten
    source: random.Random = field(default_factory=lambda: random.Random(1))


class ChaosProxy:
    """Carries connections from a port of its own to the server of `url`, in a thread, until it is left."""

    def __init__(self, url: str, mischief: Mischief | None = None, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._scheme = parts.scheme + ("s" if tls else "")
        self._tls = tls
        self.mischief = mischief or Mischief()
        self.resets = 0
        self.cuts = 0
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._port}"

    def reset_all(self) -> None:
        """Resets every connection that is open now."""
        asyncio.run_coroutine_threadsafe(self._reset_all(), self._loop).result()

    def forget_all(self) -> None:
        """Carries nothing more over the connections that are open now, and does not say so; new ones work."""
        self._forgotten |= self._open

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        start = asyncio.start_server(self._carry, "127.0.0.1", 0, ssl=self._tls)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        both = [writer, server_writer]
        self._open.update(both)
        try:
            await asyncio.gather(self._pump(reader, server_writer, both), self._pump(server_reader, writer, both))
        finally:
            for each in both:
                self._open.discard(each)
                each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: list[asyncio.StreamWriter]
    ) -> None:
        mischief = self.mischief
        try:
            while data := await reader.read(65_536):
                if writer in self._forgotten:
                    if mischief.resets_forgotten:
                        for each in both:
                            _reset(each)
                        return
                    await asyncio.Event().wait()  # not even read
                if mischief.source.random() < mischief.delay:
                    await asyncio.sleep(mischief.source.uniform(0, mischief.longest_delay_seconds))
                if mischief.source.random() < mischief.reset:
                    self.resets += 1
                    for each in both:
                        _reset(each)
                    return
                if mischief.source.random() < mischief.cut:
                    self.cuts += 1
                    writer.write(data[: len(data) // 2])
                    for each in both:
                        each.close()
                    return
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            for each in both:
                _reset(each)
        finally:
            writer.close()

    async def _reset_all(self) -> None:
        for writer in list(self._open):
            self.resets += 1
            _reset(writer)

    async def _end(self) -> None:
        self._server.close()
        await self._reset_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What was closed is closed by the loop's next turns; the server would wait for a connection left open.
        await asyncio.sleep(0.05)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST in place of FIN."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            return
    writer.transport.abort()
