"""A connection to a server with one hot route, and what it is asked."""

import asyncio
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from shared.runtime.http.hot_routes import HotRequest
from tests.runtime.echo import echo

BODY = b"0123456789"
HOT = b"POST /hot HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\nx-last: b\r\n\r\n"
OTHER = HOT.replace(b"/hot", b"/other")


@dataclass
class Route:
    """A hot route, which responds with `hot` and the body, at once or when the test says so.

    And the application, which responds with `app` and the body.
    """

    declines: bool = False
    waits: bool = False
    requests: list[HotRequest] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    app_began: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def __call__(self, request: HotRequest) -> bool:
        if self.declines:
            return False
        self.requests.append(request)
        self.arrived.release()
        if not self.waits:
            self.respond(request)
        return True

    @staticmethod
    def respond(request: HotRequest) -> None:
        request.respond(200, b"content-type: text/plain\r\n", b"hot " + request.body)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.app_began.release()
        await echo(receive, send, before=b"app ")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def response(self) -> bytes:
        """The body of the next response."""
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        [length] = [
            int(line.split(b":")[1])
            for line in self.head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        ]
        return await self.reader.readexactly(length)
