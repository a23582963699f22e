"""An API key's secret appears in no log, metric, response or Redis key."""

import pytest

from tests.conftest import Listen
from tests.harness import leaks
from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack


async def test_the_secret_appears_nowhere(api: Api, channel: ApiKey, stack: Stack, listen: Listen) -> None:
    """Sends it correctly, incorrectly and in the wrong places first."""
    receiver = await listen(channel)
    await api.publish(channel, reading(1, to=channel.id))
    await receiver.received_numbers([1])
    secret = channel.secret
    for url in (stack.gateways[0].url, stack.edges[0].url):
        api.url = url
        await api.call("GET", f"/v2/notification/websocket?access_token={secret}")
        await api.call("GET", f"/{secret}")
        await api.call("PUT", f"/v2/{secret}/websocket", key=channel)
        await api.call("GET", "/v2/subscriptions", token=f"{secret}x")
        await api.call("GET", "/v2/subscriptions", headers={"Authorization": secret})
        await api.call("POST", "/v1/events", key=channel, json={"topic": "t", "data": 1, "to": secret})
        await api.call("POST", "/v1/events", key=channel, json={"topic": 1, secret: 1})
        await api.call("PUT", "/v2/subscriptions", key=channel, json=[{secret: secret}])
        await api.call("DELETE", f"/v1/api-keys/{secret}", key=channel)
    for subprotocols in ((f"pelion_{secret}",), ("wss", f"pelion_{secret}x"), (secret,)):
        await (await Receiver.open_as(stack.edges[0].url, *subprotocols)).close()
    api.url = stack.gateways[0].url
    await api.revoke(channel)
    await receiver.closed()

    leaks.assert_none_in_outputs(stack.services)
    leaks.assert_none_in_metrics(stack.services)
    leaks.assert_none_in_answers()
    with stack.redis.client() as redis:
        leaks.assert_none_in_redis(redis)


def test_the_check_finds_a_leak(stack: Stack, channel: ApiKey) -> None:
    with stack.redis.client() as redis:
        redis.set("a-secret-here", f"so {channel.secret}!", ex=60)
        try:
            with pytest.raises(AssertionError, match="secret"):
                leaks.assert_none_in_redis(redis)
            redis.persist("a-secret-here")
            with pytest.raises(AssertionError, match="a-secret-here"):
                leaks.assert_every_name_goes(redis)
        finally:
            redis.delete("a-secret-here")
