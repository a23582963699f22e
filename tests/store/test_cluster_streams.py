"""Streams in a Redis Cluster: an account's topics lie on all nodes, with their wakeups."""

from collections.abc import Iterator

import pytest

from shared.model.streams import Mark, NotRecovered, Start
from shared.redis.client import connect
from shared.store.commands import commands_to
from shared.store.routing import Routing
from shared.store.stream_reads import StreamReads
from shared.store.stream_wakeups import live_name
from shared.store.streams import Streams
from shared.wire.pelion.subscriptions import compiled
from tests.harness.cluster import Cluster, running_cluster
from tests.store.stores import events
from tests.store.test_stream_wakeups import Live
from tests.store.test_streams import KEEP

ACCOUNT = "a" * 32
TOPICS = [f"orders.{number}" for number in range(20)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


async def test_each_topic_is_read_and_wakes_in_its_own_slot(cluster: Cluster) -> None:
    nodes = {topic: cluster.primary_of(live_name(ACCOUNT, topic)) for topic in TOPICS}
    assert len({node.name for node in nodes.values()}) == 3
    async with connect(cluster.url) as redis:
        calls = commands_to(redis)
        streams, reads = Streams(calls, Routing(calls, compiled)), StreamReads(calls)
        for topic, node in nodes.items():
            with node.client() as direct:
                live = Live(direct, live_name(ACCOUNT, topic))
                reply = await streams.begin_append(ACCOUNT, topic, events(1, 2), keep=KEEP)
                offsets = Streams.end_append(reply)
                assert offsets is not None
                purged = await streams.purge(ACCOUNT, topic)
                appended, purge = live.all()
                live.close()
            assert [each.offset for each in appended.retained(topic) or []] == offsets
            assert purge.mark == purged == Mark(purge.epoch, offsets[-1])

            late = await reads.resume(ACCOUNT, topic, appended.mark, count=9, size_bytes=999)
            assert (late.reason, late.events) == (NotRecovered.PURGED, [])
            latest = await reads.resume(ACCOUNT, topic, Start.LATEST, count=9, size_bytes=999)
            assert latest.mark == purged
            await reads.note_readers(ACCOUNT, {topic: 2}, instance="e")
            assert await reads.readers(ACCOUNT, topic) == 2
