"""Redis is restored from a backup, with the services stopped and while they run: what is there afterwards.

Each notification has a number. Those that were answered 202 before the backup are there afterwards, in order.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from shared.store import keyspace
from tests.conftest import Listen, Start
from tests.harness import backups
from tests.harness.all_in_one import all_in_one
from tests.harness.api import Api, ApiKey
from tests.harness.blackhole import Blackhole
from tests.harness.events import number_of, reading, readings
from tests.harness.processes import Service
from tests.harness.publisher import Publisher
from tests.harness.sockets import assert_in_order, assert_nothing_lost
from tests.harness.stack import Stack
from tests.harness.waiting import wait_until
from tests.harness.webhooks import Webhook, webhook

pytestmark = pytest.mark.long

Step = Callable[[Stack, Path], Awaitable[None]]
HOUR_MS = 3600 * 1000


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    async with webhook() as receiver:
        yield receiver


@dataclass
class Installation:
    """All services, and a publisher whose events go to three channels of its account."""

    stack: Stack
    api: Api
    publisher: Publisher
    open_socket: ApiKey
    offline: ApiKey
    called: ApiKey

    @property
    def snapshot(self) -> Path:
        return self.stack.folder / "notify.rdb"


@pytest.fixture
async def installation(start: Start, http: aiohttp.ClientSession, hook: Webhook) -> Installation:
    stack = start(
        edges=2,
        reapers=1,
        dispatchers=1,
        tcp=True,
        redis_like=None,
        ALLOW_PRIVATE_CALLBACKS=1,
        SWEEP_S=1,
        HEARTBEAT_S=0.5,
        HEARTBEAT_TTL_S=2,
    )
    api = Api(http, stack.gateways[0].url, stack.admin_token)
    keys = [await api.api_key()]
    keys += [await api.api_key(account=keys[0].account) for _ in range(3)]
    publishing, open_socket, offline, called = keys
    for key in (open_socket, offline):
        await api.register(key)
    await api.register_webhook(called, hook.url)
    for key in (open_socket, offline, called):
        await api.subscribe(key, {"endpoint-name": "*"})
    return Installation(stack, api, Publisher(api, publishing, batch=5), open_socket, offline, called)


async def restore_stopped(stack: Stack, snapshot: Path) -> None:
    """All services stop first, as the documentation says."""
    for service in stack.services:
        service.terminate()
    for service in stack.services:
        await wait_until(lambda: service.ended, within_s=60, what=service.name)  # noqa: B023
    await backups.restore(stack.valkey, snapshot)
    await started(*stack.services)


async def restore_running(stack: Stack, snapshot: Path) -> None:
    """All services go on, and see an outage."""
    await backups.restore(stack.valkey, snapshot)


async def started(*services: Service) -> None:
    for service in services:
        service.start()
    for service in services:
        await wait_until(lambda: service.ready, within_s=60, what=service.name)  # noqa: B023


both_ways = pytest.mark.parametrize("restore", [restore_stopped, restore_running], ids=["stopped", "running"])


@both_ways
@pytest.mark.parametrize("save", [backups.save, backups.save_by_replica], ids=["primary", "replica"])
async def test_everything_accepted_before_the_backup_is_there_in_order(
    installation: Installation, listen: Listen, hook: Webhook, save: backups.Backup, restore: Step
) -> None:
    stack, api, publisher = installation.stack, installation.api, installation.publisher
    receivers = [await listen(installation.open_socket, stack.edges[0].url)]
    async with publisher.publishing():
        await publisher.wait_for_accepted(200)
        before = publisher.accepted
        await save(stack.valkey, installation.snapshot)
        backed_up = publisher.accepted
        await publisher.wait_for_accepted(100)
    lost_from = publisher.accepted
    first = await listen(installation.offline, stack.edges[1].url)
    await first.received_numbers(range(lost_from))
    await api.until(installation.offline, queue_size=0)
    await first.close()

    await restore(stack, installation.snapshot)
    await publisher.publish(100)

    if restore is restore_stopped:
        receivers.append(await listen(installation.open_socket, stack.edges[1].url))
    second = await listen(installation.offline, stack.edges[1].url)
    last = publisher.accepted - 1
    await wait_until(lambda: last in receivers[-1].numbers and last in second.numbers)
    await wait_until(lambda: last in [number_of(item) for item in hook.items], within_s=60)
    # A channel that was offline has all of it again, and no gap but what was published after the backup.
    assert second.numbers == sorted(set(second.numbers))
    assert_nothing_lost([*range(before), *range(lost_from, publisher.accepted)], second.numbers)
    assert [number for number in second.numbers if backed_up + 5 <= number < lost_from] == []
    # One with a socket all the time has every number, and skips none of the new ones.
    numbers = [number for receiver in receivers for number in receiver.numbers]
    assert_nothing_lost(range(publisher.accepted), numbers)
    assert_in_order(numbers)
    assert receivers[-1].open_now
    assert_nothing_lost(range(publisher.accepted), [number_of(item) for item in hook.items])
    for key in (installation.open_socket, installation.offline):
        await api.until(key, queue_size=0, status="connected")


async def test_an_open_socket_stays_however_often_its_channel_was_claimed_since(
    installation: Installation, listen: Listen
) -> None:
    """The backup names an owner that neither the open socket nor the one before it was."""
    stack, api, publisher = installation.stack, installation.api, installation.publisher
    key = installation.open_socket
    older = [await listen(key, stack.edges[0].url)]
    await api.until(key, status="connected")
    await backups.save(stack.valkey, installation.snapshot)
    older += [await listen(key, stack.edges[number % 2].url) for number in range(3)]
    newest = await listen(key, stack.edges[0].url)
    for receiver in older:
        await receiver.closed()
    await publisher.publish(10)
    await newest.received_numbers(range(10))

    await restore_running(stack, installation.snapshot)
    await publisher.publish(10)

    await newest.received_numbers(range(20))
    await api.until(key, queue_size=0, status="connected")
    assert newest.open_now
    other = await listen(key, stack.edges[1].url)
    await newest.closed()
    await publisher.publish(5)
    await other.received_numbers(range(20, 25))


@both_ways
async def test_credentials_bindings_and_marks_are_those_of_the_backup(
    installation: Installation, listen: Listen, restore: Step
) -> None:
    """What every gateway had in memory of the time after it counts no longer."""
    stack, api = installation.stack, installation.api
    account, offline = installation.offline.account, installation.offline
    other_gateway = stack.new_gateway("gateway-other")
    try:
        await started(other_gateway)
        stack.gateways.append(other_gateway)
        gateways = [api.at(gateway.url) for gateway in stack.gateways]
        revoked = await api.api_key(account=account)
        once = {"Idempotency-Key": "before"}
        answered = await api.call("POST", "/v1/events", key=revoked, json=reading(0), headers=once)
        await backups.save(stack.valkey, installation.snapshot)
        later = await api.api_key(account=account)
        await api.register(later)
        late_socket = await listen(later, stack.edges[0].url)
        await api.subscribe(offline)
        await api.subscribe(later, {"endpoint-name": "*"})
        twice = {"Idempotency-Key": "after"}
        for gateway in gateways:
            assert await gateway.publish(later, reading(1)) == [3]
            sent = await gateway.call("POST", "/v1/events", key=later, json=reading(2), headers=twice)
            assert sent.status == 202
        await api.revoke(revoked)
        assert (await gateways[1].post_events(revoked, reading(3))).status == 401

        await restore(stack, installation.snapshot)

        publishing = installation.publisher
        await publishing.publish(1)
        for gateway in gateways:
            assert await gateway.publish(revoked, reading(4)) == [3], "a removed binding is back"
        again = await gateways[1].call("POST", "/v1/events", key=revoked, json=reading(0), headers=once)
        assert (again.status, again.text) == (202, answered.text)
        anew = await gateways[0].call("POST", "/v1/events", key=revoked, json=reading(2), headers=twice)
        assert anew.status == 202
        if restore is restore_running:
            assert await late_socket.closed() == 1008
        pending = await listen(offline, stack.edges[0].url)
        await pending.received_numbers([0, 0, 4, 4, 2])
        # A gateway may go by the key that it has read for half a minute.
        await _until_refused(later, gateways, within_s=60)
        await api.revoke(revoked)
        await _until_refused(revoked, gateways, within_s=10)
    finally:
        other_gateway.close()


async def _until_refused(key: ApiKey, gateways: list[Api], *, within_s: float) -> None:
    for gateway in gateways:

        async def is_refused(gateway: Api = gateway) -> bool:
            return (await gateway.post_events(key, reading(6))).status == 401

        await wait_until(is_refused, within_s=within_s)


async def test_sessions_that_ended_since_the_backup_are_gone_again(
    installation: Installation, http: aiohttp.ClientSession
) -> None:
    """Their edge runs on, so no reaper drops them for it."""
    stack, api = installation.stack, installation.api
    key = await api.api_key()
    clients = []
    for _ in range(2):
        clients.append(await Blackhole.open(http, stack.edges[0].url + "/socket"))
        assert (await clients[-1].ask("ping", token=key.secret))["status"] == "success"
        await clients[-1].subscribe("object.doc_edited.user")
    await backups.save(stack.valkey, installation.snapshot)
    await clients[0].close()
    event = {"topic": "object.doc_edited.user.u", "data": {"id": "u"}}

    async def reaches(count: int) -> bool:
        with contextlib.suppress(AssertionError):
            return await api.publish(key, event) == [count]
        return False

    await wait_until(lambda: reaches(1))

    await restore_running(stack, installation.snapshot)

    async def is_alone() -> bool:
        listed = await api.call("GET", f"/v2/accounts/{key.account}/websockets", key=key)
        return listed.status == 200 and len(listed.json["data"]) == 1

    await wait_until(lambda: reaches(1))
    await wait_until(is_alone)
    assert (await clients[1].event())["data"] == {"id": "u"}
    await clients[1].close()


async def test_channels_of_an_old_backup_wait_for_their_clients(
    installation: Installation, listen: Listen
) -> None:
    """Three days old: no channel has had a socket for longer than the expiry."""
    stack, api = installation.stack, installation.api
    await installation.publisher.publish(10)
    receiver = await listen(installation.open_socket, stack.edges[0].url)
    await receiver.received_numbers(range(10))
    await api.until(installation.open_socket, queue_size=0)
    await wait_until(lambda: _rounds(stack) > 0)
    await backups.save(stack.valkey, installation.snapshot)
    for service in stack.services:
        service.kill()
    await backups.restore(stack.valkey, installation.snapshot)
    _age(stack, by_ms=72 * HOUR_MS)

    await started(*stack.services)

    with stack.valkey.client() as direct:
        for key in (installation.open_socket, installation.offline):
            due = keyspace.due(key.id)
            await wait_until(lambda: float(direct.zscore(due, key.id)) > 0, within_s=60)  # noqa: B023
    again = await listen(installation.open_socket, stack.edges[0].url)
    late = await listen(installation.offline, stack.edges[1].url)
    await late.received_numbers(range(10))
    await installation.publisher.publish(1)
    await again.received_numbers([10])


def _rounds(stack: Stack) -> float:
    with stack.valkey.client() as direct:
        return float(direct.hget(keyspace.REAPER_ROUND, "ended_ms") or 0)


def _age(stack: Stack, *, by_ms: int) -> None:
    """Makes what the data say about time so much older, and all channels due."""
    with stack.valkey.client() as direct:
        for field in ("ended_ms", "until_ms", "steady_since_ms"):
            direct.hincrby(keyspace.REAPER_ROUND, field, -by_ms)
        for name in (keyspace.LAST_SEEN, keyspace.STOPPED):
            for member, _ in direct.zrange(name, 0, -1, withscores=True):
                direct.zincrby(name, -by_ms, member)
        for name in direct.scan_iter("{*}:channel"):
            for field in ("created_at_ms", "released_at_ms"):
                if direct.hexists(name, field):
                    direct.hincrby(name, field, -by_ms)
        for due in keyspace.DUE:
            for member, _ in direct.zrange(due, 0, -1, withscores=True):
                direct.zadd(due, {member: 0})


async def test_no_service_starts_on_a_backup_of_an_older_layout(installation: Installation) -> None:
    stack = installation.stack
    with stack.valkey.client() as direct:
        direct.set(keyspace.LAYOUT, keyspace.LAYOUT_VERSION - 1)
        await backups.save(stack.valkey, installation.snapshot)
        direct.set(keyspace.LAYOUT, keyspace.LAYOUT_VERSION)
    for service in stack.services:
        service.terminate()
        await wait_until(lambda: service.ended, within_s=60)  # noqa: B023
    await backups.restore(stack.valkey, installation.snapshot)

    for service in stack.services:
        service.start()
    for service in stack.services:
        await wait_until(lambda: service.ended, within_s=60, what=service.name)  # noqa: B023
        assert service.exit_code == 2
        [line] = [line for line in service.stderr.splitlines() if line.startswith("stopped: ")]
        assert f"layout '{keyspace.LAYOUT_VERSION - 1}'" in line


async def test_the_folder_of_make_run_is_a_backup_while_it_is_stopped(
    http: aiohttp.ClientSession, listen: Listen
) -> None:
    with all_in_one() as service:
        await started(service)
        api = Api(http, service.url, service.admin_token)
        key = await api.api_key()
        await api.register(key)
        await api.publish(key, *readings(range(10), to=key.id))
        await _stopped(service)
        copy = service.data_dir.with_name("copy")
        await asyncio.to_thread(shutil.copytree, service.data_dir, copy)
        await started(service)
        receiver = await listen(key, service.url)
        await api.publish(key, *readings(range(10, 20), to=key.id))
        await receiver.received_numbers(range(20))
        await _stopped(service)

        shutil.rmtree(service.data_dir)
        copy.rename(service.data_dir)
        await started(service)

        await api.publish(key, *readings(range(20, 30), to=key.id))
        again = await listen(key, service.url)
        await again.received_numbers([*range(10), *range(20, 30)])


async def _stopped(service: Service) -> None:
    service.terminate()
    await wait_until(lambda: service.ended, within_s=60)
