"""GET /v1/channels/ID: state, delivery attempts and signing secret of a channel, and who may read them."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from shared.store import keyspace
from tests.conftest import Listen
from tests.harness.api import Api, ApiKey, Response
from tests.harness.callbacks import Hook
from tests.harness.events import readings
from tests.harness.stack import Stack
from tests.stories.test_errors import assert_error

AT_MS = 1_800_000_000_000
AT = "2027-01-15T08:00:00.000Z"


@pytest.fixture
def redis(stack: Stack) -> Iterator[Any]:
    with stack.redis.client() as client:
        yield client


async def view(api: Api, key: ApiKey, rest: str = "") -> Response:
    return await api.call("GET", f"/v1/channels/{key.id}{rest}", key=key)


def attempt(number: int, **more: object) -> bytes:
    facts = {
        "at_ms": AT_MS,
        "webhook_id": f"msg_{number}",
        "count": 3,
        "status": 200,
        "error": "",
        "took_ms": 7,
    }
    return orjson.dumps({**facts, "next_attempt_ms": None, **more})


async def test_state_of_a_websocket_channel(api: Api, key: ApiKey, listen: Listen) -> None:
    assert_error(await view(api, key), 404, "not_found")
    await api.register(key)
    await api.publish(key, *readings(range(3), to=key.id))

    state = (await view(api, key)).json

    assert state.pop("serialization")["max_chunk_size"] == 10_000
    assert state == {"kind": "websocket", "connected": False, "pending": 3, "dropped": 0}
    await listen(key)
    await api.until(key, status="connected")
    assert (await view(api, key)).json["connected"] is True


async def test_state_of_a_failing_webhook(api: Api, key: ApiKey, hook: Hook, redis: Any) -> None:
    await api.put_callback(key, hook.url)
    state = (await view(api, key)).json
    assert set(state) == {"kind", "pending", "dropped", "serialization"}
    assert (state["kind"], state["pending"]) == ("webhook", 0)
    failing = {"failing_since_ms": AT_MS, "failed_attempts": 4, "next_attempt_ms": AT_MS + 8_000}
    redis.hset(keyspace.channel(key.id), mapping=failing)

    state = (await view(api, key)).json

    assert (state["failing_since"], state["failed_attempts"]) == (AT, 4)
    assert state["next_attempt_at"] == "2027-01-15T08:00:08.000Z"


async def test_attempts_of_an_older_release_are_listed_newest_first(
    api: Api, key: ApiKey, hook: Hook, redis: Any
) -> None:
    assert (await view(api, key, "/deliveries")).json == {"deliveries": [], "next_after": None}
    await api.put_callback(key, hook.url)
    stored = [attempt(n) for n in range(150)]
    stored.append(attempt(150, status=None, error="timed-out", next_attempt_ms=AT_MS))
    redis.lpush(keyspace.deliveries(key.id), *stored)
    redis.expire(keyspace.deliveries(key.id), 60)

    attempts = (await view(api, key, "/deliveries")).json["deliveries"]

    assert [each["webhook_id"] for each in attempts] == [f"msg_{n}" for n in range(150, 50, -1)]
    failed, accepted = attempts[:2]
    assert accepted == {
        "id": f"{AT_MS + 7}-0",
        "outcome": "success",
        "method": None,
        "url": None,
        "events": [],
        "again": None,
        "detail": "",
        "at": AT,
        "webhook_id": "msg_149",
        "batch": 3,
        "status": 200,
        "error": "",
        "took_ms": 7,
        "next_attempt_at": None,
    }
    assert (failed["status"], failed["error"], failed["next_attempt_at"]) == (None, "timed-out", AT)


async def test_a_requested_retry_clears_the_backoff(api: Api, key: ApiKey, hook: Hook, redis: Any) -> None:
    retry = f"/v1/channels/{key.id}/deliveries/retry"
    assert_error(await api.call("POST", retry, key=key), 404, "not_found")
    await api.register(key)
    assert_error(await api.call("POST", retry, key=key), 404, "not_found")
    await api.delete_channel(key)
    await api.put_callback(key, hook.url)
    failing = {"failing_since_ms": AT_MS, "failed_attempts": 4, "next_attempt_ms": AT_MS + 8_000}
    redis.hset(keyspace.channel(key.id), mapping=failing)

    response = await api.call("POST", retry, key=key)

    assert (response.status, response.text) == (202, "")
    assert not redis.hexists(keyspace.channel(key.id), "next_attempt_ms")


async def test_the_signing_secret_is_stable_and_per_key(
    api: Api, other_api: Api, key: ApiKey, hook: Hook
) -> None:
    before = await view(api, key, "/signing-secret")
    await api.put_callback(key, hook.url)
    after = await view(other_api, key, "/signing-secret")

    assert before.json["signing_secret"].startswith("whsec_")
    assert before.json == after.json
    assert before.headers["Cache-Control"] == "no-store"
    outsider = await api.api_key(account=key.account)
    assert (await view(api, outsider, "/signing-secret")).json != before.json


async def test_the_key_itself_and_admins_of_its_account_may_read(api: Api, key: ApiKey) -> None:
    await api.register(key)
    admin = await api.api_key(account=key.account, scopes=("admin",))
    elsewhere = await api.api_key(scopes=("admin", "receive"))
    sibling = await api.api_key(account=key.account)
    publisher = await api.api_key(account=key.account, scopes=("publish",))
    for method, rest, status in (
        ("GET", "", 200),
        ("GET", "/signing-secret", 200),
        ("GET", "/deliveries", 200),
        ("POST", "/deliveries/retry", 404),
    ):
        path = f"/v1/channels/{key.id}{rest}"
        assert (await api.call(method, path, key=key)).status == status
        assert (await api.call(method, path, key=admin)).status == status
        assert (await api.admin(method, path)).status == status
        assert_error(await api.call(method, path, key=elsewhere), 404, "not_found")
        assert_error(await api.call(method, path, key=sibling), 403, "access_denied")
        assert_error(await api.call(method, path), 401, "invalid_auth")
        own = f"/v1/channels/{publisher.id}{rest}"
        assert_error(await api.call(method, own, key=publisher), 403, "access_denied")
        for unknown in ("0" * 32, "ch_" + "0" * 32):
            assert_error(await api.admin(method, f"/v1/channels/{unknown}{rest}"), 404, "not_found")
