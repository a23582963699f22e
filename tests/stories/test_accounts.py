"""Accounts and API keys, by REST and from the command line; accounts are isolated from each other."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.harness.api import SECRETS, Api, ApiKey
from tests.harness.events import reading
from tests.harness.processes import run_command
from tests.harness.stack import Stack

ID = re.compile(r"[0-9a-f]{32}")


async def test_create_an_account_and_a_child_account(api: Api) -> None:
    parent = (await api.admin("POST", "/v1/accounts", json={"name": "Müller & Söhne"})).json
    response = await api.admin("POST", "/v1/accounts", json={"name": "child", "parent": parent["id"]})

    assert ID.fullmatch(parent["id"])
    assert parent == {"id": parent["id"], "name": "Müller & Söhne", "parent": None}
    assert response.status == 201
    assert response.json == {"id": response.json["id"], "name": "child", "parent": parent["id"]}
    assert response.json["id"] != parent["id"]


async def test_an_api_keys_secret_is_returned_at_creation_and_not_stored(api: Api, stack: Stack) -> None:
    account = await api.account()
    path = f"/v1/accounts/{account}/api-keys"
    response = await api.admin("POST", path, json={"name": "app", "scopes": ["receive"]})
    SECRETS.append(response.json["secret"])

    assert response.status == 201
    made = response.json
    assert ID.fullmatch(made["id"])
    assert re.fullmatch(r"ak_\S{64,}", made["secret"])
    assert (made["account_id"], made["name"], made["scopes"]) == (account, "app", ["receive"])
    assert made["created_at"].endswith("Z")
    with stack.redis.client() as redis:
        record = repr(redis.hgetall(f"{{{made['id']}}}:key"))
    assert made["secret"][-32:] not in record


async def test_ids_and_secrets_are_unique(api: Api) -> None:
    account = await api.account()
    keys = await asyncio.gather(*(api.api_key(account=account) for _ in range(20)))

    assert len({key.secret[-32:] for key in keys}) == len({key.id for key in keys}) == 20


WRONG_ACCOUNTS: list[tuple[Any, str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": 5}, "name"),
    ({"name": "a", "parent": 5}, "parent"),
    ({"name": "a", "parent": "unknown"}, "parent"),
    ({"name": "a", "parent": "0" * 32}, "parent"),
    ([], ""),
]


@pytest.mark.parametrize(("body", "field"), WRONG_ACCOUNTS)
async def test_an_invalid_account_is_refused(api: Api, body: Any, field: str) -> None:
    response = await api.admin("POST", "/v1/accounts", json=body)

    assert (response.status, response.json["type"]) == (400, "validation_error")
    assert not field or field in [each["name"] for each in response.json["fields"]]


WRONG_KEYS: list[tuple[Any, str]] = [
    ({"scopes": ["publish"]}, "name"),
    ({"name": 1, "scopes": ["publish"]}, "name"),
    ({"name": "a"}, "scopes"),
    ({"name": "a", "scopes": []}, "scopes"),
    ({"name": "a", "scopes": "publish"}, "scopes"),
    ({"name": "a", "scopes": ["publish", "everything"]}, "scopes"),
]


@pytest.mark.parametrize(("body", "field"), WRONG_KEYS)
async def test_an_invalid_api_key_is_refused(api: Api, key: ApiKey, body: Any, field: str) -> None:
    response = await api.admin("POST", f"/v1/accounts/{key.account}/api-keys", json=body)

    assert (response.status, response.json["type"]) == (400, "validation_error")
    assert any(each["name"].startswith(field) for each in response.json["fields"])


async def test_an_api_key_needs_an_existing_account(api: Api) -> None:
    for account in ("0" * 32, "unknown"):
        path = f"/v1/accounts/{account}/api-keys"
        response = await api.admin("POST", path, json={"name": "a", "scopes": ["publish"]})
        assert (response.status, response.json["type"]) == (404, "not_found")


async def test_events_stay_within_their_account(api: Api, channel: ApiKey) -> None:
    """A parent account receives nothing of its child either."""
    child_account = await api.account(parent=channel.account)
    child = await api.api_key(account=child_account)
    await api.register(child)
    for key in (channel, child):
        await api.subscribe(key, {"endpoint-name": "*"})

    assert await api.publish(child, reading(1), {"topic": "device.de-registrations", "data": "d"}) == [1, 1]

    assert await api.queue_size(channel) == 0
    assert await api.queue_size(child) == 2


async def test_the_command_line_creates_and_revokes(api: Api, stack: Stack) -> None:
    account = _output(stack, "accounts", "create", "--name", "from the shell")
    made = _output(
        stack,
        "api-keys",
        "create",
        "--account",
        account["id"],
        "--name",
        "shell",
        "--scopes",
        "publish,receive",
    )
    SECRETS.append(made["secret"])
    key = ApiKey(id=made["id"], account=account["id"], secret=made["secret"])

    assert (await api.register(key)).status == 201
    assert await api.publish(key, reading(1, to=key.id)) == [1]

    done = run_command("api-keys", "revoke", key.id, settings={"REDIS_URL": stack.redis.url})
    assert done.returncode == 0, done.stderr
    again = run_command("api-keys", "revoke", key.id, settings={"REDIS_URL": stack.redis.url})
    assert again.returncode != 0
    assert "Traceback" not in again.stderr


async def test_the_command_line_deletes_an_account(api: Api, channel: ApiKey, stack: Stack) -> None:
    settings = {"REDIS_URL": stack.redis.url}

    done = run_command("accounts", "delete", channel.account, "--cascade", settings=settings)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert (await api.admin("DELETE", f"/v1/accounts/{channel.account}")).status == 404
    again = run_command("accounts", "delete", channel.account, "--cascade", settings=settings)
    assert again.returncode != 0
    assert "there is no such account" in again.stderr


def _output(stack: Stack, *arguments: str) -> Any:
    done = run_command(*arguments, settings={"REDIS_URL": stack.redis.url})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
