"""The one place that says how this project talks to Redis: bounded, timed, and never silently retried.

A retry after a lost answer would append a notification twice: whoever calls decides what may be tried again.
"""

from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

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
    return Redis.from_pool(_pool(url))


def checked_url(url: str) -> str:
    """The URL as it was given, if `connect` would take it; raises the same ValueError if not."""
    _pool(url)
    return url


def _pool(url: str) -> BlockingConnectionPool:
    _check(url)
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=ANSWER_TIMEOUT_S,
            decode_responses=False,
            socket_timeout=ANSWER_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_INTERVAL_S,
            retry=None,
            **keepalive,
        )
        # Otherwise an option that redis-py does not know would be found out by the first command.
        pool.make_connection()
    except (TypeError, ValueError, RedisError):
        raise ValueError("has an option with a name or a value that redis-py does not take") from None
    return pool


def _check(url: str) -> None:
    # What urllib complains about it quotes, and after a / or a [ in a password that is the password.
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("is no URL with a host and a port (in a password, / is %2F and [ is %5B)") from None
    if parts.scheme == "unix":
        if not url.startswith("unix:///"):
            raise ValueError("should have an absolute path, as in unix:///path/valkey.sock")
        return
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("should begin with redis://, rediss:// or unix://")
    if not parts.hostname or not port_is_good:
        raise ValueError("should name a host and a port, as in redis://127.0.0.1:6379/0")
    database = unquote(parts.path).strip("/")
    if database and not database.isdecimal():
        raise ValueError("should have a database number after the host, as in redis://127.0.0.1:6379/0")
