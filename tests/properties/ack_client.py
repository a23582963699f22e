"""The client of a native socket: it acknowledges by frame, gives back, or is silent beyond its time-out.

It judges what it is sent: something comes again only after a nack or a time-out, in order, and before
anything newer.
"""

import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from services.socket_edge.handshakes import serve_socket
from services.socket_edge.native.door import open_native_socket
from shared.model.account_channels import shown_id
from tests.harness.written import texts_in
from tests.properties.actors import CLIENT, Client, GatedEdge
from tests.properties.world import World

ACK_TIMEOUT_S = 10.0
IN_FLIGHT = 3
_EARLY_S = 0.001
# What an edge may answer to an open, or to an ack that came too late.
_EXPECTED = ("not_found", "unavailable", "unauthenticated")


class FrameClient(Client):
    """A native socket with one channel, that of its API key. `reader.received` is what it has in hand."""

    def __init__(self, world: World, secret: str, key_id: str) -> None:
        super().__init__(world, secret)
        self._channel = shown_id(key_id)
        self._entries: dict[int, str] = {}
        # What it had in hand when its time was over, and has not been sent again.
        self._overdue: list[int] = []
        # The first number that it has given back, and until when it has to wait.
        self._held: tuple[int, float] | None = None
        self._progress_s = 0.0
        self._has_lost = False
        self._hear: Callable[[bytes, bool], bool]
        self._control["hear_messages"] = self._register
        self._control["write_encoded"] = lambda frames: self._read(texts_in(frames), None)
        self._control["hold_messages"] = lambda _: None

    async def run(self, edge: GatedEdge) -> None:
        CLIENT.set(self)
        self._context = contextvars.copy_context()
        scope = {
            "type": "websocket",
            "query_string": b"",
            "client": ("192.0.2.1", 1),
            "headers": [(b"authorization", b"Bearer " + self._secret.encode())],
            "subprotocols": ["notify.v1"],
            "extensions": {"websocket.control": self._control},
        }
        try:
            await serve_socket(open_native_socket, edge, scope, self._receive, self._send)
        finally:
            self.open = False

    def _register(self, hear: Callable[[bytes, bool], bool], _: int) -> None:
        self._hear = hear
        self._soon(self._open)

    def _open(self) -> None:
        # It may have left during the handshake.
        if not self.closing:
            self._request(ref=1, open={"channel": self._channel, **_OPTIONS})

    def _soon(self, call: Callable[..., None], **said: Any) -> None:
        self._world.loop.call_soon(lambda: call(**said), context=self._context)

    def _request(self, **said: Any) -> None:
        self._hear(orjson.dumps(said), True)

    # What it has

    @property
    def in_hand(self) -> list[int]:
        """What it was sent, and has neither acknowledged nor given back."""
        reader = self.reader
        return [] if reader is None or self._has_lost else reader.received[reader.acked_until :]

    @property
    def _in_flight(self) -> list[int]:
        return [number for number in self.in_hand if number not in self._overdue]

    @property
    def has_open_ping(self) -> bool:
        """It may be asked for an ack, or will get what it has given back."""
        self._look_at_the_time()
        return bool(self.in_hand or self._held)

    @property
    def is_waiting(self) -> bool:  # type: ignore[override]
        """Its time is over, and not everything was sent again."""
        self._look_at_the_time()
        return bool(self._overdue)

    @property
    def waits_s(self) -> float:  # type: ignore[override]
        return 0.0 if self._held is None else max(0.0, self._held[1] - self._world.loop.time())

    def _look_at_the_time(self) -> None:
        now_s = self._world.loop.time()
        if self._held is not None and now_s >= self._held[1] - _EARLY_S:
            self._held = None
        if self._in_flight and now_s - self._progress_s >= ACK_TIMEOUT_S - _EARLY_S:
            self._overdue = self.in_hand

    # What it does

    def pong(self) -> None:
        """Acknowledges everything."""
        self.ack(len(self.in_hand))

    def ack(self, count: int) -> None:
        """Acknowledges the first of what it has in hand."""
        if count:
            self._soon(self._ack, number=self.in_hand[count - 1])

    def _ack(self, number: int) -> None:
        if self._has_lost or self.reader is None:
            return
        self._look_at_the_time()
        self.reader.acked_until = self.reader.received.index(number) + 1
        self._overdue = [each for each in self._overdue if each > number]
        self._progress_s = self._world.loop.time()
        self._request(ack={"channel": self._channel, "entry": self._entries[number]})

    def nack(self, which: int, delay_s: float) -> None:
        """Gives back from one of those on that it has in hand."""
        self._soon(self._nack, number=self.in_hand[which % len(self.in_hand)], delay_s=delay_s)

    def _nack(self, number: int, delay_s: float) -> None:
        if self._has_lost or self.reader is None:
            return
        self._look_at_the_time()
        received, now_s = self.reader.received, self._world.loop.time()
        del received[received.index(number) :]
        # What lies before it is in flight, also if it was overdue.
        self._overdue = []
        self._held = (number, now_s + delay_s) if delay_s else None
        self._progress_s = now_s
        self._request(nack={"channel": self._channel, "entry": self._entries[number], "delay_s": delay_s})

    # What it is sent

    def _read(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        for text in texts:
            frame = orjson.loads(text)
            if "event" in frame:
                self._on_event(int(frame["event"]["id"]), frame["entry"], frame.get("redelivered", False))
            elif "closed" in frame or "error" in frame:
                code = frame.get("error", {}).get("code", "not_found")
                self._check(code in _EXPECTED, f"a native client was told {frame}")
                self._has_lost = True
                self.close()

    def _on_event(self, number: int, entry: str, is_again: bool) -> None:
        assert self.reader is not None
        self._look_at_the_time()
        self._check(is_again == (number in self._entries), f"{number} was sent with redelivered={is_again}")
        if self._held is not None:
            self._check(number < self._held[0], f"{number} was sent before its delay was over")
        if not self._in_flight:
            self._progress_s = self._world.loop.time()
        if self._overdue:
            self._check(number == self._overdue[0], f"{number} was sent before {self._overdue[0]} again")
            self._overdue = [each for each in self._overdue if each > number]
        else:
            self._check(number not in self.reader.received, f"{number} was sent twice")
            self._world.model.record_send(self.reader, number)
        self._entries[number] = entry
        self._check(len(self._in_flight) <= IN_FLIGHT, "more is in flight than was asked for")

    def _check(self, condition: bool, violation: str) -> None:
        self._world.model.check(condition, violation)


_OPTIONS = {"ack_timeout_s": ACK_TIMEOUT_S, "in_flight": IN_FLIGHT}
