"""The image's health check: exits 0 when the service in this container is ready.

It imports nothing of ours, since it starts every few seconds.
"""

import http.client
import os
import sys
from pathlib import Path

# service: (setting of its port, default port)
PORTS = {
    "all": ("NOTIFY_PORT", 8000),
    "gateway": ("NOTIFY_PORT", 8000),
    "socket-edge": ("NOTIFY_EDGE_PORT", 8001),
    "webhook-dispatcher": ("NOTIFY_DISPATCHER_PORT", 8002),
    "expiry-reaper": ("NOTIFY_REAPER_PORT", 8003),
}
TIMEOUT_S = 2


def main() -> int:
    """The exit code: 0 when /readyz of the named service, else of process 1, returns 200."""
    words = sys.argv[1:] or Path("/proc/1/cmdline").read_text().split("\0")
    service = next((word for word in words if word in PORTS), None)
    if service is None:
        print(f"none of {', '.join(PORTS)} runs here", file=sys.stderr)
        return 1
    setting, default = PORTS[service]
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get(setting) or default), timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"{service} does not respond: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    print(f"{service} returned {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
