"""Receives with the stock `websockets` client and its default limits; cuts its own socket once."""

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
    _disconnected_s: float | None = None

    async def listen(self, *, cut_after: int | None = None) -> None:
        """Receives and reconnects without end.

        With `cut_after`, cuts the socket after that many readings and returns.
        """
        url = self.url.replace("http", "ws", 1) + "/v2/notification/websocket-connect"
        headers = {"Authorization": f"Bearer {self.key.secret}"}
        give_up_s = perf_counter() + _RECONNECT_LIMIT_S
        while True:
            try:
                async with connect(url, additional_headers=headers, proxy=None) as socket:
                    self._note_connected()
                    await self._read(socket, cut_after=cut_after)
            except ConnectionClosed:
                give_up_s = perf_counter() + _RECONNECT_LIMIT_S
                if cut_after is not None and self.tally.received >= cut_after:
                    return
                self._disconnected_s = self._disconnected_s or perf_counter()
                await asyncio.sleep(_RETRY_S)
            except (OSError, InvalidHandshake) as error:
                if perf_counter() > give_up_s:
                    raise StackFailed(f"no socket for {_RECONNECT_LIMIT_S} s: {error}") from None
                await asyncio.sleep(_RETRY_S)

    def _note_connected(self) -> None:
        self.sockets += 1
        self.opened.set()
        if self._disconnected_s is not None:
            self.tally.note_disconnected(self._disconnected_s, perf_counter())
            self._disconnected_s = None

    async def _read(self, socket: ClientConnection, *, cut_after: int | None) -> None:
        # After the abort, recv() still returns frames that the library had read before. Their pings may have
        # pongs already: the server would not send them again.
        while True:
            frame = json.loads(await socket.recv())
            self.last_arrival_s = perf_counter()
            for item in frame["notifications"]:
                self.tally.note_received(item["ep"], text_in(item), at_s=self.last_arrival_s)
            self.arrived()
            if cut_after is not None and self.tally.received >= cut_after and not self._disconnected_s:
                self._disconnected_s = perf_counter()
                # Like a crash or a lost network: no close frame.
                socket.transport.abort()
