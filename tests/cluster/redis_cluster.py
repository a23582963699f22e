"""A Redis Cluster behind TLS on the node: three primaries, and a Redis for jobs.

The tests' Valkey is built without TLS, so HAProxy terminates it. Nodes announce HAProxy's ports, and network
policies keep pods from the others.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import redis

from tests.cluster import certificates
from tests.cluster.access import Cluster, Failed
from tests.cluster.places import NODE_IP, scratch
from tests.cluster.requirements import path_of
from tests.harness.valkey import server_binary

PASSWORD = "cluster"
PRIMARIES = 3
JOBS = PRIMARIES
"""The number of the Redis for jobs."""
_TLS_PORT, _PLAIN_PORT, _BUS_PORT = 7000, 7100, 17100
_LIMIT_S = 30
_POLL_S = 0.2
_SLOTS = 16_384

_HAPROXY = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
"""
_LISTEN = """
listen redis-{number}
    bind {ip}:{tls} ssl crt {certificate}
    server redis {ip}:{plain}
"""


class Servers:
    """The processes. Numbers are those of the primaries, and JOBS."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        """Starts it on what it has written before."""
        home = self._folder / str(number)
        home.mkdir(exist_ok=True)
        options = {"bind": NODE_IP, "port": str(_PLAIN_PORT + number), "requirepass": PASSWORD, "save": ""}
        options |= {"dir": str(home), "appendonly": "yes", "maxmemory-policy": "noeviction"}
        if number != JOBS:
            options |= {
                "cluster-enabled": "yes",
                "cluster-port": str(_BUS_PORT + number),
                "cluster-node-timeout": "2000",
                "cluster-require-full-coverage": "no",
                "cluster-announce-ip": NODE_IP,
                "cluster-announce-port": str(_TLS_PORT + number),
                "cluster-announce-bus-port": str(_BUS_PORT + number),
            }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._running[number] = self._cluster.start(server_binary(), *words, log=f"redis-{number}")

    def kill(self, number: int) -> None:
        process = self._running.pop(number)
        process.kill()
        process.wait()

    def ask(self, what: str) -> None:
        """`join` or `wait`, where the servers are reachable."""
        self._cluster.run(sys.executable, "-m", "tests.cluster.redis_cluster", what)

    def close(self) -> None:
        for number in list(self._running):
            self.kill(number)


@contextlib.contextmanager
def servers(cluster: Cluster) -> Iterator[Servers]:
    """The whole Redis Cluster, ready."""
    haproxy = path_of("haproxy")
    if haproxy is None:
        raise Failed("haproxy is missing: apt-get install haproxy")
    with scratch("redis-cluster") as name:
        folder = Path(name)
        config = folder / "haproxy.conf"
        config.write_text(_HAPROXY + _fronts(folder))
        front = cluster.start(haproxy, "-db", "-f", str(config), log="front-redis")
        redises = Servers(cluster, folder)
        try:
            for number in range(PRIMARIES + 1):
                redises.start(number)
            redises.ask("join")
            yield redises
        finally:
            redises.close()
            front.terminate()
            front.wait(10)


def urls(ca: str) -> tuple[str, str]:
    """Of the cluster and of the Redis for jobs; `ca`: the path of their authority."""
    nodes = ",".join(f"{NODE_IP}:{_TLS_PORT + number}" for number in range(PRIMARIES))
    end = f"?ssl_ca_certs={ca}"
    jobs = f"{NODE_IP}:{_TLS_PORT + JOBS}/0"
    return f"rediss+cluster://:{PASSWORD}@{nodes}{end}", f"rediss://:{PASSWORD}@{jobs}{end}"


def ports() -> list[int]:
    return [_TLS_PORT + number for number in range(PRIMARIES + 1)]


def _fronts(folder: Path) -> str:
    certificates.signed("redis", "redis", "-addext", f"subjectAltName=IP:{NODE_IP}")
    whole = folder / "redis.pem"
    whole.touch(mode=0o600)
    whole.write_text(
        Path(certificates.pem("redis")).read_text() + Path(certificates.key("redis")).read_text()
    )
    return "".join(
        _LISTEN.format(
            number=number,
            ip=NODE_IP,
            tls=_TLS_PORT + number,
            plain=_PLAIN_PORT + number,
            certificate=whole,
        )
        for number in range(PRIMARIES + 1)
    )


def main(arguments: Sequence[str]) -> int:
    """Runs in the cluster's network. `join` gives the primaries their slots; both wait until all agree."""
    clients = [
        redis.Redis(host=NODE_IP, port=_PLAIN_PORT + number, password=PASSWORD, socket_timeout=5)
        for number in range(PRIMARIES)
    ]
    if arguments == ["join"]:
        _wait(lambda: all(client.ping() for client in clients))
        for number, client in enumerate(clients):
            first, last = _SLOTS * number // PRIMARIES, _SLOTS * (number + 1) // PRIMARIES - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                client.execute_command("CLUSTER", "MEET", NODE_IP, _PLAIN_PORT, _BUS_PORT)
    _wait(lambda: all(map(_is_whole, clients)))
    return 0


def _is_whole(client: "redis.Redis") -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    text = info.decode() if isinstance(info, bytes) else "\r\n".join(f"{k}:{v}" for k, v in info.items())
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return lines["cluster_slots_ok"] == str(_SLOTS) and int(lines["cluster_known_nodes"]) == PRIMARIES


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while True:
        with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
            if done():
                return
        if time.monotonic() > deadline:
            sys.exit(f"the Redis Cluster is not whole after {_LIMIT_S} s")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
