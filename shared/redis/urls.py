"""What a Redis URL means: one server, a cluster, or a service behind sentinels.

`redis://user:password@host:port/0`, or `unix:///path`: one server.
`redis+cluster://user:password@host:port,host:port`: some of a cluster's nodes, which name the others.
`redis+sentinel://user:password@host:port,host:port/service/0`: user and password are for the servers; those
for the sentinels are `?sentinel_username=` and `sentinel_password=`.
With `rediss` all connections use TLS. Other options are redis-py's. No error message shows a part of the URL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from redis.asyncio.connection import parse_url

BAD_OPTION = "has an option with a name or a value that redis-py does not take"

_SCHEME = re.compile(r"(redis|rediss|unix|rediss?\+cluster|rediss?\+sentinel)://", re.IGNORECASE)
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_PORT = 6379
_SENTINEL_PORT = 26379
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_QUOTED = "(in a password, / is %2F, ? is %3F and [ is %5B)"

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server; `options` are redis-py's, for pools and connections."""

    options: Mapping[str, Any]
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Server):
    """A cluster, named by some of its nodes."""

    nodes: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels(Server):
    """A service behind sentinels; `sentinel_options` authenticate us to the sentinels themselves."""

    sentinels: tuple[Address, ...]
    service: str
    sentinel_options: Mapping[str, Any]


def is_cluster(url: str | None) -> bool:
    return url is not None and isinstance(parse(url), Cluster)


def shown(url: str) -> str:
    """Where the URL leads, for people: no user, no password, no options."""
    match parse(url):
        case Cluster(nodes=addresses):
            return ",".join(map(_shown_address, addresses))
        case Sentinels(sentinels=addresses, service=service):
            return f"{','.join(map(_shown_address, addresses))}/{service}"
        case Server(options=options):
            return str(options.get("path") or _shown_address((options["host"], options.get("port", _PORT))))


def _shown_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Server:
    """Raises ValueError, in a sentence whose subject is the setting."""
    match = _SCHEME.match(url)
    if match is None:
        raise ValueError(
            "should begin with redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"
        )
    scheme, _, topology = match[1].lower().partition("+")
    if topology == "cluster":
        return _cluster(url, scheme)
    if topology == "sentinel":
        return _sentinels(url, scheme)
    if scheme != "unix":
        _check_server(url)
    elif not url.startswith("unix:///"):
        raise ValueError("should have an absolute path, as in unix:///path/valkey.sock")
    return Server(options=_options(url), tls=scheme == "rediss")


def _check_server(url: str) -> None:
    _, servers, path, _ = _parts(url)
    if len(_servers(servers, default_port=_PORT)) != 1:
        raise ValueError(f"should name a host and a port, as in redis://127.0.0.1:6379/0 {_QUOTED}")
    _check_database(unquote(path).strip("/"))


def _cluster(url: str, scheme: str) -> Cluster:
    user, servers, path, query = _parts(url)
    nodes = _servers(servers, default_port=_PORT)
    if not nodes:
        raise ValueError(
            f"should name hosts and ports, as in redis+cluster://10.0.0.1:6379,10.0.0.2:6379 {_QUOTED}"
        )
    options = _options(f"{scheme}://{user}host{query}")
    if path.strip("/") or "db" in options:
        raise ValueError("should have only options after its hosts: a cluster has one database")
    return Cluster(options=_without_address(options), tls=scheme == "rediss", nodes=nodes)


def _sentinels(url: str, scheme: str) -> Sentinels:
    user, servers, path, query = _parts(url)
    sentinels = _servers(servers, default_port=_SENTINEL_PORT)
    service, _, database = path.strip("/").partition("/")
    if not sentinels or not service:
        raise ValueError(
            "should name sentinels and a service, "
            f"as in redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster/0 {_QUOTED}"
        )
    _check_database(database)
    options = _options(f"{scheme}://{user}host/{database}{query}")
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in _SENTINEL_OPTIONS if name in options}
    return Sentinels(
        options=_without_address(options),
        tls=scheme == "rediss",
        sentinels=sentinels,
        service=unquote(service),
        sentinel_options=own,
    )


def _parts(url: str) -> tuple[str, str, str, str]:
    """User and password with their @, the servers, the path, the query with its question mark."""
    rest, mark, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    user, at, servers = authority.rpartition("@")
    if "[" in user or "]" in user:
        # urllib would refuse it as an IPv6 address, with an error that shows it.
        servers = ""
    return user + at, servers, path, mark + query


def _servers(text: str, *, default_port: int) -> tuple[Address, ...]:
    """Empty when one of them is malformed."""
    matches = [_SERVER.fullmatch(server) for server in text.split(",")]
    servers = tuple((each["host"].strip("[]"), int(each["port"] or default_port)) for each in matches if each)
    are_valid = len(servers) == len(matches) and all(0 < port < 65_536 for _, port in servers)
    return servers if are_valid else ()


def _options(url: str) -> dict[str, Any]:
    """redis-py's options for this URL, the address included."""
    try:
        return {**parse_url(url)}
    except ValueError:
        raise ValueError(BAD_OPTION) from None


def _without_address(options: dict[str, Any]) -> dict[str, Any]:
    address = ("host", "port", "connection_class")
    return {name: value for name, value in options.items() if name not in address}


def _check_database(text: str) -> None:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError("should have a database number at the end of its path, as in /0")
