"""Checks that no secret leaks, and that every name in Redis has a TTL or is permanent."""

import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

from tests.harness.api import SECRETS, SERVER_TEXTS
from tests.harness.processes import Process, Service


def assert_none_in_outputs(processes: Iterable[Process]) -> None:
    for process in processes:
        assert_no_secret(f"stdout of {process.name}", process.stdout)
        assert_no_secret(f"stderr of {process.name}", process.stderr)


def assert_none_in_metrics(services: Iterable[Service]) -> None:
    for service in services:
        with urllib.request.urlopen(f"{service.url}/metrics", timeout=20) as response:
            assert_no_secret(f"metrics of {service.name}", response.read().decode())


def assert_none_in_answers() -> None:
    """In no header and no close reason that a server has sent in this run."""
    assert_no_secret("headers and close reasons", "\n".join(SERVER_TEXTS))


def assert_none_in_redis(redis: Any) -> None:
    for name in _names(redis):
        assert_no_secret("a Redis name", name.decode(errors="replace"))
        assert_no_secret(f"the value of {name!r}", repr(_value(redis, name)))


def places_of(redis: Any, text: str) -> list[bytes]:
    """The names in Redis that contain the text themselves or in their value."""
    return [name for name in _names(redis) if text in repr(name) or text in repr(_value(redis, name))]


def assert_no_secret(where: str, text: str) -> None:
    """Searches for the last half of each secret: its beginning names the key and is no secret."""
    leaked = [secret for secret in SECRETS if secret[-32:] in text]
    assert not leaked, f"{len(leaked)} API key secrets in {where}"


def assert_every_name_goes(redis: Any) -> None:
    """Every name has a TTL or matches keyspace.PERMANENT."""
    from shared.store import keyspace  # imported here: the fault tests can run without the package

    names = list(_names(redis))
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.ttl(name)
        ttls = pipeline.execute()
    stray = [
        n for n, ttl in zip(names, ttls, strict=True) if ttl == -1 and not keyspace.PERMANENT.fullmatch(n)
    ]
    assert not stray, f"these names have no TTL and are not permanent: {stray}"


def _names(redis: Any) -> Iterator[bytes]:
    yield from redis.scan_iter(count=1000)


def _value(redis: Any, name: bytes) -> object:
    match redis.type(name):
        case b"string":
            return redis.get(name)
        case b"hash":
            return redis.hgetall(name)
        case b"set":
            return redis.smembers(name)
        case b"zset":
            return redis.zrange(name, 0, -1, withscores=True)
        case b"list":
            return redis.lrange(name, 0, -1)
        case b"stream":
            return redis.xrange(name)
        case b"none":
            return None
        case other:
            raise AssertionError(f"{name!r} has type {other!r}, which this check cannot read")
