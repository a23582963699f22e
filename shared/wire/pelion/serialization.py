"""How a channel wants its notifications encoded (section 2).

Documented examples send numbers and booleans as strings, so both are accepted; unknown fields are ignored.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shared.wire.models import rule

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


class SerializationFlags(Struct, frozen=True, forbid_unknown_fields=True):
    """Each `include` adds something to each item."""

    deregistrations_as_object: bool
    include_uid: bool
    include_timestamp: bool
    include_original_ep: bool


class Serialization(Struct, frozen=True, forbid_unknown_fields=True):
    """How notifications are encoded. `max_chunk_size` bounds the items of a message."""

    type: Literal["v2"]
    max_chunk_size: _Chunk
    cfg: SerializationFlags


class WantedFlags(Struct):
    deregistrations_as_object: _Flag | None = False
    include_uid: _Flag | None = False
    include_timestamp: _Flag | None = False
    include_original_ep: _Flag | None = False


class SerializationWanted(Struct):
    type: Literal["v2"]
    max_chunk_size: _Chunk | _ChunkText | None = _MAX_CHUNK
    cfg: WantedFlags | None = None


class RegisterWebsocketChannel(Struct):
    serialization: SerializationWanted | None = None


DEFAULT = Serialization("v2", _MAX_CHUNK, SerializationFlags(False, False, False, False))
_STORED = msgspec.json.Decoder(Serialization)
_NAMES = SerializationFlags.__struct_fields__


def stored(serialization: bytes) -> Serialization:
    """The serialization, from its stored form; the default for none."""
    return _STORED.decode(serialization) if serialization else DEFAULT


def stored_form(wanted: SerializationWanted | None) -> bytes:
    """What Redis holds of a request; empty for none."""
    if wanted is None:
        return b""
    cfg = wanted.cfg or WantedFlags()
    flags = {name: _truth(getattr(cfg, name)) for name in _NAMES}
    serialization = Serialization("v2", int(wanted.max_chunk_size or _MAX_CHUNK), SerializationFlags(**flags))
    return msgspec.json.encode(serialization)


def _truth(flag: bool | str | None) -> bool:
    return flag.lower() == "true" if isinstance(flag, str) else bool(flag)
