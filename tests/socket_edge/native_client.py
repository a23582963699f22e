"""A client of one native socket, whose connection holds, buffers and closes as the test says."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from starlette.types import Message

from services.socket_edge.edge import Edge
from services.socket_edge.native.door import HANDLERS
from services.socket_edge.native.parts import Handler
from services.socket_edge.native.socket import NativeSocket
from services.socket_edge.session_socket import hold
from services.socket_edge.token_watcher import TokenCredential
from shared.clock import now_ms
from shared.model.grants import LONGEST_S, Grant
from shared.runtime.websocket.control import OnMessage
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import scope_of

Frame = dict[str, Any]


def reader_of(account_id: str, *read: str, subject: str = "user-1", lasts_s: float = LONGEST_S) -> Grant:
    """A token that may read these."""
    return Grant(account_id, "tk_1", subject, read, (), (), until_ms=now_ms() + int(lasts_s * 1000))


class Client:
    """It has been sent the response to its handshake."""

    def __init__(self, edge: Edge, *, address: str = "192.0.2.1", **handlers: Handler) -> None:
        self.edge = edge
        self.frames: list[Frame] = []
        self.written: list[bytes] = []
        self.is_held_back = False
        self.buffered = 0
        self.closed: Message | None = None
        self.was_aborted = False
        self.gone = False
        self.most_bytes = 0
        self._hear: OnMessage
        scope = scope_of(self._read)
        control = scope["extensions"]["websocket.control"]
        control["hear_messages"] = self._hear_messages
        control["hold_messages"] = lambda holds: setattr(self, "is_held_back", holds)
        control["hear_control_frames"] = lambda heard: setattr(self, "on_control_frame", heard)
        control["buffered_bytes"] = lambda: self.buffered
        control["hear_room"] = lambda on_room: setattr(self, "on_room", on_room)
        self._decode = control["write_encoded"]
        control["write_encoded"] = self._write
        self.socket = NativeSocket(
            edge, {**HANDLERS, **handlers}, address=address, scope=scope, send=self._receive
        )

    async def open(self, caller: Grant | None = None) -> "Client":
        """The edge holds it; with a caller it has authenticated."""
        await hold(self.edge, self.socket, is_authenticated=caller is not None)
        if caller is not None:
            self.socket.become(caller, TokenCredential.of(caller, changes=self.edge.tokens.changes))
        self.socket.on_accepted()
        return self

    def _hear_messages(self, on_message: OnMessage, most_bytes: int) -> None:
        self._hear, self.most_bytes = on_message, most_bytes

    async def _receive(self, message: Message) -> None:
        if message["type"] == "websocket.abort":
            self.was_aborted = True
        else:
            self.closed = self.closed or message

    def _read(self, texts: Sequence[bytes], _: bytes | None) -> None:
        if self.gone:
            raise OSError("the client has gone")
        self.frames += map(json.loads, texts)

    def _write(self, frames: bytes) -> None:
        self.written.append(frames)
        self._decode(frames)

    # What it sends

    def send(self, ref: int | None = None, **operation: Any) -> bool:
        """A request; whether it counts for the rate."""
        return self.send_text(json.dumps({**({} if ref is None else {"ref": ref}), **operation}))

    def send_text(self, text: str | bytes, *, is_text: bool = True) -> bool:
        return self._hear(text.encode() if isinstance(text, str) else text, is_text)

    async def ask(self, ref: int, **operation: Any) -> Frame:
        """Its answer."""
        self.send(ref, **operation)
        await wait_until(lambda: self.answers(ref), what=lambda: f"{ref}, not {self.frames[-3:]}")
        [answer] = self.answers(ref)
        return answer

    async def code(self, ref: int, **operation: Any) -> str:
        """The code of the error."""
        answer = await self.ask(ref, **operation)
        return str(answer["error"]["code"])

    # What came

    def answers(self, ref: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("ref") == ref]

    def of(self, kind: str) -> list[Any]:
        return [frame[kind] for frame in self.frames if kind in frame and "ref" not in frame]

    @property
    def refs(self) -> list[int]:
        return [frame["ref"] for frame in self.frames if "ref" in frame]

    async def close_code(self) -> int:
        await wait_until(lambda: self.closed, what=lambda: f"a close, not {self.frames[-3:]}")
        assert self.closed is not None
        return int(self.closed["code"])

    async def leave(self) -> None:
        """The connection ends."""
        if self.socket.is_held:
            await self.edge.drop(self.socket)


async def turns(count: int = 10) -> None:
    """Lets the event loop do what is due."""
    for _ in range(count):
        await asyncio.sleep(0)
