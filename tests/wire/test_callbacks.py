"""The body of a callback's registration."""

import pytest

from shared.model.errors import Invalid
from shared.wire.pelion.callbacks import is_json, registration_in
from shared.wire.pelion.serialization import stored


def test_every_field() -> None:
    wanted = registration_in(
        b'{"url": "https://a.example/x?y=1", "headers": {"A": "b"}, "more": 1,'
        b' "serialization": {"type": "v2", "max_chunk_size": "200"}}'
    )

    assert wanted.callback.url == "https://a.example/x?y=1"
    assert wanted.callback.headers == {"A": "b"}
    assert stored(wanted.serialization).chunk == 200


@pytest.mark.parametrize("rest", [b"", b', "headers": null', b', "headers": {}', b', "serialization": null'])
def test_url_is_enough(rest: bytes) -> None:
    wanted = registration_in(b'{"url": "https://a.example"%s}' % rest)

    assert wanted.callback.headers == {}
    assert wanted.serialization == b""


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"null", None),
        (b'"https://a.example"', None),
        (b'{"URL": "https://a.example"}', "url"),
        (b'{"url": ["https://a.example"]}', "url"),
        (b'{"url": "https://a.example", "headers": "a: b"}', "headers"),
        (b'{"url": "https://a.example", "headers": {"a": null}}', "headers"),
        (b'{"url": "https://a.example", "serialization": []}', "serialization"),
    ],
)
def test_invalid_body(body: bytes, field: str | None) -> None:
    with pytest.raises(Invalid) as error:
        registration_in(body)
    assert [name for name, _ in error.value.fields] == ([] if field is None else [field])


@pytest.mark.parametrize(
    ("content_type", "may_be"),
    [
        ("", True),
        ("application/json", True),
        (" APPLICATION/JSON ;charset=utf-8", True),
        ("application/problem+json", True),
        ("text/json", True),
        ("text/plain", False),
        ("application/jsonl", False),
        ("application/x-www-form-urlencoded", False),
        ("application/octet-stream", False),
    ],
)
def test_content_type_may_be_json(content_type: str, may_be: bool) -> None:
    assert is_json(content_type) is may_be
