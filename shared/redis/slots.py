"""Slots of a Redis Cluster: of keys and of commands, and the map of slots to primaries."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.crc import key_slot

from shared.redis.urls import Address

# Every command that our rooms use with a key. A new command must be added here or to ANY_NODE.
FIRST_ARGUMENT_IS_KEY = frozenset(
    {
        *("DEL", "EXISTS", "GET", "SET", "UNLINK"),
        *("HDEL", "HGET", "HGETALL", "HLEN", "HMGET", "HSCAN", "HSET"),
        *("LPOP", "LRANGE", "LREM"),
        *("SADD", "SISMEMBER", "SRANDMEMBER", "SREM", "SSCAN"),
        *("XLEN", "XRANGE", "XREVRANGE"),
        *("ZADD", "ZMSCORE", "ZREM", "ZREMRANGEBYSCORE", "ZSCAN", "ZSCORE"),
        *("ZRANDMEMBER", "ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE"),
    }
)
# The nodes pass these on to each other.
ANY_NODE = frozenset({"PUBLISH"})


def slot_of(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)


def slot_of_command(arguments: Sequence[Any]) -> int:
    """The slot of a command's first argument. Raises ValueError for a command that is not listed above."""
    if arguments[0] not in FIRST_ARGUMENT_IS_KEY | ANY_NODE:
        raise ValueError(f"unknown key position of {arguments[0]}: add the command to shared/redis/slots.py")
    return slot_of(arguments[1])


@dataclass
class SlotMap:
    """The primary of each slot, and all nodes."""

    primaries: dict[int, Address] = field(default_factory=dict)
    nodes: set[Address] = field(default_factory=set)

    def all_primaries(self) -> set[Address]:
        return set(self.primaries.values())


def parse_slot_map(reply: Sequence[Any], *, asked: Address) -> SlotMap:
    """Parses a reply to CLUSTER SLOTS: first slot, last slot, primary, replicas."""
    slot_map = SlotMap()
    for first, last, primary, *replicas in reply:
        address = _address(primary, asked)
        slot_map.primaries.update(dict.fromkeys(range(first, last + 1), address))
        slot_map.nodes.update([address, *(_address(replica, asked) for replica in replicas)])
    return slot_map


def _address(node: Sequence[Any], asked: Address) -> Address:
    host, port = node[0], node[1]
    # An empty host means the one by which the node was reached.
    return (host.decode() if host else asked[0]), int(port)


def redirect_target(host: str, port: int, *, by: Address) -> Address:
    """The node that MOVED or ASK names. An empty host means that of the node which redirects."""
    return (host.strip("[]") or by[0]), port
