"""What a session wants comes back as it was kept."""

from hypothesis import given
from hypothesis import strategies as st

from shared.model.bindings import DataFields, Pattern, Topic
from shared.model.sessions import Wanted
from shared.wire.sessions import compiled_wanted, stored_wanted

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FIELDS = st.dictionaries(TEXTS, st.lists(TEXTS, min_size=1).map(tuple)).map(
    lambda fields: tuple(fields.items())
)
PATTERNS = st.one_of(st.builds(Topic, TEXTS), st.builds(DataFields, FIELDS))


@given(st.lists(PATTERNS))
def test_kept_and_read_again(patterns: list[Pattern]) -> None:
    wanted = [Wanted(account="a", requested=str(n), pattern=pattern) for n, pattern in enumerate(patterns)]

    assert compiled_wanted(stored_wanted(wanted)) == tuple(dict.fromkeys(patterns))


def test_what_is_kept() -> None:
    wanted = [
        Wanted(account="a", requested="call.*.*", pattern=Topic("call.*.*")),
        Wanted(account="a", requested="{}", pattern=DataFields((("type", ("310", "330")),))),
        Wanted(account="b", requested="call.*.*", pattern=Topic("call.*.*")),
    ]

    assert stored_wanted(wanted) == b'[{"topic":"call.*.*"},{"data":{"type":["310","330"]}}]'
