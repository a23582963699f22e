"""CloudEvents as their specification has them."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

_SCHEMA = orjson.loads((Path(__file__).parent / "schema.json").read_bytes())
_VALIDATOR = jsonschema_rs.Draft7Validator(_SCHEMA, validate_formats=True)


def valid(text: bytes) -> dict[str, Any]:
    """The CloudEvent in this JSON, checked against the specification's schema."""
    event: dict[str, Any] = orjson.loads(text)
    _VALIDATOR.validate(event)
    return event
