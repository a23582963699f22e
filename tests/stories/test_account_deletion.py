"""Deleting an account ends everything in it at once, and leaves nothing in Redis."""

import time
from functools import partial

import aiohttp

from tests.conftest import Listen
from tests.harness import leaks
from tests.harness.api import Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.callbacks import Hook
from tests.harness.events import reading, readings, registration
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until


async def delete(api: Api, account: str) -> int:
    return (await api.admin("DELETE", f"/v1/accounts/{account}?cascade=true")).status


async def fill(api: Api, account: str, hook: Hook) -> list[ApiKey]:
    """Gives the account some of everything that is stored."""
    keys = [await api.api_key(account=account, scopes=("publish", "receive", "admin")) for _ in range(3)]
    socket, webhook, quiet = keys
    await api.register(socket)
    await api.register_webhook(webhook, hook.url)
    await api.register(quiet)
    await api.subscribe(quiet, {"endpoint-type": "light"}, {"endpoint-name": "sensor-*"})
    for name in ("once", "twice"):
        await api.call(
            "POST",
            "/v1/events",
            key=socket,
            json=[*readings(range(50), padding=1000), registration("lamp", ept="light")],
            headers={"Idempotency-Key": name},
        )
    await api.publish(socket, {**reading(1, to=quiet.id), "receipt": True})
    return keys


async def test_everything_in_it_ends_and_nothing_is_left(
    api: Api, other_api: Api, stack: Stack, http: aiohttp.ClientSession, listen: Listen, hook: Hook
) -> None:
    doomed, other = await api.account(), await api.account()
    keys = await fill(api, doomed, hook)
    [bystander, *_] = await fill(api, other, hook)
    sockets = [await listen(key, stack.edges[n].url) for n, key in enumerate((keys[0], bystander))]
    session = await Blackhole.open(http, stack.edges[1].url + "/socket")
    await session.ask("ping", token=keys[1].secret)
    await session.subscribe("call.*.*")

    began = time.monotonic()
    assert await delete(api, doomed) == 204

    assert await sockets[0].closed() == 1008
    assert await session.closed() == 1008
    assert (sockets[0].closed_at or 0) - began < 2
    assert await delete(other_api, doomed) == 404
    assert (await api.admin("GET", f"/v1/accounts/{doomed}/api-keys")).status == 404
    assert (await api.admin("POST", f"/v1/accounts/{doomed}/api-keys", json={"name": "x"})).status in (
        400,
        404,
    )
    for gateway in (api, other_api):
        for key in keys:
            await wait_until(partial(is_refused, gateway, key), within_s=5)
    assert sockets[1].open_now
    assert await api.publish(bystander, reading(2, to=bystander.id)) == [1]
    await session.close()

    with stack.redis.client() as redis:

        def left() -> list[bytes]:
            return [
                name for each in (doomed, *(key.id for key in keys)) for name in leaks.places_of(redis, each)
            ]

        # The record that keeps late writers out, for an hour; and who deleted it.
        wanted = {b"{%b}:account" % doomed.encode(), b"{accounts}:audit"}
        await wait_until(lambda: set(left()) == wanted, what=left)


async def is_refused(api: Api, key: ApiKey) -> bool:
    return (await api.post_events(key, reading(1))).status == 401


async def test_a_parent_is_deleted_after_its_children(api: Api, other_api: Api) -> None:
    parent = await api.account()
    child = await api.account(parent=parent)

    refused = await api.admin("DELETE", f"/v1/accounts/{parent}")
    assert (refused.status, refused.json["type"]) == (409, "conflict")
    key = await api.api_key(account=parent)
    assert await other_api.publish(key, reading(1)) == [0], "nothing was done"

    assert await delete(other_api, child) == 204
    assert await delete(api, parent) == 204
    made = await api.admin("POST", "/v1/accounts", json={"name": "late", "parent": parent})
    assert made.status == 400


async def test_only_the_operator_deletes_accounts(api: Api) -> None:
    admin = await api.api_key(scopes=("admin",))

    assert (await api.call("DELETE", f"/v1/accounts/{admin.account}", key=admin)).status == 403
    assert (await api.call("DELETE", f"/v1/accounts/{admin.account}")).status == 401
    assert await delete(api, "0" * 32) == 404
    assert await delete(api, "nothing") == 404
