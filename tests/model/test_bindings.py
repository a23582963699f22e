"""Which channels an event goes to: AND over fields, OR inside one, a trailing star for any rest."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.model.bindings import Fields
from shared.model.events import (
    DEVICE_ASYNC_RESPONSES,
    DEVICE_DE_REGISTRATIONS,
    DEVICE_NOTIFICATIONS,
    DEVICE_REG_UPDATES,
    DEVICE_REGISTRATIONS,
    DEVICE_REGISTRATIONS_EXPIRED,
    Event,
)
from shared.model.routes import Routes

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


@pytest.fixture
def routes() -> Routes:
    """`lamps` and `doors` want those, `silent` wants nothing, `keyless` wants all and has no channel."""
    return Routes(
        version="1",
        api_keys=frozenset({"lamps", "doors", "silent", "keyless"}),
        channels=frozenset({"lamps", "doors", "silent"}),
        bindings={
            "lamps": (wants(ep=("door",)), wants(ep=("lamp*",))),
            "doors": (wants(ep=("door",)),),
            "keyless": (wants(ep=("*",)),),
        },
    )


def test_a_device_notification_goes_where_one_binding_matches(routes: Routes) -> None:
    assert routes.channels_for(notification(ep="lamp-1", path="/3")) == ["lamps"]
    assert sorted(routes.channels_for(notification(ep="door", path="/3"))) == ["doors", "lamps"]
    assert routes.channels_for(notification(ep="window", path="/3")) == []


def test_a_binding_without_a_channel_gets_nothing(routes: Routes) -> None:
    assert "keyless" not in routes.channels_for(notification(ep="door"))


@pytest.mark.parametrize("topic", EVERY_CHANNEL_TOPICS)
def test_what_concerns_a_device_goes_to_every_channel(routes: Routes, topic: str) -> None:
    assert sorted(routes.channels_for(event(topic))) == ["doors", "lamps", "silent"]


@pytest.mark.parametrize(
    "topic", [*EVERY_CHANNEL_TOPICS, DEVICE_NOTIFICATIONS, DEVICE_ASYNC_RESPONSES, "orders"]
)
def test_an_addressed_event_goes_to_its_addressee_only(routes: Routes, topic: str) -> None:
    assert routes.channels_for(event(topic, to="silent")) == ["silent"]
    assert routes.channels_for(event(topic, to="keyless")) == []
    assert routes.channels_for(event(topic, to="stranger")) == []


@pytest.mark.parametrize("topic", [DEVICE_ASYNC_RESPONSES, "orders", "orders.paid", "device.other"])
def test_another_topic_without_an_addressee_goes_nowhere(routes: Routes, topic: str) -> None:
    assert routes.channels_for(event(topic)) == []


def test_device_types_are_looked_at_only_when_a_binding_asks(routes: Routes) -> None:
    asking = Routes(
        version="2",
        api_keys=routes.api_keys,
        channels=routes.channels,
        bindings={**routes.bindings, "doors": (wants(ep=("x",)), wants(path=("/3",), ept=("thermometer",)))},
    )

    assert not routes.look_at_device_types
    assert asking.look_at_device_types
