"""Presubscriptions: limits, wildcards, and what they match."""

import json
from typing import Any

import msgspec
import pytest

from shared.model.bindings import Source
from shared.model.errors import Invalid
from shared.wire.models import parse
from shared.wire.pelion.subscriptions import (
    Presubscription,
    Presubscriptions,
    check_presubscriptions,
    compiled,
)
from tests.model.single import matches

DECODER: msgspec.json.Decoder[list[Presubscription]] = msgspec.json.Decoder(Presubscriptions)
LAMP: dict[str, Any] = {"endpoint-name": "lamp"}


def body(posted: object) -> bytes:
    return json.dumps(posted).encode()


def parse_presubscriptions(raw: bytes) -> list[Presubscription]:
    posted = parse(DECODER, raw)
    check_presubscriptions(posted)
    return posted


def put(posted: object) -> object:
    """The presubscriptions as a GET shows them."""
    return msgspec.to_builtins(parse_presubscriptions(body(posted)))


def error_of(posted: object) -> Invalid:
    with pytest.raises(Invalid) as raised:
        parse_presubscriptions(body(posted))
    return raised.value


def names_of(error: Invalid) -> list[str]:
    return [name for name, _ in error.fields]


@pytest.mark.parametrize(
    "posted",
    [
        [],
        [LAMP],
        [{"endpoint-name": "*"}],
        [{"endpoint-name": "lamp*", "endpoint-type": "light", "resource-path": ["/3/0", "3303/*", "*"]}],
        [LAMP, LAMP],
        [{"endpoint-name": "lamp", "endpoint-type": None, "resource-path": None}],
        [{"resource-path": ["/3/0"]}, {"endpoint-type": "light*"}],
    ],
)
def test_valid_body_comes_back_unchanged(posted: list[dict[str, Any]]) -> None:
    assert put(posted) == posted


@pytest.mark.parametrize("raw", [b"", b"[", b"endpoint-name=lamp", b'[{"endpoint-name":"\xff"}]'])
def test_invalid_json(raw: bytes) -> None:
    with pytest.raises(Invalid, match="not JSON"):
        parse_presubscriptions(raw)


@pytest.mark.parametrize("posted", [None, 7, "lamp", {}, LAMP])
def test_body_that_is_not_an_array(posted: object) -> None:
    assert names_of(error_of(posted)) == []


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (7, ""),
        ("lamp", ""),
        ([], ""),
        ({}, ""),
        ({"endpoint-name": None}, ""),
        ({"ep": "lamp"}, ".ep"),
        ({**LAMP, "Endpoint-Name": "x"}, ".Endpoint-Name"),
        ({"endpoint-name": 7}, ".endpoint-name"),
        ({"endpoint-name": ["lamp"]}, ".endpoint-name"),
        ({"endpoint-name": ""}, ".endpoint-name"),
        ({"endpoint-name": "la*mp"}, ".endpoint-name"),
        ({"endpoint-name": "*lamp"}, ".endpoint-name"),
        ({"endpoint-name": "lamp**"}, ".endpoint-name"),
        ({"endpoint-name": "x" * 65}, ".endpoint-name"),
        ({"endpoint-type": True}, ".endpoint-type"),
        ({"endpoint-type": ""}, ".endpoint-type"),
        ({"endpoint-type": "x" * 65}, ".endpoint-type"),
        ({"endpoint-type": "*x"}, ".endpoint-type"),
        ({"resource-path": "/3/0"}, ".resource-path"),
        ({"resource-path": []}, ".resource-path"),
        ({"resource-path": {}}, ".resource-path"),
        ({"resource-path": ["/3", 7]}, ".resource-path[1]"),
        ({"resource-path": ["/3", ["/4"]]}, ".resource-path[1]"),
        ({"resource-path": [""]}, ".resource-path[0]"),
        ({"resource-path": ["/3/*/1"]}, ".resource-path[0]"),
        ({"resource-path": ["/3", "/" + "x" * 128]}, ".resource-path[1]"),
    ],
)
def test_error_names_its_field(entry: object, field: str) -> None:
    error = error_of([LAMP, entry])

    assert names_of(error) == [f"[1]{field}"]
    assert f"[1]{field}" in error.message


def test_lengths_at_their_limits() -> None:
    entry = {
        "endpoint-name": "n" * 63 + "*",
        "endpoint-type": "é" * 64,
        "resource-path": ["/" + "p" * 127, "p" * 127 + "*"],
    }

    assert put([entry]) == [entry]


def test_as_many_entries_as_the_limit() -> None:
    assert len(parse_presubscriptions(body([LAMP] * 1024))) == 1024


def test_one_entry_more_is_too_many() -> None:
    assert "1024" in error_of([LAMP] * 1025).message


def test_as_many_separate_paths_as_the_limit() -> None:
    halves = [[f"/3/{number}" for number in range(start, start + 128)] for start in (0, 128)]
    entries = [{"resource-path": half} for half in [*halves, *halves]]

    assert put(entries) == entries


@pytest.mark.parametrize("split", [1, 128, 256])
def test_one_separate_path_more_is_too_many(split: int) -> None:
    paths = [f"/3/{number}" for number in range(257)]

    error = error_of([{"resource-path": paths[:split]}, {"resource-path": paths[split:]}])

    assert names_of(error) == ["resource-path"]
    assert "256" in error.message


def matched(entry: dict[str, Any], **fields: str) -> bool:
    """Whether the presubscription, once stored, matches the notification."""
    [pattern] = compiled(Source.PRESUBSCRIPTIONS, msgspec.json.encode(parse_presubscriptions(body([entry]))))
    return matches(pattern, "device.notifications", fields)


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"endpoint-name": "lamp-1"}, True),
        ({"endpoint-name": "lamp"}, False),
        ({"endpoint-name": "lamp*"}, True),
        ({"endpoint-name": "lamp-1*"}, True),
        ({"endpoint-name": "*"}, True),
        ({"endpoint-name": "door*"}, False),
        ({"endpoint-type": "light"}, True),
        ({"endpoint-type": "li*"}, True),
        ({"endpoint-type": "door"}, False),
        ({"resource-path": ["/3303/0/5700"]}, True),
        ({"resource-path": ["3303/0/5700"]}, True),
        ({"resource-path": ["/3303/0/57"]}, False),
        ({"resource-path": ["/3303/*"]}, True),
        ({"resource-path": ["3303*"]}, True),
        ({"resource-path": ["/*"]}, True),
        ({"resource-path": ["*"]}, True),
        ({"resource-path": ["/3/*", "/3303/*"]}, True),
        ({"resource-path": ["/3/*", "/4/*"]}, False),
        ({"endpoint-name": "lamp*", "endpoint-type": "light", "resource-path": ["/3303*"]}, True),
        ({"endpoint-name": "lamp*", "endpoint-type": "door", "resource-path": ["/3303*"]}, False),
        ({"endpoint-name": "lamp*", "resource-path": ["/3/0"]}, False),
        ({"endpoint-name": "door", "resource-path": ["*"]}, False),
        ({"endpoint-name": "lamp-1", "endpoint-type": None}, True),
    ],
)
def test_presubscription_matches(entry: dict[str, Any], *, wanted: bool) -> None:
    assert matched(entry, ep="lamp-1", ept="light", path="/3303/0/5700") is wanted


def test_device_of_unknown_type_matches_only_a_star() -> None:
    assert not matched({"endpoint-type": "light"}, ep="lamp", path="/3")
    assert matched({"endpoint-type": "*"}, ep="lamp", path="/3")


def test_presubscriptions_match_device_notifications_only() -> None:
    [pattern] = compiled(Source.PRESUBSCRIPTIONS, body([{"endpoint-name": "*"}]))

    assert not matches(pattern, "device.registrations", {"ep": "lamp"})


def test_each_entry_is_one_pattern() -> None:
    assert len(compiled(Source.PRESUBSCRIPTIONS, body([LAMP, {"endpoint-name": "door"}]))) == 2
    assert compiled(Source.PRESUBSCRIPTIONS, body([])) == ()
