"""Conditions on an event's data: each by itself, and in the index as in a plain reference."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.bindings import (
    Between,
    DataFields,
    Equals,
    Exists,
    Pattern,
    Prefix,
    Topic,
    TopicWhere,
    Wanted,
)
from shared.model.data_values import DataValues
from shared.model.matching import Index
from tests.model.test_data_fields import DATA, PATHS, TEXTS
from tests.model.work import count_lines

ORDER: dict[str, Any] = {
    "country": "de",
    "total": 99.5,
    "items": 3,
    "count": "12",
    "star": "a*b",
    "paid": True,
    "coupon": None,
    "customer": {"id": "c_17", "tags": ["new", "vip"]},
    "lines": [{"price": 5}, {"price": 50}],
    "empty": {},
}


@pytest.mark.parametrize(
    ("path", "wanted", "is_met"),
    [
        ("country", Equals("de"), True),
        ("country", Equals("d*"), False),
        ("star", Equals("a*b"), True),
        ("star", Equals("a*"), False),
        ("paid", Equals("true"), True),
        ("items", Equals("3"), True),
        ("customer.id", Prefix("c_"), True),
        ("customer.id", Prefix("c_17x"), False),
        ("star", Prefix("a*"), True),
        ("country", Prefix("a*"), False),
        ("customer.tags", Equals("vip"), True),
        ("customer.tags", Prefix("v"), True),
        ("total", Between(low=99.5), False),
        ("total", Between(low=99.5, with_low=True), True),
        ("total", Between(high=99.5), False),
        ("total", Between(high=99.5, with_high=True), True),
        ("total", Between(low=0, high=100), True),
        ("count", Between(low=11, high=13), True),
        ("country", Between(low=-1e300, high=1e300), False),
        ("paid", Between(low=0), False),
        ("missing", Between(), False),
        ("lines.price", Between(low=40), True),
        ("lines.price", Between(low=60), False),
        ("coupon", Exists(wanted=True), True),
        ("coupon", Exists(wanted=False), False),
        ("empty", Exists(wanted=True), True),
        ("customer", Exists(wanted=True), True),
        ("missing", Exists(wanted=True), False),
        ("missing", Exists(wanted=False), True),
        ("customer.missing", Exists(wanted=False), True),
        ("lines.price", Exists(wanted=True), True),
    ],
)
def test_condition(path: str, wanted: Wanted, *, is_met: bool) -> None:
    where = DataFields(((path, (wanted,)),))
    assert where.matches(DataValues(ORDER)) is is_met
    assert found(TopicWhere("orders.#", where), "orders.paid", ORDER) is is_met


@pytest.mark.parametrize("text", ["1_000", " 7", "7 ", "infinity", "nan", "0x10", "", "１２", "9" * 301])
def test_only_json_numbers_are_numbers(text: str) -> None:
    assert not found(TopicWhere("a", DataFields((("x", (Between(),)),))), "a", {"x": text})


def found(pattern: Pattern, topic: str, data: Any) -> bool:
    index = Index(orjson.loads)
    index.add(pattern, "owner")
    return index.owners(topic, {}, orjson.dumps(data)) == {"owner"}


def test_topic_and_conditions_must_both_match() -> None:
    pattern = TopicWhere("orders.*", DataFields((("country", (Equals("de"),)), ("items", (Equals("3"),)))))
    assert found(pattern, "orders.paid", ORDER)
    assert not found(pattern, "orders.paid.late", ORDER)
    assert not found(pattern, "orders.paid", {**ORDER, "items": 4})


def test_several_bindings_of_one_owner_are_alternatives() -> None:
    index = Index(orjson.loads)
    for country in ("de", "fr"):
        index.add(TopicWhere("orders", DataFields((("country", (Equals(country),)),))), "owner")
    assert index.owners("orders", {}, b'{"country": "fr"}') == {"owner"}
    assert index.owners("orders", {}, b'{"country": "it"}') == set()


def test_data_is_parsed_only_for_conditions() -> None:
    parsed = []

    def parse(data: bytes) -> Any:
        parsed.append(data)
        return orjson.loads(data)

    index = Index(parse)
    index.add(Topic("orders.#"), "plain")
    index.add(TopicWhere("invoices.#", DataFields((("x", (Equals("1"),)),))), "conditional")

    assert index.owners("orders.paid", {}, b"1") == {"plain"}
    assert parsed == []
    assert index.owners("invoices.paid", {}, b'{"x": 1}') == {"conditional"}
    assert parsed == [b'{"x": 1}']


WANTED = st.one_of(
    TEXTS.map(Equals),
    TEXTS.filter(bool).map(Prefix),
    st.builds(
        Between,
        low=st.one_of(st.none(), st.floats(-1, 2)),
        high=st.one_of(st.none(), st.floats(0, 3)),
        with_low=st.booleans(),
        with_high=st.booleans(),
    ),
    st.booleans().map(lambda wanted: Exists(wanted=wanted)),
)
WHERE = st.lists(st.tuples(PATHS, st.lists(WANTED, min_size=1, max_size=3).map(tuple)), max_size=3).map(
    lambda wanted: DataFields(tuple(wanted))
)
PATTERNS = st.builds(TopicWhere, st.sampled_from(["a", "a.#", "#", "*.b"]), WHERE)
ADDED = st.lists(st.tuples(PATTERNS, st.sampled_from("xyz"), st.booleans()), max_size=12)


@given(ADDED, st.sampled_from(["a", "a.b", "b"]), DATA)
def test_index_finds_what_trying_each_finds(
    added: list[tuple[TopicWhere, str, bool]], topic: str, data: Any
) -> None:
    index = Index(orjson.loads)
    for pattern, owner, _ in added:
        index.add(pattern, owner)
    for pattern, owner, is_removed in added:
        if is_removed:
            index.remove(pattern, owner)

    wanted = {
        owner
        for pattern, owner, is_removed in added
        if not is_removed
        and Topic(pattern.pattern).matches(topic)
        and pattern.where.matches(DataValues(data))
    }
    assert index.owners(topic, {}, orjson.dumps(data)) == wanted


@given(ADDED)
def test_removed_patterns_leave_nothing(added: list[tuple[TopicWhere, str, bool]]) -> None:
    index = Index(orjson.loads)
    for pattern, owner, _ in added:
        index.add(pattern, owner)
    for pattern, owner, _ in reversed(added):
        index.remove(pattern, owner)
    assert index.is_empty


def test_an_event_costs_the_same_beside_many_other_conditions() -> None:
    def lines(bindings: int) -> int:
        index = Index(orjson.loads)
        for number in range(bindings):
            where = DataFields((("customer.id", (Equals(f"c_{number}"),)), ("total", (Between(low=number),))))
            index.add(TopicWhere("orders.#", where), f"owner {number}")
        data = orjson.dumps({"customer": {"id": "c_7"}, "total": 8})
        owners, count = count_lines(lambda: index.owners("orders.paid", {}, data))
        assert owners == {"owner 7"}
        return count

    assert lines(5_000) <= 1.5 * lines(10)
