"""A native socket that is overseen: what was read, opened and published for it, and what it was answered."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import pytest

from services.socket_edge.claims import Claim
from services.socket_edge.edge import Edge
from services.socket_edge.native import channels as native_channels
from services.socket_edge.streams.topic_reader import TopicReader
from shared.clock import now_ms
from shared.model.account_channels import shown_id
from shared.model.channels import CloseReason
from shared.model.errors import NoLongerOwner
from shared.model.grants import LONGEST_S, Grant
from shared.model.streams import Keep, Mark, Start, StreamRule
from shared.publish.request import Posted
from shared.wire.native.frames import Refused, check, parse_frame
from shared.wire.native.members import Malformed
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import edge_of
from tests.socket_edge.native_client import Client
from tests.socket_edge.stream_peers import started
from tests.store.native import create
from tests.store.stores import Stores

READ, PUBLISH = ("news.#", "orders.*"), ("chat.17", "news.*.mine")
NAMES = ("kitchen", "cellar")
"""Two channels, of which the token names the first. Frames name their ids in braces."""
# Most requests are answered within so many turns of the event loop; a wait for the others polls.
_TURNS = 200


class Overseen:
    """An edge whose token is overseen: what was read, claimed and published for it."""

    def __init__(self, stores: Stores, ids: dict[str, str]) -> None:
        self.stores = stores
        self.ids = ids
        self.grant = Grant(
            *(stores.account_id, "tk_1", "user-1", READ, PUBLISH, NAMES[:1]),
            until_ms=now_ms() + LONGEST_S * 1000,
        )
        self.read: list[str] = []
        self.claimed: list[str] = []
        self.published: list[Posted] = []
        self.edge: Edge = edge_of(stores)
        self.edge.topics = cast(Any, self)
        self.edge.publishing = cast(Any, self)
        self.publisher = self

    @classmethod
    async def of(cls, stores: Stores, patch: pytest.MonkeyPatch) -> Self:
        """With the two channels, and a rule for every topic."""
        await stores.streams.put_rules(stores.account_id, [StreamRule(["#"], Keep(10, 1000))])
        overseen = cls(stores, {name: await create(stores, name=name) for name in NAMES})
        patch.setattr(native_channels, "claim_channel", overseen.claim)
        return overseen

    async def play(self, frames: Sequence[bytes]) -> None:
        """Sends the frames on a new socket, and checks what became of them."""
        sent = list(map(self._with_ids, frames))
        client = await Client(self.edge).open(self.grant)
        for frame in sent:
            client.send_text(frame)

        def is_quiet() -> bool:
            socket = client.socket
            return client.closed is not None or (socket._unanswered == 0 and socket._closing is None)

        for _ in range(_TURNS):
            if is_quiet():
                break
            await asyncio.sleep(0)
        await wait_until(is_quiet, what=lambda: (frames, client.frames[-3:]))
        self.check_rights()
        check_answers(client, sent)
        await client.leave()

    def _with_ids(self, frame: bytes) -> bytes:
        for name, id in self.ids.items():
            frame = frame.replace(b"{%b}" % name.encode(), shown_id(id).encode())
        return frame

    def check_rights(self) -> None:
        grant = self.grant
        assert all(map(grant.may_read, self.read)), self.read
        assert set(self.claimed) <= {self.ids[NAMES[0]]}, self.claimed
        for posted in self.published:
            assert posted.account_id == grant.account_id
            for event in posted.events:
                assert grant.may_publish(event.topic), event
                assert (event.to, event.customer) == (None, None), event

    def join(self, _: str, topic: str, reader: TopicReader, *, since: Mark | Start) -> Any:
        self.read.append(topic)
        asyncio.get_running_loop().call_soon(lambda: reader.on_start(started(topic)))
        return self

    def leave(self) -> None:
        """A reader leaves."""

    async def claim(self, _: Edge, account_id: str, channel: str, *, is_native: bool) -> Claim:
        assert account_id == self.stores.account_id
        self.claimed.append(channel)
        raise NoLongerOwner(close_reason=CloseReason.PAUSED)

    def begin(self, posted: Posted, on_end: Callable[[Any], None], deadline: object = None) -> None:
        self.published.append(posted)
        asyncio.get_running_loop().call_soon(on_end, [0] * len(posted.events))

    async def publish_once(self, posted: Posted, *_: Any, publish: Callable[..., Any]) -> tuple[Any, bool]:
        return await publish(None), False


def check_answers(client: Client, frames: list[bytes]) -> None:
    asked, is_malformed = list[int | None](), False
    for frame in frames:
        try:
            request = parse_frame(frame)
            check(request)
        except Malformed:
            is_malformed = True
            break
        except Refused as refused:
            asked.append(refused.ref)
        else:
            asked.append(request.ref)
    refs = [ref for ref in asked if ref is not None]
    codes = [frame["error"]["code"] for frame in client.frames if "error" in frame]
    assert "internal" not in codes
    if is_malformed:
        assert client.closed is not None
        assert client.closed["code"] == 4000
        # What waited behind others may be unanswered.
        assert not Counter(client.refs) - Counter(refs)
    else:
        assert client.closed is None
        assert Counter(client.refs) == Counter(refs)
