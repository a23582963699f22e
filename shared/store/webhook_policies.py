"""The policy of a native webhook as its channel keeps it: JSON in one field."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache

import orjson

from shared.model.webhooks import Format, Method, WebhookPolicy

_FIELDS = frozenset(field.name for field in fields(WebhookPolicy))
_KNOWN: Mapping[str, type[Method | Format]] = {"method": Method, "format": Format}


def stored(policy: WebhookPolicy) -> bytes:
    return orjson.dumps(asdict(policy))


@lru_cache(maxsize=1024)
def policy_of(text: bytes | None) -> WebhookPolicy | None:
    """From what a channel keeps; None of a webhook without a policy. A missing field has its default.

    Ignores unknown fields, and unknown values of method and format: a later release may have written them.
    Otherwise one such webhook would break every list that it is in, and each attempt of a dispatcher.
    """
    if not text:
        return None
    values = {name: value for name, value in orjson.loads(text).items() if name in _FIELDS}
    for name, known in _KNOWN.items():
        if name in values and values[name] not in list(known):
            del values[name]
        elif name in values:
            values[name] = known(values[name])
    for name in ("backoff_s", "secret_headers"):
        if name in values:
            values[name] = tuple(values[name])
    return WebhookPolicy(**values)
