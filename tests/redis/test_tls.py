"""Redis over TLS: one server, a cluster, and a primary behind a sentinel."""

import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.model.errors import StoreUnavailable
from shared.redis.client import connect
from shared.redis.cluster_pool import ClusterPool
from shared.redis.sentinel import SentinelPool
from shared.store.commands import commands_to
from shared.store.keyspace import wakeup
from tests.harness.certificates import Certificates
from tests.harness.cluster import Cluster, Node
from tests.harness.sentinel import SERVICE, Guarded
from tests.harness.tls import tls_fronts
from tests.harness.valkey import Valkey
from tests.harness.waiting import wait_until
from tests.store.stores import EDGE
from tests.store.test_wakeups import Subscription, listening


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("authority")
    made.make("stranger")
    made.make("server", by="authority")
    made.make("bare-authority", is_bare=True)
    made.make("bare-server", by="bare-authority", is_bare=True)
    return made


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="notify-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    server = Valkey(folder, tcp=True)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.close()


async def assert_works(redis: Redis) -> None:
    """Commands and wakeups both use it."""
    commands = commands_to(redis)
    keys = [f"key-{number}" for number in range(10)]
    for key in keys:
        await commands.command("SET", key, key)
    assert [await commands.command("GET", key) for key in keys] == [key.encode() for key in keys]
    async with listening(redis, EDGE) as heard:
        await commands.command("PUBLISH", wakeup(EDGE), "a")
        await heard.until(Subscription.RESTORED, ["a"])


@pytest.mark.parametrize("kind", ["", "bare-"])
async def test_one_server(valkey: Valkey, certificates: Certificates, kind: str) -> None:
    async with tls_fronts(certificates, valkey.port, name=f"{kind}server") as [front]:
        trusted = f"?ssl_ca_certs={certificates.pem(f'{kind}authority')}"
        async with connect(f"rediss://127.0.0.1:{front.port}/0{trusted}") as redis:
            await assert_works(redis)
            assert front.connections == 2, "one for commands, one for wakeups"
            assert await redis.ping(), "arq's commands go by redis-py's own connections"


@pytest.mark.parametrize("topology", ["", "+cluster", "+sentinel"])
def test_connections_verify_the_same_on_every_python(certificates: Certificates, topology: str) -> None:
    """Those to sentinels and to nodes of a cluster too."""
    path = f"/{SERVICE}/0" if topology == "+sentinel" else ""
    trusted = f"?ssl_ca_certs={certificates.pem('authority')}"
    pool = connect(f"rediss{topology}://127.0.0.1:1{path}{trusted}").connection_pool
    pools = [pool]
    if isinstance(pool, SentinelPool):
        pools += [sentinel.connection_pool for sentinel in pool._manager.sentinels]
    if isinstance(pool, ClusterPool):
        pools.append(pool.client_of(("127.0.0.1", 1)).connection_pool)
    connections = [each.make_connection() for each in pools]

    assert len(connections) == (2 if topology else 1)
    for connection in connections:
        assert connection._connection_arguments()["ssl"].verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST


@pytest.mark.parametrize(
    ("host", "trusted"), [("127.0.0.1", "stranger"), ("127.0.0.1", ""), ("localhost", "authority")]
)
async def test_a_server_without_a_valid_certificate_is_refused(
    valkey: Valkey, certificates: Certificates, host: str, trusted: str
) -> None:
    async with tls_fronts(certificates, valkey.port) as [front]:
        trust = f"?ssl_ca_certs={certificates.pem(trusted)}" if trusted else ""
        async with connect(f"rediss://{host}:{front.port}/0{trust}") as redis:
            with pytest.raises(StoreUnavailable):
                await commands_to(redis).command("SET", "a", "1")
            with pytest.raises(RedisConnectionError):
                await redis.ping()


async def test_the_name_check_can_be_switched_off(valkey: Valkey, certificates: Certificates) -> None:
    async with tls_fronts(certificates, valkey.port) as [front]:
        options = f"?ssl_ca_certs={certificates.pem('authority')}&ssl_check_hostname=False"
        async with connect(f"rediss://localhost:{front.port}/0{options}") as redis:
            await assert_works(redis)


@pytest.mark.long
async def test_a_cluster(folder: Path, certificates: Certificates) -> None:
    cluster = Cluster(folder, primaries=2)
    try:
        cluster.start()
        cluster.wait_ready()
        ports = [node.port for node in cluster.nodes]
        async with tls_fronts(certificates, *ports, name="bare-server") as fronts:
            for node, front in zip(cluster.nodes, fronts, strict=True):
                # A cluster with TLS announces its TLS ports.
                node.ask("CONFIG", "SET", "cluster-announce-port", front.port)
            await wait_until(lambda: all(_ports(node) == {f.port for f in fronts} for node in cluster.nodes))
            first = f"127.0.0.1:{fronts[0].port}"
            trusted = f"?ssl_ca_certs={certificates.pem('bare-authority')}"
            async with connect(f"rediss+cluster://{first}{trusted}") as redis:
                await assert_works(redis)
            assert all(front.connections for front in fronts)
    finally:
        cluster.close()


def _ports(node: Node) -> set[int]:
    return {primary[1] for _, _, primary, *_ in node.ask("CLUSTER", "SLOTS")}


@pytest.mark.long
async def test_a_primary_behind_a_sentinel(folder: Path, certificates: Certificates) -> None:
    guarded = Guarded(folder, password="Zq7xWvKj")
    try:
        guarded.start()
        guarded.wait_ready()
        async with (
            tls_fronts(certificates, guarded.primary.port, name="bare-server") as [primary],
            tls_fronts(
                certificates,
                guarded.sentinel.port,
                name="bare-server",
                renamed={guarded.primary.port: primary.port},
            ) as [sentinel],
        ):
            options = f"?sentinel_password=Zq7xWvKj&ssl_ca_certs={certificates.pem('bare-authority')}"
            url = f"rediss+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}/0{options}"
            async with connect(url) as redis:
                await assert_works(redis)
            assert primary.connections == 2
            assert sentinel.connections >= 1
    finally:
        guarded.close()
