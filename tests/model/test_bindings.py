"""Which channels receive an event: AND over fields, OR inside one, a trailing star for any rest."""

import pickle

import orjson
import pytest
from hypothesis import strategies as st

from shared.model.bindings import Fields, Pattern, Source, Topic
from shared.model.events import (
    DEVICE_ASYNC_RESPONSES,
    DEVICE_DE_REGISTRATIONS,
    DEVICE_NOTIFICATIONS,
    DEVICE_REG_UPDATES,
    DEVICE_REGISTRATIONS,
    DEVICE_REGISTRATIONS_EXPIRED,
    Event,
)
from shared.model.routing_table import RoutingTable
from tests.model.single import matches

EVERY_CHANNEL_TOPICS = [
    DEVICE_REGISTRATIONS,
    DEVICE_REG_UPDATES,
    DEVICE_DE_REGISTRATIONS,
    DEVICE_REGISTRATIONS_EXPIRED,
]

# Few letters, so that values and patterns meet often.
VALUES = st.text("ab*/", max_size=4)
PATTERNS = st.builds(lambda text, star: text.replace("*", "") + star, VALUES, st.sampled_from(["", "*"]))
NAMES = st.sampled_from(["ep", "ept", "path"])
WANTED = st.lists(st.tuples(NAMES, st.lists(PATTERNS, min_size=1, max_size=3).map(tuple)), max_size=3).map(
    tuple
)


def fields(**patterns: tuple[str, ...]) -> Fields:
    return Fields(topic=DEVICE_NOTIFICATIONS, wanted=tuple(patterns.items()))


def notification(to: str | None = None, **fields: str) -> Event:
    return Event(id="1", topic=DEVICE_NOTIFICATIONS, data=b"{}", to=to, fields=fields)


def event(topic: str, to: str | None = None) -> Event:
    return Event(id="1", topic=topic, data=b"{}", to=to)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("lamp", "lamp", True),
        ("lamp", "lamp-1", False),
        ("lamp", "Lamp", False),
        ("lamp*", "lamp", True),
        ("lamp*", "lamp-1", True),
        ("lamp*", "lam", False),
        ("*", "anything", True),
        ("*", "", True),
        ("lamp", "", False),
        ("lamp.", "lampx", False),
        ("[l]amp*", "lamp", False),
    ],
)
def test_pattern_of_a_field(pattern: str, value: str, *, expected: bool) -> None:
    assert matches(fields(ep=(pattern,)), DEVICE_NOTIFICATIONS, {"ep": value}) is expected


def test_all_fields_must_match() -> None:
    both = fields(ep=("lamp*",), path=("/3303/*",))

    assert matches(both, DEVICE_NOTIFICATIONS, {"ep": "lamp-1", "path": "/3303/0"})
    assert not matches(both, DEVICE_NOTIFICATIONS, {"ep": "lamp-1", "path": "/3/0"})
    assert not matches(both, DEVICE_NOTIFICATIONS, {"ep": "door", "path": "/3303/0"})


def test_any_pattern_of_a_field_may_match() -> None:
    either = fields(path=("/3/0", "/3303/*"))

    assert matches(either, DEVICE_NOTIFICATIONS, {"path": "/3/0"})
    assert matches(either, DEVICE_NOTIFICATIONS, {"path": "/3303/0/5700"})
    assert not matches(either, DEVICE_NOTIFICATIONS, {"path": "/3/0/1"})


def test_missing_fields_are_empty() -> None:
    assert not matches(fields(ept=("thermometer",)), DEVICE_NOTIFICATIONS, {"ep": "lamp"})
    assert matches(fields(ept=("*",)), DEVICE_NOTIFICATIONS, {"ep": "lamp"})


def test_other_topics_never_match() -> None:
    assert not matches(fields(ep=("*",)), "device.registrations", {"ep": "lamp"})


BINDINGS: dict[str, tuple[Pattern, ...]] = {
    "lamps": (fields(ep=("door",)), fields(ep=("lamp*",))),
    "doors": (fields(ep=("door",)), Topic("orders.*")),
    "unregistered": (fields(ep=("*",)), Topic("#")),
}


@pytest.fixture
def table() -> RoutingTable:
    """`lamps` and `doors` have bindings, `silent` has none, `unregistered` binds to all without a channel."""
    made = RoutingTable(orjson.loads)
    for key in ("lamps", "doors", "silent", "unregistered"):
        made.add_key(key, bindings_version="1")
    for key in ("lamps", "doors", "silent"):
        made.add_channel(key, "1")
    for key, patterns in BINDINGS.items():
        made.bind(key, Source.PRESUBSCRIPTIONS, patterns)
    return made


def test_device_notifications_need_one_matching_binding(table: RoutingTable) -> None:
    assert table.channels_for(notification(ep="lamp-1", path="/3")) == ["lamps"]
    assert sorted(table.channels_for(notification(ep="door", path="/3"))) == ["doors", "lamps"]
    assert table.channels_for(notification(ep="window", path="/3")) == []


def test_keys_without_a_channel_receive_nothing(table: RoutingTable) -> None:
    assert "unregistered" not in table.channels_for(notification(ep="door"))


@pytest.mark.parametrize("topic", EVERY_CHANNEL_TOPICS)
def test_registrations_reach_every_channel(table: RoutingTable, topic: str) -> None:
    assert sorted(table.channels_for(event(topic))) == ["doors", "lamps", "silent"]


@pytest.mark.parametrize(
    "topic", [*EVERY_CHANNEL_TOPICS, DEVICE_NOTIFICATIONS, DEVICE_ASYNC_RESPONSES, "orders"]
)
def test_event_with_a_receiver_reaches_no_other(table: RoutingTable, topic: str) -> None:
    assert table.channels_for(event(topic, to="silent")) == ["silent"]
    assert table.channels_for(event(topic, to="unregistered")) == []
    assert table.channels_for(event(topic, to="stranger")) == []


@pytest.mark.parametrize("topic", [DEVICE_ASYNC_RESPONSES, "orders", "orders.paid.twice", "device.other"])
def test_unbound_topics_reach_no_channel(table: RoutingTable, topic: str) -> None:
    assert table.channels_for(event(topic)) == []


def test_plain_topics_reach_bound_channels(table: RoutingTable) -> None:
    assert table.channels_for(event("orders.paid")) == ["doors"]


def test_topic_patterns_never_match_device_topics(table: RoutingTable) -> None:
    table.bind("silent", Source.TOPICS, (Topic("#"), Topic("device.#"), Topic(DEVICE_NOTIFICATIONS)))

    assert table.channels_for(notification(ep="window")) == []
    assert table.channels_for(event("device.other")) == []
    assert table.channels_for(event("devices.other")) == ["silent"]


def test_bindings_of_several_sources_are_one_channel(table: RoutingTable) -> None:
    table.bind("doors", Source.RESOURCES, (fields(ep=("door",)),))
    table.bind("doors", Source.TOPICS, (Topic("orders.*"), Topic("#")))

    assert sorted(table.channels_for(notification(ep="door"))) == ["doors", "lamps"]
    assert table.channels_for(event("orders.paid")) == ["doors"]


def test_sources_are_independent(table: RoutingTable) -> None:
    table.bind("doors", Source.RESOURCES, (fields(ep=("door",)),))
    table.bind("doors", Source.RESOURCES, ())
    assert "doors" in table.channels_for(notification(ep="door"))

    table.bind("doors", Source.PRESUBSCRIPTIONS, ())
    assert "doors" not in table.channels_for(notification(ep="door"))


def test_newer_generation_survives_the_end_of_the_older(table: RoutingTable) -> None:
    table.add_channel("doors", "2")
    table.drop_channel("doors", "1")
    assert "doors" in table.channels_for(notification(ep="door"))

    table.drop_channel("doors", "2")
    assert table.channels_for(notification(ep="door")) == ["lamps"]

    table.add_channel("doors", "3")
    assert "doors" in table.channels_for(notification(ep="door"))


def test_channel_is_unconfirmed_until_its_present_version_is_confirmed(table: RoutingTable) -> None:
    assert table.unconfirmed == {"lamps", "doors", "silent"}

    table.confirm("lamps", bindings_version="1")
    assert table.unconfirmed == {"doors", "silent"}

    table.add_key("lamps", bindings_version="2")
    table.confirm("lamps", bindings_version="1")
    assert "lamps" in table.unconfirmed

    table.drop_key("lamps")
    assert "lamps" not in table.unconfirmed


def test_emptied_table_keeps_nothing(table: RoutingTable) -> None:
    for key in list(table.api_keys):
        table.drop_channel(key, "1")
        table.drop_key(key)
        for source in Source:
            table.bind(key, source, ())

    assert pickle.dumps(table) == pickle.dumps(RoutingTable(orjson.loads))


def test_device_types_are_needed_only_while_a_binding_has_one(table: RoutingTable) -> None:
    needed = [table.device_type_patterns > 0]
    by_type = fields(path=("/3",), ept=("thermometer",))

    table.bind("doors", Source.PRESUBSCRIPTIONS, (fields(ep=("x",)), by_type))
    table.bind("lamps", Source.PRESUBSCRIPTIONS, (by_type,))
    needed.append(table.device_type_patterns > 0)
    table.bind("doors", Source.PRESUBSCRIPTIONS, ())
    needed.append(table.device_type_patterns > 0)
    table.drop_channel("lamps", "1")
    needed.append(table.device_type_patterns > 0)

    assert needed == [False, True, True, False]
