"""How a channel wants its notifications encoded: what was put with it, read leniently (section 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shared.model.errors import Invalid

_CHUNK = range(100, 10_001)
_FLAGS = {
    "include_uid": "uid",
    "include_timestamp": "timestamp",
    "include_original_ep": "original_ep",
    "deregistrations_as_object": "deregistrations_as_object",
}


@dataclass(frozen=True, slots=True)
class Serialization:
    """`chunk` bounds the items of a message; the rest says what is added to each item."""

    chunk: int = 10_000
    uid: bool = False
    timestamp: bool = False
    original_ep: bool = False
    deregistrations_as_object: bool = False

    @property
    def adds_to_items(self) -> bool:
        return self.uid or self.timestamp or self.original_ep

    def as_json(self) -> dict[str, Any]:
        cfg = {name: getattr(self, attribute) for name, attribute in _FLAGS.items()}
        return {"type": "v2", "max_chunk_size": self.chunk, "cfg": cfg}


def stored(serialization: bytes) -> Serialization:
    """What `wanted_in` made of a body, as it was stored; the defaults for nothing."""
    if not serialization:
        return Serialization()
    return _parsed(orjson.loads(serialization))


def wanted_in(body: bytes) -> bytes:
    """The serialization asked for in the body of a PUT, to be stored; nothing when there is none.

    Documented examples send numbers and truths as strings, so both are taken. Raises Invalid.
    """
    if not body.strip():
        return b""
    try:
        posted = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if not isinstance(posted, dict):
        raise Invalid("the body must be an object")
    return wanted_of(posted)


def wanted_of(posted: Mapping[str, Any]) -> bytes:
    """The same of a body that was read already. Raises Invalid."""
    wanted = posted.get("serialization")
    return b"" if wanted is None else orjson.dumps(_parsed(wanted).as_json())


def _parsed(wanted: Any) -> Serialization:
    if not isinstance(wanted, dict):
        raise Invalid("must be an object", field="serialization")
    if wanted.get("type") != "v2":
        raise Invalid("must be v2", field="serialization.type")
    chunk = _number(wanted.get("max_chunk_size", _CHUNK[-1]))
    if chunk not in _CHUNK:
        raise Invalid("must be a number from 100 to 10000", field="serialization.max_chunk_size")
    cfg = wanted.get("cfg")
    if cfg is None:
        cfg = {}
    if not isinstance(cfg, dict):
        raise Invalid("must be an object", field="serialization.cfg")
    flags = {attribute: _truth(cfg.get(name, False), name) for name, attribute in _FLAGS.items()}
    return Serialization(chunk=chunk, **flags)


def _number(value: Any) -> int:
    """The value as a number; 0 when it is none."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _truth(value: Any, name: str) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise Invalid("must be true or false", field=f"serialization.cfg.{name}")
