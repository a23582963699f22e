"""Presubscriptions: which notifications a channel wants, by device name, device type and path (section 3)."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shared.model.bindings import Fields, Pattern, Source
from shared.model.errors import Invalid
from shared.model.events import DEVICE_NOTIFICATIONS
from shared.wire.models import Closed, rule
from shared.wire.pelion.resources import MAX_NAME, MAX_PATH, stored_resources
from shared.wire.sessions import decode_patterns
from shared.wire.topic_bindings import stored_topics

MAX_ENTRIES = 1024
MAX_PATHS = 256
# Our own bound: every gateway indexes each path of each entry.
MAX_MENTIONS = 16_384

_STAR = rule(r"^[^*]*\*?\Z", "only the last character may be *")
_Name = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_NAME, pattern=_STAR, description="A * at the end matches any rest."),
]
_Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH, pattern=_STAR)]


class Presubscription(Closed, rename="kebab"):
    """All given fields must match; null is the same as left out."""

    endpoint_name: _Name | UnsetType | None = UNSET
    # The service documents no wildcard for types; here a * works as in names.
    endpoint_type: _Name | UnsetType | None = UNSET
    resource_path: Annotated[list[_Path], Meta(min_length=1)] | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if not (self.endpoint_name or self.endpoint_type or self.resource_path):
            raise ValueError("a presubscription must name a device, a type or a path")


Presubscriptions = Annotated[list[Presubscription], Meta(max_length=MAX_ENTRIES)]
_STORED: msgspec.json.Decoder[list[Presubscription]] = msgspec.json.Decoder(list[Presubscription])


def check_presubscriptions(posted: Presubscriptions) -> None:
    """Checks the limits of all together. Raises Invalid, naming the field."""
    paths = [path for entry in posted for path in entry.resource_path or ()]
    if len(paths) > MAX_MENTIONS:
        raise Invalid(f"{len(paths)} paths in all; the limit is {MAX_MENTIONS}", field="resource-path")
    if len(set(paths)) > MAX_PATHS:
        raise Invalid(f"{len(set(paths))} separate paths; the limit is {MAX_PATHS}", field="resource-path")


def compiled(source: Source, stored: bytes) -> tuple[Pattern, ...]:
    """The patterns of stored bindings of any source."""
    match source:
        case Source.PRESUBSCRIPTIONS:
            return tuple(map(_fields, _STORED.decode(stored)))
        case Source.RESOURCES:
            return stored_resources(stored)
        case Source.TOPICS:
            return stored_topics(stored)
        case Source.SESSION:
            return decode_patterns(stored)


def _fields(entry: Presubscription) -> Fields:
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if entry.endpoint_name:
        wanted.append(("ep", (entry.endpoint_name,)))
    if entry.endpoint_type:
        wanted.append(("ept", (entry.endpoint_type,)))
    if entry.resource_path:
        wanted.append(("path", tuple(_path_pattern(path) for path in entry.resource_path)))
    return Fields(topic=DEVICE_NOTIFICATIONS, wanted=tuple(wanted))


def _path_pattern(path: str) -> str:
    return path if path == "*" else "/" + path.lstrip("/")
