"""The one place that says how this project talks to Redis: bounded, timed, and never silently retried.

A retry after a lost answer would append a notification twice: whoever calls decides what may be tried again.
"""

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
HEALTH_CHECK_INTERVAL_S = 15
MAX_CONNECTIONS = 64


def connect(url: str) -> Redis:
    """A client of the Redis at `url`, with a pool of its own; it connects when first used.

    At most MAX_CONNECTIONS are open; who finds all of them busy waits, up to ANSWER_TIMEOUT_S. Every command
    is sent once: what fails raises redis' ConnectionError or TimeoutError. A pub/sub's `listen()` would end
    after ANSWER_TIMEOUT_S of silence: poll `get_message(timeout=...)` instead.

    Raises ValueError, in a sentence that shows no part of the URL, when the URL is malformed.
    """
    checked_url(url)
    options: dict[str, Any] = {}
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=ANSWER_TIMEOUT_S,
        decode_responses=False,
        socket_timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=HEALTH_CHECK_INTERVAL_S,
        retry=None,
        **options,
    )
    return Redis.from_pool(pool)


def checked_url(url: str) -> str:
    """The URL as it was given; raises ValueError if it is none of redis://, rediss:// and unix://."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if not url.startswith("unix:///"):
            raise ValueError("a unix:// URL needs an absolute path, as in unix:///path/valkey.sock")
    elif parts.scheme in ("redis", "rediss"):
        _check_host_and_database(url)
    else:
        raise ValueError("should begin with redis://, rediss:// or unix://")
    if any(not name for name in parse_qs(parts.query)):
        raise ValueError("has an option without a name")
    return url


def _check_host_and_database(url: str) -> None:
    parts = urlsplit(url)
    # urllib's own complaint about a port quotes it, and after a slash in a password that is the password.
    try:
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if not port_is_good:
        raise ValueError("has no valid port (a / in a password is written %2F)")
    if not parts.hostname:
        raise ValueError("names no host, as in redis://127.0.0.1:6379/0")
    database = unquote(parts.path).strip("/")
    if database and not database.isdecimal():
        raise ValueError(
            "the part after the host should be a database number, as in redis://127.0.0.1:6379/0"
        )
