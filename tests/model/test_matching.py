"""The index finds what asking each pattern would find, however many there are, and whatever came and went."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from shared.model.bindings import Fields, Pattern, Topic
from shared.model.matching import Index
from tests.model.test_bindings import NAMES, VALUES, WANTED

# Few words, so that patterns and topics meet often; an empty one, and signs that an event means literally.
WORDS = st.sampled_from(["a", "b", "", "device"])
EVENT_TOPICS = st.one_of(
    st.sampled_from(["device.notifications", "orders"]),
    st.lists(st.one_of(WORDS, st.sampled_from("*#")), min_size=1, max_size=6).map(".".join),
)
TOPIC_PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from("*##")), min_size=1, max_size=6).map(".".join)
FIELD_TOPICS = st.sampled_from(["device.notifications", "orders", "a.b"])
PATTERNS = st.one_of(st.builds(Topic, TOPIC_PATTERNS), st.builds(Fields, topic=FIELD_TOPICS, wanted=WANTED))
EVENTS = st.lists(st.tuples(EVENT_TOPICS, st.dictionaries(NAMES, VALUES)), min_size=1, max_size=4)
# ChannelRef it is, and whether it is taken back later.
HELD = st.lists(st.tuples(PATTERNS, st.sampled_from("xyz"), st.booleans()), max_size=15)


def topic_matches(pattern: list[str], words: list[str]) -> bool:
    """AMQP's rules, word by word: the plainest form there is."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(topic_matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and topic_matches(pattern[1:], words[1:])


def matches(pattern: Pattern, topic: str, fields: Mapping[str, str]) -> bool:
    """A plain reference for what an event's topic and fields tell."""
    if isinstance(pattern, Topic):
        reserved = topic.startswith("device.")
        return not reserved and topic_matches(pattern.pattern.split("."), topic.split("."))
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


@given(HELD, EVENTS)
def test_the_index_finds_what_asking_each_would_find(
    held: list[tuple[Pattern, str, bool]], events: list[tuple[str, dict[str, str]]]
) -> None:
    index = Index()
    for pattern, owner, _ in held:
        index.add(pattern, owner)
    for pattern, owner, goes in held:
        if goes:
            index.remove(pattern, owner)

    for topic, fields in events:
        asked = {owner for pattern, owner, goes in held if not goes and matches(pattern, topic, fields)}
        assert index.owners(topic, fields) == asked


@given(PATTERNS, EVENTS)
def test_one_pattern_by_itself_judges_as_the_reference_does(
    pattern: Pattern, events: list[tuple[str, dict[str, str]]]
) -> None:
    for topic, fields in events:
        assert pattern.matches(topic, fields) is matches(pattern, topic, fields)


@given(HELD)
def test_an_index_from_which_all_is_removed_keeps_nothing(held: list[tuple[Pattern, str, bool]]) -> None:
    index = Index()
    for pattern, owner, _ in held:
        index.add(pattern, owner)
    for pattern, owner, _ in reversed(held):
        index.remove(pattern, owner)

    assert index.empty


def test_removing_what_was_never_added_changes_nothing() -> None:
    index = Index()
    index.add(Topic("a.b"), "x")

    index.remove(Topic("a.b.c"), "x")
    index.remove(Topic("a.b"), "y")
    index.remove(Fields("t", (("ep", ("lamp*",)),)), "x")

    assert index.owners("a.b", {}) == {"x"}


def test_an_owner_of_many_patterns_is_found_once() -> None:
    index = Index()
    for prefix in ("l*", "la*", "lamp", "*"):
        index.add(Fields("t", (("ep", (prefix,)),)), "a")
    index.add(Fields("t", ()), "b")

    assert index.owners("t", {"ep": "lamp"}) == {"a", "b"}
    assert index.owners("t", {}) == {"a", "b"}
    assert index.owners("u", {"ep": "lamp"}) == set()


def test_many_any_signs_cost_no_more_than_places() -> None:
    """The plain reference would try as many ways as there are splits of the words: more than the stars."""
    index = Index()
    index.add(Topic(".".join(["#", "a"] * 30)), "x")

    assert index.owners(".".join(["a"] * 100), {}) == {"x"}
    assert index.nodes_visited <= 61 * 101
