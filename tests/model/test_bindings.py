"""Which channels an event goes to: AND over fields, OR inside one, a trailing star for any rest."""

import re

import pytest
from hypothesis import example, given
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
TOPICS = st.sampled_from([DEVICE_NOTIFICATIONS, "orders"])
WANTED = st.lists(st.tuples(NAMES, st.lists(PATTERNS, min_size=1, max_size=3).map(tuple)), max_size=3).map(
    tuple
)


def wants(**patterns: tuple[str, ...]) -> Fields:
    return Fields(topic=DEVICE_NOTIFICATIONS, wanted=tuple(patterns.items()))


def notification(to: str | None = None, **fields: str) -> Event:
    return Event(id="1", topic=DEVICE_NOTIFICATIONS, data=b"{}", to=to, fields=fields)


def event(topic: str, to: str | None = None) -> Event:
    return Event(id="1", topic=topic, data=b"{}", to=to)


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
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
def test_one_pattern(pattern: str, value: str, *, matches: bool) -> None:
    assert wants(ep=(pattern,)).matches(DEVICE_NOTIFICATIONS, {"ep": value}) is matches


def test_all_fields_must_match() -> None:
    both = wants(ep=("lamp*",), path=("/3303/*",))

    assert both.matches(DEVICE_NOTIFICATIONS, {"ep": "lamp-1", "path": "/3303/0"})
    assert not both.matches(DEVICE_NOTIFICATIONS, {"ep": "lamp-1", "path": "/3/0"})
    assert not both.matches(DEVICE_NOTIFICATIONS, {"ep": "door", "path": "/3303/0"})


def test_one_pattern_of_a_field_is_enough() -> None:
    either = wants(path=("/3/0", "/3303/*"))

    assert either.matches(DEVICE_NOTIFICATIONS, {"path": "/3/0"})
    assert either.matches(DEVICE_NOTIFICATIONS, {"path": "/3303/0/5700"})
    assert not either.matches(DEVICE_NOTIFICATIONS, {"path": "/3/0/1"})


def test_a_field_that_the_event_lacks_is_empty() -> None:
    assert not wants(ept=("thermometer",)).matches(DEVICE_NOTIFICATIONS, {"ep": "lamp"})
    assert wants(ept=("*",)).matches(DEVICE_NOTIFICATIONS, {"ep": "lamp"})


def test_another_topic_never_matches() -> None:
    assert not wants(ep=("*",)).matches("device.registrations", {"ep": "lamp"})


@given(topic=TOPICS, wanted=WANTED, fields=st.dictionaries(NAMES, VALUES))
@example(topic=DEVICE_NOTIFICATIONS, wanted=(), fields={})
def test_matches_as_a_plain_reference_does(
    topic: str, wanted: tuple[tuple[str, tuple[str, ...]], ...], fields: dict[str, str]
) -> None:
    expected = topic == DEVICE_NOTIFICATIONS
    for name, patterns in wanted:
        as_regex = [re.escape(p.removesuffix("*")) + (".*" if p.endswith("*") else "") for p in patterns]
        found = [re.fullmatch(regex, fields.get(name, "")) for regex in as_regex]
        expected = expected and any(found)

    assert Fields(topic=DEVICE_NOTIFICATIONS, wanted=wanted).matches(topic, fields) is expected


BINDINGS: dict[str, tuple[Pattern, ...]] = {
    "lamps": (wants(ep=("door",)), wants(ep=("lamp*",))),
    "doors": (wants(ep=("door",)), Topic("orders.*")),
    "keyless": (wants(ep=("*",)), Topic("#")),
}


@pytest.fixture
def routes() -> RoutingTable:
    """`lamps` and `doors` want those, `silent` wants nothing, `keyless` wants all and has no channel."""
    made = RoutingTable()
    for key in ("lamps", "doors", "silent", "keyless"):
        made.add_key(key)
    for key in ("lamps", "doors", "silent"):
        made.add_channel(key, "1")
    for key, patterns in BINDINGS.items():
        made.bind(key, Source.PRESUBSCRIPTIONS, patterns)
    return made


def test_a_device_notification_goes_where_one_binding_matches(routes: RoutingTable) -> None:
    assert routes.channels_for(notification(ep="lamp-1", path="/3")) == ["lamps"]
    assert sorted(routes.channels_for(notification(ep="door", path="/3"))) == ["doors", "lamps"]
    assert routes.channels_for(notification(ep="window", path="/3")) == []


def test_a_binding_without_a_channel_gets_nothing(routes: RoutingTable) -> None:
    assert "keyless" not in routes.channels_for(notification(ep="door"))


@pytest.mark.parametrize("topic", EVERY_CHANNEL_TOPICS)
def test_what_concerns_a_device_goes_to_every_channel(routes: RoutingTable, topic: str) -> None:
    assert sorted(routes.channels_for(event(topic))) == ["doors", "lamps", "silent"]


@pytest.mark.parametrize(
    "topic", [*EVERY_CHANNEL_TOPICS, DEVICE_NOTIFICATIONS, DEVICE_ASYNC_RESPONSES, "orders"]
)
def test_an_addressed_event_goes_to_its_addressee_only(routes: RoutingTable, topic: str) -> None:
    assert routes.channels_for(event(topic, to="silent")) == ["silent"]
    assert routes.channels_for(event(topic, to="keyless")) == []
    assert routes.channels_for(event(topic, to="stranger")) == []


@pytest.mark.parametrize("topic", [DEVICE_ASYNC_RESPONSES, "orders", "orders.paid.twice", "device.other"])
def test_another_topic_that_nobody_wants_goes_nowhere(routes: RoutingTable, topic: str) -> None:
    assert routes.channels_for(event(topic)) == []


def test_a_plain_topic_goes_where_it_is_bound(routes: RoutingTable) -> None:
    assert routes.channels_for(event("orders.paid")) == ["doors"]


def test_no_plain_topic_asks_for_what_is_of_a_device(routes: RoutingTable) -> None:
    routes.bind("silent", Source.TOPICS, (Topic("#"), Topic("device.#"), Topic(DEVICE_NOTIFICATIONS)))

    assert routes.channels_for(notification(ep="window")) == []
    assert routes.channels_for(event("device.other")) == []
    assert routes.channels_for(event("devices.other")) == ["silent"]


def test_matching_from_several_sources_is_one_channel(routes: RoutingTable) -> None:
    routes.bind("doors", Source.RESOURCES, (wants(ep=("door",)),))
    routes.bind("doors", Source.TOPICS, (Topic("orders.*"), Topic("#")))

    assert sorted(routes.channels_for(notification(ep="door"))) == ["doors", "lamps"]
    assert routes.channels_for(event("orders.paid")) == ["doors"]


def test_what_one_source_loses_another_still_wants(routes: RoutingTable) -> None:
    routes.bind("doors", Source.RESOURCES, (wants(ep=("door",)),))
    routes.bind("doors", Source.RESOURCES, ())
    assert "doors" in routes.channels_for(notification(ep="door"))

    routes.bind("doors", Source.PRESUBSCRIPTIONS, ())
    assert "doors" not in routes.channels_for(notification(ep="door"))


def test_a_newer_generation_of_a_channel_outlives_the_older(routes: RoutingTable) -> None:
    routes.add_channel("doors", "2")
    routes.drop_channel("doors", "1")
    assert "doors" in routes.channels_for(notification(ep="door"))

    routes.drop_channel("doors", "2")
    assert routes.channels_for(notification(ep="door")) == ["lamps"]

    routes.add_channel("doors", "3")
    assert "doors" in routes.channels_for(notification(ep="door"))


def test_routes_of_which_all_is_dropped_keep_nothing(routes: RoutingTable) -> None:
    for key in list(routes.api_keys):
        routes.drop_channel(key, "1")
        routes.drop_key(key)
        for source in Source:
            routes.bind(key, source, ())

    assert (set(routes.api_keys), set(routes.channels), dict(routes.bindings)) == (set(), set(), {})
    assert routes.index.empty


def test_device_types_are_looked_at_only_while_a_binding_asks(routes: RoutingTable) -> None:
    looked_at = [routes.look_at_device_types]
    asking = wants(path=("/3",), ept=("thermometer",))

    routes.bind("doors", Source.PRESUBSCRIPTIONS, (wants(ep=("x",)), asking))
    routes.bind("lamps", Source.PRESUBSCRIPTIONS, (asking,))
    looked_at.append(routes.look_at_device_types)
    routes.bind("doors", Source.PRESUBSCRIPTIONS, ())
    looked_at.append(routes.look_at_device_types)
    routes.drop_channel("lamps", "1")
    looked_at.append(routes.look_at_device_types)

    assert looked_at == [False, True, True, False]
