"""A native socket: its requests, who it is for, what bounds it, and how it ends."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.native_parts import Said
from services.socket_edge.native_refusals import Refusal
from services.socket_edge.native_socket import (
    AUTHENTICATE_S,
    FRAME_BYTES,
    MOST_UNANSWERED,
    MOST_UNANSWERED_BYTES,
    STRANGERS_FRAME_BYTES,
    NativeSocket,
)
from shared.clock import now_ms
from shared.model.api_keys import Account, Scope
from shared.model.channels import CloseReason
from shared.model.errors import (
    Invalid,
    KindConflict,
    MissingScope,
    NoSuchChannel,
    NotGranted,
    QuotaExceeded,
    StoreUnavailable,
    TokenRefused,
)
from shared.model.quotas import Quota
from shared.native_tokens import Claims
from shared.runtime.http.responses import Problem
from shared.wire.close_reasons import CLOSE_ROWS
from shared.wire.native.frames import OPERATIONS, Request
from shared.wire.native.replies import ErrorCode
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import Clock, edge_of
from tests.socket_edge.native_client import Client, reader_of, turns
from tests.store.stores import Stores

Opened = Callable[..., Awaitable[Client]]
SETTINGS = {"unauthenticated_frames": 20, "unauthenticated_bytes": 4096, "stream_buffer_bytes": 4096}


@pytest.fixture
async def edge(stores: Stores, clock: Clock) -> Edge:
    return edge_of(stores, **SETTINGS)


@pytest.fixture
async def clients(edge: Edge) -> AsyncIterator[list[Client]]:
    clients: list[Client] = []
    yield clients
    for client in clients:
        await client.leave()
    assert len(edge.registry) == len(edge.admission) == 0


@pytest.fixture
def stranger(edge: Edge, clients: list[Client]) -> Opened:
    async def stranger(**options: Any) -> Client:
        clients.append(Client(edge, **options))
        return await clients[-1].open()

    return stranger


@pytest.fixture
def known(stores: Stores, edge: Edge, clients: list[Client]) -> Opened:
    """Opens sockets that have authenticated."""

    async def known(**options: Any) -> Client:
        clients.append(Client(edge, **options))
        return await clients[-1].open(reader_of(stores.account_id, "news.#"))

    return known


@pytest.fixture
def token(stores: Stores, edge: Edge) -> Callable[..., Awaitable[str]]:
    accounts = set[str]()

    async def token(subject: str = "user-1", account: str = "") -> str:
        account = account or stores.account_id
        if account not in accounts:
            accounts.add(account)
            await stores.api_keys.create_account(Account(id=account, name="a"))
        claims = Claims(subject, read=["news.#"])
        minted, _ = await edge.stores.native_tokens.mint(account, claims, lifetime_s=60, now_ms=now_ms())
        return minted

    return token


# Close codes, as docs/protocols/native.md has them

CODES = {
    CloseReason.STOPPING: 1012,
    CloseReason.REDIS_UNAVAILABLE: 1011,
    CloseReason.UNEXPECTED: 1011,
    CloseReason.CROWDED_OUT: 1013,
    CloseReason.TOO_MANY_FAILURES: 1013,
    CloseReason.OVER_QUOTA: 1013,
    CloseReason.MALFORMED: 4000,
    CloseReason.TOKEN_EXPIRED: 4001,
    CloseReason.TOKEN_KEY_DELETED: 4002,
    CloseReason.SIGNED_OUT: 4003,
    CloseReason.KEY_REVOKED: 4004,
    CloseReason.KEY_EXPIRED: 4004,
    CloseReason.NOT_AUTHENTICATED: 4005,
    CloseReason.TOO_SLOW: 4008,
    CloseReason.OVER_BUDGET: 4009,
}


def test_every_reason_that_ends_a_native_socket_has_its_code() -> None:
    assert {reason: row.native for reason, row in CLOSE_ROWS.items() if row.native is not None} == CODES


@pytest.mark.parametrize("reason", CODES)
async def test_a_close_has_its_code_and_text(known: Opened, reason: CloseReason) -> None:
    client = await known()
    await client.socket.close(reason)
    assert client.closed is not None
    assert (client.closed["code"], client.closed["reason"]) == (CODES[reason], CLOSE_ROWS[reason].text)
    before = list(client.frames)
    assert not client.socket.write(b"{}")
    client.send(1, ping={})
    assert client.frames == before


# Errors

ERRORS: list[tuple[Exception, ErrorCode, float | None]] = [
    (Invalid("must not", field="a"), ErrorCode.INVALID, None),
    (TokenRefused("it has expired"), ErrorCode.UNAUTHENTICATED, None),
    (NotGranted("read", "the topic a"), ErrorCode.FORBIDDEN, None),
    (MissingScope(Scope.RECEIVE), ErrorCode.FORBIDDEN, None),
    (Problem(403, "not bound"), ErrorCode.FORBIDDEN, None),
    (Problem(404, "no rule"), ErrorCode.NOT_FOUND, None),
    (NoSuchChannel(), ErrorCode.NOT_FOUND, None),
    (KindConflict(existing="pull"), ErrorCode.CONFLICT, None),
    (Refusal(ErrorCode.CONFLICT, "already"), ErrorCode.CONFLICT, None),
    (QuotaExceeded(Quota.EVENTS_PER_S, retry_after_s=2), ErrorCode.TOO_MANY, 2),
    (Problem(429, "too many", headers={"retry-after": "7"}), ErrorCode.TOO_MANY, 7),
    (StoreUnavailable(why="test"), ErrorCode.UNAVAILABLE, 1),
    (ValueError("a bug"), ErrorCode.INTERNAL, None),
]


@pytest.mark.parametrize("is_coroutine", [False, True])
@pytest.mark.parametrize(("error", "code", "retry_after_s"), ERRORS)
async def test_an_error_is_told_and_closes_nothing(
    known: Opened, error: Exception, code: ErrorCode, retry_after_s: float | None, is_coroutine: bool
) -> None:
    async def later(_: NativeSocket, __: Request) -> Said:
        raise error

    def at_once(_: NativeSocket, __: Request) -> Said:
        raise error

    client = await known(subscribe=later if is_coroutine else at_once)
    answer = await client.ask(7, subscribe={"topic": "news"})
    told = answer["error"]
    assert (told["code"], told.get("retry_after_s")) == (code, retry_after_s)
    assert ("bug" in told["message"]) is False
    assert (await client.ask(8, ping={})) == {"ref": 8, "pong": {}}
    assert client.closed is None


# Strangers


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {"auth", "ping"}))
async def test_a_stranger_may_do_nothing(stranger: Opened, operation: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "refresh": {"token": "a"},
        "subscribe": {"topic": "news"},
        "unsubscribe": {"topic": "news"},
        "open": {"channel": "a"},
        "ack": {"channel": "a", "entry": "1-0"},
        "nack": {"channel": "a", "entry": "1-0"},
        "close": {"channel": "a"},
        "publish": {"events": [{"topic": "news", "data": 1}]},
    }
    client = await stranger()
    assert await client.code(1, **{operation: bodies[operation]}) == "unauthenticated"
    assert (await client.ask(2, ping={}))["pong"] == {}


async def test_a_stranger_must_authenticate_in_time(
    edge: Edge, stranger: Opened, clock: Clock, token: Callable[..., Awaitable[str]]
) -> None:
    late, quick = await stranger(), await stranger()
    assert "authenticated" in await quick.ask(1, auth={"token": await token()})
    assert quick.most_bytes == FRAME_BYTES > late.most_bytes == STRANGERS_FRAME_BYTES
    for ahead_s in (AUTHENTICATE_S - 1, 2):
        assert late.closed is None
        clock.ahead_s += ahead_s
        await edge.liveness.check_due(clock.now_s())
    assert (await late.close_code(), late.was_aborted) == (4005, True)
    assert quick.closed is None


@pytest.mark.parametrize("by", ["frames", "bytes", "control frames"])
async def test_a_stranger_has_a_budget(stranger: Opened, by: str) -> None:
    client = await stranger()
    if by == "bytes":
        client.send_text('{"ref":1,"ping":{}}' + " " * 4096)
    for number in range(21):
        if by == "frames":
            client.send(number, ping={})
        elif by == "control frames" and (heard := getattr(client, "on_control_frame", None)):
            heard(1)
    assert (await client.close_code(), client.was_aborted) == (4009, True)
    assert len(client.refs) == (20 if by == "frames" else 0)


async def test_strangers_make_room_for_each_other(stores: Stores, clock: Clock) -> None:
    edge = edge_of(stores, max_unauthenticated_sockets_per_address=2)
    clients = [await Client(edge).open() for _ in range(2)]
    known = await Client(edge).open(reader_of(stores.account_id))
    clients.append(await Client(edge).open())
    assert (await clients[0].close_code(), clients[0].was_aborted) == (1013, True)
    assert [each.closed for each in (*clients[1:], known)] == [None] * 3
    for each in (*clients, known):
        await each.leave()


async def test_an_address_that_fails_too_often_is_hung_up_on(stores: Stores, clock: Clock) -> None:
    edge = edge_of(stores, failed_authentication_burst_per_address=3)
    client = await Client(edge).open()
    codes = [await client.code(number, auth={"token": f"a.b.{number}"}) for number in range(4)]
    assert codes == ["unauthenticated"] * 3 + ["too_many"]
    assert (await client.close_code(), client.was_aborted) == (1013, True)
    await client.leave()


async def test_an_account_has_so_many_sockets(
    stores: Stores, edge: Edge, stranger: Opened, token: Callable[..., Awaitable[str]]
) -> None:
    first, given = await stranger(), await token()
    await first.ask(1, auth={"token": given})
    await edge.stores.quotas.change(stores.account_id, quotas={Quota.SOCKETS: 1}, key_quotas={})
    edge.socket_quota.report_all_again()
    second = await stranger()
    assert await second.code(1, auth={"token": given}) == "too_many"
    assert await second.close_code() == 1013
    await second.leave()
    await first.leave()
    assert first.socket.counted_for is None


# Requests


async def test_requests_are_answered_in_the_order_of_arrival(known: Opened) -> None:
    may_end, begun = asyncio.Event(), list[int | None]()

    async def waits(_: NativeSocket, request: Request) -> Said:
        begun.append(request.ref)
        await may_end.wait()
        return ("subscribed", {})

    client = await known(subscribe=waits)
    client.send(1, subscribe={"topic": "a"})
    client.send(2, ping={})
    client.send(3, subscribe={"topic": "b"})
    client.send(4, subscribe={"since": 1})
    await turns()
    assert (begun, client.refs) == ([1], [])
    may_end.set()
    await wait_until(lambda: client.refs == [1, 2, 3, 4], what=lambda: client.refs)
    assert begun == [1, 3]


@pytest.mark.parametrize("by", ["number", "bytes"])
async def test_reading_stops_while_too_much_is_unanswered(known: Opened, by: str) -> None:
    asked: list[Request] = []

    def later(_: NativeSocket, request: Request) -> None:
        asked.append(request)

    client = await known(publish=later)
    events = [{"topic": "a", "data": "x" * (MOST_UNANSWERED_BYTES // 4 if by == "bytes" else 1)}]
    for number in range(4 if by == "bytes" else MOST_UNANSWERED + 1):
        assert not held_back(client)
        assert client.send(number, publish={"events": events}) is False, "its rate is the account's"
    assert held_back(client)
    client.socket.answer(asked[1], b'{"ref":1,"published":[]}')
    assert not held_back(client)
    client.socket.refuse(asked[0], StoreUnavailable(why="test"))
    assert client.refs == [1, 0]


async def test_reading_stops_while_too_much_is_unread(known: Opened) -> None:
    client = await known()
    client.buffered = 4097
    assert client.send(1, ping={}) is True
    assert held_back(client)
    client.buffered = 0
    client.socket._on_room()
    assert not held_back(client)


def held_back(client: Client) -> bool:
    """For mypy, which takes an attribute to stay as it is."""
    return client.is_held_back


async def test_an_answer_without_a_ref_is_not_sent(known: Opened) -> None:
    client = await known(ack=lambda *_: ("acked", {}))
    before = len(client.frames)
    client.send(ack={"channel": "a", "entry": "1-0"})
    assert len(client.frames) == before
    client.send(nack={"channel": "a", "entry": "1-0"})
    [error] = client.of("error")
    assert error["code"] == "not_found"


async def test_what_follows_a_malformed_frame_is_not_read(known: Opened) -> None:
    client = await known()
    client.send_text("{" + "é" * 300)
    client.send(1, ping={})
    assert await client.close_code() == 4000
    assert client.refs == []
    assert client.closed is not None
    assert client.closed["reason"] == "the frame is not JSON"


# Refresh


async def test_a_refresh_moves_the_end(
    stores: Stores, edge: Edge, clients: list[Client], token: Callable[..., Awaitable[str]], clock: Clock
) -> None:
    ends, stays = [await Client(edge).open(reader_of(stores.account_id, lasts_s=0.05)) for _ in range(2)]
    clients += [ends, stays]
    given = await token()
    answer = await stays.ask(1, refresh={"token": given})
    assert answer["refreshed"]["expires_at"]
    await wait_until(lambda: now_ms() > ends.socket.expires_at_ms)
    clock.ahead_s += 1
    await edge.liveness.check_due(clock.now_s())
    assert await ends.close_code() == 4001
    assert stays.closed is None


async def test_a_refresh_is_for_the_same_subject(known: Opened, token: Callable[..., Awaitable[str]]) -> None:
    client = await known()
    for number, given in enumerate([await token("user-2"), await token(account="f" * 32)]):
        assert await client.code(number, refresh={"token": given}) == "forbidden"
    assert "refreshed" in await client.ask(9, refresh={"token": await token()})


# The end


async def test_a_drain_waits_for_what_is_unanswered(known: Opened) -> None:
    asked: list[Request] = []

    def later(_: NativeSocket, request: Request) -> None:
        asked.append(request)

    client = await known(publish=later)
    client.send(1, publish={"events": []})
    draining = asyncio.create_task(client.socket.drain(within_s=1000))
    await turns()
    assert client.closed is None
    client.socket.answer(asked[0], b'{"ref":1,"published":[]}')
    await draining
    assert await client.close_code() == 1012


async def test_a_drain_ends_in_time(known: Opened) -> None:
    client = await known(publish=lambda *_: None)
    client.send(1, publish={"events": []})
    await client.socket.drain(within_s=0.01)
    assert await client.close_code() == 1012


async def test_a_client_that_has_gone_harms_nothing(known: Opened) -> None:
    client = await known()
    client.gone = True
    client.send(1, ping={})
    client.send(2, subscribe={"topic": "news"})
    await client.leave()
    assert client.refs == []


async def test_it_leaves_nothing_behind(known: Opened, clients: list[Client]) -> None:
    waits = asyncio.Event()

    async def endless(_: NativeSocket, __: Request) -> Said:
        await waits.wait()
        raise AssertionError

    client = await known(subscribe=endless)
    client.send(1, subscribe={"topic": "news"})
    client.send(2, ping={})
    await turns()
    await client.leave()
    await turns()
    gone = weakref.ref(client.socket)
    clients.clear()
    del client
    gc.collect()
    assert gone() is None
