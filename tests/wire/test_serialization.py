"""Serialization: lenient parsing, errors that name the field, and its effect on items."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import structs

from shared.model.errors import Invalid
from shared.model.events import Notification
from shared.wire.models import parse
from shared.wire.pelion.messages import frames
from shared.wire.pelion.serialization import (
    DEFAULT,
    RegisterWebsocketChannel,
    Serialization,
    stored,
    stored_form,
)


def wanting(**flags: bool) -> Serialization:
    return structs.replace(DEFAULT, cfg=structs.replace(DEFAULT.cfg, **flags))


ALL = wanting(
    include_uid=True, include_timestamp=True, include_original_ep=True, deregistrations_as_object=True
)


def body(**serialization: Any) -> bytes:
    return json.dumps({"serialization": serialization}).encode()


def wanted_in(posted: bytes) -> bytes:
    """The serialization in the body of a PUT, in its stored form."""
    return stored_form(parse(msgspec.json.Decoder(RegisterWebsocketChannel), posted).serialization)


def items(wanted: Serialization, topic: str, data: Any) -> Any:
    notification = Notification(
        entry_id="1700000000123-4", event_id="the-id", topic=topic, data=json.dumps(data).encode()
    )
    [frame] = frames([notification], limit_bytes=10_000, limit_count=100, wanted=wanted)
    return json.loads(frame.text)


@pytest.mark.parametrize(
    "posted",
    [
        {"type": "v2", "max_chunk_size": "100", "cfg": {"include_uid": "true", "include_timestamp": "FALSE"}},
        {"type": "v2", "max_chunk_size": 100, "cfg": {"include_uid": True, "include_timestamp": False}},
    ],
)
def test_strings_and_numbers_are_both_accepted(posted: dict[str, Any]) -> None:
    assert stored(wanted_in(body(**posted))) == structs.replace(wanting(include_uid=True), max_chunk_size=100)


@pytest.mark.parametrize("nothing", [b"{}", b'{"serialization": null}', b'{"other": 1}'])
def test_no_serialization_stores_nothing(nothing: bytes) -> None:
    assert wanted_in(nothing) == b""


def test_default() -> None:
    default = msgspec.to_builtins(stored(b""))

    assert default["max_chunk_size"] == 10_000
    assert set(default["cfg"].values()) == {False}


@pytest.mark.parametrize(
    ("posted", "field"),
    [
        (b"{", ""),
        (b"[]", ""),
        (b'{"serialization": 1}', "serialization"),
        (body(), "serialization.type"),
        (body(type="v1"), "serialization.type"),
        (body(type="v2", max_chunk_size=99), "serialization.max_chunk_size"),
        (body(type="v2", max_chunk_size="10001"), "serialization.max_chunk_size"),
        (body(type="v2", max_chunk_size=True), "serialization.max_chunk_size"),
        (body(type="v2", cfg=[]), "serialization.cfg"),
        (body(type="v2", cfg={"include_uid": 1}), "serialization.cfg.include_uid"),
        (body(type="v2", cfg={"include_original_ep": "yes"}), "serialization.cfg.include_original_ep"),
    ],
)
def test_error_names_its_field(posted: bytes, field: str) -> None:
    with pytest.raises(Invalid) as raised:
        wanted_in(posted)
    assert [name for name, _ in raised.value.fields] == ([field] if field else [])


@pytest.mark.parametrize("topic", ["device.notifications", "device.registrations", "device.reg-updates"])
def test_items_get_the_requested_fields(topic: str) -> None:
    [[item]] = items(ALL, topic, {"ep": "lamp", "path": "/1"}).values()
    assert item == {
        "ep": "lamp",
        "path": "/1",
        "uid": "the-id",
        "timestamp": 1700000000123,
        "original-ep": "lamp",
    }


def test_original_ep_of_the_publisher_stays() -> None:
    data = {"ep": "lamp", "path": "/1", "original-ep": "urn:lamp"}
    [[item]] = items(wanting(include_original_ep=True), "device.notifications", data).values()
    assert item == data


@pytest.mark.parametrize("topic", ["device.de-registrations", "device.registrations-expired"])
def test_names_become_objects_on_request_only(topic: str) -> None:
    [[item]] = items(wanting(include_uid=True), topic, "lamp").values()
    assert item == "lamp"
    [[item]] = items(wanting(deregistrations_as_object=True), topic, "lamp").values()
    assert item == {"ep": "lamp"}
    [[item]] = items(ALL, topic, "lamp").values()
    assert item == {"ep": "lamp", "uid": "the-id", "timestamp": 1700000000123, "original-ep": "lamp"}


def test_async_responses_stay_unchanged() -> None:
    assert items(ALL, "device.async-responses", {"id": "a"}) == {"async-responses": [{"id": "a"}]}
