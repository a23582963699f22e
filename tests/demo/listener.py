"""Receives with the stock websockets client and its default limits, and tears its own socket off once."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.demo.readings import text_in
from tests.demo.stack import StackFailed
from tests.demo.tally import Tally
from tests.harness.api import ApiKey

_RECONNECT_LIMIT_S = 60
_RETRY_S = 0.2


@dataclass(slots=True)
class Listener:
    """`arrived` is called after every frame."""

    url: str
    key: ApiKey
    tally: Tally
    arrived: Callable[[], None]
    sockets: int = 0
    last_arrival_s: float = 0.0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    _gone_since_s: float | None = None

    async def listen(self, *, tear_after: int | None = None) -> None:
        """Receives over one socket after the other, for ever.

        With `tear_after`, returns when that many readings had arrived and the socket was torn off.
        """
        url = self.url.replace("http", "ws", 1) + "/v2/notification/websocket-connect"
        headers = {"Authorization": f"Bearer {self.key.secret}"}
        give_up_s = perf_counter() + _RECONNECT_LIMIT_S
        while True:
            try:
                async with connect(url, additional_headers=headers, proxy=None) as socket:
                    self._note_back()
                    await self._read(socket, tear_after=tear_after)
            except ConnectionClosed:
                give_up_s = perf_counter() + _RECONNECT_LIMIT_S
                if tear_after is not None and self.tally.received >= tear_after:
                    return
                self._gone_since_s = self._gone_since_s or perf_counter()
                await asyncio.sleep(_RETRY_S)
            except (OSError, InvalidHandshake) as fault:
                if perf_counter() > give_up_s:
                    raise StackFailed(f"no socket for {_RECONNECT_LIMIT_S} s: {fault}") from None
                await asyncio.sleep(_RETRY_S)

    def _note_back(self) -> None:
        self.sockets += 1
        self.opened.set()
        if self._gone_since_s is not None:
            self.tally.note_away(self._gone_since_s, perf_counter())
            self._gone_since_s = None

    async def _read(self, socket: ClientConnection, *, tear_after: int | None) -> None:
        # After the abort, recv() first hands out what the library had read before: frames that it may have
        # confirmed to the server already, which therefore nobody would send again.
        while True:
            frame = json.loads(await socket.recv())
            self.last_arrival_s = perf_counter()
            for item in frame["notifications"]:
                self.tally.note_received(item["ep"], text_in(item), at_s=self.last_arrival_s)
            self.arrived()
            if tear_after is not None and self.tally.received >= tear_after and not self._gone_since_s:
                self._gone_since_s = perf_counter()
                # No close frame, no ping: what a crash or a lost network looks like.
                socket.transport.abort()
