"""Notifications as Pelion frames: same items, same order, one section per frame, within the limits."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.events import Notification
from shared.wire.messages import Message
from shared.wire.pelion.messages import frames

SECTIONS = {
    "device.notifications": "notifications",
    "device.registrations": "registrations",
    "device.reg-updates": "reg-updates",
    "device.de-registrations": "de-registrations",
    "device.registrations-expired": "registrations-expired",
    "device.async-responses": "async-responses",
}
MANY = 10_000
FAR = 1_000_000


def notification(number: int, topic: str = "orders", data: Any = 1, **more: Any) -> Notification:
    raw = json.dumps(data, ensure_ascii=False).encode()
    entry = f"{1_700_000_000_000 + number}-0"
    return Notification(entry_id=entry, event_id=f"id-{number}", topic=topic, data=raw, **more)


def all_frames(
    batch: Iterable[Notification], limit_bytes: int = FAR, limit_count: int = MANY
) -> list[Message]:
    return list(frames(batch, limit_bytes=limit_bytes, limit_count=limit_count))


def opened(frame: Message) -> tuple[str, list[Any]]:
    message = json.loads(frame.text)
    assert len(message) == 1, "clients read the first section only"
    [(section, items)] = message.items()
    return section, items


def expected_item(pending: Notification) -> tuple[str, Any]:
    if pending.topic in SECTIONS:
        return SECTIONS[pending.topic], json.loads(pending.data)
    return "events", (pending.event_id, pending.topic, pending.name or None, json.loads(pending.data))


def seen_item(section: str, item: Any) -> tuple[str, Any]:
    if section != "events":
        return section, item
    assert set(item) == {"id", "topic", "name", "time", "data"}
    return section, (item["id"], item["topic"], item["name"], item["data"])


TOPICS = st.sampled_from([*SECTIONS, "orders", "device.unknown"])
ITEMS = st.tuples(TOPICS, st.text(max_size=60) | st.dictionaries(st.text(max_size=5), st.integers(0, 9)))
BATCHES = st.lists(ITEMS, max_size=30).map(
    lambda items: [notification(number, topic, data) for number, (topic, data) in enumerate(items)]
)


@given(batch=BATCHES, limit_bytes=st.integers(1, 500), limit_count=st.integers(1, 8))
def test_every_batch_is_complete_in_order_and_within_limits(
    batch: list[Notification], limit_bytes: int, limit_count: int
) -> None:
    sent = all_frames(batch, limit_bytes, limit_count)

    messages = [opened(frame) for frame in sent]
    seen = [seen_item(section, item) for section, items in messages for item in items]
    assert seen == [expected_item(pending) for pending in batch]
    assert [frame.count for frame in sent] == [len(items) for _, items in messages]
    assert all(1 <= frame.count <= limit_count for frame in sent)
    assert all(len(frame.text) <= limit_bytes or frame.count == 1 for frame in sent)
    ends = itertools.accumulate(frame.count for frame in sent)
    assert [frame.last_entry_id for frame in sent] == [batch[end - 1].entry_id for end in ends]


@given(batch=BATCHES, limit_bytes=st.integers(1, 500), limit_count=st.integers(1, 8))
def test_a_frame_ends_only_at_a_limit_or_section(
    batch: list[Notification], limit_bytes: int, limit_count: int
) -> None:
    sent = all_frames(batch, limit_bytes, limit_count)

    for frame, following in itertools.pairwise(sent):
        section, items = opened(frame)
        next_section, next_items = opened(following)
        [alone] = all_frames([batch[sum(f.count for f in sent[: sent.index(following)])]])
        joined = len(frame.text) + len(alone.text) - len(f'{{"{section}":[') - len("]}") + len(",")
        must = section != next_section or len(items) == limit_count or joined >= limit_bytes
        assert must, f"{next_items[0]} fits into the previous frame"


def test_empty_batch_has_no_frame() -> None:
    assert all_frames([]) == []


@pytest.mark.parametrize(("topic", "section"), SECTIONS.items())
def test_device_items_are_unchanged(topic: str, section: str) -> None:
    [frame] = all_frames([notification(1, topic, {"ep": "lämp", "b": [1]})])

    assert frame.text == f'{{"{section}":[{{"ep": "lämp", "b": [1]}}]}}'.encode()


def test_other_topics_have_the_section_events() -> None:
    [frame] = all_frames([notification(1, "orders.paid", {"order": 17}, name="paid", time="noon")])

    assert json.loads(frame.text) == {
        "events": [
            {"id": "id-1", "topic": "orders.paid", "name": "paid", "time": "noon", "data": {"order": 17}}
        ]
    }


def test_event_without_a_time_has_the_time_it_was_queued() -> None:
    [frame] = all_frames([notification(42, "orders")])

    _, [item] = opened(frame)
    assert item["time"] == "2023-11-14T22:13:20.042Z"
    assert item["name"] is None


def test_neighbours_of_one_section_share_a_frame() -> None:
    topics = ["device.notifications", "device.notifications", "orders", "bills", "device.notifications"]

    sent = all_frames(notification(number, topic) for number, topic in enumerate(topics))

    assert [(opened(frame)[0], frame.count) for frame in sent] == [
        ("notifications", 2),
        ("events", 2),
        ("notifications", 1),
    ]


def test_item_over_the_limit_has_a_frame_of_its_own() -> None:
    sizes = [10, 10, 3000, 10, 10]

    sent = all_frames(
        [notification(number, "device.registrations", "x" * size) for number, size in enumerate(sizes)], 1024
    )

    assert [frame.count for frame in sent] == [2, 1, 2]
    assert len(sent[1].text) > 1024


def test_limit_of_items_per_frame() -> None:
    batch = [notification(number, "device.registrations", "x") for number in range(7)]

    assert [frame.count for frame in all_frames(batch, limit_count=3)] == [3, 3, 1]


def test_limit_counts_bytes_not_characters() -> None:
    batch = [notification(number, "device.registrations", "é" * 100) for number in range(10)]

    assert all(len(frame.text) <= 500 for frame in all_frames(batch, 500))
    assert max(frame.count for frame in all_frames(batch, 500)) == 2
