"""Pending notifications merged into one message: each section once, limits, and order."""

import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shared.model.events import Notification
from shared.wire.messages import Message
from shared.wire.pelion.messages import message
from shared.wire.pelion.serialization import Serialization, SerializationFlags

SECTIONS = {
    "device.notifications": "notifications",
    "device.registrations": "registrations",
    "device.reg-updates": "reg-updates",
    "device.de-registrations": "de-registrations",
    "device.registrations-expired": "registrations-expired",
    "device.async-responses": "async-responses",
    "orders": "events",
}
REGISTRATIONS = ("registrations", "reg-updates", "de-registrations", "registrations-expired")
FAR = 1_000_000


def batch_of(*topics: str) -> list[Notification]:
    """Notifications of these topics; the data of each is its number."""
    return [
        Notification(entry_id=f"{1000 + n}-0", event_id=f"id-{n}", topic=topic, data=b"%d" % n)
        for n, topic in enumerate(topics)
    ]


def merged(batch: Sequence[Notification], *, limit_bytes: int = FAR, limit_count: int = FAR) -> Message:
    found = message(batch, limit_bytes=limit_bytes, limit_count=limit_count)
    assert found is not None
    return found


def numbers_in(one: Message) -> dict[str, list[int]]:
    """The numbers of the notifications in each section, in order."""
    sections = json.loads(one.text)
    return {
        section: [item["data"] if section == "events" else item for item in items]
        for section, items in sections.items()
    }


def test_empty_batch_has_no_message() -> None:
    assert message([], limit_bytes=FAR, limit_count=FAR) is None


def test_sections_are_merged() -> None:
    one = merged(batch_of("device.notifications", "device.async-responses", "device.notifications", "orders"))

    assert numbers_in(one) == {"notifications": [0, 2], "async-responses": [1], "events": [3]}
    assert (one.last_entry_id, one.count) == ("1003-0", 4)


def test_value_does_not_pass_an_earlier_registration() -> None:
    one = merged(batch_of("device.notifications", "device.registrations", "device.notifications"))

    assert numbers_in(one) == {"notifications": [0], "registrations": [1]}
    assert (one.last_entry_id, one.count) == ("1001-0", 2)


def test_registration_passes_nothing() -> None:
    one = merged(batch_of("device.registrations", "device.notifications", "device.registrations"))

    assert numbers_in(one) == {"registrations": [0], "notifications": [1]}


def test_registration_and_deregistration_are_two_messages() -> None:
    """A client that reads sections in its own order would take the device for registered."""
    one = merged(batch_of("device.registrations", "device.notifications", "device.de-registrations"))

    assert numbers_in(one) == {"registrations": [0], "notifications": [1]}


def test_limits_in_number_and_bytes() -> None:
    batch = batch_of(*["device.notifications"] * 100)

    assert merged(batch, limit_count=7).count == 7
    short = merged(batch, limit_bytes=200)
    assert 1 < short.count < 100
    assert len(short.text) <= 200


def test_item_over_the_limit_is_alone() -> None:
    huge = Notification(
        entry_id="1-0", event_id="a", topic="device.notifications", data=b'"%b"' % (b"x" * 5000)
    )

    assert merged([huge, huge], limit_bytes=1000).count == 1


def test_serialization_of_the_channel() -> None:
    value = Notification(entry_id="1700-3", event_id="a", topic="device.notifications", data=b'{"ep":"d"}')
    flags = SerializationFlags(False, include_uid=True, include_timestamp=True, include_original_ep=True)
    wanted = Serialization("v2", 10_000, flags)

    one = message([value], limit_bytes=FAR, limit_count=FAR, wanted=wanted)

    assert one is not None
    item = {"ep": "d", "uid": "a", "timestamp": 1700, "original-ep": "d"}
    assert json.loads(one.text) == {"notifications": [item]}


@given(
    st.lists(st.sampled_from(list(SECTIONS)), min_size=1, max_size=40),
    st.integers(30, 2000),
    st.integers(1, 50),
)
def test_reading_the_sections_keeps_all_order_that_matters(
    topics: list[str], limit_bytes: int, limit_count: int
) -> None:
    batch = batch_of(*topics)
    seen: list[tuple[int, str]] = []
    rest = list(batch)
    while rest:
        one = merged(rest, limit_bytes=limit_bytes, limit_count=limit_count)
        assert one.count <= limit_count
        assert one.count == 1 or len(one.text) <= limit_bytes
        assert one.last_entry_id == rest[one.count - 1].entry_id
        assert len(numbers_in(one).keys() & set(REGISTRATIONS)) <= 1
        for section, numbers in numbers_in(one).items():
            seen += [(number, section) for number in numbers]
        del rest[: one.count]

    assert sorted(number for number, _ in seen) == list(range(len(batch)))
    for section in SECTIONS.values():
        own = [number for number, name in seen if name == section]
        assert own == sorted(own)
    for index, (number, section) in enumerate(seen):
        if section in REGISTRATIONS:
            assert all(other < number for other, _ in seen[:index])
            assert all(other > number for other, _ in seen[index + 1 :])
