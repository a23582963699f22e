"""Stored patterns of a session."""

from hypothesis import given
from hypothesis import strategies as st

from shared.model.bindings import DataFields, Pattern, Topic
from shared.model.sessions import SessionBinding
from shared.wire.sessions import decode_patterns, encode_patterns

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FIELDS = st.dictionaries(TEXTS, st.lists(TEXTS, min_size=1).map(tuple)).map(
    lambda fields: tuple(fields.items())
)
PATTERNS = st.one_of(st.builds(Topic, TEXTS), st.builds(DataFields, FIELDS))


@given(st.lists(PATTERNS))
def test_patterns_survive_encoding(patterns: list[Pattern]) -> None:
    bindings = [
        SessionBinding(account="a", requested=str(n), pattern=pattern) for n, pattern in enumerate(patterns)
    ]

    assert decode_patterns(encode_patterns(bindings)) == tuple(dict.fromkeys(patterns))


def test_stored_form() -> None:
    bindings = [
        SessionBinding(account="a", requested="call.*.*", pattern=Topic("call.*.*")),
        SessionBinding(account="a", requested="{}", pattern=DataFields((("type", ("310", "330")),))),
        SessionBinding(account="b", requested="call.*.*", pattern=Topic("call.*.*")),
    ]

    assert encode_patterns(bindings) == b'[{"topic":"call.*.*"},{"data":{"type":["310","330"]}}]'
