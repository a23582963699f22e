"""Starts and stops a dispatcher: its deliveries, the arq worker that begins retries, a port for health."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from redis.asyncio import Redis

from services.composition import Stores, build_outbound
from services.serving import Readiness, serve_jobs, working
from services.webhook_dispatcher.delivery import Deliveries
from services.webhook_dispatcher.dispatcher import Dispatcher
from services.webhook_dispatcher.notices import NoticePublisher
from services.webhook_dispatcher.replays import ReplayRunner
from shared.jobs import RetryJobs
from shared.model.errors import StoreUnavailable
from shared.publish.publisher import Publisher
from shared.publish.stores import PublishStores
from shared.runtime.loops import in_background
from shared.runtime.settings import Settings

_NAME = "webhook-dispatcher"


@contextlib.asynccontextmanager
async def dispatching(
    settings: Settings, redis: Redis, jobs: Redis, readiness: Readiness
) -> AsyncIterator[None]:
    """Delivers for as long as it is entered. Raises OSError when a certificate's file is unusable."""
    stores = Stores(settings, redis)
    async with build_outbound(settings) as outbound:
        retries = RetryJobs(jobs, lambda channel: dispatcher.retry(channel))
        # Notices are no publisher's: no quota counts them.
        publishing = PublishStores(stores.routing, stores.queues, stores.sessions, stores.receipts)
        notices = NoticePublisher(stores.webhook_notices, Publisher(publishing))
        deliveries = Deliveries(stores, outbound, retries, settings, notices=notices)
        dispatcher = Dispatcher(stores, deliveries, outbound, settings, readiness, notices=notices)
        async with (
            dispatcher.running(),
            in_background(ReplayRunner(stores).run),
            working(
                lambda on_working: retries.worker(on_working=on_working),
                service=_NAME,
                readiness=readiness,
            ),
        ):
            yield
    with contextlib.suppress(StoreUnavailable):
        await stores.attempt_bytes.report()


async def run(settings: Settings, redis: Redis, stop: asyncio.Event) -> None:
    """Dispatches until `stop`; health and metrics are on DISPATCHER_PORT."""
    await serve_jobs(_NAME, dispatching, settings, redis, port=settings.dispatcher_port, stop=stop)
