"""Whatever frames a client sends on a native socket, it gets what its token names and nothing else.

Each request is answered exactly once, or the socket is closed for a frame that is none.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.socket_edge import native_channels
from services.socket_edge.claims import Claim
from services.socket_edge.edge import Edge
from services.socket_edge.topic_reader import TopicReader
from shared.clock import now_ms
from shared.model.account_channels import shown_id
from shared.model.channels import CloseReason
from shared.model.errors import NoLongerOwner
from shared.model.grants import LONGEST_S, Grant
from shared.model.streams import Keep, Mark, Start, StreamRule
from shared.publish.request import Posted
from shared.wire.native.frames import OPERATIONS, WITHOUT_REF, Refused, check, parse_frame
from shared.wire.native.members import Malformed
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import edge_of
from tests.socket_edge.native_client import Client
from tests.socket_edge.stream_peers import started
from tests.store.native import create
from tests.store.stores import Stores, fake_backend

READ, PUBLISH = ("news.#", "orders.*"), ("chat.17", "news.*.mine")
TOPICS = ["news", "news.a", "orders.a", "orders.a.b", "chat.17", "news.a.mine", "free", "#", "news.*", ""]
CHANNELS = ["kitchen", "cellar", "{kitchen}", "{cellar}", "attic", ""]
OPENED = ["kitchen"]


class Overseen:
    """An edge whose token is overseen: what was read, claimed and published for it."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.read: list[str] = []
        self.claimed: list[str] = []
        self.published: list[Posted] = []
        self.edge: Edge = edge_of(stores)
        self.edge.topics = cast(Any, self)
        self.edge.publishing = cast(Any, self)
        self.publisher = self

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


# Frames: of every operation, right or wrong, and what is none.

TEXT = st.sampled_from([*TOPICS, *CHANNELS]) | st.text(max_size=5)
ENTRY = st.sampled_from(["1-0", "0-0", "1", "x-y"])
VALUE = st.none() | st.booleans() | st.integers(-1, 4000) | TEXT | ENTRY | st.lists(TEXT, max_size=2)
EVENT = st.fixed_dictionaries(
    {"topic": st.sampled_from(TOPICS) | VALUE, "data": VALUE},
    optional={
        "to": st.sampled_from(CHANNELS) | st.none(),
        "customer": st.sampled_from(["c", ""]) | st.none(),
        "id": TEXT,
        "receipt": st.booleans(),
        "other": VALUE,
    },
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "token": TEXT,
    "topic": st.sampled_from(TOPICS) | VALUE,
    "from": st.sampled_from(["latest", "earliest", "now"]),
    "epoch": st.sampled_from(["", "e1", "é"]),
    "after": ENTRY,
    "channel": st.sampled_from(CHANNELS) | VALUE,
    "entry": ENTRY,
    "events": st.lists(EVENT, max_size=3) | VALUE,
    "idempotency_key": st.sampled_from(["k", "é", ""]),
    "delay_s": st.integers(-1, 3601),
    "ack_timeout_s": st.integers(0, 3601),
    "in_flight": st.integers(0, 1001),
    "other": VALUE,
}
USUAL: dict[str, list[str]] = {
    "auth": ["token"],
    "refresh": ["token"],
    "subscribe": ["topic"],
    "unsubscribe": ["topic"],
    "open": ["channel"],
    "ack": ["channel", "entry"],
    "nack": ["channel", "entry"],
    "close": ["channel"],
    "publish": ["events"],
    "ping": [],
}
REF = st.integers(0, 30)


@st.composite
def requests(draw: st.DrawFn) -> str:
    """Of a known operation, now and then with a field too many or too few."""
    operation = draw(st.sampled_from(sorted(OPERATIONS)))
    names = [*USUAL[operation], *draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=1))]
    if draw(st.integers(0, 9)) == 0:
        del names[:1]
    body = {name: draw(FIELDS[name]) for name in names}
    ref = {} if operation in WITHOUT_REF and draw(st.booleans()) else {"ref": draw(REF)}
    compact = draw(st.booleans())
    return json.dumps({**ref, operation: body}, separators=(",", ":") if compact else None)


MUTATED = requests().flatmap(
    lambda text: st.builds(
        lambda at, new: text[:at] + new + text[at + 1 :],
        st.integers(0, len(text)),
        st.sampled_from(["", "{", "}", '"', ",", "0", "null"]),
    )
)
FRAMES = st.lists(requests() | requests() | requests() | MUTATED | st.text(max_size=10), max_size=12)


@pytest.fixture(scope="module")
def redis_server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@settings(deadline=None)
@given(frames=FRAMES)
async def test_a_client_gets_what_its_token_names_and_each_answer_once(
    redis_server: fakeredis.FakeServer, frames: list[str]
) -> None:
    backend = fake_backend(redis_server)
    async with backend.connect() as redis:
        with pytest.MonkeyPatch.context() as patch:
            await play(Stores(redis, backend), patch, frames)


async def play(stores: Stores, patch: pytest.MonkeyPatch, frames: list[str]) -> Overseen:
    await stores.streams.put_rules(stores.account_id, [StreamRule(["#"], Keep(10, 1000))])
    ids = {name: await create(stores, name=name) for name in ("kitchen", "cellar")}
    overseen = Overseen(stores)
    patch.setattr(native_channels, "claim_channel", overseen.claim)
    grant = Grant(
        *(stores.account_id, "tk_1", "user-1", READ, PUBLISH, OPENED),
        until_ms=now_ms() + LONGEST_S * 1000,
    )
    client = await Client(overseen.edge).open(grant)
    for frame in frames:
        for name, id in ids.items():
            frame = frame.replace(f"{{{name}}}", shown_id(id))
        client.send_text(frame.encode(errors="replace"))
    await wait_until(
        lambda: client.closed or (client.socket._unanswered == 0 and client.socket._closing is None),
        what=lambda: (frames, client.frames[-3:]),
    )
    check_rights(overseen, grant, allowed={ids["kitchen"]})
    check_answers(client, [frame.encode(errors="replace") for frame in frames])
    await client.leave()
    return overseen


def check_rights(overseen: Overseen, grant: Grant, *, allowed: set[str]) -> None:
    assert all(map(grant.may_read, overseen.read)), overseen.read
    assert set(overseen.claimed) <= allowed, overseen.claimed
    for posted in overseen.published:
        assert posted.account_id == grant.account_id
        for event in posted.events:
            assert grant.may_publish(event.topic), event
            assert (event.to, event.customer) == (None, None), event


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


async def test_what_is_allowed_is_seen(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above shows nothing."""
    frames = [
        '{"ref":1,"subscribe":{"topic":"news.a"}}',
        '{"ref":2,"open":{"channel":"kitchen"}}',
        '{"ref":3,"publish":{"events":[{"topic":"chat.17","data":1}],"idempotency_key":"k"}}',
        '{"ref":4,"publish":{"events":[{"topic":"news.a.mine","data":1}]}}',
    ]
    overseen = await play(stores, monkeypatch, frames)
    assert overseen.read == ["news.a"]
    assert len(overseen.claimed) == 1
    topics = [event.topic for posted in overseen.published for event in posted.events]
    assert sorted(topics) == ["chat.17", "news.a.mine"]
