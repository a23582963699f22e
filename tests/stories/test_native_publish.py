"""The operation `publish` of a native socket: what POST /v1/events does, over one connection."""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, ApiKey
from tests.harness.events import number_of, reading, registration
from tests.harness.native import NativeSocket, native_socket
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until
from tests.stories.test_cognism_push import Join, join
from tests.stories.test_quotas import set_quotas
from tests.stories.test_streams import KEPT, put_rules

__all__ = ["join"]

EVENT = {"topic": "orders.paid", "data": 1}


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    return await api.api_key(scopes=("publish", "receive", "channels", "admin"))


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    return await issuer(api, admin)


async def published(socket: NativeSocket, *events: Any, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await socket.ask(publish={"events": list(events), **more})
    return found


# What becomes of the events


async def test_events_reach_channels_streams_and_sessions(
    stack: Stack, api: Api, admin: ApiKey, listen: Listen, join: Join
) -> None:
    await put_rules(api, admin, KEPT)
    await api.register(admin)
    await api.subscribe(admin, {"endpoint-type": "Light"})
    trigger = await join(0, admin)
    async with native_socket(stack.edges[1].url, bearer=admin.secret) as socket:
        [retained] = await published(socket, {**EVENT, "id": "mine"})
        assert retained["id"] == "mine"
        # The session has them all.
        assert retained["channels"] == 1
        assert json.loads(await trigger.frame()) == 1
        found = (await api.call("GET", "/v1/history/mine", key=admin)).json
        assert found["offset"] == retained["stream"]["offset"]

        first, second = await published(
            socket, registration("lamp", ept="Light"), {**reading(2, to=admin.id), "receipt": True}
        )
        assert (first["channels"], second["channels"]) == (2, 1)
        # The type of the device is stored.
        assert [each["channels"] for each in await published(socket, reading(3, ep="lamp"))] == [2]
    receiver = await listen(admin)
    await wait_until(lambda: [number for number in receiver.numbers if number] == [2, 3])
    receipt = await api.receipt(admin, second["id"])
    assert receipt.json["channels_total"] == 1


async def test_requests_under_way_are_answered_and_carried_out_in_order(
    stack: Stack, api: Api, admin: ApiKey, listen: Listen
) -> None:
    """Plain ones, those with a key, long ones and refused ones, more than may be unanswered."""
    await api.register(admin)
    long = {"padding": 30_000}
    kinds: list[dict[str, Any]] = [
        {},
        {"key": "a"},
        {"more": long},
        {"wrong": True},
        {"key": "b", "more": long},
    ]
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:
        refs, accepted = [], []
        for number in range(60):
            kind = kinds[number % len(kinds)]
            events = [reading(2 * number + each, to=admin.id, **kind.get("more", {})) for each in range(2)]
            body: dict[str, Any] = {
                "events": [*events, {"topic": "a b", "data": 1}] if "wrong" in kind else events
            }
            if "key" in kind:
                body["idempotency_key"] = f"{kind['key']} {number}"
            if "wrong" not in kind:
                accepted += [2 * number, 2 * number + 1]
            refs.append(await socket.begin(publish=body))
        answers = [await socket.answer(ref) for ref in refs]
        assert [frame["ref"] for frame in socket.frames if "ref" in frame] == refs
        wrong = [number for number, answer in enumerate(answers) if "error" in answer]
        assert wrong == list(range(3, 60, 5))
    receiver = await listen(admin)
    items = [number_of(item) for _, item in await receiver.received(len(accepted))]
    assert items == accepted


async def test_a_repetition_gets_the_first_answer_by_frame_and_by_rest(
    stack: Stack, api: Api, admin: ApiKey
) -> None:
    await api.register(admin)
    events = [reading(1, to=admin.id), {"topic": "other", "data": "é"}]
    raw = json.dumps(events)

    async def by_rest(key: str, body: str = raw, media_type: str = "application/json") -> Any:
        headers = {"Idempotency-Key": key, "Content-Type": media_type}
        return await api.call("POST", "/v1/events", key=admin, data=body.encode(), headers=headers)

    async with (
        native_socket(stack.edges[0].url, bearer=admin.secret) as socket,
        native_socket(stack.edges[1].url, bearer=admin.secret) as other,
    ):
        said = await published(socket, *events, idempotency_key="from a frame")
        assert await published(other, *events, idempotency_key="from a frame") == said
        again = await by_rest('"from a frame"')
        assert (again.json["events"], again.headers["Idempotent-Replayed"]) == (said, "true")

        first = await by_rest('"from \\"rest\\""')
        assert await published(other, *events, idempotency_key='from "rest"') == first.json["events"]

        for changed in ([EVENT], [*events, EVENT], [*reversed(events)]):
            refused = await other.refused(publish={"events": changed, "idempotency_key": "from a frame"})
            assert refused["code"] == "invalid"
            assert refused["message"].startswith("publish.idempotency_key: ")
        assert (await by_rest("from a frame", "[" + raw[1:-1] + " ]")).status == 422
    assert await api.queue_size(admin) == 2


async def test_tokens_have_keys_apart_by_subject(stack: Stack, api: Api, back_end: Issuer) -> None:
    ids = []
    for subject in ("ann", "bob", "ann"):
        token = back_end.token(sub=subject, publish=["orders.*"])
        async with native_socket(stack.edges[0].url, token=token) as socket:
            [event] = await published(socket, EVENT, idempotency_key="same")
            ids.append(event["id"])
    assert ids[0] == ids[2] != ids[1]


# What is refused


WRONG: dict[str, Any] = {
    "no event": [],
    "no topic": [EVENT, {"data": 1}],
    "an unknown field": [EVENT, {**EVENT, "colour": 1}],
    "a wrong type": [{**EVENT, "id": 5}],
    "a topic with a blank": [{**EVENT, "topic": "a b"}],
    "a topic of ours": [{**EVENT, "topic": "system.a"}],
    "no data": [EVENT, EVENT, {"topic": "a"}],
    "data of another form": [{"topic": "device.notifications", "data": 1}],
    "no such channel": [EVENT, {**EVENT, "to": "0" * 32}],
    "to and customer": [{**EVENT, "to": "a", "customer": "b"}],
    "no object": [EVENT, 1],
    "too large": [{**EVENT, "data": "x" * 300_000}],
    "too deep": [{**EVENT, "data": json.loads("[" * 300 + "]" * 300)}],
}
OF_TOKENS: dict[str, Any] = {
    "a topic that it does not name": [EVENT, {**EVENT, "topic": "news"}],
    "an addressee": [EVENT, {**EVENT, "to": "0" * 32}],
    "a customer": [EVENT, {**EVENT, "customer": "acme"}],
}
CODES = {400: "invalid", 401: "unauthenticated", 403: "forbidden", 413: "invalid", 422: "invalid"}


def in_the_frame(message: str) -> str:
    """How a frame names what a body has: below `publish.events`."""
    return f"publish.events{message}" if message.startswith("[") else message


async def assert_refused_alike(api: Api, socket: NativeSocket, bearer: str, events: Any) -> None:
    by_rest = await api.call("POST", "/v1/events", token=bearer, json=events)
    by_frame = await socket.refused(publish={"events": events})
    wanted = {"code": CODES[by_rest.status], "message": in_the_frame(by_rest.json["message"])}
    assert by_frame == wanted
    # The socket stays open, and the same with a key is refused the same way, and uses up no key.
    for _ in range(2):
        assert await socket.refused(publish={"events": events, "idempotency_key": "k"}) == wanted


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_rest_refuses_is_refused_with_its_message(
    stack: Stack, api: Api, admin: ApiKey, wrong: str
) -> None:
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:
        await assert_refused_alike(api, socket, admin.secret, WRONG[wrong])


@pytest.mark.parametrize("wrong", OF_TOKENS)
async def test_a_token_publishes_what_it_names_by_topic_only(
    stack: Stack, api: Api, back_end: Issuer, wrong: str
) -> None:
    token = back_end.token(publish=["orders.*"])
    async with native_socket(stack.edges[0].url, token=token) as socket:
        await assert_refused_alike(api, socket, token, OF_TOKENS[wrong])
        assert [each["channels"] for each in await published(socket, EVENT)] == [0]


async def test_who_may_publish(stack: Stack, api: Api, admin: ApiKey, back_end: Issuer) -> None:
    receiver = await api.api_key(account=admin.account, scopes=("receive",))
    async with native_socket(stack.edges[0].url, bearer=receiver.secret) as socket:
        await assert_refused_alike(api, socket, receiver.secret, [EVENT])
    async with native_socket(stack.edges[0].url, token=back_end.token(publish=None)) as socket:
        await assert_refused_alike(api, socket, back_end.token(publish=None), [EVENT])
        # A refreshed token counts for the next request.
        await socket.ask(refresh={"token": back_end.token(publish=["orders.#"])})
        await published(socket, EVENT)
        await socket.ask(refresh={"token": back_end.token(publish=["news"])})
        assert (await socket.refused(publish={"events": [EVENT]}))["code"] == "forbidden"
    async with native_socket(stack.edges[0].url) as socket:
        assert (await socket.refused(publish={"events": [EVENT]}))["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"events": EVENT}, "publish.events: must be an array"),
        ({"events": None}, "publish.events: must be an array"),
        ({}, "publish.events: is missing"),
        ({"events": [EVENT], "topic": "a"}, "publish.topic: unknown field"),
        ({"events": [EVENT] * 101}, "101 events in one request; the limit is 100"),
        ({"events": [EVENT], "idempotency_key": ""}, None),
        ({"events": [EVENT], "idempotency_key": "x" * 256}, None),
        (
            {"events": [EVENT], "idempotency_key": "é"},
            "publish.idempotency_key: must be 1 to 255 printable ASCII characters",
        ),
    ],
)
async def test_what_a_frame_may_not_have(
    stack: Stack, admin: ApiKey, body: dict[str, Any], message: str | None
) -> None:
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:
        refused = await socket.refused(publish=body)
        assert refused["code"] == "invalid"
        assert message is None or refused["message"] == message
        assert len(await published(socket, *[EVENT] * 100)) == 100


@pytest.mark.parametrize(
    "frame",
    [
        '{"ref":1,"publish":{"events":[{"topic":"a","data":1}}]}}',
        '{"ref":1,"publish":{"events":[1],"events":[1]}}',
        '{"ref":1,"publish":{"events":[]},"ref":2,"x":[{"y":[]}}',
        '{"ref":1,"publish":{"events":[{"topic":"a","data":1}]},"ping":{"a":[]}}',
        '{"ref":99999999999999999,"publish":{"events":[]}}',
        '{"publish":{"events":[]}}',
        '{"ref":1,"publish":{"events":[{"topic":"a","data":' + '"' + "x" * 40_000 + '"}}]}}',
    ],
)
async def test_a_malformed_publish_closes_the_socket(stack: Stack, admin: ApiKey, frame: str) -> None:
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:
        await socket.send(frame)
        code, text = await socket.closed()
        assert code == 4000
        assert text.startswith("the frame ")
        assert not any("ref" in each for each in socket.frames)


async def test_rates_are_those_of_the_account(stack: Stack, api: Api, admin: ApiKey) -> None:
    await set_quotas(api, admin, events_per_s=2, burst_s=1)
    async with (
        native_socket(stack.edges[0].url, bearer=admin.secret) as socket,
        native_socket(stack.edges[1].url, bearer=admin.secret) as other,
    ):
        refs = [
            (each, await each.begin(publish={"events": [EVENT]}))
            for _ in range(20)
            for each in (socket, other)
        ]
        answers = [await each.answer(ref) for each, ref in refs]
        refused = [answer["error"] for answer in answers if "error" in answer]
        assert len(refused) > 10
        assert all(each["code"] == "too_many" and each["retry_after_s"] >= 1 for each in refused)
        assert {each["message"] for each in refused} == {"the quota events_per_s is used up"}

        async def by_rest() -> bool:
            return (await api.post_events(admin, [EVENT] * 5)).status == 429

        await wait_until(by_rest)


async def test_rates_of_an_api_key_count_too(stack: Stack, api: Api, admin: ApiKey) -> None:
    quotas = {"key_quotas": {"events_per_s": 5}, "quotas": {"burst_s": 1}}
    changed = await api.admin("PATCH", f"/v1/accounts/{admin.account}", json=quotas)
    assert changed.status == 200, changed.text
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:

        async def is_refused() -> bool:
            answer = await socket.answer(await socket.begin(publish={"events": [EVENT] * 50}))
            return "error" in answer and answer["error"]["message"] == "the quota key_events_per_s is used up"

        await wait_until(is_refused)


async def test_a_full_account_is_refused_until_it_has_room(stack: Stack, api: Api, admin: ApiKey) -> None:
    await api.register(admin)
    await set_quotas(api, admin, stored_bytes=200_000)
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:

        async def is_refused() -> bool:
            ref = await socket.begin(publish={"events": [reading(1, to=admin.id, padding=50_000)]})
            answer = await socket.answer(ref)
            if "error" in answer:
                assert answer["error"]["code"] == "too_many"
                assert answer["error"]["retry_after_s"] > 0
            return "error" in answer

        await wait_until(is_refused, within_s=60)
        await api.delete_channel(admin)

        async def has_room() -> bool:
            return not await is_refused_now()

        async def is_refused_now() -> bool:
            return "error" in await socket.answer(await socket.begin(publish={"events": [EVENT]}))

        await wait_until(has_room, within_s=60)


async def test_a_client_that_keeps_to_the_limit_has_its_events_in_one_channel_in_order(
    stack: Stack, api: Api, admin: ApiKey, listen: Listen
) -> None:
    await api.register(admin)
    async with native_socket(stack.edges[0].url, bearer=admin.secret) as socket:
        [hello] = socket.of("hello")
        limits = hello["hello"]["limits"]
        room = asyncio.Semaphore(limits["unanswered_publishes"])

        async def one(number: int) -> None:
            async with room:
                ref = await socket.begin(publish={"events": [reading(number, to=admin.id)]})
                answer = await socket.answer(ref)
                assert [each["channels"] for each in answer["published"]] == [1]

        await asyncio.gather(*(one(number) for number in range(200)))
        large = reading(200, to=admin.id, padding=200_000)
        assert len(json.dumps({"events": [large] * 3})) < limits["frame_bytes"]
        await published(socket, *[large] * 3)
    receiver = await listen(admin)
    items = [number_of(item) for _, item in await receiver.received(203)]
    assert items == [*range(200), 200, 200, 200]
