"""Quotas of an account and of its API keys, through two gateways and two edges."""

import asyncio
import json
import time
from collections import Counter
from functools import partial
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from tests.harness.api import Api, ApiKey, Response
from tests.harness.blackhole import Blackhole
from tests.harness.polls import Polls
from tests.harness.processes import run_command
from tests.harness.sockets import Receiver
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

FLOOD_S = 10.0
CLIENTS = 8
EVENT = {"topic": "orders.paid", "data": 1}


async def set_quotas(api: Api, key: ApiKey, **quotas: float | None) -> None:
    response = await api.admin("PATCH", f"/v1/accounts/{key.account}", json={"quotas": quotas})
    assert response.status == 200, response.text


async def usage(api: Api, key: ApiKey) -> Any:
    response = await api.admin("GET", f"/v1/accounts/{key.account}/usage")
    assert response.status == 200, response.text
    return response.json


def assert_refused(response: Response, quota: str) -> None:
    assert response.status == 429, response.text
    assert response.json["type"] == "quota_exceeded"
    assert response.json["fields"] == [{"name": quota, "message": "is used up"}]


async def bound(api: Api, key: ApiKey) -> None:
    """Registers a channel that gets the event."""
    await api.register(key)
    assert (await api.call("PUT", "/v1/bindings", key=key, json=["orders.*"])).status == 204


class Flood:
    """Publishes single events as fast as it can, through several gateways."""

    def __init__(self, key: ApiKey, *gateways: Api) -> None:
        self._key = key
        self._gateways = gateways
        self.statuses = Counter[int]()
        self.refusal: Response | None = None
        self.took_s = 0.0

    async def run(self, *, for_s: float) -> None:
        began_s = time.monotonic()

        async def publish(api: Api) -> None:
            while time.monotonic() < began_s + for_s:
                response = await api.post_events(self._key, EVENT)
                self.statuses[response.status] += 1
                if response.status == 429:
                    self.refusal = response

        await asyncio.gather(*(publish(api) for api in self._gateways for _ in range(CLIENTS)))
        self.took_s = time.monotonic() - began_s


@pytest.mark.long
async def test_a_rate_is_exact_over_two_gateways_and_hurts_no_other_account(
    api: Api, other_api: Api, key: ApiKey
) -> None:
    await set_quotas(api, key, events_per_s=200, burst_s=0.5)
    await bound(api, key)
    flood, neighbour, refused = Flood(key, api, other_api), await api.api_key(), 0
    flooding = asyncio.create_task(flood.run(for_s=FLOOD_S))
    while not flooding.done():
        refused += (await api.post_events(neighbour, EVENT)).status != 202
        await asyncio.sleep(0.02)
    await flooding

    accepted = flood.statuses[202]
    print(f"accepted {accepted} in {flood.took_s:.2f} s at 200/s, refused {flood.statuses[429]}")
    assert set(flood.statuses) == {202, 429}
    assert 0.9 * 200 * flood.took_s <= accepted <= 1.1 * 200 * flood.took_s
    assert refused == 0
    # What was refused has left nothing.
    assert await api.queue_size(key) == accepted
    assert flood.refusal is not None
    assert_refused(flood.refusal, "events_per_s")
    assert flood.refusal.headers["Retry-After"] == "1"


async def test_a_change_counts_within_two_seconds_at_every_gateway(
    api: Api, other_api: Api, key: ApiKey
) -> None:
    for gateway in (api, other_api):
        assert (await gateway.post_events(key, [EVENT] * 300)).status == 202
    await set_quotas(api, key, events_per_s=10)
    changed_s = time.monotonic()

    for gateway in (api, other_api):
        # 300 events a time: a burst is 20.
        began_s = changed_s
        while (response := await gateway.post_events(key, [EVENT] * 300)).status == 202:
            assert began_s < changed_s + 2
            began_s = time.monotonic()
        assert_refused(response, "events_per_s")
    used = (await usage(api, key))["events_per_s"]
    assert (used["limit"], used["burst"]) == (10, 20)
    assert used["used"] > 0

    await set_quotas(api, key, events_per_s=None)
    changed_s = time.monotonic()
    for gateway in (api, other_api):
        began_s = changed_s
        while (await gateway.post_events(key, EVENT)).status == 429:
            assert began_s < changed_s + 2
            began_s = time.monotonic()


async def test_an_api_key_has_its_own_rate(api: Api, key: ApiKey) -> None:
    colleague = await api.api_key(account=key.account)
    body = {"key_quotas": {"events_per_s": 5}, "quotas": {"burst_s": 1}}
    changed = await api.admin("PATCH", f"/v1/accounts/{key.account}", json=body)
    assert changed.json["key_quotas"] == {"events_per_s": 5, "bytes_per_s": None}
    assert changed.json["quotas"]["burst_s"] == 1

    async def is_refused() -> bool:
        return (await api.post_events(key, [EVENT] * 50)).status == 429

    await wait_until(is_refused)
    assert_refused(await api.post_events(key, EVENT), "key_events_per_s")
    assert (await api.post_events(colleague, EVENT)).status == 202


async def test_bytes_and_copies_have_rates(api: Api, key: ApiKey) -> None:
    await set_quotas(api, key, bytes_per_s=10_000, copies_per_s=3, burst_s=1)
    await bound(api, key)
    others = [await api.api_key(account=key.account) for _ in range(5)]
    for other in others:
        await bound(api, other)

    # Six copies: more than the burst, and they are paid for afterwards.
    assert await api.publish(key, EVENT) == [6]
    refused = await api.post_events(key, [EVENT, EVENT])
    assert_refused(refused, "copies_per_s")
    assert [await api.queue_size(each) for each in (key, *others)] == [1] * 6

    assert (await api.post_events(key, {"topic": "unused", "data": "x" * 100_000})).status == 202
    refused = await api.post_events(key, {"topic": "unused", "data": "x" * 10_000})
    assert_refused(refused, "bytes_per_s")
    # The debt of ten seconds is paid first.
    assert 8 <= int(refused.headers["Retry-After"]) <= 10


async def test_channels_and_bindings_are_counted(api: Api, key: ApiKey) -> None:
    await set_quotas(api, key, channels=2, bindings=5)
    path = f"/v1/accounts/{key.account}/api-keys"
    body = {"name": "second", "scopes": ["receive"]}
    second = await api.admin("POST", path, json=body)
    assert second.status == 201
    assert_refused(await api.admin("POST", path, json=body), "channels")

    def put(path: str, body: object) -> Any:
        return api.call("PUT", path, key=key, json=body)

    assert (await put("/v1/bindings", ["a", "b"])).status == 204
    assert (await put("/v2/subscriptions", [{"endpoint-name": "d"}, {"endpoint-name": "e"}])).status == 204
    assert (await put("/v2/subscriptions/device/3/0/1", None)).status == 200
    assert_refused(await put("/v2/subscriptions/device/3/0/2", None), "bindings")
    assert_refused(await put("/v1/bindings", ["a", "b", "c"]), "bindings")
    # Fewer or as many may always replace what is there.
    assert (await put("/v1/bindings", ["c", "d"])).status == 204
    found = await usage(api, key)
    assert found["channels"] == {"limit": 2, "used": 2}
    assert found["bindings"] == {"limit": 5, "used": 5}

    assert (await api.call("DELETE", "/v2/subscriptions/device", key=key)).status == 204
    assert (await api.admin("DELETE", f"/v1/api-keys/{second.json['id']}")).status == 204
    found = await usage(api, key)
    assert (found["channels"]["used"], found["bindings"]["used"]) == (1, 4)
    await api.revoke(key)
    found = await usage(api, key)
    assert (found["channels"]["used"], found["bindings"]["used"]) == (0, 0)


async def test_sockets_are_counted_over_all_edges_and_dialects(
    api: Api, key: ApiKey, stack: Stack, http: aiohttp.ClientSession
) -> None:
    first, second = stack.edges[0].url, stack.edges[1].url
    await set_quotas(api, key, sockets=2)
    third = await api.api_key(account=key.account)
    for each in (key, third):
        await api.register(each)
    pelion = await Receiver.open(first, key)
    trigger = {"X-Api-AccessToken": third.id, "X-Api-SecretKey": third.secret}
    cognism = await http.ws_connect(f"{second}/api/v1/websocket", headers=trigger)

    async def is_known() -> bool:
        return bool((await usage(api, key))["sockets"] == {"limit": 2, "used": 2})

    await wait_until(is_known, within_s=5)

    async def is_over(edge: str) -> bool:
        try:
            one_more = await http.ws_connect(f"{edge}/api/v1/websocket", headers=trigger)
        except aiohttp.WSServerHandshakeError as refusal:
            return refusal.status == 429
        await one_more.close()
        return False

    # Each edge learns of the other's sockets within a second, and of a socket that is one too many likewise.
    for edge in (first, second):
        await wait_until(partial(is_over, edge), within_s=10)
    await wait_until(is_known, within_s=5)
    with pytest.raises(InvalidStatus) as refused:
        await Receiver.open(second, third)
    assert refused.value.response.status_code == 429
    assert b'"quota_exceeded"' in (refused.value.response.body or b"")
    assert refused.value.response.headers["Retry-After"] == "1"
    with pytest.raises(aiohttp.WSServerHandshakeError) as not_upgraded:
        await http.ws_connect(f"{first}/api/v1/websocket", headers=trigger)
    assert not_upgraded.value.status == 429
    poller = await api.api_key(account=key.account)
    assert_refused(await Polls(api, poller, stack.edges[1]).now(), "sockets")
    kazoo = await Blackhole.open(http, first)
    reply = await kazoo.ask("subscribe", token=third.secret, binding="call.CHANNEL_CREATE.*")
    assert reply["status"] == "error"
    assert reply["data"] == {"errors": ["the quota sockets is used up"]}
    assert await kazoo.closed() == 1013

    # Who takes the place of an own socket is one too many for a moment only.
    successor = await Receiver.open(second, key)
    assert await pelion.closed() == 1001
    await successor.close()

    async def is_let_in() -> bool:
        reply = await (await Blackhole.open(http, first)).ask("noop", token=third.secret)
        return bool(reply["status"] == "success")

    await wait_until(is_let_in, within_s=5)
    await cognism.close()


async def test_pushes_count_as_events_and_a_refusal_is_not_replayed(
    api: Api, key: ApiKey, stack: Stack, http: aiohttp.ClientSession
) -> None:
    trigger = {"X-Api-AccessToken": key.id, "X-Api-SecretKey": key.secret}
    socket = await http.ws_connect(f"{stack.edges[0].url}/api/v1/websocket", headers=trigger)
    path = f"/api/v1/websocket/session?session={json.loads(await socket.receive_str())['session']}"
    await set_quotas(api, key, events_per_s=1)
    pushed = [await api.call("POST", path, data=b"{}")]
    while pushed[-1].status == 200:
        pushed.append(await api.call("POST", path, data=b"{}"))
    assert_refused(pushed[-1], "events_per_s")
    for _ in pushed[:-1]:
        assert await socket.receive_str() == "{}"

    once = {"Idempotency-Key": "once"}
    refused = await api.call("POST", "/v1/events", key=key, json=EVENT, headers=once)
    assert_refused(refused, "events_per_s")
    await set_quotas(api, key, events_per_s=None)

    async def is_published() -> bool:
        return (await api.call("POST", "/v1/events", key=key, json=EVENT, headers=once)).status == 202

    await wait_until(is_published)
    await socket.close()


async def test_the_command_line_changes_quotas(api: Api, key: ApiKey, stack: Stack) -> None:
    def run(*changes: str) -> Any:
        settings = {"REDIS_URL": stack.redis.url}
        return run_command("accounts", "quotas", key.account, *changes, settings=settings)

    done = run("events_per_s=10", "burst_s=0.5", "key_bytes_per_s=100000")
    assert json.loads(done.stdout) == {
        "quotas": {"events_per_s": 10, "burst_s": 0.5},
        "key_quotas": {"bytes_per_s": 100_000},
    }

    async def is_refused() -> bool:
        return (await api.post_events(key, [EVENT] * 50)).status == 429

    await wait_until(is_refused)
    assert json.loads(run("events_per_s=", "burst_s=", "key_bytes_per_s=").stdout) == {
        "quotas": {},
        "key_quotas": {},
    }
    for wrong in ("events_per_s=many", "burst_s=nan", "events_per_s=0", "x=1"):
        refused = run(wrong)
        assert (refused.returncode, refused.stderr.startswith("refused: ")) == (1, True), refused


async def test_who_may_see_and_change_quotas(api: Api, key: ApiKey) -> None:
    admin = await api.api_key(account=key.account, scopes=("admin",))
    stranger = await api.api_key(scopes=("admin",))
    path = f"/v1/accounts/{key.account}"
    for who, status in ((admin, 200), (key, 403), (stranger, 404)):
        assert (await api.call("GET", path, key=who)).status == status
        assert (await api.call("GET", f"{path}/usage", key=who)).status == status
    assert (await api.call("PATCH", path, key=admin, json={})).status == 403
    assert (await api.admin("PATCH", f"/v1/accounts/{'0' * 32}", json={})).status == 404

    for wrong in ({"events_per_s": 0}, {"burst_s": 0.1}, {"x": 1}, 1):
        assert (await api.admin("PATCH", path, json={"quotas": wrong})).status == 400, wrong
    before = (await api.admin("GET", path)).json
    assert (before["quotas"]["events_per_s"], before["quotas"]["stored_bytes"]) == (200_000, 4 * 1024**3)
    assert before["key_quotas"] == {"events_per_s": None, "bytes_per_s": None}
    await set_quotas(api, key, sockets=7, stored_bytes=10**9)
    assert (await api.admin("GET", path)).json["quotas"] == {
        **before["quotas"],
        "sockets": 7,
        "stored_bytes": 10**9,
    }
    await set_quotas(api, key, sockets=None, stored_bytes=None)
    assert (await api.admin("GET", path)).json == before
