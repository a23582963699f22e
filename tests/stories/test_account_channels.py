"""Channels as objects of an account: made, named, opened, paused and ended by its keys that may."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Listen
from tests.harness.api import Api, Response
from tests.harness.channels import AccountChannels, Sockets
from tests.harness.events import readings
from tests.harness.stack import Stack
from tests.stories.test_errors import assert_error

SCOPES = ("publish", "channels")
HOOK = {"url": "https://example.com/hook", "headers": {"Authorization": "x"}}


@pytest.fixture
async def mine(api: Api) -> AccountChannels:
    """The channels of a new account, by a key that publishes too."""
    return AccountChannels(api, await api.api_key(scopes=SCOPES))


@pytest.fixture
async def sockets(stack: Stack) -> AsyncIterator[Sockets]:
    opening = Sockets(stack.edges[0].url)
    yield opening
    for receiver in opening.opened:
        await receiver.drop()


def order(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"topic": "orders.paid", "data": {"number": number}, **more}


def data_in(items: list[tuple[str, Any]]) -> list[int]:
    return [item["data"]["number"] for section, item in items if section == "events"]


async def test_from_its_creation_to_its_end(mine: AccountChannels, other_api: Api) -> None:
    settings = {"expires_after_s": 3600, "queue": {"bytes": 4096, "age_s": 7200}}
    named = {"name": "Nachtlauf / 7", "customer": "c-1"}
    made = await mine.create("webhook", **named, **settings, bindings=["orders.#"], webhook=HOOK)

    assert made.items() >= {**named, **settings, "kind": "webhook", "state": "active"}.items()
    assert (made["pending"], made["dropped"], made["api_key_id"]) == (0, 0, None)
    assert made["bindings"] == ["orders.#"]
    assert made["webhook"].items() >= HOOK.items()
    by_other = AccountChannels(other_api, mine.key)
    assert await by_other.get(made["id"]) == await by_other.get("Nachtlauf / 7") == made

    where = [{"topic": "orders.*", "where": {"number": [1, 2]}}]
    change: dict[str, Any] = {
        "name": "b",
        "customer": None,
        "bindings": where,
        "expires_after_s": None,
        "queue": None,
    }
    change["webhook"] = {"url": "https://example.com/other"}
    changed = await mine.call("PATCH", f"/{made['id']}", json=change)
    assert changed.status == 200, changed.text
    shown = changed.json
    assert (shown["name"], shown["customer"], shown["bindings"]) == ("b", None, where)
    assert (shown["expires_after_s"], shown["queue"]) == (None, {"bytes": None, "age_s": 604_800})
    assert shown["webhook"] == {**made["webhook"], "url": "https://example.com/other"}
    assert await by_other.get("b") == shown
    assert_error(await mine.call("GET", "/Nachtlauf%20%2F%207"), 404, "not_found")

    assert (await mine.call("DELETE", "/b")).status == 204
    for answer in (await mine.call("DELETE", "/b"), await mine.call("GET", f"/{made['id']}")):
        assert_error(answer, 404, "not_found")
    assert (await mine.call("GET")).json == {"channels": [], "next_after": None}


async def test_lists_in_pages_and_by_what_is_wanted(mine: AccountChannels) -> None:
    made = [await mine.create(name=f"n{number}", customer=f"c{number % 2}") for number in range(5)]
    pull = await mine.create("pull")
    await mine.do("n3", "pause")

    async def ids(query: str) -> list[str]:
        found, after = list[str](), ""
        while True:
            page = (await mine.call("GET", f"?{query}&limit=2{after}")).json
            assert len(page["channels"]) <= 2
            found += [channel["id"] for channel in page["channels"]]
            assert all("bindings" not in channel for channel in page["channels"])
            if page["next_after"] is None:
                return found
            after = f"&after={page['next_after']}"

    assert await ids("") == sorted(channel["id"] for channel in [*made, pull])
    assert await ids("name_prefix=n") == [channel["id"] for channel in made]
    assert await ids("name_prefix=n3") == await ids("state=paused") == [made[3]["id"]]
    assert await ids("kind=pull") == [pull["id"]]
    assert await ids("customer=c1") == sorted([made[1]["id"], made[3]["id"]])
    for query in ("kind=fax", "state=x", "limit=0", "limit=1001", "limit=x", "after=x"):
        field = query.partition("=")[0]
        assert_error(await mine.call("GET", f"?{query}"), 400, "validation_error", field=field)


# What an event says, and which of the channels get it.
ADDRESSED: dict[str, tuple[dict[str, str], set[str]]] = {
    "bindings": ({}, {"mine", "plain"}),
    "its id": ({"to": "mine:id"}, {"mine"}),
    "its name": ({"to": "mine"}, {"mine"}),
    "its customer": ({"customer": "c"}, {"mine"}),
    "no such customer": ({"customer": "d"}, set()),
}


@pytest.mark.parametrize("how", ADDRESSED)
async def test_who_gets_an_event(mine: AccountChannels, other_api: Api, how: str) -> None:
    made = {
        "mine": await mine.create("pull", name="mine", customer="c", bindings=["orders.#"]),
        "plain": await mine.create("pull", name="plain", bindings=["orders.*"]),
        "other": await mine.create("pull", name="other", customer="c", bindings=["invoices"]),
    }
    said, expected = ADDRESSED[how]
    said = {field: value.replace("mine:id", made["mine"]["id"]) for field, value in said.items()}

    assert await other_api.publish(mine.key, order() | said) == [len(expected)]

    pending = {name: (await mine.get(name))["pending"] for name in made}
    assert pending == {name: int(name in expected) for name in made}


async def test_an_answered_change_counts_for_the_next_event(mine: AccountChannels, other_api: Api) -> None:
    first = await mine.create("pull", name="a", customer="c", bindings=["orders.#"])
    assert await other_api.publish(mine.key, order(to="a")) == [1]
    for number in range(5):
        await mine.call("PATCH", f"/{first['id']}", json={"name": f"a{number}", "customer": f"c{number}"})
        second = await mine.create("pull", name="a", customer="c", bindings=["orders.#"])

        events = order(to="a"), order(customer="c"), order(to=f"a{number}"), order(customer=f"c{number}")
        assert await other_api.publish(mine.key, *events) == [1, 1, 1, 1]
        assert (await mine.get(second["id"]))["pending"] == 2
        await mine.call("DELETE", "/a")
        refused = await other_api.post_events(mine.key, order(to="a"))
        assert_error(refused, 400, "validation_error", field="to")
        assert await other_api.publish(mine.key, order(customer="c")) == [0]


async def test_a_socket_opens_any_channel_of_its_account(mine: AccountChannels, sockets: Sockets) -> None:
    made = [await mine.create(name=f"n{number}", bindings=["orders.#"]) for number in range(2)]
    by_id = await sockets.open(mine.key, made[0]["id"])
    by_name = await sockets.open(mine.key, "n1")

    await mine.api.publish(mine.key, *(order(number) for number in range(10)))

    for receiver in (by_id, by_name):
        assert data_in(await receiver.received(10)) == list(range(10))
    await mine.until("n0", connected=True, pending=0)
    # The newest one wins, as everywhere.
    newer = await sockets.open(mine.key, "n0")
    assert await by_id.closed() == 1001
    await mine.call("DELETE", "/n0")
    assert await newer.closed() == 1001
    assert newer.connection.close_reason == "the channel was deleted"
    assert by_name.open_now


async def test_a_channel_outlives_the_key_that_opened_it(mine: AccountChannels, sockets: Sockets) -> None:
    await mine.create(name="n", bindings=["orders.#"])
    other = await mine.api.api_key(account=mine.key.account, scopes=("channels",))
    receiver = await sockets.open(other, "n")
    await mine.api.revoke(other)
    assert await receiver.closed() == 1008

    await mine.api.publish(mine.key, order(7))

    await mine.until("n", connected=False, pending=1)
    again = await sockets.open(mine.key, "n")
    assert data_in(await again.received(1)) == [7]


async def test_a_handshake_for_no_such_channel(mine: AccountChannels, sockets: Sockets, api: Api) -> None:
    await mine.create("pull", name="of another kind")
    foreign = await AccountChannels(api, await api.api_key(scopes=SCOPES)).create(name="foreign")
    for channel in ("missing", foreign["id"], "foreign", "ch_" + "0" * 32, "of another kind", mine.key.id):
        receiver = await sockets.open(mine.key, channel)
        assert await receiver.closed() == 1011, channel


async def test_the_channel_of_an_api_key_is_shown_and_stays_the_keys(
    mine: AccountChannels, listen: Listen
) -> None:
    key = await mine.api.api_key(account=mine.key.account, scopes=("receive",))
    channel = f"ch_{key.id}"
    assert_error(await mine.call("GET", f"/{channel}"), 404, "not_found")
    await mine.api.register(key)
    await mine.api.call("PUT", "/v1/bindings", key=key, json=["orders.#"])

    shown = await mine.get(channel)
    assert (shown["name"], shown["api_key_id"], shown["bindings"]) == (None, key.id, ["orders.#"])
    assert [each["id"] for each in (await mine.call("GET")).json["channels"]] == [channel]
    changes: tuple[dict[str, Any], ...] = (
        {"bindings": []},
        {"name": "x"},
        {"expires_after_s": 5},
        {"customer": None},
    )
    for change in changes:
        refused = await mine.call("PATCH", f"/{channel}", json=change)
        assert_error(refused, 409, "conflict", field=next(iter(change)))
    of_kind = await mine.call("PATCH", f"/{channel}", json={"kind": "pull"})
    assert_error(of_kind, 409, "conflict", field="kind")
    assert (await mine.call("PATCH", f"/{channel}", json={"kind": "websocket"})).json == shown
    receiver = await listen(key)
    assert await mine.api.publish(mine.key, *readings(range(2), to=channel)) == [1, 1]
    await receiver.received_numbers(range(2))
    assert (await mine.call("DELETE", f"/{channel}")).status == 204
    assert await receiver.closed() == 1001
    await mine.api.register(key)
    assert (await mine.api.call("GET", f"/v1/channels/{key.id}", key=key)).json["kind"] == "websocket"


async def test_a_paused_channel_queues_and_takes_no_socket(mine: AccountChannels, sockets: Sockets) -> None:
    await mine.create(name="n", bindings=["orders.#"])
    receiver = await sockets.open(mine.key, "n")
    await mine.do("n", "pause")
    assert await receiver.closed() == 1013
    assert receiver.connection.close_reason == "the channel is paused; connect again later"

    await mine.api.publish(mine.key, order(1), order(2))

    refused = await sockets.open(mine.key, "n")
    assert await refused.closed() == 1013
    await mine.until("n", state="paused", pending=2, connected=False)
    await mine.do("n", "pause")
    await mine.do("n", "resume")
    again = await sockets.open(mine.key, "n")
    assert data_in(await again.received(2)) == [1, 2]
    await mine.until("n", state="active", pending=0)


async def test_a_paused_long_poll(mine: AccountChannels, stack: Stack) -> None:
    key = await mine.api.api_key(account=mine.key.account, scopes=("receive",))
    edge, path = mine.api.at(stack.edges[0].url), "/v2/notification/pull"
    assert (await edge.call("GET", f"{path}?noWait=true", key=key)).status == 204
    waiting = asyncio.create_task(edge.call("GET", path, key=key))
    await mine.until(f"ch_{key.id}", connected=True)

    await mine.do(f"ch_{key.id}", "pause")

    assert (await waiting).status == 204
    await mine.api.publish(mine.key, *readings(range(1), to=key.id))
    refused = await edge.call("GET", path, key=key)
    assert_error(refused, 503, "service_unavailable")
    assert refused.headers["Retry-After"]
    await mine.do(f"ch_{key.id}", "resume")
    assert len((await edge.call("GET", path, key=key)).json["notifications"]) == 1


async def test_a_purge_leaves_the_socket_open_and_without_a_gap(
    mine: AccountChannels, sockets: Sockets
) -> None:
    await mine.create(name="n", bindings=["orders.#"])
    await mine.api.publish(mine.key, *(order(number, id=f"e{number}", receipt=True) for number in range(20)))
    assert (await mine.do("n", "purge", 200)).json == {"purged": 20}
    assert (await mine.get("n"))["dropped"] == 20
    receipt = (await mine.api.receipt(mine.key, "e3")).json["channels"][0]
    assert (receipt["state"], receipt["reason"]) == ("dropped", "purged")
    assert receipt["channel"] == (await mine.get("n"))["id"]

    receiver = await sockets.open(mine.key, "n")
    await mine.api.publish(mine.key, *(order(number) for number in range(20, 30)))
    await receiver.received(10)
    await mine.do("n", "purge", 200)
    await mine.api.publish(mine.key, *(order(number) for number in range(30, 40)))

    assert data_in(await receiver.received(20)) == list(range(20, 40))
    assert receiver.open_now


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": ({}, "kind"),
    "another kind": ({"kind": "fax"}, "kind"),
    "an unknown field": ({"kind": "pull", "colour": "red"}, "colour"),
    "an unknown field below": ({"kind": "pull", "queue": {"items": 5}}, "queue.items"),
    "a name like an id": ({"kind": "pull", "name": "ch_x"}, "name"),
    "a name like a key's id": ({"kind": "pull", "name": "0" * 32}, "name"),
    "a name that is not printable": ({"kind": "pull", "name": "a\nb"}, "name"),
    "a name that a client takes out of a path": ({"kind": "pull", "name": ".."}, "name"),
    "an empty name": ({"kind": "pull", "name": ""}, "name"),
    "a long name": ({"kind": "pull", "name": "n" * 256}, "name"),
    "a customer that is not printable": ({"kind": "pull", "customer": "\u0000"}, "customer"),
    "a wrong pattern": ({"kind": "pull", "bindings": ["a", "b c"]}, "bindings[1]"),
    "a wrong condition": (
        {"kind": "pull", "bindings": [{"topic": "a", "where": {"x": {}}}]},
        "bindings[0].where.x",
    ),
    "a webhook without a URL": ({"kind": "webhook"}, "webhook"),
    "a URL of another kind": ({"kind": "pull", "webhook": HOOK}, "webhook"),
    "a wrong URL": ({"kind": "webhook", "webhook": {"url": "ftp://x"}}, "webhook.url"),
    "a wrong header": (
        {"kind": "webhook", "webhook": {"url": "https://x.test", "headers": {"Host": "x"}}},
        "webhook.headers",
    ),
    "no time before the expiry": ({"kind": "pull", "expires_after_s": 0}, "expires_after_s"),
    "a queue of no bytes": ({"kind": "pull", "queue": {"bytes": 0}}, "queue.bytes"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_is_named(mine: AccountChannels, what: str) -> None:
    posted, field = WRONG[what]

    assert_error(await mine.call("POST", json=posted), 400, "validation_error", field=field)

    assert (await mine.call("GET")).json["channels"] == []


async def test_conflicts(mine: AccountChannels) -> None:
    made = await mine.create("pull", name="n")
    other = await mine.create("pull", name="m")

    async def post(**body: Any) -> Response:
        return await mine.call("POST", json={"kind": "pull", **body})

    taken = await post(name="n")
    assert_error(taken, 409, "conflict", field="name")
    assert made["id"] in taken.json["message"]
    assert_error(
        await mine.call("PATCH", f"/{other['id']}", json={"name": "n"}), 409, "conflict", field="name"
    )
    assert_error(await mine.call("PATCH", "/n", json={"kind": "websocket"}), 409, "conflict", field="kind")
    assert (await mine.call("PATCH", "/n", json={"kind": "pull"})).status == 200
    assert_error(
        await mine.api.post_events(mine.key, order(to="n", customer="c")),
        400,
        "validation_error",
        field="customer",
    )


async def test_quotas_count_channels_and_their_bindings(mine: AccountChannels, api: Api) -> None:
    quotas = {"channels": 3, "bindings": 4}
    await api.admin("PATCH", f"/v1/accounts/{mine.key.account}", json={"quotas": quotas})
    await mine.create("pull", name="n", bindings=["a", "b"])

    for refused in (
        await mine.call("POST", json={"kind": "pull", "bindings": ["a", "b", "c"]}),
        await mine.call("PATCH", "/n", json={"bindings": ["a", "b", "c", "d", "e"]}),
    ):
        assert_error(refused, 429, "quota_exceeded")
        assert "bindings" in refused.json["message"]
    # The key itself counts as one.
    await mine.create("pull", bindings=["a"])
    refused = await mine.call("POST", json={"kind": "pull"})
    assert refused.status == 429
    assert "channels" in refused.json["message"]
    await mine.call("DELETE", "/n")
    await mine.create("pull", bindings=["a", "b", "c"])


async def test_changes_are_in_the_audit_log(mine: AccountChannels, api: Api) -> None:
    made = await mine.create("pull", name="n")
    await mine.call("PATCH", "/n", json={"name": "m"})
    await mine.do("m", "pause")
    await mine.do("m", "resume")
    await mine.do("m", "purge", 200)
    await api.admin("DELETE", f"/v1/channels/{made['id']}")

    log = (await api.admin("GET", f"/v1/audit?account={mine.key.account}")).json["entries"]

    of_channel = [(each["action"], each["name"], each["by"]) for each in log if each["target"] == made["id"]]
    assert of_channel[::-1] == [
        ("channel.created", "n", mine.key.id),
        *((f"channel.{what}", "m", mine.key.id) for what in ("changed", "paused", "resumed", "purged")),
        ("channel.deleted", "m", "operator"),
    ]


async def test_the_operator_names_the_account(mine: AccountChannels, api: Api) -> None:
    here = f"?account={mine.key.account}"
    made = await api.admin("POST", f"/v1/channels{here}", json={"kind": "pull", "name": "n"})
    assert made.status == 201, made.text
    for path in (f"/v1/channels/n{here}", f"/v1/channels/{made.json['id']}"):
        assert (await api.admin("GET", path)).json == made.json
    assert len((await api.admin("GET", f"/v1/channels{here}")).json["channels"]) == 1
    for path in ("/v1/channels", "/v1/channels/n"):
        assert_error(await api.admin("GET", path), 400, "validation_error", field="account")
    unknown = "?account=" + "0" * 32
    assert_error(await api.admin("GET", f"/v1/channels{unknown}"), 404, "not_found")
    assert_error(await mine.call("GET", unknown), 404, "not_found")


async def test_the_api_keys_of_an_account_are_its_api_keys(mine: AccountChannels, api: Api) -> None:
    made = await mine.create("pull")
    listed = (await api.admin("GET", f"/v1/accounts/{mine.key.account}/api-keys")).json["api_keys"]
    assert [each["id"] for each in listed] == [mine.key.id]
    hidden = made["id"].removeprefix("ch_")
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/secrets")):
        assert_error(await api.admin(method, f"/v1/api-keys/{hidden}{rest}"), 404, "not_found")
    assert_error(await mine.call("GET", f"/{hidden}"), 403, "access_denied")
    assert_error(await api.admin("GET", f"/v1/channels/{hidden}"), 404, "not_found")
    assert (await mine.get(made["id"]))["state"] == "active"
