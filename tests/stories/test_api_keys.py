"""API keys: expiry, rotation of secrets, listing, and the admin scope."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import SECRETS, Api, ApiKey, Response
from tests.harness.events import reading
from tests.harness.processes import run_command
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until

ADMIN = ("admin",)
BOTH = ("publish", "receive")


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def made(
    api: Api, *, account: str | None = None, scopes: tuple[str, ...] = BOTH, **more: Any
) -> ApiKey:
    """A new API key, with options that the harness's `api_key` lacks."""
    account = account or await api.account()
    body = {"name": "tests", "scopes": list(scopes), **more}
    return _key(account, await api.admin("POST", f"/v1/accounts/{account}/api-keys", json=body))


async def rotated(api: Api, key: ApiKey, *, old_valid_until: str | None = None) -> ApiKey:
    """Rotates the secret; returns the key with the new one."""
    body = {} if old_valid_until is None else {"old_valid_until": old_valid_until}
    return _key(key.account, await api.admin("POST", f"/v1/api-keys/{key.id}/secrets", json=body))


def _key(account: str, response: Response) -> ApiKey:
    assert response.status == 201, response.text
    SECRETS.append(response.json["secret"])
    return ApiKey(id=response.json["id"], account=account, secret=response.json["secret"])


async def is_refused(api: Api, key: ApiKey) -> bool:
    response = await api.call("GET", "/v2/subscriptions", key=key)
    assert response.status in (200, 401), response.text
    return response.status == 401


class TestExpiry:
    async def test_an_expired_key_is_refused_and_its_socket_is_closed(
        self, api: Api, other_api: Api, stack: Stack, listen: Listen
    ) -> None:
        ends = time.time() + 2
        key = await made(api, expires_at=datetime.fromtimestamp(ends, UTC).isoformat())
        bystander = await made(api, account=key.account, expires_at=in_s(600))
        for each in (key, bystander):
            await api.register(each)
        receiver = await listen(key, stack.edges[1].url)
        other = await listen(bystander, stack.edges[1].url)
        assert await api.publish(bystander, reading(1, to=key.id)) == [1]
        await receiver.received_numbers([1])

        assert await receiver.closed() == 1008
        took_s = time.time() - ends
        assert 0 <= took_s < 2, f"closed {took_s:.2f} s after its expiry"
        assert other.open_now
        for gateway in (api, other_api):
            assert await is_refused(gateway, key)
            response = await gateway.call("PUT", "/v2/notification/websocket", key=key)
            assert (response.status, response.json["type"]) == (401, "invalid_auth")
        again = await listen(key, stack.edges[0].url)
        assert await again.closed() == 1008

    async def test_nothing_is_queued_for_an_expired_key(self, api: Api, other_api: Api) -> None:
        publisher = await made(api)
        key = await made(api, account=publisher.account, expires_at=in_s(2))
        await api.register(key)
        await api.subscribe(key, {"endpoint-name": "*"})
        for gateway in (api, other_api):
            assert await gateway.publish(publisher, reading(1, to=key.id), reading(2)) == [1, 1]

        await wait_until(partial(is_refused, api, key))

        for gateway in (api, other_api):
            assert await gateway.publish(publisher, reading(3, to=key.id), reading(4)) == [0, 0]

    async def test_an_expired_key_is_shown_and_can_be_revoked(self, api: Api) -> None:
        key = await made(api, expires_at=in_s(0.3))
        await wait_until(partial(is_refused, api, key))

        shown = await api.admin("GET", f"/v1/api-keys/{key.id}")
        assert (shown.status, shown.json["id"]) == (200, key.id)
        refused = await api.admin("POST", f"/v1/api-keys/{key.id}/secrets")
        assert (refused.status, refused.json["type"]) == (409, "conflict")
        await api.revoke(key)
        assert (await api.admin("GET", f"/v1/api-keys/{key.id}")).status == 404

    async def test_expiry_times_may_have_any_utc_offset(self, api: Api) -> None:
        account = await api.account()
        here = datetime(2999, 1, 31, 14, 30, tzinfo=timezone(timedelta(hours=2, minutes=30)))
        response = await api.admin(
            "POST",
            f"/v1/accounts/{account}/api-keys",
            json={"name": "a", "scopes": ["receive"], "expires_at": here.isoformat()},
        )
        _key(account, response)

        assert response.json["expires_at"] == "2999-01-31T12:00:00.000Z"

    @pytest.mark.parametrize(
        "time_", ["", "tomorrow", "now", 5, True, "2999-01-31", "2999-01-31T12:00:00", "2020-01-31T12:00:00Z"]
    )
    async def test_an_invalid_or_past_expiry_is_refused(self, api: Api, time_: object) -> None:
        account = await api.account()
        body = {"name": "a", "scopes": ["receive"], "expires_at": time_}

        response = await api.admin("POST", f"/v1/accounts/{account}/api-keys", json=body)

        assert (response.status, response.json["type"]) == (400, "validation_error")
        assert [each["name"] for each in response.json["fields"]] == ["expires_at"]


class TestRotation:
    async def test_both_secrets_are_valid_until_the_old_one_expires(
        self, api: Api, other_api: Api, stack: Stack, listen: Listen
    ) -> None:
        old = await made(api)
        await api.register(old)
        for gateway in (api, other_api):
            assert not await is_refused(gateway, old)

        ends = time.time() + 1.5
        new = await rotated(api, old, old_valid_until=datetime.fromtimestamp(ends, UTC).isoformat())

        assert new.id == old.id
        assert new.secret != old.secret
        for gateway in (api, other_api):
            assert not await is_refused(gateway, new), "a gateway with a cached key reads it again"
            assert not await is_refused(gateway, old)
        with_old = await listen(old, stack.edges[0].url)
        assert await with_old.closed() == 1008
        assert 0 <= time.time() - ends < 2
        for gateway in (api, other_api):
            assert await is_refused(gateway, old)
            assert not await is_refused(gateway, new)

    async def test_a_socket_closes_when_its_secret_expires(
        self, api: Api, stack: Stack, listen: Listen
    ) -> None:
        """Also when the secret was rotated after the socket opened, on another replica."""
        leaves, stays = await made(api), await made(api)
        with_old = []
        for number, key in enumerate((leaves, stays)):
            await api.register(key)
            with_old.append(await listen(key, stack.edges[number].url))

        ends = time.time() + 1.5
        new = await rotated(api, leaves, old_valid_until=datetime.fromtimestamp(ends, UTC).isoformat())
        await rotated(api, stays)

        assert await with_old[0].closed() == 1008
        assert 0 <= time.time() - ends < 2
        assert with_old[1].open_now
        with_new = await listen(new, stack.edges[0].url)
        await api.publish(new, reading(1, to=new.id))
        await with_new.received_numbers([1])

    async def test_the_old_secret_can_expire_at_once(
        self, api: Api, other_api: Api, stack: Stack, listen: Listen
    ) -> None:
        old = await made(api)
        await api.register(old)
        assert await api.publish(old, reading(1, to=old.id)) == [1]
        receiver = await listen(old, stack.edges[1].url)
        assert not await is_refused(other_api, old)
        await receiver.received_numbers([1])

        began = time.monotonic()
        new = await rotated(api, old, old_valid_until="now")

        assert await is_refused(api, old)
        assert await receiver.closed() == 1008
        assert (receiver.closed_at or 0.0) - began < 2
        await wait_until(partial(is_refused, other_api, old), within_s=2)
        assert not await is_refused(other_api, new)
        assert await api.publish(new, reading(2, to=new.id)) == [1]
        with_new = await listen(new, stack.edges[0].url)
        await with_new.received_numbers([2])

    async def test_a_key_has_at_most_two_secrets(self, api: Api) -> None:
        first = await made(api)
        second = await rotated(api, first)
        shown = (await api.admin("GET", f"/v1/api-keys/{first.id}")).json

        for body in ({}, {"old_valid_until": "now"}, {"old_valid_until": in_s(60)}):
            response = await api.admin("POST", f"/v1/api-keys/{first.id}/secrets", json=body)
            assert (response.status, response.json["type"]) == (409, "conflict")
            assert shown["old_secret_valid_until"] in response.json["message"]

        until = datetime.fromisoformat(shown["old_secret_valid_until"])
        assert timedelta(hours=23, minutes=59) < until - datetime.now(UTC) <= timedelta(hours=24)
        for key in (first, second):
            assert not await is_refused(api, key)

    async def test_a_key_can_be_rotated_again_when_the_old_secret_has_expired(self, api: Api) -> None:
        first = await made(api)
        second = await rotated(api, first, old_valid_until=in_s(0.5))
        await wait_until(partial(is_refused, api, first))

        third = await rotated(api, second)

        assert [await is_refused(api, key) for key in (first, second, third)] == [True, False, False]

    @pytest.mark.parametrize("time_", ["", "tomorrow", 5, "2999-01-31T12:00:00", "2020-01-31T12:00:00Z"])
    async def test_an_invalid_expiry_of_the_old_secret_is_refused(
        self, api: Api, key: ApiKey, time_: object
    ) -> None:
        response = await api.admin("POST", f"/v1/api-keys/{key.id}/secrets", json={"old_valid_until": time_})

        assert (response.status, response.json["type"]) == (400, "validation_error")
        assert [each["name"] for each in response.json["fields"]] == ["old_valid_until"]
        assert not await is_refused(api, key)


class TestList:
    async def test_list_shows_the_keys_of_an_account_without_secrets(self, api: Api) -> None:
        account = await api.account()
        plain = await made(api, account=account, scopes=("receive",))
        ending = await made(api, account=account, expires_at="2999-01-31T12:00:00Z")
        await rotated(api, ending, old_valid_until="2999-01-30T12:00:00+00:00")
        await made(api)

        response = await api.admin("GET", f"/v1/accounts/{account}/api-keys")

        assert response.status == 200
        listed = {each["id"]: each for each in response.json["api_keys"]}
        assert response.json["next_after"] is None
        assert listed.keys() == {plain.id, ending.id}
        assert "secret" not in {name for each in listed.values() for name in each}
        assert "ak_" not in response.text
        created_at = listed[plain.id]["created_at"]
        assert datetime.now(UTC) - datetime.fromisoformat(created_at) < timedelta(minutes=5)
        assert listed[plain.id] == {
            "id": plain.id,
            "account_id": account,
            "name": "tests",
            "scopes": ["receive"],
            "created_at": created_at,
            "expires_at": None,
            "old_secret_valid_until": None,
        }
        assert listed[ending.id]["expires_at"] == "2999-01-31T12:00:00.000Z"
        assert listed[ending.id]["old_secret_valid_until"] == "2999-01-30T12:00:00.000Z"
        for each in listed.values():
            one = await api.admin("GET", f"/v1/api-keys/{each['id']}")
            assert (one.status, one.json) == (200, each)

    async def test_list_continues_after_a_key(self, api: Api) -> None:
        account = await api.account()
        ids = sorted([(await made(api, account=account)).id for _ in range(3)])

        response = await api.admin("GET", f"/v1/accounts/{account}/api-keys?after={ids[0]}")

        assert [each["id"] for each in response.json["api_keys"]] == ids[1:]
        refused = await api.admin("GET", f"/v1/accounts/{account}/api-keys?after=x")
        assert refused.status == 400

    async def test_unknown_accounts_and_keys_are_a_404(self, api: Api) -> None:
        for missing in ("0" * 32, "unknown"):
            assert (await api.admin("GET", f"/v1/accounts/{missing}/api-keys")).status == 404
            assert (await api.admin("GET", f"/v1/api-keys/{missing}")).status == 404
            assert (await api.admin("POST", f"/v1/api-keys/{missing}/secrets")).status == 404


class TestAdmins:
    @pytest.fixture
    async def admin(self, api: Api) -> ApiKey:
        return await made(api, scopes=ADMIN)

    async def test_an_admin_manages_the_keys_of_its_account(self, api: Api, admin: ApiKey) -> None:
        path = f"/v1/accounts/{admin.account}/api-keys"
        body = {"name": "made", "scopes": ["publish", "receive", "admin"], "expires_at": in_s(60)}
        key = _key(admin.account, await api.call("POST", path, key=admin, json=body))

        listed = (await api.call("GET", path, key=admin)).json["api_keys"]
        assert {each["id"] for each in listed} == {admin.id, key.id}
        assert (await api.call("GET", f"/v1/api-keys/{key.id}", key=admin)).json["name"] == "made"
        new = _key(key.account, await api.call("POST", f"/v1/api-keys/{key.id}/secrets", key=admin))
        assert not await is_refused(api, new)
        assert (await api.call("GET", path, key=new)).status == 200, "an admin may create admins"
        assert (await api.call("DELETE", f"/v1/api-keys/{key.id}", key=admin)).status == 204
        assert await is_refused(api, new)

    async def test_other_accounts_are_a_404_for_an_admin(self, api: Api, admin: ApiKey) -> None:
        stranger = await made(api)
        child = await made(api, account=await api.account(parent=admin.account))
        for key in (stranger, child):
            responses = [
                await api.call("POST", f"/v1/accounts/{key.account}/api-keys", key=admin, json=KEY),
                await api.call("GET", f"/v1/accounts/{key.account}/api-keys", key=admin),
                await api.call("GET", f"/v1/api-keys/{key.id}", key=admin),
                await api.call("POST", f"/v1/api-keys/{key.id}/secrets", key=admin),
                await api.call("DELETE", f"/v1/api-keys/{key.id}", key=admin),
            ]
            assert [(response.status, response.json["type"]) for response in responses] == [
                (404, "not_found")
            ] * 5
            assert not await is_refused(api, key)

    async def test_an_admin_creates_no_accounts_and_has_no_other_scopes(
        self, api: Api, admin: ApiKey
    ) -> None:
        responses = [
            await api.call("POST", "/v1/accounts", key=admin, json={"name": "a", "parent": admin.account}),
            await api.post_events(admin, reading(1)),
            await api.call("PUT", "/v2/notification/websocket", key=admin),
        ]
        assert [(response.status, response.json["type"]) for response in responses] == [
            (403, "access_denied")
        ] * 3

    async def test_managing_keys_needs_a_valid_admin_key(self, api: Api, admin: ApiKey, key: ApiKey) -> None:
        unauthenticated = ApiKey(id=key.id, account=key.account, secret="wrong")
        expired = await made(api, account=admin.account, scopes=ADMIN, expires_at=in_s(0.2))
        await wait_until(partial(_may_not_list, api, expired))
        for caller, status in ((key, 403), (unauthenticated, 401), (expired, 401)):
            responses = [
                await api.call("POST", f"/v1/accounts/{key.account}/api-keys", key=caller, json=KEY),
                await api.call("GET", f"/v1/accounts/{key.account}/api-keys", key=caller),
                await api.call("GET", f"/v1/api-keys/{key.id}", key=caller),
                await api.call("POST", f"/v1/api-keys/{key.id}/secrets", key=caller),
                await api.call("DELETE", f"/v1/api-keys/{key.id}", key=caller),
            ]
            assert [response.status for response in responses] == [status] * 5

    async def test_a_revoked_admin_is_refused_by_every_gateway(
        self, api: Api, other_api: Api, admin: ApiKey
    ) -> None:
        path = f"/v1/accounts/{admin.account}/api-keys"
        for gateway in (api, other_api):
            assert (await gateway.call("GET", path, key=admin)).status == 200

        assert (await api.call("DELETE", f"/v1/api-keys/{admin.id}", key=admin)).status == 204

        for gateway in (api, other_api):
            assert (await gateway.call("POST", path, key=admin, json=KEY)).status == 401


KEY = {"name": "a", "scopes": ["receive"]}


async def _may_not_list(api: Api, key: ApiKey) -> bool:
    return (await api.call("GET", f"/v1/accounts/{key.account}/api-keys", key=key)).status == 401


async def test_the_command_line_manages_keys(api: Api, stack: Stack, listen: Listen) -> None:
    account = await api.account()

    async def output(*arguments: str) -> Any:
        done = await asyncio.to_thread(run_command, *arguments, settings={"REDIS_URL": stack.redis.url})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    create = ("api-keys", "create", "--account", account, "--name", "shell")
    first = await output(*create, "--expires-at", "2999-01-31T12:00:00Z", "--scopes", "receive,admin")
    SECRETS.append(first["secret"])
    key = ApiKey(id=first["id"], account=account, secret=first["secret"])
    await api.register(key)
    receiver = await listen(key)
    second = await output("api-keys", "rotate", key.id, "--old-valid-until", "now")
    SECRETS.append(second["secret"])
    listed = await output("api-keys", "list", "--account", account)

    assert first["expires_at"] == "2999-01-31T12:00:00.000Z"
    assert await receiver.closed() == 1008
    assert [each["id"] for each in listed] == [key.id]
    assert listed[0]["scopes"] == ["admin", "receive"]
    assert second["secret"] not in json.dumps(listed)
    assert not await is_refused(api, ApiKey(id=key.id, account=account, secret=second["secret"]))
    for arguments in (
        (*create, "--expires-at", "2020-01-31T12:00:00Z"),
        ("api-keys", "rotate", key.id, "--old-valid-until", "yesterday"),
        ("api-keys", "rotate", "0" * 32),
        ("api-keys", "list", "--account", "unknown"),
    ):
        done = await asyncio.to_thread(run_command, *arguments, settings={"REDIS_URL": stack.redis.url})
        assert done.returncode == 1
        assert done.stderr.startswith("refused: ")
