"""Sharded pub/sub: names that come and go while it runs, each heard from the primary that has its slot.

One connection to each primary in use, opened with its first name and closed with its last. What a connection
loses, and what a server refuses, is subscribed again after a while: elsewhere, if the cluster says so.
"""

import asyncio
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterParser
from redis.exceptions import MovedError, RedisError

from shared.redis.cluster_pool import ClusterPool
from shared.redis.connection import RedisProtocol, pack
from shared.redis.pipeline import connection_to
from shared.redis.pubsub import PubSubProtocol
from shared.redis.reminders import Reminders
from shared.redis.sentinel import SentinelPool
from shared.redis.slots import SlotMap, parse_slot_map, redirect_target, slot_of
from shared.redis.subscription import log
from shared.redis.urls import Address

logger = logging.getLogger(__name__)

_RETRY_S = 0.25
_LONGEST_RETRY_S = 2.0
_NODE_TIMEOUT_S = 1.0
_REDIRECTS_WITHOUT_DELAY = 3
# Placing so many names takes about a millisecond.
_NAMES_PER_TURN = 256

_SUBSCRIBE, _UNSUBSCRIBE, _CONFIRMED, _ENDED = "SSUBSCRIBE", "SUNSUBSCRIBE", b"ssubscribe", b"sunsubscribe"


class ShardListener(Protocol):
    """Hears a subscription. Nothing else is read until a method returns, so none may block.

    An error that one of them raises ends the connection; its names are subscribed again.
    """

    def on_messages(self, messages: Sequence[Sequence[bytes]]) -> None:
        """Name and message of each, those of one read, in the order in which a primary published them."""

    def on_subscribed(self, name: bytes) -> None:
        """Confirmed: from now on nothing is missed until `on_lost`."""

    def on_lost(self, names: Collection[bytes]) -> None:
        """These were confirmed, and messages to them may be missed from now on."""


class ShardSubscription:
    """Hears the names that are added, while it runs. `redis` may be one server, sentinels, or a cluster."""

    def __init__(self, redis: Redis, listener: ShardListener) -> None:
        self.listener = listener
        self.reminders = Reminders()
        self._redis = redis
        pool = redis.connection_pool
        self._cluster = pool if isinstance(pool, ClusterPool) else None
        self._map = SlotMap()
        self._map_read_s = -_RETRY_S
        # By the address of the primary; None is the one server that there is.
        self._links: dict[Address | None, _Link] = {}
        self._placed: dict[bytes, _Link] = {}
        # To be subscribed now, and after a while.
        self._next: dict[bytes, None] = {}
        self._later: dict[bytes, None] = {}
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0

    def add(self, name: str) -> None:
        """Subscribes to a name. Does nothing if it was added already."""
        encoded = name.encode()
        if encoded in self._placed or encoded in self._next or encoded in self._later:
            return
        if self._timer is not None and self._cluster is None:
            # The one server is away: each name would be an attempt of its own.
            self._later[encoded] = None
        else:
            self._place_soon(encoded)

    def remove(self, name: str) -> None:
        """Ends the subscription to a name; a message that is on its way may still come."""
        encoded = name.encode()
        self._next.pop(encoded, None)
        self._later.pop(encoded, None)
        link = self._placed.pop(encoded, None)
        if link is None:
            return
        link.remove(encoded)
        if not link.names and self._links.get(link.address) is link:
            del self._links[link.address]
            link.end()

    async def run(self) -> None:
        """Subscribes to names as they come, until it is cancelled."""
        self._on_retry()
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                await self._place_all()
        finally:
            links = list(self._links.values())
            for link in links:
                link.end()
            if links:
                await asyncio.wait([link.task for link in links])
            if self._timer is not None:
                self._timer.cancel()

    async def _place_all(self) -> None:
        """Some of the names, those whose primary is known first: reading the map may take a while."""
        some = list(itertools.islice(self._next, _NAMES_PER_TURN))
        unknown = [name for name in some if not self._place(name)]
        if unknown and self._cluster is not None:
            await self._learn(self._cluster)
            self._place_later([name for name in unknown if name in self._next and not self._place(name)])
        if self._next:
            self._due.set()
            await asyncio.sleep(0)

    async def _learn(self, pool: ClusterPool) -> None:
        if time.monotonic() - self._map_read_s >= _RETRY_S:
            self._map = await _read_map(pool) or self._map
            self._map_read_s = time.monotonic()

    def _place(self, name: bytes) -> bool:
        """False if no primary is known for it."""
        address, client = None, self._redis
        if self._cluster is not None:
            address = self._map.primaries.get(slot_of(name))
            if address is None:
                return False
            client = self._cluster.client_of(address)
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = _Link(self, address, client)
        del self._next[name]
        self._placed[name] = link
        link.add(name)
        return True

    def _place_soon(self, name: bytes) -> None:
        self._next[name] = None
        self._due.set()

    def _place_later(self, names: Iterable[bytes]) -> None:
        """After a while, which grows until something is confirmed."""
        for name in names:
            self._next.pop(name, None)
            self._later[name] = None
        if self._later and self._timer is None:
            delay_s = min(_LONGEST_RETRY_S, _RETRY_S * 2 ** min(self._failures, 8))
            self._failures += 1
            self._timer = asyncio.get_running_loop().call_later(
                delay_s * random.uniform(0.8, 1.2), self._on_retry
            )

    def _on_retry(self) -> None:
        self._timer = None
        self._next.update(self._later)
        self._later.clear()
        self._due.set()

    # What links report

    def opened(self, protocol: PubSubProtocol) -> None:
        pool = self._redis.connection_pool
        if isinstance(pool, ClusterPool | SentinelPool):
            pool.subscriptions.add(protocol)

    def confirmed(self, name: bytes) -> None:
        self._failures = 0
        self.listener.on_subscribed(name)

    def refused(self, name: bytes, error: Exception, *, by: "_Link") -> None:
        """The server does not let us hear the name, or names the one that has it."""
        if not self._take_from(by, name):
            return
        if isinstance(error, MovedError) and by.address is not None:
            self._map.primaries[slot_of(name)] = redirect_target(error.host, error.port, by=by.address)
            if self._failures < _REDIRECTS_WITHOUT_DELAY:
                self._failures += 1
                self._place_soon(name)
                return
        else:
            self._forget_place_of(name)
            log(error, self.reminders)
        self._place_later([name])

    def moved(self, name: bytes, *, by: "_Link") -> None:
        """The server has given the name's slot away."""
        if self._take_from(by, name):
            self._forget_place_of(name)
            self._place_later([name])
            self.listener.on_lost([name])

    def closed(self, link: "_Link", *, confirmed: Collection[bytes]) -> None:
        """The link has ended; these of its names were confirmed."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
        names = [name for name in list(link.names) if self._take_from(link, name)]
        for name in names:
            self._forget_place_of(name)
        self._place_later(names)
        if lost := [name for name in names if name in confirmed]:
            self.listener.on_lost(lost)

    def _take_from(self, link: "_Link", name: bytes) -> bool:
        """Whether the name was the link's, as which it is forgotten."""
        link.names.discard(name)
        if self._placed.get(name) is not link:
            return False
        del self._placed[name]
        return True

    def _forget_place_of(self, name: bytes) -> None:
        self._map.primaries.pop(slot_of(name), None)


class _Link:
    """One connection, and the names that are heard over it."""

    def __init__(self, subscription: ShardSubscription, address: Address | None, client: Redis) -> None:
        self.address = address
        self.names: set[bytes] = set()
        self._subscription = subscription
        self._client = client
        self._protocol: _ShardProtocol | None = None
        self.task = asyncio.get_running_loop().create_task(self._run())

    def add(self, name: bytes) -> None:
        self.names.add(name)
        if self._protocol is not None:
            self._protocol.subscribe([name])

    def remove(self, name: bytes) -> None:
        self.names.discard(name)
        if self._protocol is not None:
            self._protocol.unsubscribe(name)

    def end(self) -> None:
        """Closes the connection, also one that is being opened."""
        self.task.cancel()

    async def _run(self) -> None:
        subscription = self._subscription
        protocol = _ShardProtocol(self, subscription)
        try:
            await connection_to(self._client).hand_over_to(protocol)
            subscription.opened(protocol)
            self._protocol = protocol
            protocol.subscribe(self.names)
            await protocol.closed
        except (RedisError, OSError) as error:
            log(error, subscription.reminders)
        except Exception:
            logger.exception("subscription.failed")
        finally:
            self._protocol = None
            protocol.abort()
            subscription.closed(self, confirmed=protocol.confirmed)


class _ShardProtocol(PubSubProtocol):
    """The bytes of one link. Replies to commands come in their order, with others in between."""

    kind = b"smessage"
    content = slice(1, 3)

    def __init__(self, link: _Link, subscription: ShardSubscription) -> None:
        super().__init__(subscription.listener, error_of=ClusterParser.parse_error)
        self.confirmed: set[bytes] = set()
        self._link = link
        self._subscription = subscription
        self._unanswered_commands: deque[tuple[bytes, bytes]] = deque()

    def on_open(self) -> None:
        """Names follow when the handshake has ended."""

    def subscribe(self, names: Iterable[bytes]) -> None:
        # A command for each: names of one command must lie in one slot.
        self.write(b"".join([self._command(_SUBSCRIBE, _CONFIRMED, name) for name in names]))

    def unsubscribe(self, name: bytes) -> None:
        self.confirmed.discard(name)
        self.write(self._command(_UNSUBSCRIBE, _ENDED, name))

    def _command(self, command: str, reply: bytes, name: bytes) -> bytes:
        self._unanswered_commands.append((reply, name))
        return pack((command, name))

    def on_reply(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self._on_error(reply)
        elif isinstance(reply, list) and reply[0] in (_CONFIRMED, _ENDED):
            kind, name = reply[0], reply[1]
            is_answer = bool(self._unanswered_commands) and self._unanswered_commands[0] == (kind, name)
            if is_answer:
                self._unanswered_commands.popleft()
            if kind == _CONFIRMED:
                self._on_confirmed(name)
            elif not is_answer and name in self.confirmed:
                # The slot has moved. A name that was removed is no longer among the confirmed.
                self.confirmed.discard(name)
                self._subscription.moved(name, by=self._link)

    def _on_confirmed(self, name: bytes) -> None:
        if name in self._link.names:
            self.confirmed.add(name)
            self._subscription.confirmed(name)

    def _on_error(self, error: Exception) -> None:
        if not self._unanswered_commands:
            # It was not for a command: the server turns the connection away.
            raise error
        kind, name = self._unanswered_commands.popleft()
        if kind == _CONFIRMED:
            self._subscription.refused(name, error, by=self._link)


async def _read_map(pool: ClusterPool) -> SlotMap | None:
    """The map of slots by the first node that knows one; None when there is none."""
    nodes = pool.nodes
    # Any of them may have an outdated map.
    for node in random.sample(nodes, len(nodes)):
        try:
            async with asyncio.timeout(_NODE_TIMEOUT_S):
                reply = await _ask(pool.client_of(node), "CLUSTER", "SLOTS")
        except (RedisError, OSError, TimeoutError):
            pool.avoid(node)
            continue
        slot_map = parse_slot_map(reply, asked=node)
        if slot_map.primaries:
            return slot_map
    return None


async def _ask(client: Redis, *command: str) -> Any:
    """The reply to one command, over a connection of its own. Raises redis-py's errors."""
    protocol = RedisProtocol()
    try:
        await connection_to(client).hand_over_to(protocol)
        [reply] = await protocol.exchange([command])
    finally:
        protocol.abort()
    if isinstance(reply, Exception):
        raise reply
    return reply
