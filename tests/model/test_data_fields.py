"""`DataFields` by themselves, and in the index."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.model.bindings import DataFields, Pattern, Topic
from shared.model.data_values import MAX_TEXTS, glob_matches, texts_at
from shared.model.matching import Index
from tests.model.single import matches_data
from tests.model.work import count_lines, state_of

# Few words and letters, so that patterns and data match often; with characters that are special in a regex.
WORDS = st.sampled_from(["a", "b", "c", ""])
TEXTS = st.text("ab.*", max_size=4)
SCALARS = st.one_of(TEXTS, st.integers(0, 2), st.booleans(), st.none(), st.sampled_from([0.5, 1.0, 1e16]))
DATA = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner)),
    max_leaves=12,
)
PATHS = st.lists(WORDS, min_size=1, max_size=3).map(".".join)
VALUES = st.one_of(
    TEXTS, st.sampled_from(["0", "1", "true", "false", "null", "0.5", "1.0", "a*", "*", "*b*"])
)
WANTED = st.lists(st.tuples(PATHS, st.lists(VALUES, min_size=1, max_size=3).map(tuple)), max_size=3).map(
    tuple
)
PATTERNS = st.builds(DataFields, WANTED)
# Pattern, owner, and whether it is removed later.
ADDED = st.lists(st.tuples(PATTERNS, st.sampled_from("xyz"), st.booleans()), max_size=15)

JOB: dict[str, Any] = {
    "id": "5f1c",
    "at": 1471651200000,
    "type": 310,
    "org": "IBM (Contract)",
    "hot": True,
    "score": 0.5,
    "old_loc": None,
    "tags": ["it", "usa", ["deep"]],
    "employee": {"title": "CTO", "posts": [{"org": "IBM"}, {"org": "Apple"}]},
}


def values_at(value: Any, words: list[str]) -> list[Any]:
    """All values at a path."""
    if isinstance(value, list):
        return [found for item in value for found in values_at(item, words)]
    if not words:
        return [value]
    if isinstance(value, dict) and words[0] in value:
        return values_at(value[words[0]], words[1:])
    return []


def value_matches(pattern: str, value: Any) -> bool:
    if value is None or isinstance(value, dict):
        return False
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def matches_reference(pattern: DataFields, data: Any) -> bool:
    """The plain reference."""
    return all(
        any(value_matches(str(one), value) for one in patterns for value in values_at(data, path.split(".")))
        for path, patterns in pattern.wanted
    )


@pytest.mark.parametrize(
    ("path", "values", "wanted"),
    [
        ("id", ("5f1c",), True),
        ("id", ("5F1C",), False),
        ("id", ("5f1",), False),
        ("type", ("310",), True),
        ("type", ("job-join", "310"), True),
        ("type", ("job-join", "330"), False),
        ("at", ("1471651200000",), True),
        ("score", ("0.5",), True),
        ("hot", ("true",), True),
        ("hot", ("True",), False),
        ("hot", ("1",), False),
        ("org", ("IBM",), False),
        ("org", ("IBM*",), True),
        ("org", ("*(Contract)",), True),
        ("org", ("I*(*)",), True),
        ("org", ("*BM*tract*",), True),
        ("org", ("*",), True),
        ("org", ("*tract*BM*",), False),
        ("old_loc", ("*",), False),
        ("old_loc", ("null",), False),
        ("old_loc.city", ("*",), False),
        ("employee", ("*",), False),
        ("employee.title", ("CTO",), True),
        ("employee.title.more", ("*",), False),
        ("employee.name", ("*",), False),
        ("tags", ("usa",), True),
        ("tags", ("deep",), True),
        ("tags", ("u*",), True),
        ("tags", ("uk",), False),
        ("employee.posts.org", ("Apple",), True),
        ("employee.posts.org", ("Cognism",), False),
        ("employee.posts", ("*",), False),
    ],
)
def test_field(path: str, values: tuple[str, ...], *, wanted: bool) -> None:
    assert matches_data(DataFields(((path, values),)), JOB) is wanted


def test_all_fields_must_match() -> None:
    assert matches_data(DataFields((("type", ("310",)), ("tags", ("it",)))), JOB)
    assert not matches_data(DataFields((("type", ("310",)), ("tags", ("uk",)))), JOB)


@pytest.mark.parametrize("data", [JOB, {}, [], "text", 7, None])
def test_empty_pattern_matches_everything(data: Any) -> None:
    assert matches_data(DataFields(()), data)
    assert not matches_data(DataFields((("type", ("*",)),)), data) or data is JOB


def test_list_of_objects_matches_by_any_of_them() -> None:
    assert matches_data(DataFields((("type", ("310",)),)), [{"type": 330}, {"type": 310}])


@given(TEXTS, st.text("ab.\n", max_size=6))
@example("a*a", "a")
@example("*a*b*", "ba")
def test_star_matches_any_run(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) is value_matches(pattern, text)


def test_many_stars_do_not_backtrack() -> None:
    """Backtracking at each star would never end."""
    assert not glob_matches("*a" * 500 + "*b", "a" * 200_000)
    assert not glob_matches("*" + "ab*" * 500 + "c*", "ab" * 100_000)


def test_deep_nesting_needs_no_recursion() -> None:
    data: Any = "deep"
    for _ in range(100_000):
        data = [data]

    assert texts_at({"a": data}, "a") == {"deep"}


def test_only_the_first_values_of_a_long_list_count() -> None:
    data = {"tags": [f"t{number}" for number in range(MAX_TEXTS + 1)]}
    index = Index(orjson.loads)
    for number in (MAX_TEXTS - 1, MAX_TEXTS):
        index.add(DataFields((("tags", (f"t{number}",)),)), str(number))

    assert index.owners_by_data(data) == {str(MAX_TEXTS - 1)}


@given(ADDED, st.lists(DATA, min_size=1, max_size=4))
def test_index_finds_what_trying_each_pattern_finds(
    added: list[tuple[DataFields, str, bool]], events: list[Any]
) -> None:
    index = Index(orjson.loads)
    for pattern, owner, _ in added:
        index.add(pattern, owner)
    for pattern, owner, removed in added:
        if removed:
            index.remove(pattern, owner)

    for data in events:
        expected = {
            owner for pattern, owner, removed in added if not removed and matches_reference(pattern, data)
        }
        assert index.owners_by_data(data) == expected


@given(ADDED)
def test_emptied_index_keeps_nothing(added: list[tuple[DataFields, str, bool]]) -> None:
    index = Index(orjson.loads)
    for pattern, owner, _ in added:
        index.add(pattern, owner)
    assert index.has_data_patterns is bool(added)
    for pattern, owner, _ in reversed(added):
        index.remove(pattern, owner)

    assert state_of(index) == state_of(Index(orjson.loads))
    assert not index.has_data_patterns


def test_removing_an_unknown_pattern_changes_nothing() -> None:
    index = Index(orjson.loads)
    known: Pattern = DataFields((("a", ("1",)),))
    index.add(known, "x")

    index.remove(known, "y")
    index.remove(DataFields((("a", ("2",)),)), "x")
    index.remove(DataFields(()), "x")

    assert index.owners_by_data({"a": 1}) == {"x"}


def test_topics_and_data_are_separate() -> None:
    index = Index(orjson.loads)
    index.add(Topic("#"), "topic")
    index.add(DataFields(()), "data")

    assert index.owners("orders", {}) == {"topic"}
    assert index.owners_by_data({}) == {"data"}


def work(patterns: list[DataFields], data: Any, *, found: int) -> int:
    index = Index(orjson.loads)
    for number, pattern in enumerate(patterns):
        index.add(pattern, str(number))
    owners, lines = count_lines(lambda: index.owners_by_data(data))
    assert len(owners) == found
    return lines


FORMS: list[list[tuple[str, tuple[str, ...]]]] = [
    [("id", ("{}",))],
    [("type", ("job-join",)), ("org", ("org-{}",))],
    [("org", ("org-{}",)), ("type", ("job-join", "job-leave"))],
    [("type", ("job-join",)), ("org", ("org-{}*",))],
    [("type", ("*join*",)), ("org", ("org-{}", "other-{}"))],
    [("type", ("job-join",)), ("field-{}", ("*",))],
    [("type", ("other-{}",)), ("org", ("*",))],
    [("type", ("job-join", "other-{}")), ("employee.title-{}", ("CTO",))],
]


@pytest.mark.parametrize("form", FORMS)
def test_other_patterns_hardly_cost(form: list[tuple[str, tuple[str, ...]]]) -> None:
    def pattern(number: int) -> DataFields:
        return DataFields(
            tuple((path.format(number), tuple(v.format(number) for v in values)) for path, values in form)
        )

    data = {"type": "job-join", "org": "org", "employee": {"title": "CTO"}, "tags": ["a", "b"]}

    few, many = (work([pattern(n) for n in range(count)], data, found=0) for count in (10, 2_000))

    assert many <= few + 50
