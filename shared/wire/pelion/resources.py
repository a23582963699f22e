"""Subscriptions to single resources: /v2/subscriptions/{device-id}/{resourcePath} (section 3).

Redis holds them as lines, `device TAB path`: adding or removing one needs no reading of the others.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from shared.model.bindings import Fields
from shared.model.errors import Invalid
from shared.model.events import DEVICE_NOTIFICATIONS

MAX_NAME = 64
MAX_PATH = 128
# Our own bound: each change writes the API key's whole list.
MAX_RESOURCES = 1024
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
# Characters that need no percent-encoding in a path.
_PLAIN = "/:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a device; with an empty path, the device and all its resources."""

    device: str
    path: str

    @property
    def line(self) -> str:
        """The resource's line; for a device, the prefix of all its lines."""
        return f"{self.device}\t{self.path}\n" if self.path else f"{self.device}\t"


def resource_in(rest: str) -> Resource:
    """Parses the rest of a URL after `/v2/subscriptions/`, still percent-encoded. Raises Invalid.

    The path may begin with a slash of its own, encoded or not; the result has exactly one.
    """
    device, _, path = rest.partition("/")
    path = _decoded(path, field="resourcePath").lstrip("/")
    return Resource(
        device=_text(_decoded(device, field="device-id"), limit=MAX_NAME, field="device-id"),
        path=_text(f"/{path}", limit=MAX_PATH, field="resourcePath") if path else "",
    )


def _decoded(text: str, *, field: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("must be UTF-8, percent-encoded", field=field) from None


def _text(text: str, *, limit: int, field: str) -> str:
    if not 1 <= len(text) <= limit:
        raise Invalid(f"must have 1 to {limit} characters", field=field)
    if _CONTROLS.search(text):
        raise Invalid("must have no control characters", field=field)
    if text.endswith("*"):
        raise Invalid("must not end with *; PUT /v2/subscriptions takes wildcards", field=field)
    return text


def paths_of(device: str, stored: bytes | None) -> list[str]:
    """The subscribed paths of a device, oldest first."""
    pairs = (line.partition("\t") for line in (stored or b"").decode().split("\n"))
    return [path for name, _, path in pairs if name == device]


def uri_list(paths: list[str]) -> bytes:
    """One path per line, percent-encoded so that a URL can contain it."""
    return "\n".join(quote(path, safe=_PLAIN) for path in paths).encode()


def stored_resources(stored: bytes) -> tuple[Fields, ...]:
    """The bindings, from their stored form."""
    pairs = (line.split("\t") for line in stored.decode().split("\n") if line)
    return tuple(
        Fields(topic=DEVICE_NOTIFICATIONS, wanted=(("ep", (device,)), ("path", (path,))))
        for device, path in pairs
    )
