"""An installation with native channels: gateways, administrators, edges, and both models beside them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import orjson

from services.composition import Stores
from services.expiry_reaper.walk import Walk
from shared.model.account_channels import AccountChannel, NewChannel, shown_id
from shared.model.api_keys import ApiKey, Scope, hash_of, new_secret
from shared.model.channels import Kind
from shared.model.errors import NameTaken, NoSuchChannel, StoreUnavailable
from shared.model.events import Event
from shared.publish.request import Posted
from shared.publish.stores import PublishStores
from shared.redis.pipeline import Argument, Script
from shared.store import keyspace
from shared.store.account_channels import CREATION_MS, AccountChannels
from shared.store.channels import Channels
from shared.store.receipts import Receipts
from shared.store.routing import Routing
from shared.wire.events import Form
from shared.wire.pelion.subscriptions import compiled
from tests.harness.valkey import Valkey
from tests.properties.actors import Actor, Client, GatedEdge
from tests.properties.facts import Change, Fact, Value
from tests.properties.installation import Installation
from tests.properties.model import Key
from tests.properties.native_model import Address, Native, NativeModel, Publish
from tests.properties.routing_installation import WatchedPublisher, in_order
from tests.properties.world import START_MS, World

_GATEWAYS = 2
_ADMINS = 2
_EDGES = 2
_MANAGER = f"{0:f>32x}"
_ACCOUNT = f"{0:e>32x}"

Call = Callable[["NativeActor"], Awaitable[object]]
Patch = Callable[[AccountChannels, AccountChannel], Awaitable[object]]


class NativeActor(Actor):
    """A gateway, an administrator or an edge."""

    publisher: WatchedPublisher
    publisher_type: type[WatchedPublisher] = WatchedPublisher
    routing_type: type[Routing] = Routing
    account_channels_type: type[AccountChannels] = AccountChannels

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.routing = self.routing_type(self.calls, compiled)
        self.channels = Channels(self.calls, self.routing, self.wakeups)
        self.account_channels = self.account_channels_type(
            self.calls, self.routing, self.wakeups, channels=self.channels
        )
        stores = PublishStores(self.routing, self.queues, self.sessions, Receipts(self.calls))
        self.publisher = self.publisher_type(stores)
        self.publisher.violations = world.model.violations
        self.changes: list[Change] = []


class NativeInstallation(Installation):
    """Two gateways, two administrators and two edges, of which dead ones are replaced, and one account."""

    def __init__(
        self, valkey: Valkey, *, scripts: Mapping[str, Script], actor: Callable[[World], Actor]
    ) -> None:
        self._order = ExitStack()
        self._order.enter_context(in_order())
        self._gone: list[Actor] = []
        self._ids = 0
        super().__init__(valkey, scripts=scripts, actor=actor)

    async def _begin(self) -> None:
        self.account_id = _ACCOUNT
        self.natives = NativeModel(self.violations)
        self.world.on_script = self._on_script
        self.world.on_append = self._on_append
        self.gateway, self.reaper, self.admin = (self._actor(self.world) for _ in range(3))
        self.gateways = [self.new_actor() for _ in range(_GATEWAYS)]
        self.admins = [self.new_actor() for _ in range(_ADMINS)]
        for _ in range(_EDGES):
            await self._start_edge()
        self._secrets[_MANAGER] = new_secret(_MANAGER)
        await self.admin.api_keys.create(
            ApiKey(
                id=_MANAGER,
                account_id=self.account_id,
                name="manager",
                scopes=frozenset({Scope.CHANNELS}),
                created_at_ms=START_MS,
                secret_hash=hash_of(self._secrets[_MANAGER]),
            )
        )

    def new_actor(self) -> NativeActor:
        actor = self._actor(self.world)
        assert isinstance(actor, NativeActor)
        return actor

    @property
    def actors(self) -> list[Actor]:
        return [*super().actors, *self.gateways, *self.admins]

    def close(self) -> None:
        self._order.close()
        self.end([self.admin, *self.actors, *self._gone, *(edge.actor for edge in self._dead)])

    # What Redis did

    def _on_script(self, name: str, keys: Sequence[str], arguments: Sequence[Argument], reply: Any) -> None:
        key = self.model.keys.get(keyspace.id_in(keys[0].encode()) if keys else "")
        if key is None:
            return
        match name:
            case "channel_make":
                self.model.record_creation(key, now_ms=self.world.now_ms, created=bool(reply))
            case "channel_delete":
                self.model.record_deletion(key, existed=reply[0] == b"deleted")
            case "channel_abandon" if reply:
                key.channel = None
            case "queue_purge":
                self.model.record_purge(key, dropped=int(reply))
            case "channel_pause":
                self.model.record_pause(key, paused=arguments[0] == "1", found=bool(reply))

    def _on_append(self, channel: str, numbers: Sequence[int]) -> None:
        found = self.model.keys[channel].channel
        if found is not None:
            self.natives.check_append(channel, found.log, numbers)

    # Changes

    def _change(self, admin: NativeActor, native: Native, values: Mapping[Fact, Value], call: Call) -> None:
        """Starts a change, which runs as far as the administrator's gate lets it."""
        change = self.natives.begin_change(values)
        admin.changes.append(change)
        admin.start(self._make(admin, native, change, call))
        self.run()

    async def _make(self, admin: NativeActor, native: Native, change: Change, call: Call) -> None:
        try:
            await call(admin)
        except StoreUnavailable:
            self.natives.abandon_change(change)
        except NoSuchChannel:
            exists = native.exists.certain(since=change.began)
            self.natives.check(exists is not True, "a change of a living channel was refused")
            self.natives.refuse_change(change)
        except NameTaken:
            self.natives.check_taken(native, str(change.values[native.name]))
            self.natives.refuse_change(change)
        else:
            self.natives.end_change(change)
        admin.changes.remove(change)

    def create(self, admin: NativeActor, *, name: str, customer: str, topics: Sequence[str]) -> None:
        self._ids += 1
        channel = f"{self._ids:032x}"
        self.model.keys[channel] = Key(channel)
        native = self.natives.add(self.model.keys[channel])
        new = NewChannel(
            *(channel, self.account_id, Kind.WEBSOCKET, name, customer),
            bindings=orjson.dumps(topics) if topics else b"",
        )
        values: dict[Fact, Value] = {
            native.exists: True,
            native.name: name,
            native.customer: customer,
            native.topics: frozenset(topics),
        }
        self._change(admin, native, values, lambda on: on.account_channels.create(new))

    def rename(self, admin: NativeActor, native: Native, name: str) -> None:
        self._patch(admin, native, {native.name: name}, lambda on, found: on.change(found, name=name))

    def give_to(self, admin: NativeActor, native: Native, customer: str) -> None:
        self._patch(
            admin, native, {native.customer: customer}, lambda on, found: on.change(found, customer=customer)
        )

    def _patch(self, admin: NativeActor, native: Native, values: Mapping[Fact, Value], patch: Patch) -> None:
        async def call(on: NativeActor) -> None:
            await patch(on.account_channels, await _present(on, native))

        self._change(admin, native, values, call)

    def bind(self, admin: NativeActor, native: Native, topics: Sequence[str]) -> None:
        async def call(on: NativeActor) -> None:
            record = (await _present(on, native)).record
            await on.account_channels.put_bindings(record, orjson.dumps(topics) if topics else b"")

        self._change(admin, native, {native.topics: frozenset(topics)}, call)

    def delete_native(self, admin: NativeActor, native: Native) -> None:
        async def call(on: NativeActor) -> None:
            if not await on.account_channels.delete(await _present(on, native)):
                raise NoSuchChannel

        self._change(admin, native, {native.exists: False}, call)

    def pause(self, admin: NativeActor, native: Native) -> None:
        async def call(on: NativeActor) -> None:
            if not await on.account_channels.pause(native.id):
                raise NoSuchChannel

        self._change(admin, native, {}, call)

    def resume(self, admin: NativeActor, native: Native) -> None:
        async def call(on: NativeActor) -> None:
            if not await on.account_channels.resume(native.id):
                raise NoSuchChannel

        self._change(admin, native, {}, call)

    def purge(self, admin: NativeActor, native: Native) -> None:
        async def call(on: NativeActor) -> None:
            await on.account_channels.purge(await _present(on, native))

        self._change(admin, native, {}, call)

    def abandon(self, admin: NativeActor) -> None:
        """The administrator dies between two of its calls, and another takes its place."""
        self._kill(admin)
        for change in admin.changes:
            self.natives.abandon_change(change)
        self.admins[self.admins.index(admin)] = self.new_actor()
        self.run()

    def crash_gateway(self, gateway: NativeActor) -> None:
        """Its publishes have no answer."""
        self._kill(gateway)
        self.gateways[self.gateways.index(gateway)] = self.new_actor()
        self.run()

    def _kill(self, actor: NativeActor) -> None:
        if not actor.gate.is_open:
            # Wakeups that it was about to publish are lost.
            for edge in self.edges:
                edge.lost_a_wakeup = True
        actor.gate.close(after=0)
        for task in [*actor.tasks, *actor.publisher._tasks]:
            task.cancel()
        self._gone.append(actor)

    # The reaper

    def end_unfinished(self) -> None:
        """A minute later the reaper ends what was not finished, and repairs what the account's slot has."""
        self.world.now_ms += CREATION_MS
        self.world.set_time_of(self.direct)
        self.run(self._end_unfinished())

    async def _end_unfinished(self) -> None:
        for native in self.natives.natives:
            change = self.natives.begin_change({native.exists: False})
            ref = await self.reaper.channels.ref(native.id)
            if await self.reaper.channels.abandon(ref, native.id, after_ms=CREATION_MS):
                self.natives.end_change(change)
            else:
                self.natives.refuse_change(change)

    async def _repair(self) -> None:
        """As the walk does, which finds each name in its time."""
        names = ("channels", "routing", "account_channels")
        stores = SimpleNamespace(**{name: getattr(self.reaper, name) for name in names})
        walk = Walk(
            cast(Stores, stores),
            cast(Any, None),
            every_ms=0,
            commands_per_s=1e9,
            heartbeat_ttl_ms=0,
            instances_kept_ms=0,
        )
        for native in self.natives.natives:
            await walk._check_channel(native.id)
        keys, channels, _ = await self.reaper.routing.entries(self.account_id)
        await walk._drop_gone(self.account_id, [key for key in keys if key != _MANAGER], channels)
        await self.reaper.account_channels.names.drop_stale(self.account_id, "", count=100)

    def repair(self) -> None:
        self.end_unfinished()
        self.run(self._repair())

    # Publishes

    def publish_to(self, gateway: NativeActor, address: Address, count: int) -> None:
        numbers = range(self._number, self._number + count)
        self._number += count
        publish = self.natives.begin_publish(gateway, address, numbers)
        to = shown_id(address.id) if address.id else address.name or None
        customer = address.customer or None
        events = [Event(str(n), address.topic, b"{}", to=to, customer=customer) for n in numbers]
        posted = Posted(self.account_id, events, b"", Form.JSON, None)

        async def begin() -> None:
            gateway.publisher.begin(posted, partial(self._on_end, publish))

        self.run(begin())

    def _on_end(self, publish: Publish, counts: list[int] | Exception) -> None:
        self.natives.end_publish(publish, counts)

    # Clients

    def open_socket(self, edge: GatedEdge, *, native: Native | None = None, name: str = "") -> Client:
        """Opens a socket of a channel by its id, or of the one with this name."""
        began = self.natives.tick()
        named = name if native is None else shown_id(native.id)
        client = Client(self.world, self._secrets[_MANAGER], channel=named)

        async def opens() -> None:
            edge.open(client)

        self.run(opens())
        if native is None:
            self._check_opened(client, name, began, is_done=edge.actor.gate.is_open and self.redis_is_up)
        return client

    def _check_opened(self, client: Client, name: str, began: int, *, is_done: bool) -> None:
        check = self.natives.check
        if client.reader is not None:
            opened = self.natives.of(client.reader.key.id).name.certain(since=began)
            check(opened in (None, name), f"a socket by the name {name} has a channel named {opened!r}")
            return
        for native in self.natives.natives:
            is_its = self.natives.has_name(native, name) and native.name.since <= began
            is_open = native.key.channel is not None and not native.key.channel.is_paused
            check(not (is_done and is_its and is_open), f"a socket by the name {name} did not open")


async def _present(on: NativeActor, native: Native) -> AccountChannel:
    """As the endpoints read it. Raises NoSuchChannel."""
    found = await on.account_channels.read(native.id)
    if found is None:
        raise NoSuchChannel
    return found
