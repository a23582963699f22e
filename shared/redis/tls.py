"""redis-py's TLS connections, but they verify certificates as `shared.tls` says.

redis-py creates the context when a connection first needs it, and has no parameter for one.
"""

import ssl
from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from shared.tls import verifying_alike


class TlsConnection(SSLConnection):
    """To a server, a node of a cluster, or a sentinel."""

    def tls(self) -> ssl.SSLContext:
        return verifying_alike(self.ssl_context.get())

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self.tls()}


class PrimaryTlsConnection(SentinelManagedSSLConnection, TlsConnection):
    """To the primary that sentinels name."""
