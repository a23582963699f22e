"""Ids of readers of streams: whatever a client sends, only an exact id of its topics means something."""

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.model.streams import Mark
from shared.wire.stream_ids import LONGEST_ID, Position, id_of, marks_in

TOPICS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=255
).filter(lambda topic: not any(map(str.isspace, topic)))
NUMBERS = st.integers(0, 2**64 - 1)
MARKS = st.builds(
    lambda epoch, ms, number: Mark(epoch, f"{ms}-{number}"),
    st.text("0123456789abcdefXYZ_-", max_size=32),
    NUMBERS,
    NUMBERS,
)
READERS = st.dictionaries(TOPICS, st.none() | MARKS, min_size=1, max_size=16)
TOPIC, EPOCH, OFFSET = "orders.paid", "ab12cd34ef56ab78", "1795907463007-3"
VALID = id_of(TOPIC, EPOCH, OFFSET).decode()


def position_of(marks: dict[str, Mark | None]) -> Position:
    position = Position(list(marks))
    for topic, mark in marks.items():
        if mark is not None:
            position.move(topic, mark.epoch, mark.offset)
    return position


@given(READERS)
@example({f"{number:0255}": Mark("x" * 32, f"{2**64 - 1}-{2**64 - 1}") for number in range(16)})
def test_an_id_names_the_marks_of_its_topics_in_any_order(marks: dict[str, Mark | None]) -> None:
    text = position_of(marks).id().decode()
    assert len(text) <= LONGEST_ID
    topics = sorted(marks, key=hash)
    assert marks_in(text, topics) == {topic: mark for topic, mark in marks.items() if mark is not None}


@given(TOPICS, MARKS)
def test_one_topic_has_the_same_id_either_way(topic: str, mark: Mark) -> None:
    assert id_of(topic, mark.epoch, mark.offset) == position_of({topic: mark}).id()


@given(READERS, READERS)
def test_an_id_of_other_topics_means_nothing(
    one: dict[str, Mark | None], other: dict[str, Mark | None]
) -> None:
    text = position_of(one).id().decode()
    assert (marks_in(text, list(other)) is None) == (one.keys() != other.keys())


@given(st.text() | st.binary().map(lambda octets: base64.urlsafe_b64encode(octets).decode()))
@example("")
@example("=")
@example("A" * 100_000)
def test_garbage_means_nothing(text: str) -> None:
    assert marks_in(text, [TOPIC]) is None


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_id_is_none_or_another_exact_one(at: int, bit: int) -> None:
    octets = bytearray(base64.urlsafe_b64decode(VALID + "=" * (-len(VALID) % 4)))
    octets[at % len(octets)] ^= 1 << bit
    text = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
    found = marks_in(text, [TOPIC])
    if found is not None:
        assert found == {} or position_of(dict(found)).id().decode() == text


@pytest.mark.parametrize(
    "text",
    [
        VALID + "=",
        VALID + "A",
        VALID[:-1],
        VALID + "\n",
        " " + VALID,
        VALID.replace("_", "/").replace("-", "+") + "+",
        VALID + "\u00e9",
        VALID + VALID,
        "*" + VALID,
    ],
)
def test_another_spelling_of_an_id_means_nothing(text: str) -> None:
    assert marks_in(VALID, [TOPIC]) == {TOPIC: Mark(EPOCH, OFFSET)}
    assert marks_in(text, [TOPIC]) is None


@pytest.mark.parametrize(
    "place",
    [
        b"",
        b"\x05ab",
        b"\x02a!\x01\x00",
        b"\x01a\x80\x00\x00",
        b"\x01a\x01",
        b"\x01a\x81",
        b"\x01a" + b"\xff" * 9 + b"\x7f" + b"\x00",
        b"\x01a" + b"\x80" * 10 + b"\x01\x00",
        b"\x01a\x01\x00\x00",
        b"\x21" + b"a" * 33 + b"\x01\x00",
        b"\x01\xe9\x01\x00",
    ],
)
def test_a_malformed_place_means_nothing(place: bytes) -> None:
    prefix = base64.urlsafe_b64decode(VALID + "=" * (-len(VALID) % 4))[:9]
    assert marks_in(base64.urlsafe_b64encode(prefix + place).rstrip(b"=").decode(), [TOPIC]) is None
