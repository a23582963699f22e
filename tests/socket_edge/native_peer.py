"""A native client of an edge in this process: it lists its frames, and sends requests as texts."""

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message

from services.socket_edge.credential_watcher import Credential
from services.socket_edge.edge import Edge
from services.socket_edge.native.door import HANDLERS
from services.socket_edge.native.socket import NativeSocket
from services.socket_edge.token_watcher import TokenCredential
from shared.clock import now_ms
from shared.model.api_keys import ApiKey
from shared.model.grants import LONGEST_S, Grant
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import scope_of


def grant_of(account_id: str, *channels: str) -> Grant:
    """A token that may open these channels."""
    return Grant(account_id, "tk_1", "user-1", (), (), channels, until_ms=now_ms() + LONGEST_S * 1000)


@dataclass
class Peer:
    """One client, and its socket."""

    edge: Edge
    caller: ApiKey | Grant
    frames: list[dict[str, Any]] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    writes: int = 0
    buffered_bytes: int = 0
    closed: Message | None = None

    def __post_init__(self) -> None:
        self._refs = itertools.count(1)
        scope = scope_of(self._read)
        control = scope["extensions"]["websocket.control"]
        control["buffered_bytes"] = lambda: self.buffered_bytes
        control["hear_room"] = self._hear_room
        self.socket = NativeSocket(self.edge, HANDLERS, address="192.0.2.1", scope=scope, send=self._receive)
        self.edge.hold(self.socket)
        self.become(self.caller)

    def become(self, caller: ApiKey | Grant) -> None:
        self.caller = caller
        credential: Credential | TokenCredential
        if isinstance(caller, Grant):
            credential = TokenCredential.of(caller, changes=self.edge.tokens.changes)
        else:
            changes = self.edge.credentials.changes
            credential = Credential(caller.id, caller.account_id, "", changes=changes)
        self.socket.become(caller, credential)

    async def _receive(self, message: Message) -> None:
        self.closed = self.closed or message

    def _read(self, texts: Sequence[bytes], ping: bytes | None) -> None:
        self.writes += 1
        self.frames += map(json.loads, texts)
        if ping is not None:
            self.pings.append(ping)

    def _hear_room(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room

    def reads(self) -> None:
        """The client reads what was buffered."""
        self.buffered_bytes = 0
        self._on_room()

    # Requests

    async def send(self, **operation: Any) -> int:
        ref = next(self._refs)
        await self.socket.on_message(json.dumps({"ref": ref, **operation}))
        return ref

    async def _answer(self, ref: int) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((frame for frame in self.frames if frame.get("ref") == ref), None)

        await wait_until(found, what=lambda: f"the answer {ref}; {self.frames[-3:]}")
        answer = found()
        assert answer is not None
        return answer

    async def ask(self, **operation: Any) -> Any:
        answer = await self._answer(await self.send(**operation))
        assert "error" not in answer, answer
        [said] = [value for name, value in answer.items() if name != "ref"]
        return said

    async def refused(self, **operation: Any) -> str:
        """The code of the error."""
        answer = await self._answer(await self.send(**operation))
        code: str = answer["error"]["code"]
        return code

    # What came

    @property
    def events(self) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if "event" in frame]

    @property
    def ids(self) -> list[str]:
        """The ids of all events, a * behind those that were sent before."""
        return [frame["event"]["id"] + "*" * frame.get("redelivered", False) for frame in self.events]

    def entry(self, event: int) -> str:
        """The entry of an event."""
        found: str = next(f["entry"] for f in self.events if f["event"]["id"] == str(event))
        return found

    async def got(self, *ids: str | int) -> None:
        """Waits until exactly these events have come, and nothing more is under way."""
        wanted = [str(each) for each in ids]
        await wait_until(lambda: len(self.ids) >= len(wanted), what=lambda: f"{wanted}, not {self.ids}")
        await self.quiet()
        assert self.ids == wanted

    async def quiet(self) -> None:
        """Waits until no delivery loop of the edge runs."""
        for _ in range(3):
            for connection in self.edge.registry.all():
                if connection.loop is not None:
                    await connection.loop.wait_idle()
            await asyncio.sleep(0)

    async def told(self) -> dict[str, Any]:
        """Why a channel ended by itself."""

        def found() -> list[dict[str, Any]]:
            return [frame["closed"] for frame in self.frames if "closed" in frame and "ref" not in frame]

        await wait_until(found, what=lambda: f"closed; {self.frames[-3:]}")
        assert len(found()) == 1
        return found()[0]

    async def leaves(self) -> None:
        """The client hangs up."""
        if self.socket.is_held:
            await self.edge.drop(self.socket)
