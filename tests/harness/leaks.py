"""Checks that no secret leaks, that every name in Redis has a TTL or is permanent, and that a deleted account
leaves nothing."""

import http.client
import re
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from tests.harness.api import SECRETS, SERVER_TEXTS
from tests.harness.processes import Process, Service

_records: set[bytes] = set()
"""Names of records of deleted accounts, which are there for an hour and come to be most names of a shared
installation. Each is looked at once, and again by `assert_records_stay`."""


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

    names = list(_names_but_records(redis))
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.ttl(name)
        ttls = pipeline.execute()
    stray = [
        n for n, ttl in zip(names, ttls, strict=True) if ttl == -1 and not keyspace.PERMANENT.fullmatch(n)
    ]
    assert not stray, f"these names have no TTL and are not permanent: {stray}"


def delete_every_account(redis: Any, *, gateway_url: str, admin_token: str) -> None:
    """Deletes all accounts in Redis through the API, children first."""
    left = accounts_in(redis)
    while left:
        # Over one connection: some tests make a thousand.
        host = gateway_url.removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=30)) as gateway:
            statuses = {account: _delete(gateway, account, admin_token) for account in left}
        assert set(statuses.values()) <= {202, 204, 404, 409}, statuses
        assert set(statuses.values()) != {409}, "accounts are each other's parents"
        left = [account for account, status in statuses.items() if status not in (204, 404)]
    # A 404: a test had begun to delete the account, and that has ended by now.
    assert not accounts_in(redis)


def accounts_in(redis: Any) -> list[str]:
    """The ids of all accounts that were not deleted."""
    names = [name for name in _names_but_records(redis) if name.endswith(b":account")]
    return [name[1:33].decode() for name in names if redis.hexists(name, "name")]


def assert_records_stay(redis: Any) -> None:
    """Nothing has come back of the accounts that tests have deleted."""
    _records.clear()
    assert_every_name_goes(redis)
    left = bytes_left(redis)
    assert not left, left


def bytes_left(redis: Any) -> dict[bytes, int]:
    """The bytes of each name that belongs to an account, an API key or a session.

    Leaves out what ends within a minute, and the records of deleted accounts, of about 100 bytes for an hour.
    """
    left = {}
    for name in _names_but_records(redis):
        ttl_s = redis.ttl(name)
        if name.endswith(b":account") and redis.hkeys(name) == [b"deleting"] and 0 < ttl_s <= 3600:
            _records.add(name)
        elif _OF_AN_ACCOUNT.match(name) and not 0 <= ttl_s <= 60:
            left[name] = redis.memory_usage(name, samples=0) or 0
    sessions = [field for field in redis.hkeys("{every}:routing") if field not in _FIELDS_OF_EVERY]
    members = set(redis.smembers("{webhooks}:channels")) | set(redis.smembers("{accounts}:deleting"))
    live = accounts_in(redis)
    members |= {name for name in redis.zrange("{accounts}:names", 0, -1) if name[-32:].decode() not in live}
    return left | dict.fromkeys([*sessions, *members], 1)


_OF_AN_ACCOUNT = re.compile(rb"\{[0-9a-f]{32}\}:")
_FIELDS_OF_EVERY = (b"version", b"credentials", b"quotas")


def _delete(gateway: http.client.HTTPConnection, account: str, admin_token: str) -> int:
    headers = {"Authorization": f"Bearer {admin_token}"}
    gateway.request("DELETE", f"/v1/accounts/{account}?cascade=true", headers=headers)
    response = gateway.getresponse()
    response.read()
    return response.status


def _names(redis: Any) -> Iterator[bytes]:
    yield from redis.scan_iter(count=1000)


def _names_but_records(redis: Any) -> list[bytes]:
    return [name for name in _names(redis) if name not in _records]


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
