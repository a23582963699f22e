"""The content of event frames."""

from typing import Any

import pytest

from tests.wire.kazoo.client import CHILD, OWN, Client


def test_data_is_normalised_at_every_level() -> None:
    client = Client()
    client.subscribe("call.*.*")
    published = {
        "Call-ID": "c1",
        "Custom-Channel-Vars": {"Account-ID": OWN, "Nothing": None},
        "List": [{"A-B": None, "C-D": 1}, None, "As-It-Is"],
        "Event-Category": "call_event",
        "Nothing": None,
        "Empty": {},
    }

    [frame] = client.event_frames("call.CHANNEL_CREATE.c1", published)
    assert frame["data"] == {
        "call_id": "c1",
        "custom_channel_vars": {"account_id": OWN},
        "list": [{"c_d": 1}, None, "As-It-Is"],
        "event_category": "call_event",
        "empty": {},
    }


def test_transport_fields_are_removed() -> None:
    client = Client()
    client.subscribe("call.*.*")
    kept = {
        "account_id": OWN,
        "call_id": "c",
        "app_name": "a",
        "app_version": "1",
        "event_category": "e",
        "event_name": "n",
        "msg_id": "m",
    }
    removed = {"Node": "n", "Server-ID": "s", "Control-Queue": "q"}

    [frame] = client.event_frames("call.CHANNEL_CREATE.c1", {**kept, **removed, "deep": {"Node": "stays"}})
    assert frame["data"] == {**kept, "deep": {"node": "stays"}}


def test_one_frame_per_matching_binding() -> None:
    client = Client()
    bindings = ["call.CHANNEL_CREATE.*", "call.*.*", "call.CHANNEL_CREATE.c1"]
    client.done("subscribe", {"bindings": [*bindings, "call.PARK_PARKED.*"]})

    frames = client.event_frames("call.CHANNEL_CREATE.c1", {"a": 1})
    assert [frame["subscribed_key"] for frame in frames] == bindings
    assert all(frame["data"] == {"a": 1} for frame in frames)


def test_events_of_an_account_and_of_its_child_are_separate() -> None:
    client = Client()
    client.subscribe("call.*.*", account=CHILD)

    assert client.event_frames("call.CHANNEL_CREATE.c1", account=OWN) == []
    [frame] = client.event_frames("call.CHANNEL_CREATE.c1", account=CHILD)
    assert frame["routing_key"] == f"call.{CHILD}.CHANNEL_CREATE.c1"


@pytest.mark.parametrize("data", [None, 5, "text", [], [{"A-B": 1}], True])
def test_data_other_than_objects(data: Any) -> None:
    client = Client()
    client.subscribe("fax.status.*")

    [frame] = client.event_frames("fax.status.f", data)
    assert frame["data"] == ([{"a_b": 1}] if data == [{"A-B": 1}] else data)
    assert frame["name"] == "status"


def test_deepest_publishable_data() -> None:
    data: Any = "bottom"
    for _ in range(253):
        data = [data]
    client = Client()
    client.subscribe("fax.status.*")

    [frame] = client.event_frames("fax.status.f", data)
    assert frame["data"] == data


@pytest.mark.parametrize(
    ("given", "data", "name"),
    [
        ("given", {"Event-Name": "in data"}, "given"),
        ("", {"Event-Name": "in data"}, "in data"),
        ("", {"Event-Name": 5}, "command"),
    ],
)
def test_name_of_an_event(given: str, data: Any, name: str) -> None:
    client = Client()
    client.subscribe("conference.command.room")

    [frame] = client.event_frames("conference.command.room", data, name=given)
    assert frame["name"] == name


@pytest.mark.parametrize(
    ("time", "month"),
    [
        ("", "202602"),
        ("yesterday", "202602"),
        ("2025-12-31T23:30:00-01:00", "202601"),
        ("2024-01-31T00:00:00Z", "202401"),
    ],
)
def test_month_of_a_monthly_database(time: str, month: str) -> None:
    client = Client()
    client.subscribe("fax.object.doc_created")

    [frame] = client.event_frames("object.doc_created.fax.f", time=time)
    assert frame["routing_key"].split(".")[1].endswith(f"-{month}")
