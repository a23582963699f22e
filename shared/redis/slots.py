"""Which primary of a Redis Cluster has what: slots of keys, keys of commands, and the map that nodes give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.crc import key_slot

from shared.redis.cluster_pool import Address

# Every command that this room uses: a new one stands here or in ANYWHERE, or is refused.
_KEY_COMES_FIRST = frozenset(
    {
        *("DEL", "EXISTS", "GET", "SET"),
        *("HDEL", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSET"),
        *("LPOP", "LRANGE", "LREM"),
        *("SADD", "SMEMBERS", "SREM", "SSCAN"),
        *("XLEN", "XRANGE"),
        *("ZREMRANGEBYSCORE", "ZSCORE"),
    }
)
# Nodes tell each other of it.
ANYWHERE = frozenset({"PUBLISH"})


def slot_of(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)


def slot_of_command(arguments: Sequence[Any]) -> int:
    """Where a command with a key belongs. Raises ValueError for one that is not known to have one."""
    if arguments[0] not in _KEY_COMES_FIRST | ANYWHERE:
        raise ValueError(f"where in a cluster does {arguments[0]} belong?")
    return slot_of(arguments[1])


@dataclass
class SlotMap:
    """The primaries by slot, and all nodes."""

    primaries: dict[int, Address] = field(default_factory=dict)
    nodes: set[Address] = field(default_factory=set)

    def all_primaries(self) -> set[Address]:
        return set(self.primaries.values())


def map_in(answer: Sequence[Any], *, asked: Address) -> SlotMap:
    """The map in a node's answer to CLUSTER SLOTS: first slot, last slot, primary, replicas."""
    found = SlotMap()
    for first, last, primary, *replicas in answer:
        address = _address(primary, asked)
        found.primaries.update(dict.fromkeys(range(first, last + 1), address))
        found.nodes.update([address, *(_address(replica, asked) for replica in replicas)])
    return found


def _address(node: Sequence[Any], asked: Address) -> Address:
    host, port = node[0], node[1]
    # Without a name it means the one by which it was reached.
    return (host.decode() if host else asked[0]), int(port)


def redirected_to(host: str, port: int, *, by: Address) -> Address:
    """Where MOVED or ASK points to."""
    return (host.strip("[]") or by[0]), port
