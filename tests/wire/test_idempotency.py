"""The Idempotency-Key header, and what makes two requests the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.errors import Invalid
from shared.model.idempotency import Repeatable
from shared.wire.idempotency import fingerprint_of, idempotency_key_in

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("a", "a"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("x" * 255, "x" * 255),
        ("a b;c=1, d", "a b;c=1, d"),
        ('say "hi"', 'say "hi"'),
        ("back\\slash", "back\\slash"),
        ('"a"', "a"),
        ('"a b"', "a b"),
        (f'"{"x" * 255}"', "x" * 255),
        (r'"say \"hi\" \\"', 'say "hi" \\'),
    ],
)
def test_key_may_be_bare_or_quoted(header: str, key: str) -> None:
    assert idempotency_key_in([header]) == key


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ['""'],
        ['"'],
        ['"a'],
        ['"a"b'],
        ['"a" '],
        [r'"\a"'],
        ['"a\\"'],
        ["a\tb"],
        ["a\x00"],
        ["a\n"],
        ["a\x7f"],
        ["clé"],
        ['"clé"'],
        ["x" * 256],
        [f'"{"x" * 256}"'],
        ["a", "a"],
        ["a", "b"],
    ],
)
def test_malformed_key_is_refused(values: list[str]) -> None:
    with pytest.raises(Invalid) as raised:
        idempotency_key_in(values)

    assert [name for name, _ in raised.value.fields] == ["Idempotency-Key"]


def test_no_header_means_no_key() -> None:
    assert idempotency_key_in([]) is None


@given(PRINTABLE)
def test_quoted_key_survives(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert idempotency_key_in([quoted]) == key


def test_fingerprint_depends_on_media_type_and_body() -> None:
    requests = [("application/json", b"{}"), ("application/json", b"{} "), ("", b"{}"), ("a", b"b\nc")]

    assert fingerprint_of("a\nb", b"c") != fingerprint_of("a", b"b\nd")
    assert len({fingerprint_of(*request) for request in requests}) == len(requests)
    assert fingerprint_of("a", b"b") == fingerprint_of("a", b"b")


def test_event_id_depends_on_api_key_idempotency_key_content_and_index() -> None:
    requests = [
        Repeatable("0" * 32, "a", "f"),
        Repeatable("1" * 32, "a", "f"),
        Repeatable("0" * 32, "b", "f"),
        Repeatable("0" * 32, "a", "e"),
        Repeatable("0" * 32, "1 a", "f"),
    ]

    ids = [request.event_id(index) for request in requests for index in range(20)]

    assert len(set(ids)) == len(ids)
    assert ids == [request.event_id(index) for request in requests for index in range(20)]
    assert ids[0] == "5bb310eb-f19c-56dc-88f6-c5ee0228d395", (
        "must never change: a retry may reach a newer version"
    )
