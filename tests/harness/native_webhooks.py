"""Native webhooks of an account, the orders that they get, and what has come to their receivers."""

import json
from collections import Counter
from typing import Any

from tests.harness.channels import AccountChannels
from tests.harness.webhooks import Call, Webhook

ORDERS = "orders.paid"


async def create(mine: AccountChannels, hook: Webhook, *, to: str = "orders.#", **settings: Any) -> str:
    """A webhook that gets orders; returns its id."""
    made = await mine.create("webhook", bindings=[to], webhook={"url": hook.url, **settings})
    return str(made["id"])


async def publish(mine: AccountChannels, *numbers: int, **more: Any) -> None:
    """Orders with these numbers, whose ids are `e` and the number."""
    events = [{"topic": ORDERS, "id": f"e{number}", "data": number, **more} for number in numbers]
    await mine.api.publish(mine.key, *events)


async def attempts(mine: AccountChannels, channel: str) -> list[dict[str, Any]]:
    """Those of the webhook that are kept, newest first."""
    response = await mine.call("GET", f"/{channel}/deliveries")
    assert response.status == 200, response.text
    found: list[dict[str, Any]] = response.json["deliveries"]
    return found


async def state_of(mine: AccountChannels, channel: str) -> str:
    return str((await mine.get(channel))["state"])


def numbers(hook: Webhook) -> list[int]:
    """Of all orders in the order of their arrival, also of those that came again."""
    return [event["data"] for event in hook.events if event["type"] == ORDERS]


def events_of(call: Call) -> list[Any]:
    body = json.loads(call.body)
    return body if isinstance(body, list) else [body]


def assert_complete_and_in_order(hook: Webhook, wanted: range) -> None:
    """Nothing is missing, and what comes again comes again in order."""
    found, newest = numbers(hook), wanted.start - 1
    assert set(found) == set(wanted)
    for before, number in zip([wanted.start - 1, *found], found, strict=False):
        assert number == before + 1 or number <= newest, f"{number} after {before}: {found}"
        newest = max(newest, number)


def assert_repeats_are_known(hook: Webhook) -> None:
    """What comes again is the same request: id, events and their ids."""
    seen: dict[str, tuple[str, list[Any]]] = {}
    for call in hook.calls:
        for event in events_of(call):
            first = seen.setdefault(event["id"], (call.webhook_id, events_of(call)))
            assert first == (call.webhook_id, events_of(call))


def doubles(hook: Webhook) -> int:
    """The requests that repeat one."""
    return sum(count - 1 for count in Counter(call.webhook_id for call in hook.calls).values())
