"""In every request body null is the same as a field left out, and a byte order mark is refused."""

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest

import services.gateway.app  # noqa: F401 - adds its operations
from services.gateway.operations import OPERATIONS
from shared.model.errors import Invalid
from shared.wire.events import NewEvent, parse_events
from shared.wire.models import parse
from shared.wire.pelion.serialization import RegisterWebsocketChannel, SerializationWanted, stored_form
from shared.wire.pelion.subscriptions import Presubscription

BOM = b"\xef\xbb\xbf"


def structs_in(annotation: Any) -> Iterator[type[msgspec.Struct]]:
    """The models in a type, also inside lists, unions and other models."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
        for field in msgspec.structs.fields(annotation):
            yield from structs_in(field.type)
    for part in get_args(annotation):
        yield from structs_in(part)


POSTED = [operation.types["posted"] for operation in OPERATIONS if "posted" in operation.types]
MODELS = {model for annotation in (*POSTED, NewEvent, Presubscription) for model in structs_in(annotation)}
OPTIONAL = [
    (model, field)
    for model in sorted(MODELS, key=lambda model: model.__name__)
    for field in msgspec.structs.fields(model)
    if not field.required
]


def test_there_are_models_with_optional_fields() -> None:
    assert {NewEvent, SerializationWanted, Presubscription} <= MODELS
    assert len(OPTIONAL) > 10


@pytest.mark.parametrize(
    ("model", "field"), OPTIONAL, ids=[f"{model.__name__}.{field.encode_name}" for model, field in OPTIONAL]
)
def test_null_is_accepted_where_a_field_may_be_left_out(
    model: type[msgspec.Struct], field: msgspec.structs.FieldInfo
) -> None:
    msgspec.convert(None, field.type)


def test_null_means_what_leaving_out_means() -> None:
    [event] = parse_events(b'{"topic": "a", "data": 1, "receipt": null, "name": null, "to": null, "id": "x"}')
    assert event == parse_events(b'{"topic": "a", "data": 1, "id": "x"}')[0]
    decoder = msgspec.json.Decoder(RegisterWebsocketChannel)
    with_nulls = {"include_uid": None, "include_timestamp": None, "include_original_ep": "true"}
    body = {"serialization": {"type": "v2", "max_chunk_size": None, "cfg": with_nulls}}
    without = {"serialization": {"type": "v2", "cfg": {"include_original_ep": True}}}
    forms = [stored_form(parse(decoder, msgspec.json.encode(each)).serialization) for each in (body, without)]
    assert forms[0] == forms[1]


@pytest.mark.parametrize("annotation", POSTED, ids=str)
def test_a_byte_order_mark_is_refused(annotation: Any) -> None:
    with pytest.raises(Invalid, match="byte order mark"):
        parse(msgspec.json.Decoder(annotation), BOM + b"{}")


@pytest.mark.parametrize("body", [b'{"topic": "a", "data": 1}', b'[{"topic": "a", "data": 1}]'])
def test_a_byte_order_mark_before_events_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid, match="byte order mark"):
        parse_events(BOM + body)
