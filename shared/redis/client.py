"""How this project talks to Redis: with bounds, with timeouts, and without retries of its own.

A retry after a lost reply would append a notification twice: the caller decides what it may send again.
"""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from shared.redis.cluster_pool import ClusterPool
from shared.redis.sentinel import SentinelPool
from shared.redis.tls import TlsConnection
from shared.redis.urls import BAD_OPTION, Cluster, Sentinels, Server, parse

REPLY_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
HEALTH_CHECK_INTERVAL_S = 15
MAX_CONNECTIONS = 64


def connect(url: str) -> Redis:
    """A client of the Redis at `url`, with a pool of its own; it connects when first used.

    Behind sentinels each connection goes to the server that is the primary then. The client of a cluster
    executes nothing itself: it is for `shared.redis.cluster` and `shared.redis.subscription`.
    With MAX_CONNECTIONS open, a caller waits up to REPLY_TIMEOUT_S for a free one. Every command is sent
    once: a failure raises redis-py's ConnectionError or TimeoutError.

    Raises ValueError, in a sentence that shows no part of the URL, when the URL is malformed.
    """
    server = parse(url)
    try:
        pool = _pool(server)
        # Otherwise an option that redis-py does not know would fail the first command instead.
        pool.make_connection()
    except (TypeError, ValueError, RedisError):
        raise ValueError(BAD_OPTION) from None
    return Redis.from_pool(pool)


def _pool(server: Server) -> ConnectionPool:
    options = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": REPLY_TIMEOUT_S,
        "decode_responses": False,
        "socket_timeout": REPLY_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": HEALTH_CHECK_INTERVAL_S,
        "retry": None,
        # Otherwise redis-py sends CLIENT SETINFO with each connection, for which a user needs a right.
        "lib_name": None,
        "lib_version": None,
        # A valid certificate that was issued for another host must not be accepted.
        **({"ssl_check_hostname": True} if server.tls else {}),
        **({"socket_keepalive": True} if "path" not in server.options else {}),
        **server.options,
        # Pub/sub replies have another form in RESP3, and `RedisConnection` speaks RESP2.
        "protocol": 2,
    }
    match server:
        case Cluster(nodes=nodes, tls=tls):
            return ClusterPool(nodes, tls=tls, **options)
        case Sentinels():
            return SentinelPool(server, options)
        case _:
            tls_class = {"connection_class": TlsConnection} if server.tls else {}
            return BlockingConnectionPool(**{**options, **tls_class})
