"""Errors of request models: the field in our form, the rule in plain words."""

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from shared.model.errors import Invalid
from shared.wire.accounts import NewApiKey
from shared.wire.models import Closed, Id, convert, parse


class Inner(Closed):
    id: Id
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    tags: Annotated[list[str], Meta(max_length=2)] | None = None
    labels: dict[str, str] | None = None


DECODER = msgspec.json.Decoder(list[Inner])
ID = "0" * 32


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{}", "must be an array, not an object"),
        ("[1]", "[0]: must be an object, not an integer"),
        ("[{}]", "[0].id: is missing"),
        ('[{"id":"x"}]', "[0].id: must be 32 hexadecimal digits"),
        ('[{"id":"ID\\n"}]', "[0].id: must be 32 hexadecimal digits"),
        ('[{"id":"ID","other":1}]', "[0].other: unknown field"),
        ('[{"id":"ID","count":0}]', "[0].count: must be an integer >= 1"),
        ('[{"id":"ID","count":"1"}]', "[0].count: must be an integer, not a string"),
        ('[{"id":"ID","tags":["","",""]}]', "[0].tags: must be an array of length <= 2"),
        ('[{"id":"ID","tags":["",null]}]', "[0].tags[1]: must be a string, not null"),
        ('[{"id":"ID","labels":{"a":1}}]', "[0].labels: must be a string, not an integer"),
        ('[{"id":"ID","labels":[]}]', "[0].labels: must be an object or null, not an array"),
        ("[", "the body is not JSON: unexpected end of data: line 1 column 2 (char 1)"),
    ],
)
def test_message(body: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse(DECODER, body.replace("ID", ID).encode())

    assert raised.value.message == message


def test_position_precedes_the_field() -> None:
    with pytest.raises(Invalid) as raised:
        parse(msgspec.json.Decoder(Inner), b"{}", at="line 4")

    assert raised.value.fields == [("line 4.id", "is missing")]


def test_a_syntax_error_in_a_line_counts_no_lines_of_its_own() -> None:
    with pytest.raises(Invalid) as raised:
        parse(DECODER, b"[", at="line 4")

    assert raised.value.fields == [("line 4", "is not JSON: unexpected end of data")]


def test_values_from_elsewhere_follow_the_same_rules() -> None:
    with pytest.raises(Invalid) as raised:
        convert({"name": "n", "scopes": ["publish", "admn"]}, NewApiKey)

    assert raised.value.fields == [
        ("scopes[1]", "'admn' is not one of the values that GET /openapi.json lists")
    ]
