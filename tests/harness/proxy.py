"""A proxy to Valkey that holds back requests from a given text on, so that one stops half way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

from tests.harness.processes import Service
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


class Proxy:
    """Forwards to a port of 127.0.0.1. Replies are never held back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._text = b""
        self._go = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self.holds = False
        self._held: asyncio.StreamWriter | None = None
        self.has_replied = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def hold_from(self, text: bytes) -> None:
        """Holds back the first occurrence of the text, and everything after it."""
        self._text = text
        self._go.clear()

    def hold_next(self, text: bytes) -> None:
        """Forwards what is held, up to the next occurrence of this text in what is sent afterwards."""
        self._text, self.holds = text, False
        # Wakes the one that waits now.
        self._go.set()
        self._go.clear()

    async def until_it_holds(self) -> None:
        await wait_until(lambda: self.holds, what="the text to be sent")

    def let_go(self) -> None:
        """Forwards what is held, and holds nothing more."""
        self._text, self.holds = b"", False
        self._go.set()

    async def release(self) -> None:
        """Forwards what is held, and waits until Valkey has replied to it."""
        self.let_go()
        await wait_until(lambda: self.has_replied, what="a reply to what was held")

    def hang_up(self) -> None:
        """Drops all connections with what is held. New connections are served."""
        for writer in self._writers:
            writer.transport.abort()
        self._text, self.holds = b"", False

    async def close(self) -> None:
        self.hang_up()
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_valkey, to_valkey = await asyncio.open_connection("127.0.0.1", self._port)
        ours = {writer, to_valkey}
        self._writers |= ours
        sending = asyncio.create_task(self._send(reader, to_valkey))
        # Valkey closes the connection when the other side has, and when it has replied.
        await self._forward_replies(from_valkey, writer, to_valkey)
        sending.cancel()
        for each in ours:
            each.transport.abort()
        self._writers -= ours

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                at = (tail + data).find(self._text) if self._text else -1
                if at >= 0:
                    # A text that began in the previous piece is cut in the middle, which is as good.
                    cut = max(0, at - len(tail))
                    writer.write(data[:cut])
                    self.holds, self._held, self.has_replied = True, writer, False
                    await self._go.wait()
                    data = data[cut:]
                writer.write(data)
                await writer.drain()
                # What was sent before there was a text is not searched for it.
                tail = data[-len(self._text) :] if self._text else b""
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _forward_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_valkey: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                if to_valkey is self._held and not self.holds:
                    self.has_replied = True
                await writer.drain()


@contextlib.asynccontextmanager
async def gateway_behind_proxy(stack: Stack) -> AsyncIterator[tuple[Service, Proxy]]:
    """Another gateway that reaches the stack's Valkey (which must be on TCP) through a proxy."""
    async with _behind_proxy(stack, partial(stack.new_gateway, "gateway-behind-proxy")) as found:
        yield found


@contextlib.asynccontextmanager
async def dispatcher_behind_proxy(stack: Stack) -> AsyncIterator[tuple[Service, Proxy]]:
    """Another dispatcher that reaches the stack's Valkey (which must be on TCP) through a proxy."""
    async with _behind_proxy(stack, partial(stack.new_dispatcher, "dispatcher-behind-proxy")) as found:
        yield found


@contextlib.asynccontextmanager
async def _behind_proxy(stack: Stack, new: Callable[..., Service]) -> AsyncIterator[tuple[Service, Proxy]]:
    proxy = Proxy(stack.valkey.port)
    await proxy.start()
    service = new(REDIS_URL=proxy.url)
    try:
        service.start()
        await wait_until(lambda: service.get("/readyz") == 200, within_s=60, what=lambda: service.tail)
        yield service, proxy
    finally:
        service.close()
        await proxy.close()
