"""A forward proxy of the tests' own: it opens tunnels, and remembers what it was asked for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field


@dataclass
class ForwardProxy:
    """`leads` maps an authority that it is asked for to where it connects instead, as its own names would."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tunnels: int = 0
    leads: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    answer: bytes = b""
    """What it responds to every request in place of a tunnel."""
    chatter: bytes = b""
    """What it sends behind the head of its response."""

    def url(self, *, credentials: str = "") -> str:
        return f"http://{credentials + '@' if credentials else ''}127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def forward_proxy(
    *, answer: bytes = b"", chatter: bytes = b"", leads: Mapping[str, tuple[str, int]] | None = None
) -> AsyncIterator[ForwardProxy]:
    """Listens on loopback, for CONNECT alone."""
    proxy = ForwardProxy(answer=answer, chatter=chatter, leads=leads or {})
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _serve(proxy, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def _serve(proxy: ForwardProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, authority, _ = request.split(" ")
    proxy.asked.append(f"{method} {authority}")
    proxy.headers.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})
    if proxy.answer or method != "CONNECT":
        writer.write(proxy.answer or b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return
    host, _, port = authority.rpartition(":")
    try:
        there, to = await asyncio.open_connection(*proxy.leads.get(authority, (host.strip("[]"), int(port))))
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return
    proxy.tunnels += 1
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n" + proxy.chatter)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, to))
            both.create_task(_copy(there, writer))
    except* OSError:
        pass
    finally:
        to.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Ends both ways of the tunnel with the first end of one."""
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    raise ConnectionError
