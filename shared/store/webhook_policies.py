"""The policy of a native webhook as its channel keeps it: JSON in one field."""

from dataclasses import asdict, fields

import orjson

from shared.model.webhooks import Format, Method, WebhookPolicy

_FIELDS = frozenset(field.name for field in fields(WebhookPolicy))


def stored(policy: WebhookPolicy) -> bytes:
    return orjson.dumps(asdict(policy))


def policy_of(text: bytes | None) -> WebhookPolicy | None:
    """From what a channel keeps; None of a webhook without a policy. A missing field has its default.

    Ignores unknown fields: a later release may have written them.
    """
    if not text:
        return None
    values = {name: value for name, value in orjson.loads(text).items() if name in _FIELDS}
    if "method" in values:
        values["method"] = Method(values["method"])
    if "format" in values:
        values["format"] = Format(values["format"])
    for name in ("backoff_s", "secret_headers"):
        if name in values:
            values[name] = tuple(values[name])
    return WebhookPolicy(**values)
