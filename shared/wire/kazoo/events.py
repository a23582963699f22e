"""What a Blackhole client is sent for an event: a frame for each of its bindings that match (section 6)."""

from collections.abc import Iterable
from typing import Any

import orjson

from shared.model.bindings import Topic
from shared.model.events import Notification
from shared.model.sessions import EVERY_ACCOUNT, Wanted
from shared.wire.kazoo.bindings import event_name, routing_key, subscription_key
from shared.wire.times import moment_ms, moment_text

# What Kazoo's processes tell each other on the way, and no client.
_FOR_TRANSPORT = frozenset(
    {
        *("node", "server_id", "destination_server", "raw_headers", "defer_response"),
        *("queue_id", "event_queue", "control_queue", "controller_queue"),
    }
)


def frames(notification: Notification, wanted: Iterable[Wanted], *, now_ms: int) -> list[bytes]:
    """A frame for each binding that asks for this event, in the order they were made.

    Whatever else may have matched it is not asked here again: a session is pending what its own bindings say.
    """
    matching: dict[tuple[str, str], str] = {}
    for one in wanted:
        is_its_account = one.account in (EVERY_ACCOUNT, notification.account)
        if is_its_account and isinstance(one.pattern, Topic) and one.pattern.matches(notification.topic, {}):
            matching.setdefault((one.account, one.requested), one.pattern.pattern)
    if not matching:
        return []
    topic, account_id = notification.topic, notification.account
    data = normalised(orjson.loads(notification.data))
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in _FOR_TRANSPORT}
    month = _month(notification.time, now_ms=now_ms)
    told = {
        "name": _name(notification, data),
        "routing_key": routing_key(topic, account_id, month=month),
        # Written once, and by itself: data nested to the limit would be over it one level further down.
        "data": orjson.Fragment(orjson.dumps(data)),
    }
    return [
        orjson.dumps(
            {
                "action": "event",
                "subscribed_key": requested,
                "subscription_key": subscription_key(pattern, account, topic=topic, month=month),
                **told,
            }
        )
        for (account, requested), pattern in matching.items()
    ]


def normalised(value: Any) -> Any:
    """The same with names in lower case, `_` for `-`, and without members that are null; all the way down."""
    if isinstance(value, dict):
        return {
            name.lower().replace("-", "_"): normalised(member)
            for name, member in value.items()
            if member is not None
        }
    return [normalised(item) for item in value] if isinstance(value, list) else value


def _name(notification: Notification, data: Any) -> str:
    given = data.get("event_name") if isinstance(data, dict) else None
    return notification.name or (given if isinstance(given, str) else "") or event_name(notification.topic)


def _month(time: str, *, now_ms: int) -> str:
    """YYYYMM of an event's time, which is text of its publisher's; of now when it names no moment."""
    at_ms = moment_ms(time) if time else None
    text = moment_text(now_ms if at_ms is None else at_ms)
    return text[:4] + text[5:7]
