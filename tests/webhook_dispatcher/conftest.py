"""Attempts and visits over fakeredis, with an outbound client and retry jobs that a test controls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import pytest

from services import composition
from services.webhook_dispatcher import delivery
from services.webhook_dispatcher.delivery import Deliveries
from services.webhook_dispatcher.dispatcher import Dispatcher
from services.webhook_dispatcher.known_webhooks import KnownWebhook
from services.webhook_dispatcher.notices import NoticePublisher
from services.webhook_dispatcher.outcomes import Outcome
from shared.jobs import RetryJobs
from shared.model.callbacks import Callback
from shared.model.channels import Lease
from shared.model.client_certificates import ClientCertificate
from shared.outbound.attempt import OK_OR_NO_CONTENT
from shared.outbound.client import Attempt, Outbound
from shared.outbound.names import Resolved
from shared.publish.publisher import Publisher
from shared.publish.stores import PublishStores
from shared.runtime.settings import Settings
from shared.store import attempts, keyspace
from shared.store.attempt_bytes import AttemptBytes
from shared.store.batches import Batches
from shared.store.client_certificates import ClientCertificates
from shared.store.due_webhooks import DueWebhooks
from shared.store.parallel_batches import ParallelBatches
from shared.store.queues import QueueLimits
from shared.store.quotas import AccountQuotas
from shared.store.replicas import Heartbeat, Replicas
from shared.store.webhook_notices import WebhookNotices
from shared.store.webhooks import Webhooks
from tests.harness.waiting import wait_until
from tests.store.stores import NOW_MS, RedisClock, Stores

URL = "https://example.com/hook"
EXPIRY_MS = 3000
INSTANCE = "dispatcher-1/a"
OTHER_INSTANCE = "dispatcher-2/b"
HOUR_MS = 3600 * 1000
HOUR_S = 3600.0


@dataclass(frozen=True)
class Request:
    """One request as a receiver gets it."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "PUT"
    timeout_s: float | None = None
    certificate: ClientCertificate | None = None

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


class FakeOutbound:
    """Receivers that respond with `status`, or as `answer` says, after `on_request`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 200
        self.statuses: dict[str, int] = {}
        self.answer: Callable[[Request], Attempt] | None = None
        self.on_request: Callable[[Request], Awaitable[object]] | None = None
        self.on_lookup: Callable[[str], Awaitable[object]] | None = None
        self.resolved: list[tuple[str, str]] = []
        self.took_ms = 7
        self.under_way = 0
        self.most_under_way = 0

    async def resolve(self, url: str, *, account: str) -> Resolved:
        self.resolved.append((url, account))
        if self.on_lookup is not None:
            await self.on_lookup(url)
        return Resolved(url)

    def resolve_again(self, resolved: Resolved, *, account: str) -> Resolved:
        return resolved

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        varying: Mapping[str, str],
        body: bytes,
        account: str,
        resolved: Resolved,
        timeout_s: float | None = None,
        success: Container[int] = OK_OR_NO_CONTENT,
        certificate: ClientCertificate | None = None,
    ) -> Attempt:
        assert resolved.host == url
        assert not headers.keys() & varying.keys()
        request = Request(url, {**headers, **varying}, body, method, timeout_s, certificate)
        self.requests.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.on_request is not None:
                await self.on_request(request)
        finally:
            self.under_way -= 1
        if self.answer is not None:
            return replace(self.answer(request), success=success)
        return Attempt(self.statuses.get(url, self.status), "", self.took_ms, success=success)

    def block(self, *urls: str) -> asyncio.Event:
        """Responds to requests to these URLs, or to all, once the event is set."""
        unblocked = asyncio.Event()

        async def wait(request: Request) -> None:
            if not urls or request.url in urls:
                await unblocked.wait()

        self.on_request = wait
        return unblocked


class FakeRetries:
    """Retry jobs that only a test runs."""

    def __init__(self) -> None:
        self.scheduled: list[tuple[str, int, int]] = []

    async def schedule(self, channel: str, *, failed_attempts: int, at_ms: int) -> None:
        self.scheduled.append((channel, failed_attempts, at_ms - NOW_MS))


@pytest.fixture
def outbound() -> FakeOutbound:
    return FakeOutbound()


@pytest.fixture
def retries() -> FakeRetries:
    return FakeRetries()


@pytest.fixture
def clock(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    clock = RedisClock(stores.direct)
    monkeypatch.setattr(delivery, "now_ms", clock)
    return clock


class Attempts(Deliveries):
    """Attempts that need no dispatcher around them."""

    async def make(self, lease: Lease, url: str = URL, *, account: str = "account") -> Outcome:
        return await self.deliver(lease, KnownWebhook(account, url), Resolved(url))


@pytest.fixture
async def deliveries(
    stores: Stores, outbound: FakeOutbound, retries: FakeRetries, clock: RedisClock
) -> Attempts:
    return Attempts(
        stores_of(stores, clock, instance=INSTANCE),
        cast(Outbound, outbound),
        cast(RetryJobs, retries),
        Settings(batch_limit=100, webhook_batch_bytes=1_000_000, webhook_expiry_s=EXPIRY_MS / 1000),
        notices=notices_of(stores),
    )


@pytest.fixture(name="dispatcher")
async def a_dispatcher(
    stores: Stores, deliveries: Deliveries, outbound: FakeOutbound, clock: RedisClock
) -> Dispatcher:
    return make_dispatcher(stores, deliveries, outbound, clock)


def stores_of(stores: Stores, clock: RedisClock, *, instance: str) -> composition.Stores:
    """The stores of one dispatcher."""
    bytes_ = AttemptBytes(stores.calls, quotas=AccountQuotas(stores.calls))
    own = SimpleNamespace(
        redis=stores.redis,
        attempt_bytes=bytes_,
        attempts=attempts.Attempts(clock.calls_of(stores)),
        batches=Batches(clock.calls_of(stores), limits=QueueLimits(), on_attempts=bytes_.grew),
        channels=stores.channels,
        client_certificates=ClientCertificates(stores.calls, stores.wakeups),
        due_webhooks=DueWebhooks(clock.calls_of(stores), instance=instance),
        heartbeat=Heartbeat(stores.calls, instance=instance, ttl_ms=HOUR_MS),
        instance=instance,
        leases=stores.leases,
        parallel_batches=ParallelBatches(
            clock.calls_of(stores), limits=QueueLimits(), on_attempts=bytes_.grew
        ),
        queues=stores.queues,
        replicas=Replicas(stores.calls),
        webhooks=Webhooks(stores.calls, stores.wakeups),
    )
    return cast(composition.Stores, own)


def make_dispatcher(
    stores: Stores,
    deliveries: Deliveries,
    outbound: FakeOutbound,
    clock: RedisClock,
    *,
    instance: str = INSTANCE,
    requests: int = 100,
    per_account: int | None = None,
    sweep_s: float = HOUR_S,
) -> Dispatcher:
    settings = Settings(
        heartbeat_s=HOUR_S,
        heartbeat_ttl_s=2 * HOUR_S,
        sweep_s=sweep_s,
        webhook_requests=requests,
        webhook_requests_per_account=per_account,
    )
    own = stores_of(stores, clock, instance=instance)
    made = Dispatcher(own, deliveries, cast(Outbound, outbound), settings, notices=notices_of(stores))
    _MADE.append(made)
    return made


_MADE = list[Dispatcher]()


@pytest.fixture(autouse=True)
async def visits_end(stores: Stores) -> AsyncIterator[None]:
    """Ends the visits of a test while their pipeline still answers: one that releases its lease needs it."""
    yield
    while _MADE:
        dispatcher = _MADE.pop()
        dispatcher._stopping.set()
        for task in dispatcher._tasks:
            task.cancel()
        if dispatcher._tasks:
            await asyncio.wait(dispatcher._tasks, timeout=5)


def notices_of(stores: Stores) -> NoticePublisher:
    publishing = PublishStores(stores.routing, stores.queues, stores.sessions, stores.receipts)
    return NoticePublisher(WebhookNotices(stores.calls), Publisher(publishing))


async def webhook(stores: Stores, url: str = URL, *, queued: int = 0, account: str | None = None) -> str:
    """A webhook channel with so many notifications in its queue."""
    key, _ = await stores.api_key()
    if account is not None:
        stores.direct.hset(keyspace.api_key(key.id), "account_id", account)
    await stores.signing_secrets.made(key.id, offered="whsec_c2VjcmV0")
    await register(stores, key.id, url)
    if queued:
        await stores.queued(key.id, queued)
    return key.id


async def register(stores: Stores, channel: str, url: str) -> None:
    callback = Callback(url, {"X-Origin": "us"})
    await stores.channels.put_webhook(stores.account_id, channel, callback, serialization=b"")


async def claim(stores: Stores, channel: str, owner: str = f"{INSTANCE}/1") -> Lease:
    return await stores.leases.claim_unheld(channel, owner=owner)


async def ended(dispatcher: Dispatcher) -> None:
    """Waits until no visit runs."""
    await wait_until(lambda: not dispatcher._visits, what="the end of all visits")


async def delivered(stores: Stores, *channels: str) -> None:
    """Waits until nothing is left in the queues of these channels."""
    await wait_until(lambda: not any(map(stores.entries, channels)), what="empty queues")
