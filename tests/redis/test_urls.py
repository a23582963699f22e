"""Redis URLs; the error for a malformed one shows no part of it."""

import pytest

from shared.redis.client import CONNECT_TIMEOUT_S, connect
from shared.redis.urls import Cluster, Sentinels, is_cluster, parse


def test_a_cluster() -> None:
    server = parse(
        "redis+cluster://user:p%40ss%2F@10.0.0.1:7000,node-2.example,[fd00::3]:7002/?client_name=us"
    )

    assert isinstance(server, Cluster)
    assert server.nodes == (("10.0.0.1", 7000), ("node-2.example", 6379), ("fd00::3", 7002))
    assert server.options == {"username": "user", "password": "p@ss/", "client_name": "us"}
    assert not server.tls
    assert parse("rediss+cluster://a").tls


def test_a_service_behind_sentinels() -> None:
    server = parse(
        "rediss+sentinel://user:secret@s1:5000,s2/my%20service/3"
        "?sentinel_username=guard&sentinel_password=word&ssl_ca_certs=/ca"
    )

    assert isinstance(server, Sentinels)
    assert (server.service, server.sentinels) == ("my service", (("s1", 5000), ("s2", 26379)))
    assert server.options == {"username": "user", "password": "secret", "db": 3, "ssl_ca_certs": "/ca"}
    assert server.sentinel_options == {"username": "guard", "password": "word"}
    assert server.tls


def test_is_cluster() -> None:
    assert is_cluster("rediss+cluster://a")
    assert not is_cluster("redis+sentinel://a/b")
    assert not is_cluster("redis://a")
    assert not is_cluster(None)


@pytest.mark.parametrize(
    "url",
    [
        "redis://a",
        "unix:///run/a.sock?db=1",
        "redis+cluster://a,b,c",
        "REDIS+CLUSTER://a",
        "rediss+cluster://:secret@a:1/?ssl_cert_reqs=none",
        "redis+sentinel://a/service",
        "redis+sentinel://:secret@a,[::1]:1/service/0?sentinel_password=x",
    ],
)
async def test_every_client_has_our_timeouts_and_no_retries(url: str) -> None:
    async with connect(url) as redis:
        connection = redis.connection_pool.make_connection()
        assert connection.socket_connect_timeout == CONNECT_TIMEOUT_S
        assert connection.retry._retries == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+nonsense://secret", "should begin with"),
        ("redis+cluster://", "should name hosts and ports"),
        ("redis+cluster://secret:", "should name hosts and ports"),
        ("redis+cluster://a,,secret", "should name hosts and ports"),
        ("redis+cluster://secret:0", "should name hosts and ports"),
        ("redis+cluster://secret:65536", "should name hosts and ports"),
        ("redis+cluster://u:secret/x@a", "should name hosts and ports"),
        ("redis+cluster://u:secret#x@a b", "should name hosts and ports"),
        ("redis+cluster://a/5ecret", "a cluster has one database"),
        ("redis+cluster://a?db=1&x=secret", "a cluster has one database"),
        ("redis+cluster://a?db=secret", "redis-py does not take"),
        ("redis+cluster://a?secret=1", "redis-py does not take"),
        ("redis+cluster://a?socket_timeout=secret", "redis-py does not take"),
        ("redis+sentinel://secret", "should name sentinels and a service"),
        ("redis+sentinel://secret/", "should name sentinels and a service"),
        ("redis+sentinel://a b/secret", "should name sentinels and a service"),
        ("redis+sentinel://a/service/secret", "should have a database number"),
        ("redis+sentinel://a/service/0/secret", "should have a database number"),
        ("redis+sentinel://a/service/²", "should have a database number"),
        ("redis+sentinel://a/service?sentinel_secret=1", "redis-py does not take"),
        ("redis://secret:1/²", "should have a database number"),
        ("redis://secret,a", "should name a host and a port"),
        ("redis://:[secret@a", "should name a host and a port"),
        ("redis+cluster://:[secret@a", "should name hosts and ports"),
    ],
)
def test_a_malformed_url_is_refused_without_showing_it(url: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        connect(url)

    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "nor in a traceback"
