"""A lost account is found again by its name; the audit log says who changed what."""

import asyncio
import json
from typing import Any

import pytest

from tests.harness.api import Api, ApiKey
from tests.harness.events import reading
from tests.harness.processes import run_command
from tests.harness.stack import Stack


async def names(api: Api, **query: str) -> list[str]:
    response = await api.admin("GET", "/v1/accounts", params=query)
    assert response.status == 200
    return [account["name"] for account in response.json["accounts"]]


async def make(api: Api, name: str) -> str:
    return str((await api.admin("POST", "/v1/accounts", json={"name": name})).json["id"])


async def entries(api: Api, **query: str) -> list[dict[str, Any]]:
    response = await api.admin("GET", "/v1/audit", params=query)
    assert response.status == 200
    return list(response.json["entries"])


async def test_accounts_are_listed_by_a_prefix_of_their_names(api: Api) -> None:
    for name in ("Zebra", "Äpfel & Birnen", "acme eu", "acme us", "acme", "acmé"):
        await make(api, name)

    assert await names(api, name_prefix="acme") == ["acme", "acme eu", "acme us"]
    assert await names(api, name_prefix="Ä") == ["Äpfel & Birnen"]
    assert await names(api, name_prefix="unknown") == []
    found = await names(api)
    assert found == sorted(found, key=str.encode)
    assert set(found) >= {"Zebra", "acmé"}


async def test_accounts_of_one_name_are_all_listed(api: Api) -> None:
    ids = {await make(api, "twins of one name") for _ in range(3)}
    listed = (await api.admin("GET", "/v1/accounts", params={"name_prefix": "twins"})).json["accounts"]
    assert {account["id"] for account in listed} == ids
    assert listed[0].keys() == {"id", "name", "parent"}


async def test_pages_follow_each_other(api: Api, other_api: Api) -> None:
    made = [f"paged {number:04}" for number in range(1005)]
    for start in range(0, len(made), 100):
        await asyncio.gather(*(make(api, name) for name in made[start : start + 100]))

    first = (await api.admin("GET", "/v1/accounts", params={"name_prefix": "paged "})).json
    query = {"name_prefix": "paged ", "after": first["next_after"]}
    second = (await other_api.admin("GET", "/v1/accounts", params=query)).json

    assert [account["name"] for account in first["accounts"] + second["accounts"]] == made
    assert second["next_after"] is None


@pytest.mark.parametrize("after", ["x", "ä", "AAAA", "a" * 300, "=", "YWJj"])
async def test_a_place_that_no_page_returned(api: Api, after: str) -> None:
    response = await api.admin("GET", "/v1/accounts", params={"after": after})
    assert (response.status, response.json["fields"][0]["name"]) == (400, "after")


async def test_a_renamed_account_is_found_by_its_new_name_only(api: Api, other_api: Api) -> None:
    account = await make(api, "before the wedding")

    changed = await api.admin("PATCH", f"/v1/accounts/{account}", json={"name": "after the wedding"})

    assert (changed.status, changed.json["name"]) == (200, "after the wedding")
    assert (await other_api.admin("GET", f"/v1/accounts/{account}")).json["name"] == "after the wedding"
    assert await names(other_api, name_prefix="before the") == []
    assert await names(other_api, name_prefix="after the") == ["after the wedding"]
    same = await api.admin("PATCH", f"/v1/accounts/{account}", json={"name": "after the wedding"})
    assert same.status == 200
    assert await names(api, name_prefix="after the") == ["after the wedding"]


@pytest.mark.parametrize("name", ["", "x" * 256, "a\x00b", "line\nbreak", 7])
async def test_a_name_that_is_refused_changes_nothing(api: Api, name: object) -> None:
    account = await make(api, "as it was")
    changed = await api.admin("PATCH", f"/v1/accounts/{account}", json={"name": name})
    assert changed.status == 400
    assert await names(api, name_prefix="as it was") == ["as it was"]


async def test_a_deleted_account_is_not_listed(api: Api) -> None:
    account = await make(api, "short life")
    assert (await api.admin("DELETE", f"/v1/accounts/{account}")).status == 204
    assert await names(api, name_prefix="short life") == []


async def test_only_the_operator_lists_accounts(api: Api) -> None:
    admin = await api.api_key(scopes=("admin",))
    assert (await api.call("GET", "/v1/accounts", key=admin)).status == 403
    assert (await api.call("GET", "/v1/accounts")).status == 401


async def test_an_account_with_api_keys_is_deleted_only_with_cascade(api: Api, channel: ApiKey) -> None:
    path = f"/v1/accounts/{channel.account}"

    refused = await api.admin("DELETE", path)
    assert (refused.status, refused.json["type"]) == (409, "conflict")
    assert "cascade=true" in refused.json["message"]
    assert (await api.admin("DELETE", f"{path}?cascade=yes")).status == 400
    assert await api.publish(channel, {**reading(1), "to": channel.id}) == [1], "nothing was done"

    assert (await api.admin("DELETE", f"{path}?cascade=true")).status == 204
    assert (await api.admin("GET", path)).status == 404


async def test_without_its_api_keys_it_needs_no_cascade(api: Api, channel: ApiKey) -> None:
    assert (await api.admin("DELETE", f"/v1/api-keys/{channel.id}")).status == 204
    assert (await api.admin("DELETE", f"/v1/accounts/{channel.account}")).status == 204


async def test_the_audit_log_says_who_changed_what(api: Api, other_api: Api) -> None:
    account = await make(api, "audited")
    admin = await api.api_key(account=account, scopes=("admin",))
    made = await api.call(
        "POST", f"/v1/accounts/{account}/api-keys", key=admin, json={"name": "app", "scopes": ["receive"]}
    )
    await other_api.call("POST", f"/v1/api-keys/{made.json['id']}/secrets", key=admin, json={})
    await api.admin("DELETE", f"/v1/api-keys/{made.json['id']}")

    found = await entries(other_api, account=account)

    assert [(each["by"], each["action"], each["target"], each["name"]) for each in found] == [
        ("operator", "api-key.revoked", made.json["id"], "app"),
        (admin.id, "api-key.rotated", made.json["id"], "app"),
        (admin.id, "api-key.created", made.json["id"], "app"),
        ("operator", "api-key.created", admin.id, "tests"),
    ]
    assert {each["address"] for each in found} == {"127.0.0.1"}
    assert found[2]["request_id"] == made.headers["X-Request-Id"]
    own = await api.call("GET", "/v1/audit", key=admin)
    assert own.json["entries"] == found


async def test_changes_of_accounts_are_in_the_operators_log(api: Api) -> None:
    account = await make(api, "watched")
    await api.admin("PATCH", f"/v1/accounts/{account}", json={"quotas": {"sockets": 3}})
    for _ in range(2):
        await api.admin("DELETE", f"/v1/accounts/{account}")

    found = [each for each in await entries(api) if each["target"] == account]

    assert [each["action"] for each in found] == ["account.deleted", "account.changed", "account.created"]
    assert {each["name"] for each in found} == {"watched"}


async def test_a_refused_change_is_not_in_the_log(api: Api) -> None:
    account = await make(api, "unchanged")
    await api.admin("POST", f"/v1/accounts/{account}/api-keys", json={"name": "x", "scopes": []})
    await api.admin("DELETE", f"/v1/api-keys/{'0' * 32}")
    assert await entries(api, account=account) == []


async def test_the_log_comes_in_pages(api: Api) -> None:
    account = await make(api, "busy")
    for number in range(105):
        body = {"name": f"key {number}", "scopes": ["receive"]}
        assert (await api.admin("POST", f"/v1/accounts/{account}/api-keys", json=body)).status == 201

    first = (await api.admin("GET", "/v1/audit", params={"account": account})).json
    query = {"account": account, "before": first["next_before"]}
    second = (await api.admin("GET", "/v1/audit", params=query)).json

    listed = [each["name"] for each in first["entries"] + second["entries"]]
    assert listed == [f"key {number}" for number in reversed(range(105))]
    assert second["next_before"] is None


async def test_who_may_read_which_log(api: Api) -> None:
    account, other = await api.account(), await api.account()
    child = await api.account(parent=account)
    admin = await api.api_key(account=account, scopes=("admin",))
    receiver = await api.api_key(account=account, scopes=("receive", "publish"))

    async def status(key: ApiKey | None, query: str) -> int:
        return (await api.call("GET", f"/v1/audit{query}", key=key)).status

    assert await status(admin, "") == 200
    assert await status(admin, f"?account={account}") == 200
    assert await status(admin, f"?account={other}") == 404
    assert await status(admin, f"?account={child}") == 404
    assert await status(receiver, "") == 403
    assert await status(None, "") == 401
    assert (await api.admin("GET", f"/v1/audit?account={'0' * 32}")).status == 404
    assert (await api.admin("GET", "/v1/audit?account=x")).status == 404
    assert (await api.admin("GET", "/v1/audit?before=yesterday")).status == 400


async def test_the_command_line_lists_accounts(api: Api, stack: Stack) -> None:
    account = await make(api, "from the shell")
    settings = {"REDIS_URL": stack.redis.url}
    done = run_command("accounts", "list", "--name-prefix", "from the", settings=settings)
    assert [each["id"] for each in json.loads(done.stdout)] == [account]
