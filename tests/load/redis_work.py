"""The commands that Redis executes, by INFO commandstats of every primary."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.harness.cluster import Cluster
from tests.harness.sentinel import Guarded
from tests.harness.valkey import Valkey

SCRIPTS = frozenset({"eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"})
"""These run a script. The commands inside it have counts of their own."""

# The harness's own, and what a client sends when it connects.
_CONNECTION = ("auth", "client", "cluster", "command", "config", "hello", "info", "readonly", "select")
_UPKEEP = ("debug", "latency", "memory", "ping", "psync", "replconf", "role", "slowlog", "wait", "waitaof")
EXCLUDED = frozenset({*_CONNECTION, *_UPKEEP})
"""These serve no notification.

Heartbeats, sweeps and a dispatcher's scan of due webhooks use commands that deliveries use too, so they
count: less than 1 a second without a dispatcher, about 10 with one.
"""


@dataclass(frozen=True, slots=True)
class RedisWork:
    """What all primaries together have executed: calls by command name, and reads of their connections.

    A call inside a script counts as one sent by a client does. `calls` has subcommands in full
    (`xgroup|create`) and lacks the EXCLUDED commands.
    """

    calls: Mapping[str, int] = field(default_factory=dict)
    reads: int = 0
    took_us: Mapping[str, int] = field(default_factory=dict)
    """Redis' own measure. A script's time includes its commands', which have theirs too."""

    @property
    def scripts(self) -> int:
        """Scripts run: EVALSHA and its relatives."""
        return sum(count for name, count in self.calls.items() if name in SCRIPTS)

    @property
    def commands(self) -> int:
        """Commands executed, inside scripts and outside; without EVALSHA itself."""
        return sum(self.calls.values()) - self.scripts

    def since(self, before: "RedisWork") -> "RedisWork":
        """The calls and reads after an earlier reading, the most frequent calls first."""
        more = {name: count - before.calls.get(name, 0) for name, count in self.calls.items()}
        called = sorted(((name, count) for name, count in more.items() if count), key=lambda each: -each[1])
        took_us = {name: self.took_us.get(name, 0) - before.took_us.get(name, 0) for name, _ in called}
        return RedisWork(dict(called), self.reads - before.reads, took_us)

    def figures(self, delivered: int) -> dict[str, float]:
        """Commands, scripts and reads per delivered notification."""
        if not delivered:
            return {}
        return {
            "redis_commands_per_notification": round(self.commands / delivered, 2),
            "redis_scripts_per_notification": round(self.scripts / delivered, 2),
            "redis_reads_per_notification": round(self.reads / delivered, 2),
        }


def total(parts: Iterable[RedisWork]) -> RedisWork:
    """The sum of several servers, or of several periods."""
    calls: Counter[str] = Counter()
    took_us: Counter[str] = Counter()
    reads = 0
    for part in parts:
        reads += part.reads
        calls.update(part.calls)
        took_us.update(part.took_us)
    return RedisWork(calls, reads, took_us)


def work_of(redis: Valkey | Cluster | Guarded) -> RedisWork:
    """Reads the counters of all primaries."""
    return total(_work_of_server(client) for client in _primary_clients(redis))


def _primary_clients(redis: Valkey | Cluster | Guarded) -> list[Any]:
    if isinstance(redis, Cluster):
        return [node.client() for node in redis.nodes if node.alive and node.role == "master"]
    return [redis.client()]


def _work_of_server(client: Any) -> RedisWork:
    with client:
        stats = client.info("commandstats")
        reads = int(client.info("stats")["total_reads_processed"])
    by_name = {name.removeprefix("cmdstat_"): values for name, values in stats.items()}
    kept = {name: values for name, values in by_name.items() if name.partition("|")[0] not in EXCLUDED}
    return RedisWork(
        {name: int(values["calls"]) for name, values in kept.items()},
        reads,
        {name: int(values["usec"]) for name, values in kept.items()},
    )
