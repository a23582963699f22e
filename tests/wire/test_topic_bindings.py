"""The body of PUT /v1/bindings, and its compiled bindings."""

import json

import msgspec
import orjson
import pytest

from shared.model.bindings import (
    Between,
    DataFields,
    Equals,
    Exists,
    Prefix,
    Source,
    Topic,
    TopicWhere,
    Wanted,
)
from shared.model.errors import Invalid
from shared.wire.models import parse
from shared.wire.pelion.subscriptions import compiled
from shared.wire.topic_bindings import TopicBinding, Topics, check_topics, stored_topics
from tests.model.single import matches

DECODER: msgspec.json.Decoder[list[str | TopicBinding]] = msgspec.json.Decoder(Topics)


def parse_topics(raw: bytes) -> list[str | TopicBinding]:
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


@pytest.mark.parametrize("topic", ["", "x" * 256, "a b", "a\n", "a*", "#b", 1, None, []])
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


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"a": "x"}, {"a": [Equals("x")]}),
        ({"a": ["x", 3, 1.5, True]}, {"a": [Equals("x"), Equals("3"), Equals("1.5"), Equals("true")]}),
        ({"a.b": {"prefix": "x*"}}, {"a.b": [Prefix("x*")]}),
        ({"a": {"exists": False}}, {"a": [Exists(wanted=False)]}),
        ({"a": {"gt": 1}}, {"a": [Between(low=1)]}),
        ({"a": {"gte": 1, "lt": 2}}, {"a": [Between(low=1, high=2, with_low=True)]}),
        ({"a": {"lte": 2.5}}, {"a": [Between(high=2.5, with_high=True)]}),
        ({"a": [{"lt": 0}, "x"], "b": 1}, {"a": [Between(high=0), Equals("x")], "b": [Equals("1")]}),
        # An event's data is parsed likewise.
        ({"a": 10**30}, {"a": [Equals("1e+30")]}),
        ({"a": 2**63}, {"a": [Equals("9223372036854775808")]}),
    ],
)
def test_conditions(where: object, wanted: dict[str, list[Wanted]]) -> None:
    posted = parse_topics(body([{"topic": "orders.#", "where": where}]))
    fields = DataFields(tuple((path, tuple(values)) for path, values in wanted.items()))
    assert stored_topics(msgspec.json.encode(posted)) == (TopicWhere("orders.#", fields),)


def test_a_binding_without_conditions_is_its_topic() -> None:
    posted = parse_topics(body([{"topic": "a"}, {"topic": "b", "where": {}}]))
    assert stored_topics(msgspec.json.encode(posted)) == (Topic("a"), Topic("b"))


@pytest.mark.parametrize(
    ("binding", "field"),
    [
        ({}, "[1].topic"),
        ({"topic": ""}, "[1].topic"),
        ({"topic": "a b"}, "[1].topic"),
        ({"topic": "a", "wher": {}}, "[1].wher"),
        ({"topic": "a", "where": []}, "[1].where"),
        ({"topic": "a", "where": {"x": None}}, "[1].where"),
        ({"topic": "a", "where": {"x": []}}, "[1].where"),
        ({"topic": "a", "where": {"x": {}}}, "[1].where.x"),
        ({"topic": "a", "where": {"x": {"like": "a"}}}, "[1].where.like"),
        ({"topic": "a", "where": {"x": {"exists": 1}}}, "[1].where"),
        ({"topic": "a", "where": {"x": {"prefix": ""}}}, "[1].where"),
        ({"topic": "a", "where": {"x": {"prefix": "a", "exists": True}}}, "[1].where.x"),
        ({"topic": "a", "where": {"x": ["a", {"gt": 1, "gte": 1}]}}, "[1].where.x[1]"),
        ({"topic": "a", "where": {"x": {"lt": 1, "lte": 1}}}, "[1].where.x"),
        ({"topic": "a", "where": {"x": {"gt": 1, "lt": 1}}}, "[1].where.x"),
        ({"topic": "a", "where": {"x": {"gte": 2, "lte": 1}}}, "[1].where.x"),
        ({"topic": "a", "where": {"": 1}}, "[1].where."),
        ({"topic": "a", "where": {"x..y": 1}}, "[1].where.x..y"),
        ({"topic": "a", "where": {"x": "y" * 256}}, "[1].where"),
        ({"topic": "a", "where": {"x": list(range(65))}}, "[1].where"),
        ({"topic": "a", "where": {"x": list(range(40)), "y": list(range(40))}}, "[1].where"),
        ({"topic": "a", "where": dict.fromkeys(map(str, range(17)), 1)}, "[1].where"),
    ],
)
def test_error_names_the_condition(binding: object, field: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_topics(body(["fine", binding]))
    assert [name for name, _ in raised.value.fields] == [field]


def test_conditions_of_all_bindings_are_bounded() -> None:
    binding = {"topic": "a", "where": {"x": list(range(64))}}
    assert len(parse_topics(body([binding] * 64))) == 64
    with pytest.raises(Invalid, match="4096"):
        parse_topics(body([binding] * 65))
