"""A Blackhole client on a stock WebSocket library; separates replies from events."""

import asyncio
import itertools
import json
from typing import Any, Self

import aiohttp

_numbers = itertools.count(1)


class Blackhole:
    """One open socket. `ask` and `event` read frames as they need them."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, http: aiohttp.ClientSession, url: str, **options: Any) -> Self:
        return cls(await http.ws_connect(url, **options))

    async def ask(self, action: str, *, token: str | None = None, **data: Any) -> dict[str, Any]:
        """Sends a request; returns its reply and keeps events that arrive before it."""
        message: dict[str, Any] = {"action": action, "request_id": f"r-{next(_numbers)}"}
        if token is not None:
            message["auth_token"] = token
        if data:
            message["data"] = data
        await self.socket.send_str(json.dumps(message))
        while (frame := await self._frame())["action"] != "reply":
            self.events.append(frame)
        assert frame["request_id"] == message["request_id"]
        return frame

    async def subscribe(self, *bindings: str, **data: Any) -> dict[str, Any]:
        """Subscribes; returns the data of the successful reply."""
        given = {"binding": bindings[0]} if len(bindings) == 1 else {"bindings": list(bindings)}
        reply = await self.ask("subscribe", **given, **data)
        assert reply["status"] == "success", reply
        return dict(reply["data"])

    async def event(self) -> dict[str, Any]:
        """The next event."""
        if self.events:
            return self.events.pop(0)
        frame = await self._frame()
        assert frame["action"] == "event", frame
        return frame

    async def closed(self) -> int:
        """Waits for the close; returns its code."""
        async with asyncio.timeout(30):
            while (message := await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                continue
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return int(message.data)

    async def close(self) -> None:
        await self.socket.close()

    async def _frame(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            frame: dict[str, Any] = json.loads(await self.socket.receive_str())
        return frame
