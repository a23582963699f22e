"""The frames of an event for a Blackhole client: one for each of its bindings that match (section 6)."""

from collections.abc import Iterable
from typing import Any

import orjson

from shared.model.bindings import Topic
from shared.model.events import Notification
from shared.model.sessions import EVERY_ACCOUNT, SessionBinding
from shared.wire import exact_json
from shared.wire.kazoo.bindings import event_name, routing_key, subscription_key
from shared.wire.times import moment_ms, moment_text

# Kazoo's processes use these fields among themselves and remove them for clients.
_TRANSPORT_FIELDS = frozenset(
    {
        *("node", "server_id", "destination_server", "raw_headers", "defer_response"),
        *("queue_id", "event_queue", "control_queue", "controller_queue"),
    }
)


def frames(notification: Notification, bindings: Iterable[SessionBinding], *, now_ms: int) -> list[bytes]:
    """A frame for each binding that matches the event, in the order of the bindings.

    The routing table that queued the event may be older than these bindings: it may have matched none of
    them.
    """
    matching: dict[tuple[str, str], str] = {}
    for each in bindings:
        pattern = each.pattern
        is_its_account = each.account in (EVERY_ACCOUNT, notification.account)
        if is_its_account and isinstance(pattern, Topic) and pattern.matches(notification.topic):
            matching.setdefault((each.account, each.requested), pattern.pattern)
    if not matching:
        return []
    topic, account_id = notification.topic, notification.account
    data = normalise(exact_json.loads(notification.data))
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in _TRANSPORT_FIELDS}
    month = _month(notification.time, now_ms=now_ms)
    common = {
        "name": _name(notification, data),
        "routing_key": routing_key(topic, account_id, month=month),
        # Encoded apart: data nested to orjson's limit would exceed it one level further down.
        "data": orjson.Fragment(exact_json.dumps(data)),
    }
    return [
        orjson.dumps(
            {
                "action": "event",
                "subscribed_key": requested,
                "subscription_key": subscription_key(pattern, account, topic=topic, month=month),
                **common,
            }
        )
        for (account, requested), pattern in matching.items()
    ]


def normalise(value: Any) -> Any:
    """The data with names in lower case, `_` for `-`, and without null members, at every level."""
    if isinstance(value, dict):
        return {
            name.lower().replace("-", "_"): normalise(member)
            for name, member in value.items()
            if member is not None
        }
    return [normalise(item) for item in value] if isinstance(value, list) else value


def _name(notification: Notification, data: Any) -> str:
    given = data.get("event_name") if isinstance(data, dict) else None
    return notification.name or (given if isinstance(given, str) else "") or event_name(notification.topic)


def _month(time: str, *, now_ms: int) -> str:
    """YYYYMM of an event's time; of now when the publisher's text is no time."""
    at_ms = moment_ms(time) if time else None
    text = moment_text(now_ms if at_ms is None else at_ms)
    return text[:4] + text[5:7]
