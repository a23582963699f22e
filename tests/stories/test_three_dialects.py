"""One publish reaches a Pelion channel, a Kazoo socket and a Cognism socket, each in its own form."""

import json

import aiohttp

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.stack import Stack


async def test_one_publish_reaches_all_dialects(
    api: Api, stack: Stack, http: aiohttp.ClientSession, channel: ApiKey, listen: Listen
) -> None:
    await api.call("PUT", "/v1/bindings", key=channel, json=["call.#"])
    pelion = await listen(channel)
    kazoo = await Blackhole.open(http, stack.edges[1].url)
    assert (await kazoo.ask("ping", token=channel.secret))["status"] == "success"
    await kazoo.subscribe("call.CHANNEL_CREATE.*")
    credentials = {"X-API-AccessToken": channel.id, "X-API-SecretKey": channel.secret}
    url = f"{stack.edges[0].url}/api/v1/websocket?pattern=kind=call"
    async with http.ws_connect(url, headers=credentials) as cognism:
        await cognism.receive_str()
        event = {"topic": "call.CHANNEL_CREATE.c1", "name": "CHANNEL_CREATE", "data": {"kind": "call"}}

        assert await api.publish(channel, event) == [3]

        assert json.loads(await cognism.receive_str(timeout=20)) == {"kind": "call"}
        frame = await kazoo.event()
        assert (frame["subscribed_key"], frame["data"]) == ("call.CHANNEL_CREATE.*", {"kind": "call"})
        [(section, item)] = await pelion.received(1)
        assert (section, item["topic"], item["data"]) == ("events", event["topic"], event["data"])
    await kazoo.close()
