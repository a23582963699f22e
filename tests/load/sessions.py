"""A worker's role: Blackhole and Cognism sockets that stay. Nothing is queued for a session that ended.

So a notification that a socket lacks is *lost* only if it got an earlier and a later one of the same lane, or
is open at the end. What was published around a close is *missed*: docs/protocols/ promise it to no client.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

import orjson

from tests.load.connections import RawSocket, Refused, bearer
from tests.load.latencies import now_us
from tests.load.messages import endpoint_name, read_path
from tests.load.sequences import Sequence, SequenceKey
from tests.load.sockets import Endpoint
from tests.load.staying import Staying

JOIN_PATH = "/api/v1/websocket"
BLACKHOLE_PATH = "/socket"
KAZOO, COGNISM = "kazoo", "cognism"
_POLL_S = 0.05


@dataclass(slots=True)
class SessionCount:
    """What sessions have received of what was published for them."""

    published: int = 0
    received: int = 0
    lost: int = 0
    missed: int = 0
    garbled: int = 0


def topic_of(number: int) -> str:
    """What a Blackhole socket of this channel is bound to; Cognism's match the data, not the topic."""
    return f"call.CHANNEL_CREATE.{endpoint_name(number)}"


class Spans:
    """Counts by *spans*: a channel's time with one open socket."""

    def __init__(self) -> None:
        self._open: dict[int, dict[int, Sequence]] = defaultdict(dict)
        self._received: dict[SequenceKey, int] = defaultdict(int)
        self._lost: dict[SequenceKey, int] = defaultdict(int)

    def take(self, channel: int, lane: int, number: int) -> None:
        sequence = self._open[channel].get(lane)
        if sequence is None:
            sequence = self._open[channel][lane] = Sequence(next=number)
        if sequence.take(number):
            self._received[channel, lane] += 1

    def end(self, channel: int) -> None:
        """The channel's socket is closed: what follows the last number was on its way."""
        for lane, sequence in self._open.pop(channel, {}).items():
            self._lost[channel, lane] += len(sequence.missing)

    def is_complete(self, published: Mapping[SequenceKey, int]) -> bool:
        """Whether every open socket has the last number of its lanes."""
        return all(
            sequence.next >= published.get((channel, lane), 0)
            for channel, lanes in self._open.items()
            for lane, sequence in lanes.items()
        )

    def count(self, published: Mapping[SequenceKey, int]) -> SessionCount:
        """Takes the numbers of accepted events."""
        whole = SessionCount()
        for (channel, lane), accepted in published.items():
            received, lost = self._received[channel, lane], self._lost[channel, lane]
            sequence = self._open.get(channel, {}).get(lane)
            if sequence is not None:
                lost += len(sequence.missing) + max(0, accepted - sequence.next)
            whole.published += accepted
            whole.received += received
            whole.lost += lost
            # A repeated publish may come twice, in two spans.
            whole.missed += max(0, accepted - received - lost)
        return whole


class Sessions(Staying):
    """A share of these sockets. Each is subscribed to events for its own number."""

    def __init__(self) -> None:
        super().__init__()
        self._spans = Spans()
        self._garbled = 0

    async def counted(self, *, published: Mapping[SequenceKey, int], within_s: float) -> SessionCount:
        """Waits for what is still on its way, at most that long."""
        ours = {key: count for key, count in published.items() if key[0] in self._connected}
        give_up_us = now_us() + within_s * 1_000_000
        while not self._spans.is_complete(ours):
            if now_us() > give_up_us:
                break
            await asyncio.sleep(_POLL_S)
        count = self._spans.count(ours)
        count.garbled = self._garbled
        return count

    async def _open(self, endpoint: Endpoint) -> RawSocket:
        ready = asyncio.get_running_loop().create_future()
        take = partial(self._take, endpoint.channel, ready)
        if endpoint.dialect == KAZOO:
            socket = await RawSocket.open(endpoint.edge, BLACKHOLE_PATH, bearer(endpoint.secret), take)
            binding = {"binding": topic_of(endpoint.channel)}
            socket.send_text(orjson.dumps({"action": "subscribe", "data": binding}))
        else:
            path = f"{JOIN_PATH}?pattern={quote(f'ep={endpoint_name(endpoint.channel)}')}"
            headers = {"X-API-AccessToken": endpoint.key, "X-API-SecretKey": endpoint.secret}
            socket = await RawSocket.open(endpoint.edge, path, headers, take)
        try:
            await asyncio.wait({ready, socket.closed}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise ConnectionResetError("closed before the first reply")
            if problem := ready.result():
                raise Refused(f"no subscription: {problem}")
        except BaseException:
            socket.abort()
            self._spans.end(endpoint.channel)
            raise
        return socket

    def _closed(self, endpoint: Endpoint) -> None:
        self._spans.end(endpoint.channel)

    def _take(self, channel: int, ready: "asyncio.Future[str]", frame: bytes) -> None:
        try:
            message = orjson.loads(frame)
            if message.get("action") == "reply" or "session" in message:
                if not ready.done():
                    ready.set_result("" if message.get("status", "success") == "success" else str(message))
                return
            data = message["data"] if message.get("action") == "event" else message
            lane, number, _ = read_path(data["path"])
        except (ValueError, TypeError, KeyError, AttributeError):
            self._garbled += 1
            return
        self._spans.take(channel, lane, number)
