"""Gateways that publish, administrators that change bindings, and the model beside them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest import mock

import orjson

from shared.model.api_keys import ApiKey, Scope
from shared.model.bindings import Source, Topic
from shared.model.channels import Kind
from shared.model.errors import KeyRevoked
from shared.model.events import DEVICE_NOTIFICATIONS, DEVICE_REGISTRATIONS, Event
from shared.model.routing_table import RoutingTable
from shared.model.sessions import EVERY_ACCOUNT, Dialect, Session, SessionBinding
from shared.publish import matching
from shared.publish.publisher import Publisher
from shared.publish.request import Posted
from shared.publish.stores import PublishStores
from shared.redis.pipeline import Script
from shared.store import keyspace
from shared.store.api_keys import ApiKeys
from shared.store.channels import Channels
from shared.store.queues import Queues
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.store.sessions import Sessions
from shared.wire.events import Form
from shared.wire.pelion.subscriptions import compiled
from shared.wire.sessions import encode_patterns
from tests.harness.valkey import Valkey
from tests.properties.actors import Actor
from tests.properties.facts import Change, Fact, Value
from tests.properties.routing_model import (
    ANY_TOPIC,
    DEVICE,
    EVERYBODY,
    TOPICS,
    EventId,
    Key,
    Listener,
    Publish,
    RoutingModel,
)
from tests.properties.stage import Stage
from tests.properties.world import START_MS, World

ACCOUNTS = 2
_KEYS = (0, 0, 1)
_GATEWAYS = 2
_ADMINS = 2
_SESSIONS = 2
_LINE = f"{DEVICE}\t/3\n"

Call = Callable[["RoutingActor"], Awaitable[object]]
"""One call of an administrator."""


class WatchedPublisher(Publisher):
    """A publisher whose tasks report their errors."""

    violations: list[str]

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = super()._start(work)
        task.add_done_callback(self._report)
        return task

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.violations.append(f"a task of a publisher failed: {task.exception()!r}")

    @property
    def is_idle(self) -> bool:
        """Nothing is left of any publish."""
        return not self._accounts and not self._tasks


class RoutingActor(Actor):
    """A gateway; its channels have no readers."""

    publisher: WatchedPublisher
    publisher_type: type[WatchedPublisher] = WatchedPublisher
    routing_type: type[Routing] = Routing

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.routing = self.routing_type(self.calls, compiled)
        self.api_keys = ApiKeys(self.calls, self.routing, self.wakeups)
        self.channels = Channels(self.calls, self.routing, self.wakeups)
        self.sessions = Sessions(self.calls, self.routing, self.wakeups, encode=encode_patterns)
        stores = PublishStores(self.routing, Queues(self.calls), self.sessions, Receipts(self.calls))
        self.publisher = self.publisher_type(stores)
        self.publisher.violations = world.model.violations
        self.changes: list[Change] = []


class RoutingInstallation(Stage):
    """Two gateways and two administrators (a dead one is replaced), two accounts, their keys and sessions."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor]
    ) -> None:
        super().__init__(valkey, scripts=scripts)
        self.model = RoutingModel(self.violations, accounts=ACCOUNTS)
        self._actor = actor
        self._dead: list[RoutingActor] = []
        self._ids = 0
        self._order = ExitStack()
        self._order.enter_context(in_order())
        self.gateways = [self._new_actor() for _ in range(_GATEWAYS)]
        self.admins = [self._new_actor() for _ in range(_ADMINS)]
        for _ in range(_SESSIONS):
            self.model.add_session(self._new_id())
        for account in _KEYS:
            self.create_key(self.admins[0], account)
            self.create_channel(self.admins[0], self.model.keys[-1])

    def close(self) -> None:
        self._order.close()
        self.end([*self.actors, *self._dead])

    @property
    def actors(self) -> list[RoutingActor]:
        return [*self.admins, *self.gateways]

    def _new_actor(self) -> RoutingActor:
        actor = self._actor(self.world)
        assert isinstance(actor, RoutingActor)
        return actor

    def _new_id(self) -> str:
        """Not random: an example must repeat exactly."""
        self._ids += 1
        return f"{self._ids:032x}"

    # Changes

    def _change(
        self, admin: RoutingActor, values: Mapping[Fact, Value], call: Call, *, key: Key | None = None
    ) -> None:
        """Starts a change, which runs as far as the administrator's gate lets it. `key` must exist for it."""
        change = self.model.begin_change(values)
        admin.changes.append(change)
        admin.start(self._make(admin, change, call, key))
        self.run()

    async def _make(self, admin: RoutingActor, change: Change, call: Call, key: Key | None) -> None:
        try:
            await call(admin)
        except KeyRevoked:
            exists = key is None or key.exists.certain(since=change.began)
            self.model.check(not exists, "a change of a live key was refused")
            self.model.abandon_change(change)
        else:
            self.model.end_change(change)
        admin.changes.remove(change)

    def abandon(self, admin: RoutingActor) -> None:
        """The administrator dies between two of its calls, and another takes its place."""
        admin.gate.close(after=0)
        for task in list(admin.tasks):
            task.cancel()
        for change in admin.changes:
            self.model.abandon_change(change)
        self._dead.append(admin)
        self.admins[self.admins.index(admin)] = self._new_actor()
        self.run()

    def create_key(self, admin: RoutingActor, account: int) -> None:
        key = self.model.add_key(self._new_id(), account=account)
        record = _record_of(key)
        self._change(admin, {key.exists: True}, lambda on: on.api_keys.create(record))

    def revoke(self, admin: RoutingActor, key: Key) -> None:
        record = _record_of(key)
        self._change(admin, {key.exists: False}, lambda on: on.api_keys.revoke(record))

    def create_channel(self, admin: RoutingActor, key: Key) -> None:
        of = (account_id(key.account), key.id)
        self._change(
            admin,
            {key.channel: True},
            lambda on: on.channels.create(*of, kind=Kind.WEBSOCKET),
            key=key,
        )

    def delete_channel(self, admin: RoutingActor, key: Key) -> None:
        of = (account_id(key.account), key.id)
        self._change(admin, {key.channel: False}, lambda on: on.channels.delete(*of, kind=Kind.WEBSOCKET))

    def bind(self, admin: RoutingActor, key: Key, topics: Sequence[str]) -> None:
        """Replaces the topics of the key; without any, drops them."""
        of = (account_id(key.account), key.id)
        stored = orjson.dumps(topics)

        def call(on: RoutingActor) -> Awaitable[object]:
            if topics:
                return on.routing.put_bindings(*of, stored, Source.TOPICS)
            return on.routing.drop_bindings(*of, Source.TOPICS)

        self._change(admin, {key.topics: frozenset(topics)}, call, key=key)

    def bind_device(self, admin: RoutingActor, key: Key, *, bound: bool) -> None:
        """Adds or drops the key's only line."""
        of = (account_id(key.account), key.id)

        def call(on: RoutingActor) -> Awaitable[object]:
            if bound:
                return on.routing.add_line(*of, _LINE, source=Source.RESOURCES, limit=9)
            return on.routing.drop_lines(*of, f"{DEVICE}\t", source=Source.RESOURCES)

        self._change(admin, {key.line: bound}, call, key=key)

    def may_listen(self, session: Listener) -> bool:
        """Its edge changes a session's bindings one after the other."""
        return not any(fact.open or len(fact.possible) > 1 for fact in session.tables.values())

    def listen(
        self, admin: RoutingActor, session: Listener, wanted: Sequence[tuple[int | None, str]]
    ) -> None:
        """Replaces the session's bindings: (account, topic), with None for every account."""
        bindings = [
            SessionBinding(EVERY_ACCOUNT if account is None else account_id(account), topic, Topic(topic))
            for account, topic in wanted
        ]
        values: dict[Fact, Value] = {
            fact: frozenset(topic for of, topic in wanted if of == account)
            for account, fact in session.tables.items()
        }
        record = _session_record(session.id)
        self._change(admin, values, lambda on: on.sessions.put(record, bindings))

    # Publishes

    def publish(self, gateway: int, account: int, subjects: Sequence[str]) -> None:
        publish = self.model.begin_publish(gateway, account, subjects)
        events = [_event(f"{publish.number}.{n}", subject) for n, subject in enumerate(subjects)]
        posted = Posted(account_id(account), events, b"", Form.JSON, None)
        publisher = self.gateways[gateway].publisher

        async def begin() -> None:
            publisher.begin(posted, partial(self._on_end, publish))

        self.run(begin())

    def _on_end(self, publish: Publish, counts: list[int] | Exception) -> None:
        self.model.end_publish(publish, counts, self.queues())

    def queues(self) -> dict[str, list[EventId]]:
        """What each channel and each session has in its queue now."""
        names = [key.id for key in self.model.keys] + [session.id for session in self.model.sessions]
        pipeline = self.direct.pipeline(transaction=False)
        for name in names:
            pipeline.xrange(keyspace.queue(name))
        queues = zip(names, pipeline.execute(), strict=True)
        return {name: [_event_id(values[b"id"]) for _, values in entries] for name, entries in queues}

    def open_gates(self) -> None:
        """Opens all gates, one actor after the other."""
        for actor in self.actors:
            actor.gate.open()
            self.run()

    # Checks

    def check_now(self) -> None:
        """After each step: queues are in order, and no publish waits without a reason."""
        for name, queue in self.queues().items():
            self.model.check_queue(name, queue)
        for number, gateway in enumerate(self.gateways):
            if gateway.gate.is_open:
                left = [p.number for p in self.model.publishes if p.gateway == number and p.ended is None]
                self.model.check(not left, f"publishes never end: {left}")
                self.model.check(gateway.publisher.is_idle, "a gateway keeps state of ended publishes")
        assert not self.violations, self.violations

    def check_end(self) -> None:
        """In the end: every publish has ended, and the next one reaches what is bound."""
        self.open_gates()
        self.check_now()
        for gateway in range(_GATEWAYS):
            for account in range(ACCOUNTS):
                self.publish(gateway, account, [*TOPICS, DEVICE, EVERYBODY])
                self.check_now()


@contextmanager
def in_order() -> Iterator[None]:
    """Matches channels and sessions in the order of their ids: an example must repeat exactly."""
    channels_for, sessions_for = RoutingTable.channels_for, matching._sessions_for
    with (
        mock.patch.object(RoutingTable, "channels_for", lambda *of: sorted(channels_for(*of))),
        mock.patch.object(matching, "_sessions_for", lambda *of: sorted(sessions_for(*of))),
    ):
        yield


def account_id(account: int) -> str:
    return f"{account:f>32x}"


def _record_of(key: Key) -> ApiKey:
    return ApiKey(
        id=key.id,
        account_id=account_id(key.account),
        name="receiver",
        scopes=frozenset({Scope.RECEIVE}),
        created_at_ms=START_MS,
        secret_hash="",
    )


def _session_record(session_id: str) -> Session:
    return Session(session_id, Dialect.KAZOO, account_id(0), "edge/1/1", "source", "destination", START_MS)


def _event(event_id: str, subject: str) -> Event:
    if subject == DEVICE:
        return Event(event_id, DEVICE_NOTIFICATIONS, b"{}", fields={"ep": DEVICE, "path": "/3"})
    if subject == EVERYBODY:
        return Event(event_id, DEVICE_REGISTRATIONS, b"{}", fields={"ep": DEVICE})
    if subject in TOPICS:
        return Event(event_id, subject, b"{}")
    return Event(event_id, ANY_TOPIC, b"{}", to=subject)


def _event_id(stored: bytes) -> EventId:
    publish, _, index = stored.decode().partition(".")
    return EventId(int(publish), int(index))
