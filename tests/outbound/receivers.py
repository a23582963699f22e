"""Webhook receivers, well-behaved and not: each is a small TCP server that a test scripts."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """What has reached it so far. `ended` counts connections whose handler has ended."""

    port: int = 0
    connections: int = 0
    ended: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def url(self, host: str = "127.0.0.1", *, scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/callback"

    def header(self, name: str, request: int = -1) -> list[str]:
        """The values of a header of one request."""
        pairs = (line.split(": ", 1) for line in self.heads[request].split("\r\n")[1:] if line)
        return [value for key, value in pairs if key.lower() == name.lower()]


@contextlib.asynccontextmanager
async def receiving(
    respond: Respond, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    """Reads requests one after the other, and responds to each with `respond`."""
    receiver = Receiver()
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        receiver.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                receiver.heads.append(head)
                receiver.bodies.append(b"")
                length = int((receiver.header("content-length") or ["0"])[0])
                receiver.bodies[-1] = await reader.readexactly(length)
                await respond(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            receiver.ended += 1
            writer.transport.abort()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.get_running_loop().create_task(serve(reader, writer))
        handlers.add(handler)
        handler.add_done_callback(handlers.discard)

    server = await asyncio.start_server(begin, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        if handlers:
            await asyncio.wait(handlers)


def saying(text: str | bytes, *, close: bool = False) -> Respond:
    """Responds to every request with exactly these bytes."""
    data = text.encode() if isinstance(text, str) else text

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()
            raise ConnectionError

    return respond


def status(code: int, *, headers: str = "", body: str = "") -> Respond:
    return saying(f"HTTP/1.1 {code} Word\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}")


async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Sends nothing until the caller is gone."""
    await reader.read()


async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    raise ConnectionError
