"""The body of PUT /v1/bindings, and its compiled bindings."""

import json

import msgspec
import orjson
import pytest

from shared.model.bindings import Source, Topic
from shared.model.errors import Invalid
from shared.wire.models import parse
from shared.wire.pelion.subscriptions import compiled
from shared.wire.topic_bindings import Topics, check_topics
from tests.model.single import matches

DECODER: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(Topics)


def parse_topics(raw: bytes) -> list[str]:
    posted = parse(DECODER, raw)
    check_topics(posted)
    return posted


def body(posted: object) -> bytes:
    return json.dumps(posted).encode()


@pytest.mark.parametrize("posted", [[], ["a"], ["orders.*.created", "audit.#", "#"], ["a", "a"], ["ä.ö"]])
def test_valid_body_comes_back_unchanged(posted: list[str]) -> None:
    assert parse_topics(body(posted)) == posted


def test_limit_of_topics() -> None:
    assert len(parse_topics(body(["x" * 255] * 1024))) == 1024
    with pytest.raises(Invalid, match="1024"):
        parse_topics(body(["x"] * 1025))


@pytest.mark.parametrize("raw", [b"", b"[", b'["\xff"]', b"null", b"{}", b'"a"', b"1"])
def test_body_that_is_not_an_array(raw: bytes) -> None:
    with pytest.raises(Invalid) as raised:
        parse_topics(raw)
    assert raised.value.fields == []


@pytest.mark.parametrize("topic", ["", "x" * 256, "a b", "a\n", "a*", "#b", 1, None, [], {"topic": "a"}])
def test_error_names_its_field(topic: object) -> None:
    with pytest.raises(Invalid) as raised:
        parse_topics(body(["fine", topic]))
    assert [name for name, _ in raised.value.fields] == ["[1]"]


def test_compiled_bindings() -> None:
    [orders, everything] = compiled(Source.TOPICS, orjson.dumps(["orders.*", "#"]))

    assert (orders, everything) == (Topic("orders.*"), Topic("#"))
    assert matches(orders, "orders.paid", {})
    assert matches(everything, "orders.paid.late", {})
    assert not matches(everything, "device.notifications", {})
