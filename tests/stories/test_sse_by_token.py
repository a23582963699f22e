"""Readers of streams by token and by ticket: what they may read, and when they end.

docs/protocols/tokens.md, sections 6 and 7
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.conftest import Measured
from tests.harness.api import Api, ApiKey, Response
from tests.harness.sse import OTHER, TOPIC, StreamClient, ask, keep, publish
from tests.harness.stack import Stack
from tests.harness.tokens import Issuer, issuer
from tests.harness.waiting import wait_until

READ = ["orders.#"]
Open = Callable[..., Awaitable[StreamClient]]


@pytest.fixture
async def admin(api: Api) -> ApiKey:
    made = await api.api_key(scopes=("publish", "channels", "admin"))
    await keep(api, made, "orders.#", "free")
    return made


@pytest.fixture
async def back_end(api: Api, admin: ApiKey) -> Issuer:
    return await issuer(api, admin)


@pytest.fixture
async def open_stream(stack: Stack, http: aiohttp.ClientSession) -> AsyncIterator[Open]:
    """Opens a response by a token, or by a ticket, of the first edge or another, and waits for its topic."""
    async with contextlib.AsyncExitStack() as opened:

        async def open_stream(token: str = "", *topics: str, edge: int = 0, **options: Any) -> StreamClient:
            key = ApiKey(id="", account="", secret=token) if token else None
            wanted = topics or (() if options.get("ticket") else (TOPIC,))
            client = await StreamClient.open(http, stack.edges[edge].url, key, *wanted, **options)
            opened.push_async_callback(client.close)
            await client.until_begun()
            return client

        yield open_stream


async def make_ticket(api: Api, token: str, *topics: str) -> Response:
    return await api.call("POST", "/v1/tickets", token=token, json={"topics": list(topics)})


async def ticket_of(api: Api, token: str, *topics: str) -> str:
    made = await make_ticket(api, token, *(topics or (TOPIC,)))
    assert made.status == 201, made.text
    return str(made.json["ticket"])


async def refused(http: aiohttp.ClientSession, url: str, *arguments: Any, **options: Any) -> tuple[int, str]:
    async with await ask(http, url, *arguments, **options) as response:
        return response.status, await response.text()


async def test_a_token_reads_the_topics_that_it_names(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open
) -> None:
    """Without a binding: the patterns of the token stand for them. Several tabs may have one token."""
    token = back_end.token(read=READ)
    readers = [await open_stream(token, TOPIC, OTHER, edge=edge) for edge in (0, 0, 1)]
    await publish(api, admin, 1, 2)
    for reader in readers:
        await reader.until_data([1, 2])
        assert not reader.has_ended


async def test_a_token_reads_nothing_else(
    http: aiohttp.ClientSession, stack: Stack, api: Api, admin: ApiKey, back_end: Issuer
) -> None:
    url = stack.edges[0].url
    for read in (["orders.sent"], [], None, ["free"], ["orders.*.late"]):
        status, text = await refused(http, url, back_end.token(read=read, publish=["#"]), OTHER, TOPIC)
        assert (status, "the topic orders." in text) == (403, True), text
    status, text = await refused(http, url, back_end.token(read=["#"]), "stock")
    assert (status, "the topic stock has no stream" in text) == (404, True)
    status, text = await refused(http, url, back_end.token(read=["#"]), "system.a")
    assert status == 400
    expired = back_end.token(read=["#"], iat=int(time.time()) - 9, exp=int(time.time()) - 5)
    status, text = await refused(http, url, expired, TOPIC)
    assert (status, "it has expired" in text) == (401, True)
    of_another = await issuer(api, await api.api_key(scopes=("admin",)))
    status, text = await refused(http, url, of_another.token(read=["#"]), TOPIC)
    assert status == 404, "another account has no such rule"


async def test_a_response_ends_with_its_token(
    api: Api, admin: ApiKey, open_stream: Open, http: aiohttp.ClientSession, stack: Stack
) -> None:
    minted = await api.call("POST", "/v1/tokens", key=admin, json={"sub": "user-1", "read": READ, "ttl_s": 6})
    token = minted.json["token"]
    reader = await open_stream(token)
    await reader.until_end()
    [end] = reader.of("end")
    assert (end.json["reason"], end.json["reconnect"]) == ("token-expired", False)
    assert (await refused(http, stack.edges[1].url, token, TOPIC))[0] == 401


async def test_a_response_ends_with_its_key_within_a_second(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open, record_property: Measured
) -> None:
    other = await issuer(api, admin)
    readers = [await open_stream(back_end.token(read=READ), edge=edge) for edge in (0, 1)]
    stays = await open_stream(other.token(read=READ))
    began_s = time.monotonic()
    deleted = await api.call("DELETE", f"/v1/token-keys/{back_end.kid}", key=admin)
    assert deleted.status == 204

    for reader in readers:
        await reader.until_end()
        assert reader.ends == ["token-key-deleted"]
    record_property("deletion of a token key to the end", f"{(time.monotonic() - began_s) * 1000:.0f} ms")
    await publish(api, admin, 1)
    await stays.until_data([1])
    assert not stays.has_ended


async def test_a_sign_out_ends_what_its_subject_has_opened(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open
) -> None:
    at = int(time.time()) - 1
    readers = [await open_stream(back_end.token(read=READ, iat=at), edge=edge) for edge in (0, 1)]
    without = await open_stream(back_end.token(read=READ, iat=None))
    later = await open_stream(back_end.token(read=READ, iat=time.time() + 28))
    another = await open_stream(back_end.token(read=READ, iat=at, sub="user-2"))

    assert (await api.call("DELETE", "/v1/sockets?sub=user-1", key=admin)).status == 204

    for reader in (*readers, without):
        await reader.until_end()
        assert reader.ends == ["signed-out"]
    await publish(api, admin, 1)
    for reader in (later, another):
        await reader.until_data([1])


async def test_an_account_takes_its_readers_along(api: Api, stack: Stack, open_stream: Open) -> None:
    account = await api.account()
    admin = await api.api_key(account=account, scopes=("admin", "channels"))
    await keep(api, admin, "orders.#")
    back_end = await issuer(api, admin)
    token = back_end.token(read=READ)
    readers = [await open_stream(token), await open_stream(ticket=await ticket_of(api, token))]

    deleted = await api.admin("DELETE", f"/v1/accounts/{account}?cascade=true")

    assert deleted.status == 204
    for reader in readers:
        await reader.until_end()
        assert reader.ends == ["token-key-deleted"]


async def test_a_ticket_reads_for_a_client_that_sets_no_header(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open, http: aiohttp.ClientSession, stack: Stack
) -> None:
    made = await make_ticket(api, back_end.token(read=READ), TOPIC, OTHER)
    assert made.headers["Cache-Control"] == "no-store"
    assert made.json["url"] == f"/v1/stream?ticket={made.json['ticket']}"
    assert made.json["expires_in_s"] == 30
    ticket = made.json["ticket"]
    reader = await open_stream(ticket=ticket)
    await publish(api, admin, 1)
    await reader.until_data([1])
    await reader.close()
    await publish(api, admin, 2)

    again = await open_stream(ticket=ticket, last_event_id=reader.last_event_id, edge=1)

    await again.until_data([2])
    status, text = await refused(http, stack.edges[0].url, None, TOPIC, ticket=ticket)
    assert (status, "beside a ticket" in text) == (400, True), text
    await publish(api, admin, 3)
    await again.until_data([2, 3])


@pytest.mark.parametrize("edge", [0, 1])
async def test_a_newer_reader_of_a_ticket_replaces_the_older(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open, edge: int
) -> None:
    ticket = await ticket_of(api, back_end.token(read=READ))
    older = await open_stream(ticket=ticket)
    newer = await open_stream(ticket=ticket, edge=edge)

    await older.until_end()

    [end] = older.of("end")
    assert (end.json["reason"], end.json["reconnect"]) == ("ticket-taken", False)
    await publish(api, admin, 1)
    await newer.until_data([1])


async def test_a_ticket_allows_no_more_than_its_token(api: Api, admin: ApiKey, back_end: Issuer) -> None:
    token = back_end.token(read=["orders.paid", "stock"])
    wanted: list[tuple[list[str], int, str]] = [
        ([TOPIC, OTHER], 403, "the topic orders.sent"),
        (["stock"], 404, "the topic stock has no stream"),
        (["orders.*"], 400, "must be exact"),
        ([], 400, "topics"),
        ([f"orders.{number}" for number in range(17)], 400, "topics"),
        ([TOPIC, TOPIC], 400, "twice"),
    ]
    for topics, status, why in wanted:
        response = await make_ticket(api, token, *topics)
        assert (response.status, why in response.text) == (status, True), response.text
    for given in (admin.secret, back_end.token(read=READ, exp=1, iat=None), ""):
        assert (await make_ticket(api, given, TOPIC)).status == 401
    assert (await api.admin("POST", "/v1/tickets", json={"topics": [TOPIC]})).status == 401


async def test_a_ticket_ends_with_its_token_its_key_and_its_subject(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open, http: aiohttp.ClientSession, stack: Stack
) -> None:
    url = stack.edges[1].url
    short = await api.call("POST", "/v1/tokens", key=admin, json={"sub": "user-2", "read": READ, "ttl_s": 6})
    signed_out = await ticket_of(api, back_end.token(read=READ))
    tickets = {
        "token-expired": await ticket_of(api, short.json["token"]),
        "signed-out": signed_out,
        "token-key-deleted": await ticket_of(api, back_end.token(read=READ, sub="user-3")),
    }
    readers = {reason: await open_stream(ticket=ticket) for reason, ticket in tickets.items()}
    unused = await ticket_of(api, back_end.token(read=READ))
    assert (await api.call("DELETE", "/v1/sockets?sub=user-1", key=admin)).status == 204
    await readers["signed-out"].until_end()
    assert not readers["token-key-deleted"].has_ended
    assert (await api.call("DELETE", f"/v1/token-keys/{back_end.kid}", key=admin)).status == 204

    for reason, reader in readers.items():
        await reader.until_end()
        assert reader.ends == [reason]
        status, text = await refused(http, url, None, ticket=tickets[reason])
        assert (status, "ticket" in text) == (401, True), text
    assert (await refused(http, url, None, ticket=unused))[0] == 401
    assert (await refused(http, url, None, ticket="tkt_" + "0" * 80))[0] == 401


async def test_tokens_and_tickets_are_in_no_log(
    api: Api, admin: ApiKey, back_end: Issuer, open_stream: Open, stack: Stack, http: aiohttp.ClientSession
) -> None:
    token = back_end.token(read=READ)
    ticket, unknown = await ticket_of(api, token), "tkt_" + "a1" * 40
    reader = await open_stream(ticket=ticket)
    await reader.close()
    assert (await refused(http, stack.edges[0].url, None, ticket=unknown))[0] == 401
    await wait_until(lambda: "stream.closed" in stack.edges[0].stdout + stack.edges[0].stderr)
    for service in stack.services:
        output = service.stdout + service.stderr
        for secret in (token, token.rpartition(".")[2], ticket, unknown, back_end.secret):
            assert secret not in output, service.name
