"""The body of a callback's registration."""

import msgspec
import pytest

from shared.model.errors import Invalid
from shared.wire.models import parse
from shared.wire.pelion.channels import RegisterWebhook, is_json
from shared.wire.pelion.serialization import stored, stored_form


def registration_in(body: bytes) -> RegisterWebhook:
    return parse(msgspec.json.Decoder(RegisterWebhook), body)


def test_every_field() -> None:
    wanted = registration_in(
        b'{"url": "https://a.example/x?y=1", "headers": {"A": "b"}, "more": 1,'
        b' "serialization": {"type": "v2", "max_chunk_size": "200"}}'
    )

    assert wanted.url == "https://a.example/x?y=1"
    assert wanted.headers == {"A": "b"}
    assert stored(stored_form(wanted.serialization)).max_chunk_size == 200


@pytest.mark.parametrize("rest", [b"", b', "headers": null', b', "headers": {}', b', "serialization": null'])
def test_url_is_enough(rest: bytes) -> None:
    wanted = registration_in(b'{"url": "https://a.example"%s}' % rest)

    assert not wanted.headers
    assert wanted.serialization is None


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
