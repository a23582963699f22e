"""Whatever frames a client sends on a native socket, it gets what its token names and nothing else.

Each request is answered exactly once, or the socket is closed for a frame that is none.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.wire.native.frames import OPERATIONS, WITHOUT_REF
from tests.harness.processes import CHECKOUT
from tests.socket_edge.native_oversight import Overseen
from tests.store.stores import Stores, fake_backend

TOPICS = ["news", "news.a", "orders.a", "orders.a.b", "chat.17", "news.a.mine", "free", "#", "news.*", ""]
CHANNELS = ["kitchen", "cellar", "{kitchen}", "{cellar}", "attic", ""]


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
EXAMPLES: dict[str, Any] = {
    "token": "a.b.c",
    "topic": "news.a",
    "channel": "kitchen",
    "entry": "1-0",
    "events": [{"topic": "chat.17", "data": 1}],
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
            overseen = await Overseen.of(Stores(redis, backend), patch)
            await overseen.play([frame.encode(errors="replace") for frame in frames])


async def test_what_is_allowed_is_seen(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above shows nothing."""
    frames = [
        b'{"ref":1,"subscribe":{"topic":"news.a"}}',
        b'{"ref":2,"open":{"channel":"kitchen"}}',
        b'{"ref":3,"publish":{"events":[{"topic":"chat.17","data":1}],"idempotency_key":"k"}}',
        b'{"ref":4,"publish":{"events":[{"topic":"news.a.mine","data":1}]}}',
    ]
    overseen = await Overseen.of(stores, monkeypatch)
    await overseen.play(frames)
    assert overseen.read == ["news.a"]
    assert len(overseen.claimed) == 1
    topics = [event.topic for posted in overseen.published for event in posted.events]
    assert sorted(topics) == ["chat.17", "news.a.mine"]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris has wheels for Linux on x86-64 only")
def test_frames_that_coverage_leads_to(tmp_path: Path) -> None:
    """The same by Atheris, which changes frames by what they reach in the code."""
    for number, (operation, names) in enumerate(USUAL.items()):
        body = {name: EXAMPLES[name] for name in names}
        (tmp_path / str(number)).write_bytes(json.dumps({"ref": number, operation: body}).encode())
    command = [sys.executable, "-m", "tests.socket_edge.fuzz_native"]
    options = ["-runs=100000", "-max_total_time=120", "-max_len=1000", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run([*command, *options, str(tmp_path)], cwd=CHECKOUT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    assert b"Done " in done.stderr
