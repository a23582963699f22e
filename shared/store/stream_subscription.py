"""An edge's subscription to the live wakeups of streams, over connections of its own.

A flood on a topic may cut them, and never the subscription for the wakeups of queues.
"""

from redis.asyncio import Redis

from shared.redis.shard_subscription import ShardListener, ShardSubscription


def subscription(redis: Redis, listener: ShardListener) -> ShardSubscription:
    """Names are those of `stream_wakeups.live_name`, messages what `stream_wakeups.parse` reads."""
    return ShardSubscription(redis, listener)
