"""Presubscriptions: which notifications a channel wants, by device name, device type and path (section 3)."""

from typing import Any

import orjson

from shared.model.bindings import Fields, Pattern, Source
from shared.model.errors import Invalid
from shared.model.events import DEVICE_NOTIFICATIONS
from shared.wire.pelion.resources import stored_resources
from shared.wire.sessions import decode_patterns
from shared.wire.topic_bindings import stored_topics

MAX_ENTRIES = 1024
MAX_NAME = 64
MAX_PATH = 128
MAX_PATHS = 256
# Not the service's: each of them is a place in every gateway's index.
MAX_MENTIONS = 16_384
_NAMES = {"endpoint-name", "endpoint-type", "resource-path"}


def parse_presubscriptions(body: bytes) -> list[dict[str, Any]]:
    """The posted array, checked and otherwise as it came. Raises Invalid naming the field."""
    try:
        posted = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    if not isinstance(posted, list):
        raise Invalid("the body must be an array of presubscriptions")
    if len(posted) > MAX_ENTRIES:
        raise Invalid(f"{len(posted)} presubscriptions; at most {MAX_ENTRIES} are kept")
    paths: set[str] = set()
    for index, entry in enumerate(posted):
        paths |= _checked(entry, at=f"[{index}]")
    mentions = sum(len(entry.get("resource-path") or ()) for entry in posted)
    if mentions > MAX_MENTIONS:
        raise Invalid(f"{mentions} paths in all; at most {MAX_MENTIONS} are kept", field="resource-path")
    if len(paths) > MAX_PATHS:
        raise Invalid(f"{len(paths)} separate paths; at most {MAX_PATHS} are kept", field="resource-path")
    return posted


def _checked(entry: Any, *, at: str) -> set[str]:
    """The paths of one presubscription that is in order."""
    if not isinstance(entry, dict):
        raise Invalid("a presubscription must be an object", field=at)
    given = {name: value for name, value in entry.items() if value is not None}
    unknown = given.keys() - _NAMES
    if unknown:
        name = min(unknown)
        raise Invalid("a presubscription has no such field", field=f"{at}.{name[:100]}")
    if not given:
        raise Invalid("a presubscription must name a device, a type or a path", field=at)
    if "endpoint-name" in given:
        _pattern(given["endpoint-name"], limit=MAX_NAME, field=f"{at}.endpoint-name")
    if "endpoint-type" in given:
        # No wildcard is documented for types; a trailing star works here as it does for names.
        _pattern(given["endpoint-type"], limit=MAX_NAME, field=f"{at}.endpoint-type")
    paths = given.get("resource-path")
    if paths is None:
        return set()
    if not isinstance(paths, list) or not paths:
        raise Invalid("must be an array of at least one path", field=f"{at}.resource-path")
    for number, path in enumerate(paths):
        _pattern(path, limit=MAX_PATH, field=f"{at}.resource-path[{number}]")
    return set(paths)


def _pattern(value: Any, *, limit: int, field: str) -> None:
    text = _text(value, limit=limit, field=field)
    if "*" in text[:-1]:
        raise Invalid("only the last character may be *", field=field)


def _text(value: Any, *, limit: int, field: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise Invalid(f"must be a string of 1 to {limit} characters", field=field)
    return value


def compiled(source: Source, stored: bytes) -> tuple[Pattern, ...]:
    """The patterns of bindings as they were stored, wherever they come from."""
    match source:
        case Source.PRESUBSCRIPTIONS:
            return patterns(orjson.loads(stored))
        case Source.RESOURCES:
            return stored_resources(stored)
        case Source.TOPICS:
            return stored_topics(stored)
        case Source.SESSION:
            return decode_patterns(stored)


def patterns(presubscriptions: list[dict[str, Any]]) -> tuple[Fields, ...]:
    """What the presubscriptions ask for, in the engine's words."""
    return tuple(_fields(entry) for entry in presubscriptions)


def _fields(entry: dict[str, Any]) -> Fields:
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if entry.get("endpoint-name") is not None:
        wanted.append(("ep", (entry["endpoint-name"],)))
    if entry.get("endpoint-type") is not None:
        wanted.append(("ept", (entry["endpoint-type"],)))
    if entry.get("resource-path"):
        wanted.append(("path", tuple(_path_pattern(path) for path in entry["resource-path"])))
    return Fields(topic=DEVICE_NOTIFICATIONS, wanted=tuple(wanted))


def _path_pattern(path: str) -> str:
    return path if path == "*" else "/" + path.lstrip("/")
