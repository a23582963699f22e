"""What follows a restored subscription."""

import asyncio
from typing import Any, cast

import pytest

from services.socket_edge.blackhole_socket import BlackholeSocket
from services.socket_edge.wakeup_reader import WakeupReader
from shared.runtime.loops import end
from shared.store.keyspace import wakeup
from tests.harness.waiting import wait_until
from tests.socket_edge.conftest import edge_of, scope_of
from tests.store.stores import EDGE, Stores


async def test_a_flapping_subscription_recovers_sessions_in_one_pass_at_a_time(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes beside each other would pile up; one more follows for what came during the first."""
    begun = done = most_at_once = 0
    may_go_on = asyncio.Event()

    async def recover(_: BlackholeSocket) -> None:
        nonlocal begun, done, most_at_once
        begun += 1
        most_at_once = max(most_at_once, begun - done)
        await may_go_on.wait()
        done += 1

    monkeypatch.setattr(BlackholeSocket, "recover", recover)
    edge = edge_of(stores)
    scope = scope_of(write=lambda texts, ping: None)
    edge.hold(BlackholeSocket(edge, address="192.0.2.1", principal=None, scope=scope, send=cast(Any, None)))
    reader = WakeupReader(edge)
    for _ in range(5):
        reader.on_restored()
    await wait_until(lambda: begun == 1)
    await wait_until(lambda: len(reader._recoveries) == 1)
    may_go_on.set()
    await wait_until(lambda: not reader._recoveries)

    assert (begun, done, most_at_once) == (2, 2, 1)


async def test_a_recovery_that_fails_is_repeated(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.socket_edge.wakeup_reader._RETRY_S", 0)
    edge = edge_of(stores)
    attempts = 0

    async def beat() -> bool:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("a bug")
        return True

    monkeypatch.setattr(edge.heartbeat, "beat", beat)
    reader = WakeupReader(edge)
    reader.on_restored()
    await wait_until(lambda: not reader._recoveries)

    assert attempts == 2
    assert [record.message for record in caplog.records] == ["recovery.failed"]


async def test_wakeups_are_read_while_sessions_recover(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = asyncio.Event()

    async def recover(_: BlackholeSocket) -> None:
        await woken.wait()

    monkeypatch.setattr(BlackholeSocket, "recover", recover)
    edge = edge_of(stores)
    scope = scope_of(write=lambda texts, ping: None)
    socket = BlackholeSocket(edge, address="192.0.2.1", principal=None, scope=scope, send=cast(Any, None))
    edge.hold(socket)
    monkeypatch.setattr(BlackholeSocket, "wake", lambda _: woken.set())

    reading = asyncio.create_task(WakeupReader(edge).run())
    await wait_until(lambda: stores.direct.publish(wakeup(EDGE), socket.id) == 1)
    await asyncio.wait_for(woken.wait(), 10)

    await end(reading)
