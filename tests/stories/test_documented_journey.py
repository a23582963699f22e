"""Every operation once: each response matches the document, and each documented success occurs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema_rs

from services.gateway.app import DOCUMENT
from shared.model.deliveries import AttemptOutcome, Delivery, exchange
from shared.store import keyspace
from shared.store.attempts import fields_of
from tests.harness.api import Api, Response
from tests.harness.blackhole import Blackhole
from tests.harness.callbacks import Hook
from tests.harness.client_certificates import client_certificate
from tests.harness.events import reading
from tests.harness.sse import STREAM, ask
from tests.harness.stack import Stack

# tests/stories/test_handshake.py and test_native_socket.py cover WebSocket handshakes.
SOCKETS = ("/v1/socket", "/v2/notification/websocket-connect", "/api/v1/websocket", "/socket")
NOT_BY_HTTP = {("GET", path, 101) for path in SOCKETS}


def successes() -> Iterator[tuple[str, str, int]]:
    for path, item in DOCUMENT["paths"].items():
        for method, described in item.items():
            yield from (
                (method.upper(), path, int(status)) for status in described["responses"] if int(status) < 400
            )


class Journey:
    """Calls operations of the document, and checks each response against it."""

    def __init__(self, api: Api, edge: Api) -> None:
        self._api = api
        self._edge = edge
        self.key: Any = None
        self.met: set[tuple[str, str, int]] = set()

    async def go(self, method: str, path: str, status: int, **options: Any) -> Response:
        """One call, with `{name}` in the path filled from `at`."""
        at = options.pop("at", {})
        filled = path
        for name, value in at.items():
            filled = filled.replace(f"{{{name}}}", quote(value, safe=""))
        query = options.pop("query", "")
        if path.startswith(("/v1/accounts", "/v1/audit")):
            response = await self._api.admin(method, filled + query, **options)
        else:
            api = self._edge if path == "/v2/notification/pull" else self._api
            response = await api.call(method, filled + query, key=self.key, **options)
        assert response.status == status, f"{method} {path}: {response.status} {response.text}"
        check(method, path, response)
        self.met.add((method, path, status))
        return response


def check(method: str, path: str, response: Response) -> None:
    """The response has a documented status, media type and schema."""
    described = DOCUMENT["paths"][path][method.lower()]["responses"][str(response.status)]
    for name, header in described["headers"].items():
        if name != "Idempotent-Replayed":
            assert name in response.headers, f"{method} {path}: no {name} in {response.headers}"
            assert header["schema"].get("const", response.headers[name]) == response.headers[name]
    content = described.get("content")
    if content is None:
        assert response.text == ""
        return
    [(media_type, form)] = content.items()
    assert response.headers["Content-Type"].partition(";")[0] == media_type
    value = response.json if media_type == "application/json" else response.text
    whole = {**form["schema"], "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


async def test_every_success(api: Api, stack: Stack, hook: Hook, http: aiohttp.ClientSession) -> None:
    journey = Journey(api, api.at(stack.edges[0].url))
    go = journey.go
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"):
        await go("GET", path, 200)

    account = (await go("POST", "/v1/accounts", 201, json={"name": "a"})).json["id"]
    assert account in [each["id"] for each in (await go("GET", "/v1/accounts", 200)).json["accounts"]]
    assert (await go("GET", "/v1/audit", 200)).json["entries"][0]["target"] == account
    keys = "/v1/accounts/{account_id}/api-keys"
    here = {"account_id": account}
    journey.key = await api.api_key(account=account, scopes=("publish", "receive", "admin"))
    other = (await go("POST", keys, 201, at=here, json={"name": "b", "scopes": ["receive"]})).json["id"]
    assert len((await go("GET", keys, 200, at=here)).json["api_keys"]) == 2
    of_other = {"api_key_id": other}
    await go("GET", "/v1/api-keys/{api_key_id}", 200, at=of_other)
    await go("POST", "/v1/api-keys/{api_key_id}/secrets", 201, at=of_other)
    await go("POST", "/v1/api-keys/{api_key_id}/secrets", 409, at=of_other)
    await go("DELETE", "/v1/api-keys/{api_key_id}", 204, at=of_other)
    await go("DELETE", "/v1/api-keys/{api_key_id}", 404, at=of_other)

    await go("PUT", "/v1/bindings", 204, json=["orders.#"])
    assert (await go("GET", "/v1/bindings", 200)).json == ["orders.#"]
    entry = {"endpoint-name": "lamp", "endpoint-type": "t", "resource-path": ["/1/*"]}
    await go("PUT", "/v2/subscriptions", 204, json=[entry])
    assert (await go("GET", "/v2/subscriptions", 200)).json == [entry]
    one, all_of_it = "/v2/subscriptions/{device-id}/{resourcePath}", "/v2/subscriptions/{device-id}"
    lamp = {"device-id": "lamp", "resourcePath": "3303/0/5700"}
    await go("GET", one, 404, at=lamp)
    await go("PUT", one, 200, at=lamp)
    await go("GET", one, 200, at=lamp)
    await go("GET", all_of_it, 200, at={"device-id": "lamp"})
    await go("DELETE", one, 204, at=lamp)
    await go("DELETE", all_of_it, 204, at={"device-id": "lamp"})
    await go("GET", all_of_it, 404, at={"device-id": "lamp"})

    await channels(journey, hook, stack)
    await channels_of_the_account(journey, hook)
    await pull(journey)
    await streams(journey, stack, http)
    await tokens(journey)
    await sessions(journey, stack, http)

    await go("DELETE", "/v1/bindings", 204)
    await go("DELETE", "/v2/subscriptions", 204)
    await go("PATCH", "/v1/accounts/{account_id}", 200, at=here, json={"quotas": {"sockets": 5}})
    await go("GET", "/v1/accounts/{account_id}", 200, at=here)
    await go("GET", "/v1/accounts/{account_id}/usage", 200, at=here)
    at_once = {"Prefer": "respond-async"}
    await go("DELETE", "/v1/accounts/{account_id}", 409, at=here)
    await go("DELETE", "/v1/accounts/{account_id}", 204, at=here, query="?cascade=true")
    await go("DELETE", "/v1/accounts/{account_id}", 404, at=here)
    another = {"account_id": await api.account()}
    await go("DELETE", "/v1/accounts/{account_id}", 202, at=another, headers=at_once)
    assert set(successes()) - journey.met == NOT_BY_HTTP


async def channels_of_the_account(journey: Journey, hook: Hook) -> None:
    go, one = journey.go, "/v1/channels/{channel}"
    certificate = f"{one}/client-certificate"
    target = {"url": hook.url, "headers": {"a": "b"}, "secret_headers": {"c": "d"}}
    where = [{"topic": "orders.#", "where": {"n": [1, {"gt": 5}]}}, "a"]
    wanted = {
        "name": "n",
        "customer": "c",
        "bindings": where,
        "expires_after_s": 60,
        "queue": {"bytes": 2048},
    }
    made = (await go("POST", "/v1/channels", 201, json={"kind": "webhook", "webhook": target, **wanted})).json
    await go("POST", "/v1/channels", 409, json={"kind": "pull", "name": "n"})
    assert [each["id"] for each in (await go("GET", "/v1/channels", 200)).json["channels"]] == [made["id"]]
    for channel in ({"channel": made["id"]}, {"channel": "n"}):
        assert (await go("GET", one, 200, at=channel)).json == made
        await go("PATCH", one, 200, at=channel, json={"customer": None})
        await go("PATCH", one, 409, at=channel, json={"kind": "pull"})
        await go("POST", f"{one}/pause", 204, at=channel)
        await go("POST", f"{one}/resume", 204, at=channel)
        assert (await go("POST", f"{one}/purge", 200, at=channel)).json == {"purged": 0}
        await go("GET", f"{one}/signing-secret", 200, at=channel)
        await secrets_of_a_webhook(journey, channel)
        await go("GET", f"{one}/deliveries", 200, at=channel)
        await go("POST", f"{one}/deliveries/retry", 202, at=channel)
        assert (await go("POST", f"{one}/test", 200, at=channel)).json["accepted"]
        await go("PATCH", one, 200, at=channel, json={"webhook": {"timeout_s": 3, "backoff": None}})
        changed = {"customer": "c", "webhook": {"timeout_s": None}}
        await go("PATCH", one, 200, at=channel, json=changed)
        put = (await go("PUT", certificate, 200, at=channel, json=client_certificate())).json
        assert (await go("GET", certificate, 200, at=channel)).json == put
        await go("DELETE", certificate, 204, at=channel)
        await go("DELETE", certificate, 404, at=channel)
    await go("DELETE", one, 204, at=channel)
    await go("DELETE", one, 404, at=channel)


async def secrets_of_a_webhook(journey: Journey, channel: dict[str, str]) -> None:
    go, path = journey.go, "/v1/channels/{channel}/secrets"
    for posted in ({"kind": "ed25519"}, {"secret": f"whsec_{'A' * 32}"}):
        made = (await go("POST", path, 201, at=channel, json=posted)).json
    listed = (await go("GET", path, 200, at=channel)).json["secrets"]
    assert {**listed[0], "secret": posted["secret"]} == made
    await go("DELETE", f"{path}/{{secret}}", 409, at=channel | {"secret": listed[0]["id"]})
    for each in listed[1:]:
        await go("DELETE", f"{path}/{{secret}}", 204, at=channel | {"secret": each["id"]})
    await go("DELETE", f"{path}/{{secret}}", 404, at=channel | {"secret": each["id"]})


async def pull(journey: Journey) -> None:
    go, one = journey.go, "/v1/channels/{channel}"
    made = (await go("POST", "/v1/channels", 201, json={"kind": "pull", "bindings": ["pulled"]})).json
    at = {"channel": made["id"]}
    assert (await go("POST", f"{one}/fetch", 200, at=at)).json == {
        "events": [],
        "lease": None,
        "ack_by": None,
    }
    event = {"topic": "pulled", "data": [1, {"a": 2.50}]}
    await go("POST", "/v1/events", 202, json=event)
    cloudevent = {"specversion": "1.0", "id": "c", "source": "/shop", "type": event["topic"], "data": 1}
    as_one = {"Content-Type": "application/cloudevents+json"}
    await go("POST", "/v1/events", 202, data=json.dumps(cloudevent), headers=as_one)
    fetched = (await go("POST", f"{one}/fetch", 200, at=at, json={"max": 2})).json
    assert fetched["events"][0]["data"] == event["data"]
    assert fetched["events"][1]["attributes"] == {"source": "/shop"}
    shown = (await go("GET", one, 200, at=at)).json
    assert (shown["pending"], shown["fetched"], shown["ack_by"]) == (2, 2, fetched["ack_by"])
    await go("POST", f"{one}/fetch", 409, at=at, json={})
    first, second = (event["entry"] for event in fetched["events"])
    lease = fetched["lease"]
    await go("POST", f"{one}/ack", 204, at=at, json={"lease": lease, "until": first})
    await go("POST", f"{one}/nack", 204, at=at, json={"lease": lease, "entry": second})
    await go("POST", f"{one}/ack", 409, at=at, json={"lease": "another", "until": first})
    await go("POST", f"{one}/nack", 409, at=at, json={"lease": "another", "entry": first})
    await go("DELETE", one, 204, at=at)


async def streams(journey: Journey, stack: Stack, http: aiohttp.ClientSession) -> None:
    go = journey.go
    rules = [{"topics": ["retained.#"], "keep": {"count": 10, "age_s": 60}}]
    await go("PUT", "/v1/streams", 204, json=rules)
    assert (await go("GET", "/v1/streams", 200)).json == rules
    event = {"topic": "retained.a", "id": "a/2", "data": [1], "customer": "c"}
    assert "stream" in (await go("POST", "/v1/events", 202, json=event)).json["events"][0]
    at = {"topic": "retained.a"}
    state = (await go("GET", "/v1/streams/{topic}", 200, at=at)).json
    assert (state["events"], state["first"]) == (1, state["last"])
    page = (await go("GET", "/v1/streams/{topic}/events", 200, at=at, query="?limit=5")).json
    assert (page["recovered"], page["events"], page["next_after"]) == (True, [], state["last"])
    await reader(journey, stack, http)
    found = await go("GET", "/v1/history/{event_id}", 200, at={"event_id": "a/2"})
    assert found.json["data"] == [1]
    await go("GET", "/v1/history/{event_id}", 404, at={"event_id": "b"})
    one = "/v1/channels/{channel}"
    made = (await go("POST", "/v1/channels", 201, json={"kind": "pull", "customer": "c"})).json
    at = {"channel": made["id"]}
    await go("POST", f"{one}/resend", 202, at=at, json={"event_id": "a/2"})
    await go("POST", f"{one}/resend", 404, at=at, json={"event_id": "b"})
    await go("GET", f"{one}/replay", 404, at=at)
    since = {"since": "2026-01-01T00:00:00Z", "until": None, "topics": ["retained.*"], "per_s": 5}
    await go("POST", f"{one}/replay", 202, at=at, json=since)
    await go("GET", f"{one}/replay", 200, at=at)
    await go("DELETE", f"{one}/replay", 204, at=at)
    await go("DELETE", f"{one}/replay", 404, at=at)
    await go("DELETE", one, 204, at=at)
    await go("DELETE", "/v1/streams/{topic}", 204, at={"topic": "retained.a"})
    await go("PUT", "/v1/streams", 204, json=[])
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        await go(method, "/v1/streams/{topic}" + path, 404, at={"topic": "retained.b"})


async def reader(journey: Journey, stack: Stack, http: aiohttp.ClientSession) -> None:
    """A response that does not end."""
    await journey.go("PUT", "/v1/bindings", 204, json=["retained.#"])
    async with await ask(http, stack.edges[0].url, journey.key.secret, "retained.a") as response:
        text = (await response.content.readuntil(b"\n\n")).decode()
        check("GET", STREAM, Response(response.status, response.headers, text))
    journey.met.add(("GET", STREAM, response.status))
    await journey.go("DELETE", "/v1/bindings", 204)


async def tokens(journey: Journey) -> None:
    go = journey.go
    made = (await go("POST", "/v1/token-keys", 201, json={"algorithm": "HS256"})).json
    assert len((await go("GET", "/v1/token-keys", 200)).json["token_keys"]) == 1
    minted = (await go("POST", "/v1/tokens", 201, json={"sub": "user-1", "publish": ["news.#"]})).json
    event = {"topic": "news.a", "data": 1}
    await go("POST", "/v1/events", 202, token=minted["token"], json=event)
    await go("POST", "/v1/events", 403, token=minted["token"], json={**event, "topic": "a"})
    await go("PUT", "/v1/streams", 204, json=[{"topics": ["news.#"]}])
    reader = (await go("POST", "/v1/tokens", 201, json={"sub": "user-1", "read": ["news.#"]})).json["token"]
    await go("POST", "/v1/tickets", 201, token=reader, json={"topics": ["news.a"]})
    await go("POST", "/v1/tickets", 403, token=reader, json={"topics": ["a"]})
    await go("PUT", "/v1/streams", 204, json=[])
    await go("DELETE", "/v1/sockets", 204, query="?sub=user-1")
    await go("POST", "/v1/events", 401, token=minted["token"], json=event)
    await go("DELETE", "/v1/token-keys/{kid}", 204, at={"kid": made["kid"]})
    await go("DELETE", "/v1/token-keys/{kid}", 404, at={"kid": "tk_1"})


async def sessions(journey: Journey, stack: Stack, http: aiohttp.ClientSession) -> None:
    """Kazoo and Cognism sockets."""
    go, key = journey.go, journey.key
    await go("GET", "/v2/websockets", 200)
    await go("PUT", "/v2/api_auth", 201, json={"data": {"api_key": key.secret}})
    kazoo = await Blackhole.open(http, stack.edges[0].url)
    await kazoo.ask("ping", token=key.secret)
    here = {"account_id": key.account}
    [shown] = (await go("GET", "/v2/accounts/{account_id}/websockets", 200, at=here)).json["data"]
    await go("GET", "/v2/account/websockets", 200)
    of_one = {"socket_id": shown["websocket_session_id"]}
    await go("GET", "/v2/accounts/{account_id}/websockets/{socket_id}", 200, at=here | of_one)
    await go("GET", "/v2/account/websockets/{socket_id}", 200, at=of_one)
    await go("GET", "/v2/websockets/{socket_id}", 403, at=of_one)
    await kazoo.close()

    credentials = {"X-API-AccessToken": key.id, "X-API-SecretKey": key.secret}
    async with http.ws_connect(f"{stack.edges[0].url}/api/v1/websocket", headers=credentials) as cognism:
        session = json.loads(await cognism.receive_str())["session"]
        push = "/api/v1/websocket/session"
        await go("POST", push, 200, query=f"?session={session}", json={"a": 1})
        assert await cognism.receive_json() == {"a": 1}


async def channels(journey: Journey, hook: Hook, stack: Stack) -> None:
    """Each kind of channel, from creation to deletion."""
    go, me = journey.go, {"channel": journey.key.id}
    view = "/v1/channels/{channel}"
    await go("GET", view, 404, at=me)
    await go("GET", "/v2/notification/channel", 404)
    websocket = "/v2/notification/websocket"
    await go("PUT", websocket, 201)
    wanted = {"type": "v2", "max_chunk_size": "100", "cfg": {"include_uid": "true"}}
    await go("PUT", websocket, 200, json={"serialization": wanted})
    await go("GET", websocket, 200)
    await go("GET", "/v2/notification/channel", 200)
    await go("GET", view, 200, at=me)
    await published(journey)
    await go("PUT", "/v2/notification/callback", 400, json={"url": hook.url})
    await go("GET", "/v2/notification/pull", 400)
    await go("DELETE", websocket, 204)

    callback = "/v2/notification/callback"
    await go("PUT", callback, 415, data=b"{}", headers={"Content-Type": "text/plain"})
    await go("PUT", callback, 204, json={"url": hook.url, "headers": {"a": "b"}})
    await go("GET", callback, 200)
    await go("GET", view, 200, at=me)
    await go("GET", f"{view}/signing-secret", 200, at=me)
    await attempts(journey, me, stack)
    await go("POST", f"{view}/deliveries/retry", 202, at=me)
    await go("DELETE", callback, 204)
    await go("POST", f"{view}/deliveries/retry", 404, at=me)

    pull = "/v2/notification/pull"
    assert (await go("DELETE", pull, 200)).text == "ALREADY_DELETED"
    await go("GET", pull, 204, query="?noWait=true")
    await go("GET", view, 200, at=me)
    await published(journey)
    message = (await go("GET", pull, 200)).json
    assert set(message) == {"notifications", "events", "registrations"}
    assert (await go("DELETE", pull, 200)).text == "REMOVED"


async def attempts(journey: Journey, at: dict[str, str], stack: Stack) -> None:
    """Of a dispatcher that this installation has not."""
    view, facts = "/v1/channels/{channel}/deliveries", (1_800_000_000_000, "msg_1", 1, 500, "", 7)
    failed = Delivery(*facts, events=("e-1",))
    outcome, events, stored, details = fields_of(
        replace(failed, exchange=exchange({"a": "b"}, b"{}", b"\xff")), AttemptOutcome.FAILURE
    )
    record = {"head": f"1 0 100 {outcome} -", "events": events, "facts": stored}
    with stack.redis.client() as redis:
        redis.xadd(keyspace.attempts(at["channel"]), {**record, "details": details})
        redis.expire(keyspace.attempts(at["channel"]), 60)
    [listed] = (await journey.go("GET", view, 200, at=at, query="?limit=1&event_id=e-1")).json["deliveries"]
    one = {**at, "delivery": listed["id"]}
    shown = (await journey.go("GET", f"{view}/{{delivery}}", 200, at=one)).json
    assert {name: shown[name] for name in listed} == listed
    await journey.go("GET", f"{view}/{{delivery}}", 404, at={**at, "delivery": "1-0"})
    await journey.go("GET", view, 400, at=at, query="?outcome=x")


async def published(journey: Journey) -> None:
    """Publishes events of several kinds for the API key's channel, and gets the receipt of one."""
    to = journey.key.id
    events = [
        {**reading(1, to=to), "id": "a/1", "receipt": True},
        {"topic": "orders.paid", "data": {"order": 17}, "name": None},
        {"topic": "device.registrations", "data": {"ep": "lamp", "ept": "t"}},
    ]
    await journey.go("POST", "/v1/events", 202, json=events)
    lines = "".join(json.dumps(event) + "\n" for event in events)
    ndjson = {"Content-Type": "application/x-ndjson"}
    await journey.go("POST", "/v1/events", 202, data=lines, headers=ndjson)
    receipt = await journey.go("GET", "/v1/events/{event_id}", 200, at={"event_id": "a/1"})
    assert receipt.json["channels"][0]["state"] == "queued"
    await journey.go("GET", "/v1/events/{event_id}", 404, at={"event_id": "b"})
