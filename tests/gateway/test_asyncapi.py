"""The AsyncAPI document is valid, names what there is, and its messages can be told apart."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from services.gateway.app import ASYNC_DOCUMENT, DOCUMENT
from services.socket_edge.app import CONNECT_PATH
from services.socket_edge.native.door import HANDLERS, NATIVE_PATH
from services.socket_edge.streams.sse import STREAM_PATH
from shared.version import VERSION
from shared.wire.close_reasons import CLOSE_ROWS
from shared.wire.native.frames import OPERATIONS as OPERATIONS_OF_FRAMES
from tests.harness.frames import CLIENT, SERVER, check_frame, messages

# Of the package @asyncapi/specs, unchanged; its licence lies beside it.
SCHEMA = Path(__file__).parent / "asyncapi" / "3.0.0.json.gz"
CHANNELS: dict[str, Any] = ASYNC_DOCUMENT["channels"]
OPERATIONS: dict[str, Any] = ASYNC_DOCUMENT["operations"]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def resolved(reference: str) -> Any:
    first, *path = reference.split("/")
    assert first == "#", reference
    found: Any = ASYNC_DOCUMENT
    for step in path:
        found = found[step]
    return found


def test_the_document_is_valid() -> None:
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    jsonschema_rs.Draft7Validator(schema).validate(ASYNC_DOCUMENT)


def test_the_schema_refuses_what_is_no_document() -> None:
    schema = jsonschema_rs.Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))
    operation = {**OPERATIONS["ping"], "action": "publish"}
    assert not schema.is_valid({**ASYNC_DOCUMENT, "operations": {"ping": operation}})


def test_references_lead_somewhere() -> None:
    found = set(references(ASYNC_DOCUMENT))
    assert len(found) > 40
    for reference in found:
        assert resolved(reference), reference


def test_no_schema_is_left_over() -> None:
    used = {each.split("/")[-1] for each in references(ASYNC_DOCUMENT) if "/schemas/" in each}
    assert used == set(ASYNC_DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_uses_messages_of_its_channel(name: str) -> None:
    operation = OPERATIONS[name]
    channel = operation["channel"]["$ref"]
    of_channel = f"{channel}/messages/"
    used = [*operation["messages"], *operation.get("reply", {}).get("messages", [])]
    assert used
    assert all(each["$ref"].startswith(of_channel) for each in used)
    assert ("reply" in operation) == (operation["action"] == "receive")


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_message_is_said_by_one_side(channel: str) -> None:
    said = Counter(each.name for side in (SERVER, CLIENT) for each in messages(channel, side))
    assert said == Counter(list(CHANNELS[channel]["messages"]))


def test_every_operation_of_the_native_socket_is_documented() -> None:
    assert {each.name for each in messages("native", CLIENT)} == set(OPERATIONS_OF_FRAMES)
    assert set(HANDLERS) <= set(OPERATIONS_OF_FRAMES)


def test_channels_are_at_the_paths_of_the_edge_that_openapi_has_too() -> None:
    addresses = {each["address"] for each in CHANNELS.values()}
    assert addresses == {NATIVE_PATH, STREAM_PATH, CONNECT_PATH}
    assert addresses <= set(DOCUMENT["paths"])


def test_close_codes_are_those_of_the_table() -> None:
    native = {str(row.native) for row in CLOSE_ROWS.values() if row.native is not None}
    assert set(CHANNELS["native"]["x-close-codes"]) == native
    of_2019, of_2020 = CHANNELS["pelion"]["x-close-codes"].values()
    assert "1008" in of_2019
    assert "1012" in of_2020


@pytest.mark.parametrize(
    ("side", "frame"),
    [
        (CLIENT, {"ref": 1, "subscribe": {"topic": "a", "at": "b"}}),
        (CLIENT, {"ref": 1, "subscribe": {}}),
        (CLIENT, {"ref": -1, "ping": {}}),
        (CLIENT, {"ping": {}}),
        (CLIENT, {"ref": 1, "ping": {}, "close": {"channel": "a"}}),
        (CLIENT, {"ref": 1, "publish": {"events": []}}),
        (SERVER, {"ref": 1, "error": {"code": "odd", "message": "m"}}),
        (SERVER, {"topic": "a", "offset": "1-0", "event": {"id": "1"}}),
        (SERVER, {"ref": 1, "pong": {"at": 1}}),
        (SERVER, {"subscribed": {"topic": "a", "epoch": "", "offset": "0-0", "recovered": True}}),
    ],
)
def test_what_is_no_frame_is_no_message(side: str, frame: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="no message of the document"):
        check_frame("native", side, frame)


def test_version_is_that_of_the_other_document() -> None:
    assert ASYNC_DOCUMENT["info"]["version"] == DOCUMENT["info"]["version"] == VERSION
