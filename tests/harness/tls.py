"""TLS in front of Valkey: the tests' binary is built without it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping

from tests.harness.certificates import Certificates


class TlsFront:
    """Terminates TLS in front of a plain port of 127.0.0.1.

    Replaces the ports in `renamed` in replies. Old and new must have the same length.
    """

    def __init__(self, port: int, context: ssl.SSLContext, renamed: Mapping[int, int] | None = None) -> None:
        self._port = port
        self._context = context
        self._renamed = renamed or {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        from_valkey, to_valkey = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_forward(reader, to_valkey, {}))
                both.create_task(_forward(from_valkey, writer, self._renamed))
        except* (OSError, EOFError):
            pass
        finally:
            for each in (writer, to_valkey):
                each.transport.abort()


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, renamed: Mapping[int, int]
) -> None:
    while data := await reader.read(65_536):
        for old, new in renamed.items():
            data = data.replace(str(old).encode(), str(new).encode())
        writer.write(data)
        await writer.drain()
    raise EOFError


@contextlib.asynccontextmanager
async def tls_fronts(
    certificates: Certificates, *ports: int, name: str = "server", renamed: Mapping[int, int] | None = None
) -> AsyncIterator[list[TlsFront]]:
    """A front for each port, with the certificate of this name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.pem(name), certificates.key(name))
    fronts = [TlsFront(port, context, renamed) for port in ports]
    try:
        for front in fronts:
            await front.start()
        yield fronts
    finally:
        for front in fronts:
            await front.close()
