"""What was opened or minted with a secret ends with that secret, also when the wakeup is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp
import pytest

from shared.model.api_keys import hash_of, new_secret
from shared.redis.client import connect
from shared.store.api_keys import ApiKeys
from shared.store.commands import commands_to
from shared.store.routing import Routing
from shared.store.wakeups import Wakeups
from shared.wire.pelion.subscriptions import compiled
from tests.conftest import Listen, Measured
from tests.harness.api import SECRETS, Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.polls import Polls
from tests.harness.stack import Stack
from tests.stories.test_api_keys import in_s, rotated
from tests.stories.test_kazoo_rest import INVALID, SOCKETS, ask, error_of, token_for

WITHIN_S = 1.0
# The version of all credentials is read once a second; the sweep takes a minute.
WITHOUT_A_WAKEUP_S = 2.5
BY = ("secret in the header", "secret in a frame", "token in the header", "token in a frame")


class Lost(Wakeups):
    """Sends nothing."""

    def send(self, owner: str, item: str) -> None:
        pass


@pytest.fixture
async def unheard(stack: Stack) -> AsyncIterator[ApiKeys]:
    """Changes API keys as a gateway does, but each wakeup is lost."""
    async with connect(stack.redis.url) as redis:
        commands = commands_to(redis)
        yield ApiKeys(commands, Routing(commands, compiled), Lost(commands))


async def opened(http: aiohttp.ClientSession, url: str, given: str, *, by: str) -> Blackhole:
    """A Kazoo socket, authenticated."""
    if by.endswith("header"):
        socket = await Blackhole.open(http, url, headers={"Authorization": f"Bearer {given}"})
        reply = await socket.ask("subscribe", binding="call.CHANNEL_CREATE.*")
    else:
        socket = await Blackhole.open(http, url)
        reply = await socket.ask("subscribe", token=given, binding="call.CHANNEL_CREATE.*")
    assert reply["status"] == "success", reply
    return socket


async def kazoo_socket(api: Api, http: aiohttp.ClientSession, url: str, key: ApiKey, *, by: str) -> Blackhole:
    """A Kazoo socket, by this key's secret or a new token of it."""
    given = await token_for(api, key) if by.startswith("token") else key.secret
    return await opened(http, url, given, by=by)


async def closed_s(closing: Awaitable[Any], expected: Any) -> float:
    """Waits for the close, checks its code, and returns when it was."""
    assert await closing == expected
    return time.monotonic()


@pytest.mark.parametrize("by", BY)
async def test_a_rotation_with_now_closes_a_kazoo_socket_opened_with_the_old_secret(
    api: Api, http: aiohttp.ClientSession, stack: Stack, key: ApiKey, record_property: Measured, by: str
) -> None:
    old = await kazoo_socket(api, http, stack.edges[1].url, key, by=by)
    began_s = time.monotonic()

    new = await rotated(api, key, old_valid_until="now")

    took_s = await closed_s(old.closed(), 1008) - began_s
    record_property(f"rotation to close of a Kazoo socket by {by}", f"{took_s * 1000:.0f} ms")
    assert took_s < WITHIN_S
    again = await kazoo_socket(api, http, stack.edges[1].url, new, by=by)
    await rotated(api, new)
    assert (await again.ask("ping"))["status"] == "success", "its secret is still valid"
    await again.close()


async def test_a_handshake_that_authenticates_ends_with_its_secret_before_the_first_frame(
    api: Api, http: aiohttp.ClientSession, stack: Stack, key: ApiKey
) -> None:
    headers = {"Authorization": f"Bearer {key.secret}"}
    silent = await Blackhole.open(http, stack.edges[0].url, headers=headers)

    await rotated(api, key, old_valid_until="now")

    assert await silent.closed() == 1008


async def test_a_token_opens_nothing_after_its_secret(
    api: Api, other_api: Api, http: aiohttp.ClientSession, stack: Stack, key: ApiKey
) -> None:
    token = await token_for(api, key)
    assert (await ask(other_api, SOCKETS, token)).status == 200

    new = await rotated(api, key, old_valid_until="now")

    for gateway in (api, other_api):
        assert error_of(await ask(gateway, SOCKETS, token)) == INVALID
        assert (await ask(gateway, SOCKETS, await token_for(gateway, new))).status == 200
    for edge in stack.edges:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await opened(http, edge.url, token, by="token in the header")
        assert refused.value.status == 403
        socket = await Blackhole.open(http, edge.url)
        reply = await socket.ask("ping", token=token)
        assert reply["data"] == {"errors": [f"failed to authenticate token {token}"]}
        await socket.close()


async def test_a_token_is_valid_as_long_as_its_secret(
    api: Api, http: aiohttp.ClientSession, stack: Stack, key: ApiKey
) -> None:
    before = await token_for(api, key)
    new = await rotated(api, key, old_valid_until=in_s(3))
    ends_s = time.monotonic() + 3
    tokens = [before, await token_for(api, key)]
    for token in tokens:
        assert (await ask(api, SOCKETS, token)).status == 200
    sockets = [await opened(http, stack.edges[0].url, token, by="token in a frame") for token in tokens]
    with_new = await kazoo_socket(api, http, stack.edges[0].url, new, by="token in a frame")

    for socket in sockets:
        # Usually within a second.
        assert -0.5 < await closed_s(socket.closed(), 1008) - ends_s < 2
    for token in tokens:
        assert error_of(await ask(api, SOCKETS, token)) == INVALID
    assert (await with_new.ask("ping"))["status"] == "success"
    await with_new.close()


@pytest.mark.parametrize("change", ["revoked", "rotated"])
async def test_everything_ends_without_a_wakeup(
    api: Api,
    http: aiohttp.ClientSession,
    stack: Stack,
    listen: Listen,
    unheard: ApiKeys,
    record_property: Measured,
    change: str,
) -> None:
    """A Pelion socket, Kazoo sockets by secret and token, a Cognism socket, and a poll that waits."""
    edge = stack.edges[0]
    pelion, kazoo, cognism, polled, bystanding = [await api.api_key() for _ in range(5)]
    for key in (pelion, bystanding):
        await api.register(key)
    receiver, bystander = await listen(pelion, edge.url), await listen(bystanding, edge.url)
    by_secret = await kazoo_socket(api, http, edge.url, kazoo, by="secret in a frame")
    by_token = await kazoo_socket(api, http, edge.url, kazoo, by="token in the header")
    headers = {"X-API-AccessToken": cognism.id, "X-API-SecretKey": cognism.secret}
    trigger = Blackhole(await http.ws_connect(edge.url + "/api/v1/websocket", headers=headers))
    poll = await Polls(api, polled, edge).open()

    began_s = time.monotonic()
    for key in (pelion, kazoo, cognism, polled):
        stored = await unheard.find(key.id)
        assert stored is not None
        if change == "revoked":
            assert await unheard.revoke(stored)
        else:
            SECRETS.append(secret := new_secret(key.id))
            await unheard.rotate(stored, secret_hash=hash_of(secret), old_valid_until_ms=0)

    async def poll_status() -> int:
        return (await poll).status

    ended_s = await asyncio.gather(
        closed_s(receiver.closed(), 1008),
        *(closed_s(each.closed(), 1008) for each in (by_secret, by_token, trigger)),
        closed_s(poll_status(), 401),
    )
    took_s = max(ended_s) - began_s
    record_property(f"all connections end, {change} without a wakeup", f"{took_s:.2f} s")
    assert took_s < WITHOUT_A_WAKEUP_S
    assert bystander.open_now
