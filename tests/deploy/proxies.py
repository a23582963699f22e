"""HAProxy and nginx with plain configurations in front of an edge, for what they do to connections."""

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

from tests.harness.processes import Process, free_port
from tests.harness.programs import program
from tests.harness.waiting import block_until

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    option forwardfor
frontend api
    bind 127.0.0.1:{port}
    default_backend edges
backend edges
    server edge {upstream}
"""

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_max_body_size 8m;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    upstream edges {{
        server {upstream};
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://edges;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
CONFIGURATIONS = {"haproxy": HAPROXY, "nginx": NGINX}
ARGUMENTS = {"haproxy": ["-db", "-f"], "nginx": ["-c"]}


def proxy_to(kind: str, upstream: str) -> contextlib.AbstractContextManager[str]:
    """Runs the proxy; its origin. The upstream is the URL of a process. Ends the test without one."""
    return proxy_by(kind, CONFIGURATIONS[kind], upstream=upstream.removeprefix("http://"))


@contextlib.contextmanager
def proxy_by(kind: str, template: str, **places: str) -> Iterator[str]:
    """Runs the proxy by this configuration, in which {port} and {folder} stand for its own."""
    binary = program(kind)
    folder, port = Path(tempfile.mkdtemp(prefix=f"notify-{kind}-")), free_port()
    config = folder / "proxy.conf"
    config.write_text(template.format(port=port, folder=folder, **places))
    proxy = Process(kind, [binary, *ARGUMENTS[kind], str(config)], folder=folder, env={})
    try:
        proxy.start()
        block_until(lambda: _listens(port), what=lambda: proxy.tail)
        yield f"http://127.0.0.1:{port}"
    finally:
        # With nginx's workers, which outlive a master that is killed.
        if proxy.alive:
            proxy.signal_group(SIGKILL)
        proxy.close()
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
