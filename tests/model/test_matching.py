"""The index finds what trying each pattern would find, after any adds and removes."""

from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model import matching
from shared.model.bindings import Fields, Pattern, Topic
from shared.model.matching import Index
from tests.model.test_bindings import NAMES, VALUES, WANTED
from tests.model.work import count_lines, state_of

# Few words, so that patterns and topics match often; an empty one, and wildcards as words of a topic.
WORDS = st.sampled_from(["a", "b", "", "device", "system"])
EVENT_TOPICS = st.one_of(
    st.sampled_from(["device.notifications", "orders"]),
    st.lists(st.one_of(WORDS, st.sampled_from("*#")), min_size=1, max_size=6).map(".".join),
)
TOPIC_PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from("*##")), min_size=1, max_size=6).map(".".join)
FIELD_TOPICS = st.sampled_from(["device.notifications", "orders", "a.b"])
PATTERNS = st.one_of(st.builds(Topic, TOPIC_PATTERNS), st.builds(Fields, topic=FIELD_TOPICS, wanted=WANTED))
EVENTS = st.lists(st.tuples(EVENT_TOPICS, st.dictionaries(NAMES, VALUES)), min_size=1, max_size=4)
# Pattern, owner, and whether it is removed later.
ADDED = st.lists(st.tuples(PATTERNS, st.sampled_from("xyz"), st.booleans()), max_size=15)


def topic_matches(pattern: list[str], words: list[str]) -> bool:
    """AMQP's rules, word by word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(topic_matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and topic_matches(pattern[1:], words[1:])


def matches(pattern: Pattern, topic: str, fields: Mapping[str, str]) -> bool:
    """A plain reference."""
    if isinstance(pattern, Topic):
        wanted, words = pattern.pattern.split("."), topic.split(".")
        reserved = topic.startswith("device.") or (words[0] == "system" and wanted[0] != "system")
        return not reserved and topic_matches(wanted, words)
    return (
        isinstance(pattern, Fields)
        and topic == pattern.topic
        and all(
            any(
                fields.get(name, "").startswith(p[:-1]) if p[-1:] == "*" else fields.get(name, "") == p
                for p in alternatives
            )
            for name, alternatives in pattern.wanted
        )
    )


@given(ADDED, EVENTS)
def test_index_finds_what_trying_each_pattern_finds(
    added: list[tuple[Pattern, str, bool]], events: list[tuple[str, dict[str, str]]]
) -> None:
    index = Index(orjson.loads)
    for pattern, owner, _ in added:
        index.add(pattern, owner)
    for pattern, owner, removed in added:
        if removed:
            index.remove(pattern, owner)

    for topic, fields in events:
        expected = {
            owner for pattern, owner, removed in added if not removed and matches(pattern, topic, fields)
        }
        assert index.owners(topic, fields) == expected


@given(TOPIC_PATTERNS, EVENT_TOPICS)
def test_single_topic_pattern_matches_like_the_reference(pattern: str, topic: str) -> None:
    assert Topic(pattern).matches(topic) is matches(Topic(pattern), topic, {})


@given(ADDED)
def test_emptied_index_keeps_nothing(added: list[tuple[Pattern, str, bool]]) -> None:
    index = Index(orjson.loads)
    for pattern, owner, _ in added:
        index.add(pattern, owner)
    for pattern, owner, _ in reversed(added):
        index.remove(pattern, owner)

    assert state_of(index) == state_of(Index(orjson.loads))


@given(ADDED, EVENTS)
def test_what_was_found_before_a_change_is_not_found_again(
    added: list[tuple[Pattern, str, bool]], events: list[tuple[str, dict[str, str]]]
) -> None:
    """Each look-up comes twice: the second one may be remembered."""
    index, there = Index(orjson.loads), list[tuple[Pattern, str]]()

    def check() -> None:
        for topic, fields in events * 2:
            expected = {owner for pattern, owner in there if matches(pattern, topic, fields)}
            assert index.owners(topic, fields) == expected

    for pattern, owner, _ in added:
        index.add(pattern, owner)
        there.append((pattern, owner))
        check()
    for pattern, owner, removed in added:
        if removed:
            index.remove(pattern, owner)
            there.remove((pattern, owner))
            check()


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MOST_REMEMBERED", 10)
    index = Index(orjson.loads)
    index.add(Topic("#"), "x")

    for number in range(50):
        assert index.owners(f"t.{number}", {}) == {"x"}
        assert len(matching._remembered) <= 10


def test_removing_an_unknown_pattern_changes_nothing() -> None:
    index = Index(orjson.loads)
    index.add(Topic("a.b"), "x")

    index.remove(Topic("a.b.c"), "x")
    index.remove(Topic("a.b"), "y")
    index.remove(Fields("t", (("ep", ("lamp*",)),)), "x")

    assert index.owners("a.b", {}) == {"x"}


def test_owner_of_several_patterns_is_found_once() -> None:
    index = Index(orjson.loads)
    for prefix in ("l*", "la*", "lamp", "*"):
        index.add(Fields("t", (("ep", (prefix,)),)), "a")
    index.add(Fields("t", ()), "b")

    assert index.owners("t", {"ep": "lamp"}) == {"a", "b"}
    assert index.owners("t", {}) == {"a", "b"}
    assert index.owners("u", {"ep": "lamp"}) == set()


def test_many_hash_wildcards_visit_each_node_once_per_word() -> None:
    """The plain reference would try every split of the words, which never ends."""
    index = Index(orjson.loads)
    index.add(Topic(".".join(["#", "a"] * 30)), "x")

    owners, lines = count_lines(lambda: index.owners(".".join(["a"] * 100), {}))

    assert owners == {"x"}
    assert lines <= 20 * 61 * 101
