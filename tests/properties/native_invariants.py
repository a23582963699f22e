"""Invariants of native channels: after each step, when the installation is quiescent, and in the end."""

from shared.store import keyspace
from shared.store.name_index import id_in, name_in
from shared.store.queues import parse_entry_id
from shared.store.routing_tables import parse_native
from tests.harness import leaks
from tests.properties.native_installation import NativeInstallation
from tests.properties.native_model import Native


def check_now(there: NativeInstallation) -> None:
    """After each step: Redis holds exactly what is pending, and no name twice."""
    assert not there.violations, there.violations
    if not there.redis_is_up:
        return
    for native in there.natives.natives:
        _check_channel(there, native)
    _check_names(there)
    for gateway in there.gateways:
        if gateway.gate.is_open:
            assert gateway.publisher.is_idle, "a publish never ends"
    if all(actor.gate.is_open for actor in there.actors) and all(edge.is_quiescent for edge in there.edges):
        _check_quiescent(there)


def _check_channel(there: NativeInstallation, native: Native) -> None:
    pipeline = there.direct.pipeline(transaction=False)
    pipeline.exists(keyspace.api_key(native.id))
    pipeline.exists(keyspace.channel(native.id))
    pipeline.hmget(keyspace.channel(native.id), "owner", "tail")
    pipeline.xrange(keyspace.queue(native.id))
    is_record, is_channel, (owner, tail), entries = pipeline.execute()
    channel = native.key.channel
    assert bool(is_record) == bool(is_channel) == (channel is not None), "a record ends with its channel"
    assert (owner or b"").decode() == (channel.owner if channel else ""), "the owner is the newest claim"
    queue = [int(values[b"id"]) for _, values in entries]
    assert queue == (channel.queue if channel else []), "the queue is what is pending"
    if channel is not None:
        before, native.tail = native.tail, parse_entry_id((tail or b"0-0").decode())
        assert native.tail >= before, "the tail went back"


def _check_names(there: NativeInstallation) -> None:
    names = [name_in(entry) for entry in _index(there)]
    assert len(names) == len(set(names)), "a name is given to two channels"
    model = there.natives
    if model.was_cut_short or any(admin.changes for admin in there.admins):
        return
    certain = {(native.name.certain(since=model.now), native.id) for native in _living(there)}
    if not any(name is None for name, _ in certain):
        wanted = {(name, channel) for name, channel in certain if name}
        assert {(name_in(e), id_in(e)) for e in _index(there)} == wanted, "names are those of the channels"


def _index(there: NativeInstallation) -> list[bytes]:
    index: list[bytes] = there.direct.zrange(keyspace.names_of_channels(there.account_id), 0, -1)
    return index


def _living(there: NativeInstallation) -> list[Native]:
    return [native for native in there.natives.natives if native.key.channel is not None]


def _check_quiescent(there: NativeInstallation) -> None:
    """Each open socket owns its channel, which is not paused, and has its notifications."""
    for client in there.clients:
        reader = client.reader
        assert reader is not None, "a refused socket is closed"
        is_owner = reader.key.channel is reader.channel and reader.channel.owner == reader.owner
        assert is_owner, "a socket that lost its lease is closed"
        assert not reader.channel.is_paused, "the socket of a paused channel is closed"
        assert client.has_open_ping or not reader.channel.queue, "pending without an open ping"


def check_end(there: NativeInstallation) -> None:
    """In the end everything is delivered, names and table are the records', and a deletion leaves nothing."""
    if not there.redis_is_up:
        there.restart_redis()
    there.open_gates()
    there.deliver_wakeups()
    check_now(there)
    there.repair()
    there.deliver_wakeups()
    check_now(there)
    _check_account(there)
    for native in _living(there):
        there.resume(there.admins[0], native)
    there.deliver_wakeups()
    owned = {client.reader.channel for client in there.clients if client.reader}
    for native in _living(there):
        if native.key.channel not in owned:
            there.open_socket(there.edges[0], native=native)
    there.answer_pings()
    there.deliver_wakeups()
    check_now(there)
    left = [native.key.channel.queue for native in _living(there) if native.key.channel]
    assert not any(left), "still pending in the end"
    for native in _living(there):
        there.delete_native(there.admins[0], native)
    there.deliver_wakeups()
    check_now(there)
    _check_leftovers(there)


def _check_account(there: NativeInstallation) -> None:
    """The account's slot has of each channel what its record says."""
    records = {}
    for native in _living(there):
        name, customer = there.direct.hmget(keyspace.api_key(native.id), "name", "customer")
        records[native.id] = ((name or b"").decode(), (customer or b"").decode())
    table = there.direct.hgetall(keyspace.routing(there.account_id))
    entries = {
        field.decode().removeprefix("native:"): parse_native(value)
        for field, value in table.items()
        if field.startswith(b"native:")
    }
    assert entries == records, "the table has the names and customers of the records"
    indexed = {id_in(entry): name_in(entry) for entry in _index(there)}
    assert indexed == {id: name for id, (name, _) in records.items() if name}, "the index has their names"


def _check_leftovers(there: NativeInstallation) -> None:
    there.direct.delete("time")
    leaks.assert_every_name_goes(there.direct)
    ids = {native.id for native in there.natives.natives}
    left = [name for name in there.direct.keys("*") if keyspace.id_in(name) in ids]
    assert not [name for name in left if there.direct.ttl(name) < 0], "names of a deleted channel are left"
    fields = there.direct.hkeys(keyspace.routing(there.account_id))
    assert not [field for field in fields if any(id.encode() in field for id in ids)], "the table names it"
    assert not _index(there), "a deleted channel has a name"
    assert not there.direct.exists(keyspace.channel_ids(there.account_id)), "a deleted channel is listed"
