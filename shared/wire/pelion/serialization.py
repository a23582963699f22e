"""How a channel wants its notifications encoded (section 2).

Documented examples send numbers and booleans as strings, so both are accepted; unknown fields are ignored.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shared.wire.models import Closed, rule

_MAX_CHUNK = 10_000
_Chunk = Annotated[int, Meta(ge=100, le=_MAX_CHUNK)]
_ChunkText = Annotated[
    str,
    Meta(pattern=rule(r"^0{0,6}([1-9][0-9]{2,3}|10000)\Z", "must be a number from 100 to 10000")),
]
_FlagText = Annotated[
    str,
    Meta(pattern=rule(r"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\Z", "must be true or false")),
]
_Flag = bool | _FlagText
_ATTRIBUTES = {
    "include_uid": "uid",
    "include_timestamp": "timestamp",
    "include_original_ep": "original_ep",
    "deregistrations_as_object": "deregistrations_as_object",
}


@dataclass(frozen=True, slots=True)
class Serialization:
    """`chunk` bounds the items of a message; each flag adds something to each item."""

    chunk: int = _MAX_CHUNK
    uid: bool = False
    timestamp: bool = False
    original_ep: bool = False
    deregistrations_as_object: bool = False

    @property
    def adds_to_items(self) -> bool:
        return self.uid or self.timestamp or self.original_ep


class SerializationFlags(Closed):
    deregistrations_as_object: bool
    include_uid: bool
    include_timestamp: bool
    include_original_ep: bool


class SerializationBody(Closed):
    """How notifications are encoded. Redis holds this form too."""

    type: Literal["v2"]
    max_chunk_size: _Chunk
    cfg: SerializationFlags


class WantedFlags(Struct):
    deregistrations_as_object: _Flag = False
    include_uid: _Flag = False
    include_timestamp: _Flag = False
    include_original_ep: _Flag = False


class SerializationWanted(Struct):
    type: Literal["v2"]
    max_chunk_size: _Chunk | _ChunkText = _MAX_CHUNK
    cfg: WantedFlags | None = None


class RegisterWebsocketChannel(Struct):
    serialization: SerializationWanted | None = None


_STORED = msgspec.json.Decoder(SerializationBody)


def stored(serialization: bytes) -> Serialization:
    """The serialization, from its stored form; the default for none."""
    if not serialization:
        return Serialization()
    body = _STORED.decode(serialization)
    flags = {attribute: getattr(body.cfg, name) for name, attribute in _ATTRIBUTES.items()}
    return Serialization(body.max_chunk_size, **flags)


def serialization_body(serialization: Serialization) -> SerializationBody:
    flags = {name: getattr(serialization, attribute) for name, attribute in _ATTRIBUTES.items()}
    return SerializationBody("v2", serialization.chunk, SerializationFlags(**flags))


def stored_form(wanted: SerializationWanted | None) -> bytes:
    """What Redis holds of a request; empty for none."""
    if wanted is None:
        return b""
    cfg = wanted.cfg or WantedFlags()
    flags = {name: _truth(getattr(cfg, name)) for name in _ATTRIBUTES}
    body = SerializationBody("v2", int(wanted.max_chunk_size), SerializationFlags(**flags))
    return msgspec.json.encode(body)


def _truth(flag: bool | str) -> bool:
    return flag.lower() == "true" if isinstance(flag, str) else flag
