"""The index finds what asking each pattern would find, however many there are."""

from hypothesis import given
from hypothesis import strategies as st

from shared.model.bindings import Fields
from shared.model.matching import Index
from tests.model.test_bindings import NAMES, TOPICS, VALUES, WANTED

PATTERNS = st.builds(Fields, topic=TOPICS, wanted=WANTED)


@given(st.lists(PATTERNS, max_size=12), TOPICS, st.dictionaries(NAMES, VALUES))
def test_the_index_finds_what_asking_each_would_find(
    patterns: list[Fields], topic: str, fields: dict[str, str]
) -> None:
    index = Index()
    for number, pattern in enumerate(patterns):
        index.add(pattern, str(number))

    asked = {str(n) for n, pattern in enumerate(patterns) if pattern.matches(topic, fields)}

    assert index.owners(topic, fields) == asked


def test_an_owner_of_many_patterns_is_found_once() -> None:
    index = Index()
    for prefix in ("l*", "la*", "lamp", "*"):
        index.add(Fields("t", (("ep", (prefix,)),)), "a")
    index.add(Fields("t", ()), "b")

    assert index.owners("t", {"ep": "lamp"}) == {"a", "b"}
    assert index.owners("t", {}) == {"a", "b"}
    assert index.owners("u", {"ep": "lamp"}) == set()
