"""How a native socket is closed, what it tells of errors, and what bounds strangers."""

from typing import Any

import pytest

from services.socket_edge.edge import Edge
from services.socket_edge.native.parts import Said
from services.socket_edge.native.refusals import Refusal
from services.socket_edge.native.socket import (
    AUTHENTICATE_S,
    FRAME_BYTES,
    STRANGERS_FRAME_BYTES,
    NativeSocket,
)
from shared.model.api_keys import Scope
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
from shared.runtime.http.responses import Problem
from shared.wire.close_reasons import CLOSE_ROWS
from shared.wire.native.frames import OPERATIONS, Request
from shared.wire.native.replies import ErrorCode
from tests.socket_edge.conftest import Clock, edge_of
from tests.socket_edge.native_client import Client, reader_of
from tests.socket_edge.native_fixtures import Opened, Token, clients, edge, known, stranger, token
from tests.store.stores import Stores
from tests.wire.test_close_reasons import NATIVE as CODES

__all__ = ["clients", "edge", "known", "stranger", "token"]

# Close codes


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
    edge: Edge, stranger: Opened, clock: Clock, token: Token
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
    stores: Stores, edge: Edge, stranger: Opened, token: Token
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
