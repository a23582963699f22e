"""A proxy before the two Services, as an ingress controller or a load balancer would be."""

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.access import Cluster, Failed
from tests.cluster.places import CHECKOUT, FRONT_PORT, scratch
from tests.cluster.release import Release
from tests.cluster.requirements import path_of
from tests.deploy.files import PORTS
from tests.load.polls import PULL_PATH
from tests.load.sessions import BLACKHOLE_PATH, JOIN_PATH
from tests.load.sockets import CONNECT_PATH

STREAM_PATH = "/v1/stream"
NATIVE_PATH = "/v1/socket"
HELD = (CONNECT_PATH, PULL_PATH, JOIN_PATH, BLACKHOLE_PATH, STREAM_PATH, NATIVE_PATH)
_START_LIMIT_S = 20
_BLACKHOLE_PORT = 5555

# A connection that is refused is tried again; a request that was sent is not.
HAPROXY = """
defaults
    mode http
    timeout connect 500ms
    timeout client 90s
    timeout server 90s
    timeout tunnel 1h
    timeout http-keep-alive 60s
    option http-keep-alive
    http-reuse safe
    retries 5
    retry-on conn-failure
frontend api
    bind 127.0.0.1:{port}
    acl held path {held}
    use_backend edges if held
    default_backend gateways
backend edges
    server edges {edges}
backend gateways
    server gateways {gateways}
"""

NGINX = """
daemon off;
# Only we may enter the folder.
user root;
pid {folder}/nginx.pid;
error_log stderr;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    # A connection to an upstream is kept, and a WebSocket's is upgraded.
    map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
    upstream edges {{ server {edges} max_fails=0; keepalive 32; }}
    upstream gateways {{ server {gateways} max_fails=0; keepalive 32; }}
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_header;
    proxy_connect_timeout 1s;
    proxy_read_timeout 1h;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://gateways; }}
        {locations}
    }}
}}
"""
KINDS = {
    "caddy": ["run", "--adapter", "caddyfile", "--config"],
    "haproxy": ["-db", "-f"],
    "nginx": ["-c"],
}
"""The arguments before the path of the configuration."""
_TEMPLATES = {"haproxy": HAPROXY, "nginx": NGINX}
_CADDYFILE = CHECKOUT / "deploy" / "proxy" / "Caddyfile"


@contextlib.contextmanager
def front(release: Release, *, kind: str) -> Iterator[str]:
    """Runs the proxy where Services have their addresses; its origin."""
    binary = path_of(kind) or shutil.which(kind, path=str(Path(sys.executable).parent))
    if binary is None:
        raise Failed(f"{kind} is missing: apt-get install {kind}")
    services = {
        "edges": release.address("socket-edge", PORTS["socket-edge"]),
        "gateways": release.address("gateway", PORTS["gateway"]),
    }
    with scratch(kind) as folder:
        path = Path(folder, "proxy.conf")
        path.write_text(configuration(kind, folder, **services))
        given = [f"{name.upper()}={address}" for name, address in services.items()]
        for name, port in (("API", FRONT_PORT), ("BLACKHOLE", _BLACKHOLE_PORT)):
            given.append(f"{name}_ADDRESS=http://127.0.0.1:{port}")
        process = release.cluster.start(
            "env", f"HOME={folder}", *given, binary, *KINDS[kind], str(path), log=f"front-{kind}"
        )
        try:
            _wait_until_it_listens(release.cluster, process, kind)
            yield f"http://127.0.0.1:{FRONT_PORT}"
        finally:
            process.terminate()
            process.wait(10)


def configuration(kind: str, folder: str, *, edges: str, gateways: str) -> str:
    if kind == "caddy":
        # The deployed one. The load has one origin, where Blackhole's path has no port of its own.
        text, held = _CADDYFILE.read_text(), "@held path "
        assert held in text, f"{_CADDYFILE} names the paths of the edges"
        text = text.replace(held, f"{held}{BLACKHOLE_PATH} ")
        # A Service's address is the only upstream, and Kubernetes checks its pods: docs/operations.md.
        return re.sub(r"(?m)^\s+(health_|fail_duration ).*\n", "", text)
    return _TEMPLATES[kind].format(
        port=FRONT_PORT,
        folder=folder,
        held=" ".join(HELD),
        locations="\n".join(f"location = {held} {{ proxy_pass http://edges; }}" for held in HELD),
        edges=edges,
        gateways=gateways,
    )


def _wait_until_it_listens(cluster: Cluster, process: "subprocess.Popen[bytes]", kind: str) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    ask = ["curl", "--silent", "--output", "/dev/null", f"http://127.0.0.1:{FRONT_PORT}/"]
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failed(f"{kind} exited with {process.returncode}")
        with contextlib.suppress(Failed):
            cluster.run(*ask)
            return
        time.sleep(0.2)
    raise Failed(f"{kind} does not listen after {_START_LIMIT_S} s")
