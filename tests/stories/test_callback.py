"""Webhook registration: the URL must accept a test request; otherwise nothing changes."""

import asyncio
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from tests.harness.api import Api, ApiKey
from tests.harness.callbacks import Hook
from tests.harness.events import reading
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.stories.test_errors import assert_error

PATH = "/v2/notification/callback"
DEFAULTS = {
    "type": "v2",
    "max_chunk_size": 10_000,
    "cfg": {
        "deregistrations_as_object": False,
        "include_uid": False,
        "include_timestamp": False,
        "include_original_ep": False,
    },
}


async def test_register_show_and_delete(api: Api, key: ApiKey, hook: Hook) -> None:
    assert_error(await api.callback(key), 404, "not_found")
    assert_error(await api.delete_callback(key), 404, "not_found")
    headers = {"Authorization": "Basic eDp5", "X-Origin": "us"}

    put = await api.put_callback(key, hook.url, headers=headers)

    assert (put.status, put.text) == (204, "")
    shown = await api.callback(key)
    assert shown.json == {"url": hook.url, "headers": headers, "serialization": DEFAULTS}
    mechanism = await api.call("GET", "/v2/notification/channel", key=key)
    assert mechanism.json == {"delivery_mechanism": "CALLBACK"}
    assert await api.publish(key, reading(1, to=key.id)) == [1]
    deleted = await api.delete_callback(key)
    assert (deleted.status, deleted.text) == (204, "")
    assert (await api.callback(key)).status == 404
    assert await api.publish(key, reading(2, to=key.id)) == [0]


async def test_the_test_request_is_a_signed_empty_object_with_the_callback_headers(
    api: Api, key: ApiKey, hook: Hook
) -> None:
    await api.put_callback(key, f"{hook.url}?a=b%20c", headers={"x-origin": "us"})

    [called] = hook.called
    assert (called.method, called.path, called.body) == ("PUT", "/hook?a=b%20c", b"{}")
    assert called.headers["Content-Type"] == "application/json"
    assert called.headers["X-Origin"] == "us"
    secret = (await api.call("GET", f"/v1/channels/{key.id}/signing-secret", key=key)).json["signing_secret"]
    assert Webhook(secret).verify(called.body, {k.lower(): v for k, v in called.headers.items()}) == {}


@pytest.mark.parametrize("status", [200, 204])
async def test_statuses_that_pass_the_test_request(api: Api, key: ApiKey, hook: Hook, status: int) -> None:
    hook.status = status
    assert (await api.put_callback(key, hook.url)).status == 204


@pytest.mark.parametrize("status", [201, 202, 301, 302, 307, 400, 404, 410, 500, 503])
async def test_other_statuses_change_nothing(api: Api, key: ApiKey, hook: Hook, status: int) -> None:
    await api.put_callback(key, hook.url, headers={"x": "before"})
    hook.status = status
    hook.headers = {"Location": f"{hook.origin}/elsewhere"}

    refused = await api.put_callback(key, f"{hook.origin}/new")

    assert_error(refused, 400, "bad_request", field="url")
    assert str(status) in refused.json["message"]
    assert [called.path for called in hook.called] == ["/hook", "/new"]
    shown = (await api.callback(key)).json
    assert (shown["url"], shown["headers"]) == (hook.url, {"x": "before"})


async def test_an_unreachable_url_is_refused(api: Api, key: ApiKey, hook: Hook) -> None:
    refused = await api.put_callback(key, "http://127.0.0.1:1/hook")

    assert_error(refused, 400, "bad_request", field="url")
    assert (await api.callback(key)).status == 404


async def test_private_addresses_are_refused_by_default(
    api: Api, key: ApiKey, hook: Hook, stack: Stack
) -> None:
    strict = stack.new_gateway("strict", ALLOW_PRIVATE_CALLBACKS="")
    try:
        strict.start()
        strict.wait_ready()
        refused = await api.at(strict.url).put_callback(key, hook.url)
    finally:
        strict.close()

    assert_error(refused, 400, "bad_request", field="url")
    assert "address-refused" in refused.json["message"]
    assert hook.called == []


async def test_put_replaces_the_whole_registration(api: Api, key: ApiKey, hook: Hook) -> None:
    wanted = {"type": "v2", "max_chunk_size": "100", "cfg": {"include_uid": "true"}}
    await api.put_callback(key, hook.url, headers={"x": "1"}, serialization=wanted)
    assert (await api.callback(key)).json["serialization"]["max_chunk_size"] == 100

    await api.put_callback(key, f"{hook.origin}/new", headers={"y": "2"})

    shown = (await api.callback(key)).json
    assert shown == {"url": f"{hook.origin}/new", "headers": {"y": "2"}, "serialization": DEFAULTS}
    assert [called.path for called in hook.called] == ["/hook", "/new"]


async def test_url_and_headers_have_at_most_400_characters(api: Api, key: ApiKey, hook: Hook) -> None:
    headers = {"X-Origin": "us", "Authorization": "x"}
    rest = 400 - len(hook.origin) - 1 - sum(len(k) + len(v) for k, v in headers.items())

    refused = await api.put_callback(key, f"{hook.origin}/{'p' * (rest + 1)}", headers=headers)
    assert_error(refused, 400, "validation_error")
    assert "401" in refused.json["message"]
    assert hook.called == []

    taken = await api.put_callback(key, f"{hook.origin}/{'p' * rest}", headers=headers)
    assert taken.status == 204, taken.text


INVALID_REGISTRATIONS = [
    pytest.param(b"", "", id="nothing"),
    pytest.param(b"{", "", id="truncated JSON"),
    pytest.param(b"[]", "", id="an array"),
    pytest.param({}, "url", id="no URL"),
    pytest.param({"url": None}, "url", id="null"),
    pytest.param({"url": 5}, "url", id="a number"),
    pytest.param({"url": ""}, "url", id="an empty URL"),
    pytest.param({"url": "ftp://host/"}, "url", id="another scheme"),
    pytest.param({"url": "http://u:p@host/"}, "url", id="credentials"),
    pytest.param({"url": "http://2130706433/"}, "url", id="a decimal address"),
    pytest.param({"url": "URL", "headers": []}, "headers", id="headers in an array"),
    pytest.param({"url": "URL", "headers": {"x": 1}}, "headers", id="a header that is a number"),
    pytest.param({"url": "URL", "headers": {"x": "a\r\nb: c"}}, "headers", id="two headers in one"),
    pytest.param({"url": "URL", "headers": {"Host": "other"}}, "headers", id="a reserved header"),
    pytest.param({"url": "URL", "serialization": {"type": "v1"}}, "serialization.type", id="serialization"),
]


@pytest.mark.parametrize(("body", "field"), INVALID_REGISTRATIONS)
async def test_an_invalid_registration_is_refused(
    api: Api, key: ApiKey, hook: Hook, body: object, field: str
) -> None:
    data = body if isinstance(body, bytes) else orjson.dumps(body).replace(b"URL", hook.url.encode())
    response = await api.call("PUT", PATH, key=key, data=data, headers={"Content-Type": "application/json"})

    assert_error(response, 400, "validation_error", field=field)
    assert hook.called == []
    assert (await api.callback(key)).status == 404


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 204),
        ("Application/JSON; charset=utf-8", 204),
        ("application/vnd.api+json", 204),
        ("", 204),
        ("text/plain", 415),
        ("application/xml", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_a_content_type_other_than_json_is_refused(
    api: Api, key: ApiKey, hook: Hook, content_type: str, status: int
) -> None:
    body = orjson.dumps({"url": hook.url})
    # By default aiohttp sends octet-stream.
    given: dict[str, Any] = {"headers": {"Content-Type": content_type}}
    if not content_type:
        given = {"skip_auto_headers": ["Content-Type"]}

    response = await api.call("PUT", PATH, key=key, data=body, **given)

    assert response.status == status, response.text
    if status == 415:
        assert_error(response, 415, "unsupported_media_type", field="Content-Type")
        assert hook.called == []


async def test_unknown_and_null_fields_are_ignored(api: Api, key: ApiKey, hook: Hook) -> None:
    response = await api.put_callback(key, hook.url, headers=None, serialization=None, comment="ours")

    assert response.status == 204, response.text
    assert (await api.callback(key)).json["headers"] == {}


async def test_an_api_key_has_one_test_request_in_progress_at_a_time(
    api: Api, other_api: Api, key: ApiKey, hook: Hook
) -> None:
    hook.open.clear()
    first = asyncio.create_task(api.put_callback(key, hook.url))
    await wait_until(lambda: hook.called, what="the test request")

    second = await api.put_callback(key, f"{hook.origin}/second")
    other_key = await api.api_key()
    third = asyncio.create_task(api.put_callback(other_key, f"{hook.origin}/third"))
    await wait_until(lambda: len(hook.called) == 2, what="the test request of another API key")

    assert_error(second, 429, "too_many_requests")
    assert second.headers["Retry-After"]
    assert (await api.callback(key)).status == 404
    hook.open.set()
    assert (await first).status == (await third).status == 204
    assert [called.path for called in hook.called] == ["/hook", "/third"]
    assert (await other_api.put_callback(key, hook.url)).status == 204


async def test_a_channel_created_during_the_test_request_wins(api: Api, key: ApiKey, hook: Hook) -> None:
    hook.open.clear()
    put = asyncio.create_task(api.put_callback(key, hook.url))
    await wait_until(lambda: hook.called, what="the test request")
    await api.register(key)
    hook.open.set()

    assert_error(await put, 400, "bad_request")
    assert (await api.callback(key)).status == 404
    assert (await api.channel(key)).status == 200


async def test_an_api_key_revoked_during_the_test_request_registers_nothing(
    api: Api, key: ApiKey, hook: Hook
) -> None:
    hook.open.clear()
    put = asyncio.create_task(api.put_callback(key, hook.url))
    await wait_until(lambda: hook.called, what="the test request")
    await api.revoke(key)
    hook.open.set()

    assert_error(await put, 401, "invalid_auth")


async def test_callbacks_need_the_receive_scope(api: Api, hook: Hook) -> None:
    publisher = await api.api_key(scopes=("publish",))

    assert_error(await api.callback(publisher), 403, "access_denied")
    assert_error(await api.put_callback(publisher, hook.url), 403, "access_denied")
    assert_error(await api.delete_callback(publisher), 403, "access_denied")
    assert_error(await api.call("PUT", PATH, json={"url": hook.url}), 401, "invalid_auth")
    assert hook.called == []
