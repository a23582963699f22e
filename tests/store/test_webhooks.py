"""Failures of a webhook, and the request to retry now."""

from shared.model.callbacks import Callback
from shared.model.channels import Failing
from shared.store import keyspace
from shared.store.webhooks import Webhooks
from tests.store.stores import NOW_MS, Stores

FAILING = {"failing_since_ms": NOW_MS, "failed_attempts": 3, "next_attempt_ms": NOW_MS + 4_000}


async def webhook(stores: Stores) -> str:
    key, _ = await stores.api_key()
    to = Callback("https://example.com/hook")
    await stores.channels.put_webhook(stores.account_id, key.id, to, serialization=b"")
    return key.id


async def test_retry_now_makes_the_next_attempt_due_and_wakes_dispatchers(stores: Stores) -> None:
    webhooks = Webhooks(stores.calls, stores.wakeups)
    channel = await webhook(stores)
    assert await webhooks.failing(channel) is None
    stores.direct.hset(keyspace.channel(channel), mapping=FAILING)
    assert await webhooks.failing(channel) == Failing(NOW_MS, 3, NOW_MS + 4_000)
    await stores.wakeups.flush()
    pubsub = stores.direct.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(keyspace.wakeup("dispatchers"))
    pubsub.get_message(timeout=5)

    assert await webhooks.retry_now(channel) is True

    await stores.wakeups.flush()
    message = pubsub.get_message(timeout=5) or pubsub.get_message(timeout=5)
    pubsub.close()
    assert message is not None
    assert message["data"] == channel.encode()
    assert await webhooks.failing(channel) == Failing(NOW_MS, 3, None)


async def test_retry_now_without_a_webhook(stores: Stores) -> None:
    webhooks = Webhooks(stores.calls, stores.wakeups)
    no_channel, _ = await stores.api_key()
    websocket = await stores.channel()
    stores.direct.hset(keyspace.channel(websocket), mapping=FAILING)

    assert await webhooks.retry_now(no_channel.id) is False
    assert await webhooks.retry_now(websocket) is False

    assert stores.direct.hget(keyspace.channel(websocket), "next_attempt_ms") is not None
