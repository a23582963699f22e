"""fakeredis as a client that `Pipeline` can use: it has no connection that ours could open."""

import asyncio
from collections.abc import Sequence
from itertools import chain

import fakeredis

from shared.redis.connection import Command, OnReplies


class FakeRedis(fakeredis.FakeAsyncRedis):
    """Implements `shared.redis.connection.Connection` with redis-py's own pipelines."""

    _sending: asyncio.Task[None] | None = None

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        self._sending = asyncio.get_running_loop().create_task(self._send(commands, on_replies))

    async def _send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        pipeline = self.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command.arguments)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            on_replies(error)
        else:
            # As Redis replies: redis-py makes a dict of HGETALL's.
            on_replies([list(chain(*r.items())) if isinstance(r, dict) else r for r in replies])
