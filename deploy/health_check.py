"""The image's health check: is the service that this container runs ready?

By itself on purpose: it imports nothing of ours, since it starts anew every few seconds.
"""

import http.client
import os
import sys
from pathlib import Path

# service: (the setting that names its port, the port if it is unset)
PORTS = {
    "all": ("NOTIFY_PORT", 8000),
    "gateway": ("NOTIFY_PORT", 8000),
    "socket-edge": ("NOTIFY_EDGE_PORT", 8001),
    "webhook-dispatcher": ("NOTIFY_DISPATCHER_PORT", 8002),
    "expiry-reaper": ("NOTIFY_REAPER_PORT", 8003),
}
TIMEOUT_S = 2


def main() -> int:
    """0 when /readyz says 200, of the service that is named, or that the first process was told to be."""
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
    except (OSError, http.client.HTTPException) as fault:
        print(f"{service} does not answer: {fault}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    print(f"{service} answered {status}")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
