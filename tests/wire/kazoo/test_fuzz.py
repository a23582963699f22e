"""Arbitrary frames: nothing raises, and every frame has one reply."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.wire.kazoo.bindings import FORMS, Refused, parse_binding
from tests.wire.kazoo.client import CHILD, OWN, STRANGER, TOKEN, Client

WORDS = st.sampled_from(
    [
        *FORMS,
        "event",
        "command",
        "status",
        "object",
        "CHANNEL_CREATE",
        "lock",
        "doc_created",
        "user",
        "fax",
        "*",
        "#",
    ]
) | st.text(max_size=5)
BINDINGS = st.lists(WORDS, max_size=6).map(".".join) | st.text(max_size=300)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
# Most fields need a value of a wrong type, not a tree: generating trees is slow.
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 5, 1.5, "", "x", "\0é", [], [None], {}, {"a": [{}]}, "y" * 300]
)
ACCOUNTS = st.sampled_from([OWN, CHILD, STRANGER, "*", "", "x"]) | ODD
DATA = (
    ODD
    | JSON
    | st.fixed_dictionaries(
        {},
        optional={
            "account_id": ACCOUNTS,
            "binding": BINDINGS | ODD,
            "bindings": st.lists(BINDINGS, max_size=5) | ODD,
            "name": ODD,
            "metadata": ODD,
        },
    )
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["subscribe", "unsubscribe", "ping", "noop"]) | ODD,
        "auth_token": st.sampled_from([TOKEN, "master-token", "publisher", "wrong"]) | ODD,
        "request_id": ODD,
        "data": DATA,
        "name": ODD,
        "metadata": ODD,
    },
)


def written(message: Any) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:  # integers beyond 64 bits
        return b"{}"


FRAMES = st.binary(max_size=200) | st.text(max_size=200) | MESSAGES.map(written)
TOPICS = st.lists(WORDS, min_size=1, max_size=6).map(".".join)
COUNTS = [300, pytest.param(1000, marks=pytest.mark.long)]
CONVERSATIONS = st.lists(st.tuples(FRAMES, st.booleans()), min_size=10, max_size=12)


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("count", COUNTS)
def test_every_frame_has_one_reply(count: int) -> None:
    examples(count)(given(CONVERSATIONS)(check_replies))()


def check_replies(frames: list[tuple[str | bytes, bool]]) -> None:
    client = Client()
    for frame, store_fails in frames:
        text = client.send(frame, store_fails=store_fails)
        reply = orjson.loads(text)
        assert set(reply) == {"action", "request_id", "status", "data"}
        assert reply["request_id"]
        errors = reply["data"].get("errors", [])
        assert reply["status"] == "success" or all(isinstance(error, str) for error in errors)


@pytest.mark.parametrize("count", COUNTS)
def test_every_binding_is_refused_or_matches(count: int) -> None:
    examples(count)(given(BINDINGS, TOPICS, JSON)(check_binding))()


def check_binding(binding: str, topic: str, data: Any) -> None:
    try:
        found = parse_binding(binding)
    except Refused:
        return
    if found is None or found.of_every_conference:
        return
    client = Client()
    client.subscribe(binding)
    for published in (topic, found.pattern.replace("*", "x").replace("#", "y")):
        frames = client.event_frames(published, orjson.loads(written(data)))
        assert all(frame["subscribed_key"] == found.requested for frame in frames)
    assert len(frames) == 1, "the binding matches its own pattern"
