"""Which topics the readers of streams may read: those that their API key is bound to.

A topic is bound if one of the key's own topic bindings (/v1/bindings) matches it, without a condition: a
stream shows every event of its topic. The edge looks again with each sweep, so a reader ends within a minute
after its binding was removed.
"""

import asyncio
import contextlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from services.socket_edge.held import in_turns
from shared.model.errors import StoreUnavailable
from shared.runtime.http.responses import Problem
from shared.store.routing import Routing
from shared.store.streams import Streams
from shared.wire.stream_requests import no_stream

if TYPE_CHECKING:
    from services.socket_edge.credential_watcher import Credential

_RETRY_S = 1.0


class BoundReader(Protocol):
    """What reads topics that its API key is bound to."""

    @property
    def credential(self) -> "Credential | None":
        """That of its API key; None if it has none."""

    @property
    def is_held(self) -> bool:
        """Whether the edge still holds it."""

    @property
    def topics(self) -> Collection[str]:
        """Those that it reads."""

    async def on_unbound(self, topics: Collection[str]) -> None:
        """These are no longer bound."""


class StreamRights:
    """Reads bindings, once for all readers of an API key that wait for it."""

    def __init__(self, routing: Routing, streams: Streams) -> None:
        self._routing = routing
        self._streams = streams
        self._waiting: dict[tuple[str, str], dict[BoundReader, None]] = {}
        self._any_waiting = asyncio.Event()

    async def check_bound(self, account_id: str, api_key_id: str, topics: Collection[str]) -> None:
        """Raises Problem (403) for a topic that is not bound to the key."""
        bound = await self._routing.bound_topics(account_id, api_key_id, topics)
        for topic in topics:
            if topic not in bound:
                message = (
                    f"the topic {topic} is not bound to the API key: PUT /v1/bindings, without conditions"
                )
                raise Problem(403, message, fields=[("topic", f"{topic} must be bound to the API key")])

    async def check_streams(self, account_id: str, topics: Collection[str]) -> None:
        """Raises Problem (404) for a topic without a stream."""
        rules = await self._streams.rules(account_id)
        for topic in topics:
            if rules.keep_for(topic) is None:
                raise Problem(404, no_stream(topic), fields=[("topic", f"{topic} must have a rule")])

    def check_again(self, reader: BoundReader) -> None:
        """Looks soon whether the reader's topics are still bound to its key, and tells it which are not."""
        if (credential := reader.credential) is not None:
            key = (credential.account_id, credential.api_key_id)
            self._waiting.setdefault(key, {})[reader] = None
            self._any_waiting.set()

    async def run(self) -> None:
        """Looks again, for ever, one API key after the other."""
        while True:
            await self._any_waiting.wait()
            try:
                await self._check_one()
            except StoreUnavailable:
                # The next sweep asks again.
                self._waiting.clear()
                await asyncio.sleep(_RETRY_S)
            if not self._waiting:
                self._any_waiting.clear()

    async def _check_one(self) -> None:
        with contextlib.suppress(KeyError):
            (account_id, api_key_id), readers = self._waiting.popitem()
            topics = {topic for reader in readers for topic in reader.topics}
            bound = await self._routing.bound_topics(account_id, api_key_id, topics)
            async for reader in in_turns(readers):
                if lost := [topic for topic in reader.topics if topic not in bound]:
                    await reader.on_unbound(lost)
